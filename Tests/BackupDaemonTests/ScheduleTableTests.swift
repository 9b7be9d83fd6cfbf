import BackupDaemon
import CronSchedule
import Foundation
import TestSupport
import Testing
import Units

private func schedule(_ text: String, _ zone: String = "UTC") throws -> ZonedSchedule {
  ZonedSchedule(try CronExpression(parsing: text), in: try ZoneRules.system(zone))
}

private func at(_ text: String) throws -> Date { try #require(Date(rfc3339: text)) }

@Suite struct ScheduleTableTests {
  @Test func jobsAreDueInOrder() throws {
    var table = ScheduleTable()
    table.replace(
      ["daily": try schedule("0 2 * * *"), "hourly": try schedule("0 * * * *")], at: try at("2026-11-22T00:30:00Z"))
    #expect(table.next == .init(job: "hourly", instant: try at("2026-11-22T01:00:00Z")))
    #expect(table.takeDue(at: try at("2026-11-22T00:59:59Z")).isEmpty)
    #expect(table.takeDue(at: try at("2026-11-22T01:00:00Z")).map(\.job) == ["hourly"])
    #expect(table.takeDue(at: try at("2026-11-22T02:00:00Z")).map(\.job) == ["daily", "hourly"])
    #expect(try table.nextDue(of: "daily") == at("2026-11-23T02:00:00Z"))
  }

  /// A machine that slept over several instants runs each job once.
  @Test func missedInstantsAreOneRun() throws {
    var table = ScheduleTable()
    table.replace(["hourly": try schedule("0 * * * *")], at: try at("2026-11-22T00:30:00Z"))
    #expect(
      table.takeDue(at: try at("2026-11-22T09:10:00Z")) == [
        .init(job: "hourly", instant: try at("2026-11-22T01:00:00Z"))
      ])
    #expect(try table.next?.instant == at("2026-11-22T10:00:00Z"))
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

  /// A reload keeps the due instant of what did not change, also one that is overdue by a moment.
  @Test func aReloadNeitherSkipsNorRepeats() throws {
    var table = ScheduleTable()
    table.replace(["a": try schedule("0 2 * * *"), "b": try schedule("0 2 * * *")], at: try at("2026-11-22T01:00:00Z"))
    table.replace(
      ["a": try schedule("0 2 * * *"), "b": try schedule("0 4 * * *"), "c": try schedule("@hourly")],
      at: try at("2026-11-22T02:00:01Z"))
    #expect(table.takeDue(at: try at("2026-11-22T02:00:02Z")).map(\.job) == ["a"])
    #expect(try table.nextDue(of: "b") == at("2026-11-22T04:00:00Z"))
    #expect(table.next?.job == "c")
    table.replace([:], at: try at("2026-11-22T02:00:03Z"))
    #expect(table.next == nil)
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
    while let next = table.next, next.instant <= end {
      for due in table.takeDue(at: next.instant) { fired[due.job, default: []].append(due.instant) }
    }
    for (job, schedule) in schedules {
      var expected: [Date] = []
      var instant = start
      while let next = schedule.next(after: instant), next <= end {
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
