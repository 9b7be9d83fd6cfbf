import BackupCatalog
import BackupDaemon
import CronSchedule
import Faults
import Foundation
import Quoting
import TestSupport
import Testing
import Units

/// What a restart makes of the ledger.
@Suite struct RunHistoryTests {
  private let timing: JobTiming
  private let now: Date

  init() throws {
    timing = JobTiming(ZonedSchedule(try CronExpression(parsing: "0 2 * * *"), in: .utc))
    now = try #require(Date(rfc3339: "2026-11-22T09:00:00Z"))
  }

  private func at(_ text: String) throws -> Date { try #require(Date(rfc3339: text)) }

  private func scheduled(_ time: String) throws -> LedgerRecord {
    var record = LedgerRecord(.jobScheduled, at: try at(time))
    (record.job, record.detail) = ("daily", ["schedule": timing.schedule.text])
    return record
  }

  private func due(_ time: String, _ databases: [String] = ["a", "b"]) throws -> LedgerRecord {
    var record = LedgerRecord(.jobDue, at: try at(time))
    (record.job, record.due, record.databases) = ("daily", try at(time), databases)
    return record
  }

  private func finished(
    _ database: String, _ due: String, _ result: String, attempt: Int = 1, retry: String? = nil
  ) throws -> LedgerRecord {
    var record = LedgerRecord(.runFinished, at: try at(due).addingTimeInterval(60))
    (record.job, record.database, record.run) = ("daily", database, "\(database)\(attempt)")
    (record.due, record.attempt, record.result) = (try at(due), attempt, result)
    record.retry = try retry.map(at)
    return record
  }

  /// What an assertion of a drill has said, only a drill takes back: a restore asks none. And a deletion that failed half-way is finished.
  @Test func lastWords() throws {
    let id = BackupID(database: "a", time: try at("2026-11-21T02:00:00Z"))
    func run(_ job: String, _ result: String, _ fault: Fault? = nil) throws -> LedgerRecord {
      var record = try finished("a", "2026-11-21T02:00:00Z", result)
      (record.job, record.backup, record.fault) = (job, id, fault)
      record.detail = ["proof": fault == nil ? "whole" : "failed"]
      return record
    }
    var history = RunHistory()
    history.apply(try run("drill", "failed", Fault(.assertionFailed, "It is not so.")))
    history.apply(try run("restore", "succeeded"))
    #expect(history.failedProofs[id] != nil && history.proofs[id] == nil)
    history.apply(try run("drill", "succeeded"))
    #expect(history.failedProofs[id] == nil && history.proofs[id] != nil)

    func deletion(_ kind: LedgerRecord.Kind, _ result: String? = nil, _ fault: Fault? = nil) throws {
      var record = LedgerRecord(kind, at: now)
      (record.backup, record.store, record.result, record.fault) = (id, "local", result, fault)
      record.detail = ["folder": "a/daily/20261121T020000Z"]
      history.apply(record)
    }
    try deletion(.backupDeleting)
    try deletion(.backupDeleted, "failed", Fault(.storeFailed, "It stays."))
    #expect(history.deleting.values.sorted() == ["a/daily/20261121T020000Z"])
    try deletion(.backupDeleted, "failed")
    #expect(history.deleting.isEmpty)
    try deletion(.backupDeleting)
    try deletion(.backupDeleted)
    #expect(history.deleting.isEmpty)
  }

  private func plan(_ records: [LedgerRecord], _ change: (inout JobTiming) -> Void = { _ in }) -> RestartPlan {
    var history = RunHistory()
    for record in records { history.apply(record) }
    var timing = timing
    change(&timing)
    return RestartPlan(history, ["daily": timing], at: now)
  }

  /// Whoever has stopped a run does not want it to come back at the next start; one that a shutdown stopped comes back.
  @Test func aCancelledRunStaysCancelled() throws {
    let begun = try [scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z", ["a"])]
    var aborted = try finished("a", "2026-11-22T02:00:00Z", "aborted")
    #expect(plan(begun + [aborted]).retries.count == 1)
    aborted.detail = ["cancelled_by": "uid 0, pid 1"]
    #expect(plan(begun + [aborted]).retries.isEmpty)
  }

  /// The clock was two days ahead when it was put right: what was done in those days, or was at it then and ended well, is not done again.
  @Test func whatWasDoneAheadIsNotDoneAgain() throws {
    var history = RunHistory()
    var correction = LedgerRecord(.clockCorrected, at: try at("2026-11-22T01:00:00Z"))
    correction.reason = "set back"
    for record in try [
      scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z", ["a"]),
      finished("a", "2026-11-22T02:00:00Z", "succeeded"), due("2026-11-23T02:00:00Z", ["a"]),
      finished("a", "2026-11-23T02:00:00Z", "succeeded"), due("2026-11-24T02:00:00Z", ["a", "b"]),
      finished("a", "2026-11-24T02:00:00Z", "succeeded"), correction,
    ] { history.apply(record) }
    let ahead = try Set([at("2026-11-22T02:00:00Z"), at("2026-11-23T02:00:00Z")])
    #expect(history.jobs["daily"]?.doneAhead == ahead)
    history.apply(try finished("b", "2026-11-24T02:00:00Z", "succeeded"))
    #expect(history.jobs["daily"]?.doneAhead == ahead.union([try at("2026-11-24T02:00:00Z")]))
  }

  @Test func aNewJobHasNoPast() {
    let plan = plan([])
    #expect(plan.anchors.isEmpty)
    #expect(plan.retries.isEmpty)
  }

  /// Down since the day before yesterday: the anchor makes the table see what was missed.
  @Test func theAnchorIsTheLastInstant() throws {
    let records = try [
      scheduled("2026-11-01T12:00:00Z"), due("2026-11-20T02:00:00Z"),
      finished("a", "2026-11-20T02:00:00Z", "succeeded"), finished("b", "2026-11-20T02:00:00Z", "succeeded"),
    ]
    #expect(try plan(records).anchors == ["daily": at("2026-11-20T02:00:00Z")])
    #expect(plan(records).retries.isEmpty)
    // Never run yet: since the schedule is in force. With another schedule: from now on.
    #expect(try plan([records[0]]).anchors == ["daily": at("2026-11-01T12:00:00Z")])
    let other = ZonedSchedule(try CronExpression(parsing: "0 3 * * *"), in: .utc)
    #expect(plan(records) { $0.schedule = other }.anchors.isEmpty)
  }

  /// What was recorded while the clock was a year ahead counts no more once it is put right.
  @Test func aCorrectionOfTheClock() throws {
    var history = RunHistory()
    for record in try [scheduled("2026-11-01T12:00:00Z"), due("2027-11-20T02:00:00Z")] { history.apply(record) }
    #expect(history.isCorrected(at: now))
    history.apply(LedgerRecord(.clockCorrected, at: now))
    #expect(!history.isCorrected(at: now))
    let plan = RestartPlan(history, ["daily": timing], at: now)
    #expect(plan.anchors == ["daily": now])
    #expect(plan.retries.isEmpty)
  }

  /// Only what is missing is done again: a run that was cut off, aborted, or never began.
  @Test(arguments: ["interrupted", "aborted", nil]) func whatIsLeftIsDoneAgain(_ result: String?) throws {
    var records = try [
      scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z"),
      finished("a", "2026-11-22T02:00:00Z", "succeeded"),
    ]
    if let result { records.append(try finished("b", "2026-11-22T02:00:00Z", result)) }
    let plan = plan(records)
    #expect(plan.retries.map(\.database) == ["b"])
    #expect(plan.retries.first?.start == now)
    #expect(plan.retries.first?.reason == "catch-up of 2026-11-22T02:00:00Z")
    #expect(plan.skips.isEmpty)
  }

  @Test func aFailureForGoodIsDone() throws {
    let plan = try plan([
      scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z", ["a"]),
      finished("a", "2026-11-22T02:00:00Z", "failed"),
    ])
    #expect(plan.retries.isEmpty)
  }

  @Test(arguments: [("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"), ("2026-11-22T08:00:00Z", "2026-11-22T09:00:00Z")])
  func aRetryIsKept(_ retry: String, _ start: String) throws {
    let plan = try plan([
      scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z", ["a"]),
      finished("a", "2026-11-22T02:00:00Z", "failed", retry: retry),
    ])
    #expect(try plan.retries.map(\.start) == [at(start)])
    #expect(plan.retries.map(\.attempt) == [2])
  }

  /// What kills the daemon each time is not tried for ever.
  @Test func aRunThatKillsIsGivenUp() throws {
    var records = try [scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z", ["a"])]
    for attempt in 1...4 {
      records.append(try finished("a", "2026-11-22T02:00:00Z", "interrupted", attempt: attempt))
      #expect(plan(records).retries.map(\.attempt) == (attempt < 4 ? [attempt + 1] : []))
    }
    #expect(plan(records).skips.map(\.reason) == ["its run on 'a' was cut off 4 times"])
  }

  @Test func catchUpReachesBackSoFar() throws {
    let records = try [scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z", ["a"])]
    #expect(plan(records) { $0.catchUp = .seconds(6 * 3600) }.skips.count == 1)
    #expect(plan(records) { $0.catchUp = nil }.skips.count == 1)
    #expect(plan(records) { $0.catchUp = .seconds(8 * 3600) }.retries.count == 1)
    // A later instant was missed as well: the table tells of that one.
    let often = ZonedSchedule(try CronExpression(parsing: "0 */2 * * *"), in: .utc)
    var record = records[0]
    record.detail = ["schedule": often.text]
    #expect(plan([record, records[1]]) { $0.schedule = often }.retries.isEmpty)
  }

  /// A pattern that failed to be asked, and then could be: its failure is over, and what is remembered is its databases'.
  @Test func aPatternIsReplacedByItsDatabases() throws {
    var history = RunHistory()
    let instant = "2026-11-22T02:00:00Z"
    for record in try [
      scheduled("2026-11-01T12:00:00Z"), due(instant, ["a", "main"]), finished("a", instant, "succeeded"),
      finished("main", instant, "failed", retry: "2026-11-22T02:05:00Z"),
    ] { history.apply(record) }
    #expect(history.last.count == 2)
    #expect(history.jobs["daily"]?.remaining == ["main"])
    history.apply(try due(instant, ["main.one", "main.two"]))
    #expect(history.jobs["daily"]?.remaining == ["main.one", "main.two"])
    #expect(history.last.keys.map(\.database) == ["a"])
    // What is told late of an earlier instant changes nothing.
    history.apply(try due("2026-11-21T02:00:00Z", ["a"]))
    #expect(try history.jobs["daily"]?.lastDue == at(instant))
  }

  /// Given up for one database: the others are still to be done.
  @Test func aSkipCanBeOfOneDatabase() throws {
    var history = RunHistory()
    for record in try [scheduled("2026-11-01T12:00:00Z"), due("2026-11-22T02:00:00Z")] { history.apply(record) }
    var skip = LedgerRecord(.jobSkipped, at: now)
    (skip.job, skip.due, skip.databases) = ("daily", try at("2026-11-22T02:00:00Z"), ["a"])
    history.apply(skip)
    #expect(history.jobs["daily"]?.remaining == ["b"])
  }

  /// Neither a restart nor what expires moves the beginning that a first backup and a first proof are waited for from.
  @Test func beginningsStay() throws {
    var history = RunHistory()
    func apply(_ kind: LedgerRecord.Kind, _ time: String, _ databases: [String]?) throws {
      var record = LedgerRecord(kind, at: try at(time))
      record.databases = databases
      history.apply(record)
    }
    func made(_ time: String) throws {
      var record = LedgerRecord(.runFinished, at: try at(time))
      (record.job, record.database, record.result) = ("daily", "a", "succeeded")
      record.backup = BackupID(database: "a", time: try at(time))
      record.detail = ["archive_bytes": "1", "stores": "local"]
      history.apply(record)
    }
    #expect(history.beginning(of: "a") == nil)
    // A version that did not say what is configured.
    try apply(.daemonStarted, "2026-11-01T00:00:00Z", nil)
    #expect(try history.beginning(of: "a") == at("2026-11-01T00:00:00Z"))
    try apply(.daemonStarted, "2026-11-02T00:00:00Z", ["a"])
    try apply(.daemonStarted, "2026-11-03T00:00:00Z", ["a"])
    try apply(.configurationReloaded, "2026-11-04T00:00:00Z", ["a", "main"])
    try apply(.jobDue, "2026-11-05T00:00:00Z", ["a", "main.one"])
    #expect(try history.beginning(of: "a") == at("2026-11-02T00:00:00Z"))
    #expect(try history.beginning(of: "main") == at("2026-11-04T00:00:00Z"))
    #expect(try history.beginning(of: "main.one") == at("2026-11-05T00:00:00Z"))
    try made("2026-11-06T00:00:00Z")
    try made("2026-11-07T00:00:00Z")
    var deleted = LedgerRecord(.backupDeleted, at: now)
    (deleted.backup, deleted.store) = (BackupID(database: "a", time: try at("2026-11-06T00:00:00Z")), "local")
    history.apply(deleted)
    #expect(try history.firstBackups["a"] == at("2026-11-06T00:00:00Z"))
    // A clock that was ahead gives nobody more time.
    try apply(.clockCorrected, "2026-11-03T12:00:00Z", nil)
    #expect(try history.beginning(of: "main") == at("2026-11-03T12:00:00Z"))
    #expect(try history.firstBackups["a"] == at("2026-11-03T12:00:00Z"))
    // What was taken out begins anew.
    try apply(.configurationReloaded, "2026-11-08T00:00:00Z", ["main"])
    try apply(.configurationReloaded, "2026-11-09T00:00:00Z", ["a", "main"])
    #expect(try history.beginning(of: "a") == at("2026-11-09T00:00:00Z"))
    #expect(history.firstBackups["a"] == nil)
    #expect(try history.beginning(of: "main.one") == at("2026-11-03T12:00:00Z"))
  }

  /// What restores have put aside is known by name until it is put back or dropped: marks of earlier versions have no
  /// signature.
  @Test func theLedgerKnowsWhatWasPutAside() throws {
    var history = RunHistory()
    func apply(_ kind: LedgerRecord.Kind, _ database: String, _ detail: [String: String], result: String? = nil) {
      var record = LedgerRecord(kind, at: now)
      (record.database, record.detail, record.result) = (database, detail, result)
      if kind == .runFinished { (record.job, record.run) = ("restore", "r") }
      history.apply(record)
    }
    apply(.runFinished, "shop", ["kept": "shop_before_1"], result: "succeeded")
    apply(.runFinished, "shop", ["kept": "shop_before_2"], result: "failed")
    apply(.runFinished, "shop", ["kept": "replaced_3", "schema": "s"], result: "succeeded")
    apply(.runFinished, "main.app", ["kept": "app_before_4"], result: "succeeded")
    #expect(history.putAside == ["shop": ["shop_before_1"], "main.app": ["app_before_4"]])
    apply(.databaseRolledBack, "shop", ["from": "shop_before_1", "kept": "shop_before_5"])
    #expect(history.putAside["shop"] == ["shop_before_5"])
    apply(.keptDropped, "main", ["name": "app_before_4"])
    apply(.keptDropped, "shop", ["name": "shop_before_5"])
    #expect(history.putAside.values.filter { !$0.isEmpty }.isEmpty)
  }

  @Test func retriesGrow() throws {
    let rule = try #require(RetryRule(parsing: "3 after 5m"))
    #expect((1...4).map { rule.next(after: $0, endedAt: now)?.timeIntervalSince(now) } == [300, 600, 1200, nil])
    #expect(RetryRule(parsing: rule.text) == rule)
    for text in ["", "3", "0 after 5m", "21 after 5m", "3 after", "3 in 5m", "3 after soon", "3 after 0s"] {
      #expect(RetryRule(parsing: text) == nil, "\(text)")
    }
  }
}
