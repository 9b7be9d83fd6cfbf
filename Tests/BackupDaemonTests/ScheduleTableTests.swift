import BackupDaemon
import CronSchedule
import Foundation
import TestSupport
import Testing
import Units

private func schedule(_ text: String, _ zone: String = "UTC", _ change: (inout JobTiming) throws -> Void = { _ in })
  throws -> JobTiming
{
  var timing = JobTiming(ZonedSchedule(try CronExpression(parsing: text), in: try ZoneRules.system(zone)))
  try change(&timing)
  return timing
}

private func at(_ text: String) throws -> Date { try #require(Date(rfc3339: text)) }

@Suite struct ScheduleTableTests {
  @Test func jobsAreDueInOrder() throws {
    var table = ScheduleTable()
    table.replace(
      ["daily": try schedule("0 2 * * *"), "hourly": try schedule("0 * * * *")], at: try at("2026-11-22T00:30:00Z"))
    #expect(table.next?.job == "hourly")
    #expect(try table.next?.start == at("2026-11-22T01:00:00Z"))
    #expect(table.takeDue(at: try at("2026-11-22T00:59:59Z")).isEmpty)
    #expect(table.takeDue(at: try at("2026-11-22T01:00:00Z")).map(\.job) == ["hourly"])
    // Due together: in the configuration's order, then by name.
    #expect(table.takeDue(at: try at("2026-11-22T02:00:00Z")).map(\.job) == ["daily", "hourly"])
    #expect(try table.nextDue(of: "daily") == at("2026-11-23T02:00:00Z"))
  }

  @Test func togetherInTheConfiguredOrder() throws {
    var table = ScheduleTable()
    table.replace(
      [
        "a-monthly": try schedule("0 2 1 * *") { $0.order = 2 }, "b-weekly": try schedule("0 2 * * 0") { $0.order = 1 },
        "c-daily": try schedule("0 2 * * *") { $0.order = 0 },
      ], at: try at("2026-10-31T12:00:00Z"))
    // The first of November 2026 is a Sunday.
    #expect(table.takeDue(at: try at("2026-11-01T02:00:00Z")).map(\.job) == ["c-daily", "b-weekly", "a-monthly"])
  }

  /// A machine that slept over several instants runs each job once, for the last of them.
  @Test func missedInstantsAreOneRun() throws {
    var table = ScheduleTable()
    table.replace(["hourly": try schedule("0 * * * *")], at: try at("2026-11-22T00:30:00Z"))
    #expect(
      table.takeDue(at: try at("2026-11-22T09:10:00Z")) == [
        .init(job: "hourly", instant: try at("2026-11-22T09:00:00Z"), kind: .late(earlier: 8))
      ])
    #expect(try table.next?.start == at("2026-11-22T10:00:00Z"))
  }

  /// What was missed is made up for as far as `catch_up` reaches, and told where it does not reach.
  @Test(
    arguments: [
      (86400, "2026-11-23T01:59:00Z", true), (86400, "2026-11-24T01:59:59Z", true),
      (3600, "2026-11-22T02:59:00Z", true),
      (3600, "2026-11-22T03:01:00Z", false), (nil, "2026-11-22T02:04:00Z", true), (nil, "2026-11-22T02:06:00Z", false),
    ] as [(Int64?, String, Bool)]) func catchUp(_ limit: Int64?, _ now: String, _ runs: Bool) throws
  {
    var table = ScheduleTable()
    table.replace(
      ["daily": try schedule("0 2 * * *") { $0.catchUp = limit.map { .seconds($0) } }],
      anchors: ["daily": try at("2026-11-21T02:00:00Z")], at: try at(now))
    let due = try #require(table.takeDue(at: try at(now)).first)
    if case .skipped = due.kind { #expect(!runs) } else { #expect(runs) }
    #expect(try table.nextDue(of: "daily") ?? .distantPast > at(now))
  }

  /// A year of a minutely job is one run, found without walking through half a million instants.
  @Test func aLongAbsence() throws {
    var table = ScheduleTable()
    table.replace(["minutely": try schedule("* * * * *")], at: try at("2025-11-22T00:00:30Z"))
    let due = table.takeDue(at: try at("2026-11-22T00:00:30Z"))
    #expect(due == [.init(job: "minutely", instant: try at("2026-11-22T00:00:00Z"), kind: .late(earlier: 1000))])
  }

  /// The delay is the same for a host and a job, within the jitter, and spread over it.
  @Test func jitter() throws {
    var delays: Set<TimeInterval> = []
    for host in 0..<200 {
      var timing = try schedule("0 2 * * *") { $0.jitter = .seconds(600) }
      timing.settleDelay(host: "host\(host)", job: "daily")
      var again = timing
      again.settleDelay(host: "host\(host)", job: "daily")
      #expect(timing == again)
      #expect((0...600).contains(timing.delay))
      delays.insert(timing.delay)
      var table = ScheduleTable()
      table.replace(["daily": timing], at: try at("2026-11-22T01:00:00Z"))
      #expect(try table.next?.start == at("2026-11-22T02:00:00Z").addingTimeInterval(timing.delay))
      // The due instant is still the schedule's.
      #expect(try table.takeDue(at: at("2026-11-22T02:10:00Z")).first?.instant == at("2026-11-22T02:00:00Z"))
    }
    #expect(delays.count > 120)
  }

  /// What was missed is not made up for in quiet hours either.
  @Test func catchUpWaitsForQuietHours() throws {
    let window = try QuietWindow(parsing: "09:00-18:00", zone: .utc) { _ in nil }
    var table = ScheduleTable()
    table.replace(
      ["daily": try schedule("0 2 * * *") { $0.notBetween = [window] }],
      anchors: ["daily": try at("2026-11-22T02:00:00Z")], at: try at("2026-11-23T10:00:00Z"))
    #expect(table.takeDue(at: try at("2026-11-23T10:00:00Z")).isEmpty)
    #expect(try table.next?.start == at("2026-11-23T18:00:00Z"))
    #expect(
      table.takeDue(at: try at("2026-11-23T18:00:00Z")) == [
        .init(job: "daily", instant: try at("2026-11-23T02:00:00Z"), kind: .late(earlier: 0))
      ])
  }

  /// A run that is due in quiet hours begins when they end, and is not late for that.
  @Test func quietHours() throws {
    let window = try QuietWindow(parsing: "09:00-18:00 Europe/Berlin", zone: .utc) { try? ZoneRules.system($0) }
    var table = ScheduleTable()
    table.replace(
      ["hourly": try schedule("0 * * * *") { $0.notBetween = [window] }], at: try at("2026-11-23T06:30:00Z"))
    // 08:00 and 18:00 in Berlin are 07:00 and 17:00 UTC.
    #expect(table.takeDue(at: try at("2026-11-23T07:00:00Z")).count == 1)
    #expect(try table.next?.start == at("2026-11-23T17:00:00Z"))
    #expect(
      table.takeDue(at: try at("2026-11-23T17:00:00Z")) == [
        .init(job: "hourly", instant: try at("2026-11-23T17:00:00Z"), kind: .onTime(earlier: 9))
      ])
  }

  /// A clock that is set back between two runs repeats none.
  @Test func aClockSetBackRepeatsNothing() throws {
    var table = ScheduleTable()
    table.replace(["daily": try schedule("0 2 * * *")], at: try at("2026-11-22T01:00:00Z"))
    #expect(table.takeDue(at: try at("2026-11-22T02:00:00Z")).count == 1)
    for minute in stride(from: 0, to: 60, by: 7) {
      #expect(table.takeDue(at: try at("2026-11-22T01:00:00Z").addingTimeInterval(Double(minute) * 60 + 3300)).isEmpty)
    }
    #expect(table.takeDue(at: try at("2026-11-22T02:30:00Z")).isEmpty)
    #expect(table.takeDue(at: try at("2026-11-23T02:00:00Z")).count == 1)
  }

  /// A clock that was a year ahead and is put right: the schedule goes on from now, not in a year.
  @Test func aCorrectionOfTheClock() throws {
    var table = ScheduleTable()
    table.replace(["daily": try schedule("0 2 * * *")], at: try at("2026-11-22T01:00:00Z"))
    #expect(table.takeDue(at: try at("2027-11-22T01:00:00Z")).count == 1)
    table.observe(try at("2026-11-22T01:01:00Z"))
    #expect(try table.next?.start == at("2026-11-22T02:00:00Z"))
    // Less than three hours is daylight saving or a small mend: nothing comes again.
    table.observe(try at("2026-11-22T03:00:00Z"))
    #expect(table.takeDue(at: try at("2026-11-22T03:00:00Z")).count == 1)
    table.observe(try at("2026-11-22T00:30:00Z"))
    #expect(try table.next?.start == at("2026-11-23T02:00:00Z"))
  }

  /// New rules for a zone move what is still to come; what the wall clock has shown already does not come again.
  @Test(arguments: [
    // Fired at 02:00 (+1). The zone turns to +0: the wall clock goes back to 01:xx, and 02:00 comes again at 02:00Z.
    (3600, 0, "2026-11-22T01:05:00Z", 1, "2026-11-23T02:00:00Z"),
    // The zone turns to +2: 02:00 of today is past.
    (3600, 7200, "2026-11-22T01:05:00Z", 1, "2026-11-23T00:00:00Z"),
    // Not fired yet: the new rule's 02:00 is in an hour, or was just now.
    (3600, 0, "2026-11-22T00:55:00Z", 0, "2026-11-22T02:00:00Z"),
    (3600, 7200, "2026-11-22T00:04:00Z", 0, "2026-11-22T00:00:00Z"),
  ]) func newZoneRules(_ old: Int, _ new: Int, _ now: String, _ fired: Int, _ next: String) throws {
    let expression = try CronExpression(parsing: "0 2 * * *")
    var table = ScheduleTable()
    table.replace(
      ["daily": JobTiming(ZonedSchedule(expression, in: ZoneRules(identifier: "Here", offset: old)))],
      at: try at("2026-11-21T12:00:00Z"))
    #expect(table.takeDue(at: try at(now)).count == fired)
    table.replace(
      ["daily": JobTiming(ZonedSchedule(expression, in: ZoneRules(identifier: "Here", offset: new)))], at: try at(now))
    #expect(try table.nextDue(of: "daily") == at(next))
  }

  /// A reload keeps the due instant of what did not change, also one that is overdue by a moment.
  @Test func aReloadNeitherSkipsNorRepeats() throws {
    var table = ScheduleTable()
    table.replace(["a": try schedule("0 2 * * *"), "b": try schedule("0 2 * * *")], at: try at("2026-11-22T01:00:00Z"))
    // What was overdue and has another schedule now is told.
    let dropped = table.replace(
      ["a": try schedule("0 2 * * *"), "b": try schedule("0 4 * * *"), "c": try schedule("@hourly")],
      at: try at("2026-11-22T02:00:01Z"))
    #expect(dropped == [.init(job: "b", instant: try at("2026-11-22T02:00:00Z"), kind: .skipped(earlier: 0))])
    #expect(table.takeDue(at: try at("2026-11-22T02:00:02Z")).map(\.job) == ["a"])
    #expect(try table.nextStart(of: "b") == at("2026-11-22T04:00:00Z"))
    #expect(table.next?.job == "c")
    table.replace([:], at: try at("2026-11-22T02:00:03Z"))
    #expect(table.next == nil)
  }

  /// A reload that edits a schedule tells the job of no instant: what failed before is tried again all the same.
  @Test func aReloadTellsOfNoInstant() throws {
    var table = ScheduleTable()
    let start = try at("2026-10-20T00:00:00Z")
    table.replace(["a": try schedule("0 2 * * *")], at: start)
    let due = try #require(table.takeDue(at: try at("2026-10-20T02:00:00Z")).first)
    table.replace(["a": try schedule("0 9 * * *")], at: try at("2026-10-20T02:04:00Z"))
    #expect(table.told(of: "a") == due.instant)
    _ = table.takeDue(at: try at("2026-10-20T09:00:00Z"))
    #expect(try table.told(of: "a") == at("2026-10-20T09:00:00Z"))
  }

  /// A decade of every zone that tzdata has, fired as the daemon fires: whenever the earliest start has come, and a little late. Each due
  /// instant of the reference (Tests/CronScheduleTests/Vectors, made with cronsim) is taken exactly once, in order, and no other.
  @Test(arguments: ["15 1-3 * * 0", "0 3 1 * *"]) func everyZoneFires(_ expression: String) throws {
    let folder = URL(filePath: "\(repositoryRoot)/Tests/CronScheduleTests/Vectors")
    var rows: [[String]] = []
    for file in ["zones.tsv", "zones-differs.tsv"] {
      let text = try String(contentsOf: folder.appending(path: file), encoding: .utf8)
      for line in text.split(separator: "\n") where !line.hasPrefix("#") {
        let row = line.split(separator: "\t").map(String.init)
        if row.count >= 4, row[1] == expression { rows.append(row) }
      }
    }
    #expect(rows.count >= 590)
    // Many names share their rules, and so their instants.
    var wanted: [ZoneRules: [String]] = [:]
    for row in rows { wanted[try ZoneRules.system(row[0]).renamed(""), default: []].append("\(row[2])\t\(row[3])") }
    let (start, end) = (try at("2015-01-01T00:00:00Z"), try at("2025-01-01T00:00:00Z"))
    var table = ScheduleTable()
    var timings: [String: JobTiming] = [:]
    var answers: [String: [String]] = [:]
    for (zone, all) in wanted {
      let job = "job \(timings.count)"
      timings[job] = JobTiming(ZonedSchedule(try CronExpression(parsing: expression), in: zone))
      answers[job] = all
    }
    table.replace(timings, anchors: timings.mapValues { _ in start }, at: start)
    var taken: [String: [String]] = [:]
    var round = 0
    while let next = table.next, next.start <= end {
      round += 1
      for due in table.takeDue(at: next.start.addingTimeInterval(Double(round % 7) * 20)) where due.instant <= end {
        guard case .onTime(earlier: 0) = due.kind else {
          Issue.record("\(due)")
          continue
        }
        taken[due.job, default: []].append(String(Int(due.instant.timeIntervalSince1970)))
      }
    }
    for (job, all) in answers {
      let instants = taken[job] ?? []
      let digest = LedgerRecord.digest(ofLine: Data(instants.map { $0 + "\n" }.joined().utf8)).prefix(16)
      for answer in all { #expect("\(instants.count)\t\(digest)" == answer, "\(job)") }
    }
  }

  /// Over a simulated month with odd steps, every due instant of every job is taken exactly once.
  @Test func everyInstantFiresOnce() throws {
    let schedules = [
      "a": try schedule("*/7 * * * *"), "b": try schedule("30 2 * * *", "Europe/Berlin"),
      "c": try schedule("15 1-3 * * 0", "America/New_York"),
    ]
    let start = try at("2026-10-20T00:00:00Z")
    let end = start.addingTimeInterval(30 * 86400)
    var table = ScheduleTable()
    table.replace(schedules, at: start)
    var fired: [String: [Date]] = [:]
    // Woken exactly when the table asks to be.
    while let next = table.next, next.start <= end {
      for due in table.takeDue(at: next.start) { fired[due.job, default: []].append(due.instant) }
    }
    for (job, schedule) in schedules {
      var expected: [Date] = []
      var instant = start
      while let next = schedule.schedule.next(after: instant), next <= end {
        expected.append(next)
        instant = next
      }
      #expect(fired[job] == expected)
    }
  }
}

@Suite struct SlotTableTests {
  @Test func oneAtATimePerDatabaseAndSoManyInAll() {
    var table = SlotTable(limit: 2)
    let tickets = ["a", "a", "b", "c"].map { table.enter($0) }
    #expect(table.grant() == [tickets[0], tickets[2]])
    #expect(table.grant().isEmpty)
    table.release("b")
    #expect(table.grant() == [tickets[3]])
    table.release("a")
    #expect(table.grant() == [tickets[1]])
  }

  @Test func whoGivesUpHoldsNobodyUp() {
    var table = SlotTable(limit: 1)
    let tickets = ["a", "b", "c"].map { table.enter($0) }
    #expect(table.grant() == [tickets[0]])
    let left = [1, 1, 0].map { table.leave(tickets[$0]) }
    #expect(left == [true, false, false])
    table.release("a")
    #expect(table.grant() == [tickets[2]])
  }
}
