import CronSchedule
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
}
