import CronSchedule
import Crypto
import Foundation
import TestSupport
import Testing
import Units

/// Due instants against cronsim, an independent implementation that follows Debian's cron. The files say how they were made;
/// `differs.tsv` holds the rows where cronsim contradicts the manual page (or itself), with the answer of a plain calendar
/// walk beside its own: there this implementation must agree with the walk.
@Suite struct VectorTests {
  static let folder = Bundle.module.url(forResource: "Vectors", withExtension: nil)

  static func rows(_ file: String) throws -> [[String]] {
    let url = try #require(folder).appending(path: file)
    return try String(contentsOf: url, encoding: .utf8).split(separator: "\n", omittingEmptySubsequences: false)
      .filter { !$0.hasPrefix("#") && $0.contains("\t") }
      .map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
  }

  static func schedule(_ row: [String]) throws -> ZonedSchedule {
    ZonedSchedule(try CronExpression(parsing: row[0]), in: try ZoneRules.system(row[1]))
  }

  static func instants(_ text: String) throws -> [Date] {
    try text.split(separator: " ").map { try #require(Date(rfc3339: String($0))) }
  }

  @Test(arguments: ["next.tsv", "dst.tsv"]) func nextInstants(_ file: String) throws {
    let rows = try Self.rows(file)
    #expect(rows.count >= 500)
    for row in rows {
      let schedule = try Self.schedule(row)
      var instant = try #require(Date(rfc3339: row[2]))
      for expected in try Self.instants(row[3]) {
        let due = schedule.next(after: instant)
        #expect(due == expected, "\(row[0]) in \(row[1]) after \(instant.rfc3339)")
        instant = expected
      }
    }
  }

  /// Where cronsim loses instants or invents them, the calendar walk's answer holds.
  @Test func correctedInstants() throws {
    let rows = try Self.rows("differs.tsv")
    #expect(rows.count >= 10)
    for row in rows {
      let schedule = try Self.schedule(Array(row[1...]))
      var instant = try #require(Date(rfc3339: row[3]))
      for expected in try Self.instants(row[5]) {
        #expect(schedule.next(after: instant) == expected, "\(row[1]) in \(row[2]) after \(instant.rfc3339)")
        instant = expected
      }
    }
  }

  @Test func previousInstants() throws {
    let rows = try Self.rows("previous.tsv")
    #expect(rows.count >= 300)
    for row in rows {
      let schedule = try Self.schedule(row)
      var instant = try #require(Date(rfc3339: row[2]))
      for expected in try Self.instants(row[3]) {
        #expect(schedule.previous(before: instant) == expected, "\(row[0]) in \(row[1]) before \(instant.rfc3339)")
        instant = expected
      }
    }
  }

  /// Going back over what was found going forward gives the same instants, changes of the clock included.
  @Test(arguments: ["next.tsv", "dst.tsv"]) func previousRetracesNext(_ file: String) throws {
    for row in try Self.rows(file) {
      let schedule = try Self.schedule(row)
      let instants = try Self.instants(row[3])
      for (earlier, later) in zip(instants, instants.dropFirst()) {
        #expect(schedule.previous(before: later) == earlier, "\(row[0]) in \(row[1]) before \(later.rfc3339)")
      }
    }
  }

  /// What cronsim refuses is refused, but for two forms that this grammar has and cronsim lacks.
  @Test func refusals() throws {
    let rows = try Self.rows("invalid.tsv")
    #expect(rows.count >= 50)
    for row in rows where !row[0].contains("W ") && !row[0].hasSuffix("FRIL") {
      #expect(throws: CronParseError.self, "\(row[0])") { try CronExpression(parsing: row[0]) }
    }
  }

  @Test(arguments: ["next.tsv", "dst.tsv", "previous.tsv"]) func normalFormReadsBack(_ file: String) throws {
    for row in try Self.rows(file) {
      let expression = try CronExpression(parsing: row[0])
      let again = try CronExpression(parsing: expression.description)
      #expect(again == expression, "\(row[0]) prints as \(expression)")
      #expect(again.description == expression.description)
      #expect(!expression.sentence.isEmpty)
    }
  }

  /// A decade of every zone that tzdata has: each due instant exactly once, in order, and no other. The lists are compared by
  /// their digests; where cronsim loses or adds instants, the calendar walk's answer holds (see the file's header).
  @Test(arguments: ["zones.tsv", "zones-differs.tsv"]) func everyZoneForADecade(_ file: String) throws {
    let rows = try Self.rows(file)
    #expect(rows.count >= 30)
    // Many names share their rules, and so their lists.
    var known: [String: [(rules: ZoneRules, answer: String)]] = [:]
    let start = try #require(Date(rfc3339: "2015-01-01T00:00:00Z"))
    let end = try #require(Date(rfc3339: "2025-01-01T00:00:00Z"))
    var zones: [String: ZoneRules] = [:]
    for row in rows {
      let zone = try zones[row[0]] ?? ZoneRules.system(row[0])
      zones[row[0]] = zone
      let answer: String
      if let same = known[row[1]]?.first(where: { $0.rules.runsAlike(zone) }) {
        answer = same.answer
      } else {
        let schedule = ZonedSchedule(try CronExpression(parsing: row[1]), in: zone)
        var text: [UInt8] = []
        var count = 0
        var instant = start
        while let due = schedule.next(after: instant), due <= end {
          text.append(contentsOf: String(Int(due.timeIntervalSince1970)).utf8)
          text.append(10)
          (count, instant) = (count + 1, due)
        }
        let digits = SHA256.hash(data: text).prefix(8).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        answer = "\(count)\t\(digits)"
        known[row[1], default: []].append((zone, answer))
      }
      #expect(answer == "\(row[2])\t\(row[3])", "\(row[1]) in \(row[0])")
    }
  }
}

extension ZoneRules {
  /// Whether two zones have the same rules, whatever their names.
  fileprivate func runsAlike(_ other: ZoneRules) -> Bool { renamed("") == other.renamed("") }
}
