import ArtifactFormat
import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import Notifications
import PostgresTools
import Quoting
import SystemdSupport
import Testing
import Units

@testable import BackupDaemon

/// Two databases whose names Swift takes for one: whoever may create databases makes a twin of another one's. Neither
/// stands for the other anywhere.
@Suite struct TwinNamesTests {
  private static let victim = "app.app_\u{E9}"
  private static let twin = "app.app_e\u{301}"
  private static let start = Date(timeIntervalSince1970: 1_795_000_000)

  private static func bytes(_ names: [String]) -> Set<[UInt8]> { Set(names.map { Array($0.utf8) }) }
  private static let both = bytes([victim, twin])

  private static func plan() throws -> DaemonPlan {
    let connection = try ConnectionSettings(parsing: "dbname=postgres")
    return DaemonPlan(
      databases: [.init(name: "app", connection: connection, includes: { _ in true })],
      jobs: [
        .init(
          name: "daily", timing: nil, usesLocalZone: false, keep: .untilDeleted, stores: [], databases: nil,
          timeout: .seconds(60))
      ], stores: [], backup: Backup.Settings(), parallelRuns: 1, windDown: .seconds(1), rpo: nil)
  }

  private static func finished(_ database: String, _ result: String = "succeeded") -> LedgerRecord {
    var record = LedgerRecord(.runFinished, at: start)
    (record.job, record.database, record.run, record.result) = ("daily", database, "r", result)
    record.due = start
    return record
  }

  // MARK: - Which database is meant

  /// A leading combining mark makes one Character with the dot before it, of which counting takes one too many.
  @Test func aNameLeadsToItsOwnDatabase() throws {
    let plan = try Self.plan()
    for database in ["shop", "\u{301}shop", "\u{200D}shop", "app_\u{E9}", "app_e\u{301}", "app_K1", "app_\u{212A}1"] {
      let name = MemberName.of(database, in: "app")
      for found in [try #require(plan.database(name)), plan.database(inCatalog: name)] {
        #expect(database.isExactly(found.connection["dbname"]), "\(name.debugDescription)")
        #expect(name.isExactly(found.name))
      }
      #expect(plan.databases[0].covers(name))
    }
    #expect(plan.database("app") == nil && plan.database("other.shop") == nil)
  }

  @Test func aDatabaseOfItsOwnIsNoTwinOfAMember() throws {
    var plan = try Self.plan()
    plan.databases.append(.init(name: Self.victim, connection: try .init(parsing: "dbname=its_own"), includes: nil))
    #expect(plan.database(Self.victim)?.connection["dbname"] == "its_own")
    #expect("app_e\u{301}".isExactly(plan.database(Self.twin)?.connection["dbname"]))
    plan.jobs[0].databases = [Self.victim]
    #expect(plan.takes(plan.jobs[0], Self.victim) && !plan.takes(plan.jobs[0], Self.twin))
  }

  // MARK: - Runs

  private static func surroundings(_ board: RunBoard) -> RunSurroundings {
    let keeper = CatalogKeeper(stores: [], trusted: [])
    return RunSurroundings(
      // Nobody's turn comes: what is asked for stays queued.
      slots: DumpSlots(limit: 0), checkSlots: DumpSlots(limit: 0), board: board, append: { _ in }, keeper: keeper,
      now: { start }, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
      status: StatusLine(ServiceNotifier()), retry: { _ in nil }, skip: { _, _, _, _ in },
      statistics: StatisticsFile(state: "/nonexistent"), ledgerHead: { .init(sequence: 0, digest: "") },
      verified: { _, _ in }, lastVerified: { [:] }, measures: { _ in [] }, quietUntil: { _ in nil },
      isWanted: { _, _ in true }, afterRun: {})
  }

  @Test func aTwinsRunTakesNoQueuedRunOver() async throws {
    let (plan, board) = (try Self.plan(), RunBoard())
    let runner = JobRunner(job: "daily", surroundings: Self.surroundings(board))
    let due = RunOptions(reason: "due", due: Self.start, attempt: 1)
    for name in [Self.victim, Self.twin] {
      _ = try await runner.begin(try #require(plan.database(name)), plan: plan, options: due)
    }
    #expect(board.active.count == 2 && Self.bytes(board.active.map(\.database)) == Self.both)
    // The victim's own next run does.
    let again = RunOptions(reason: "due", due: Self.start.addingTimeInterval(3600), attempt: 1)
    let next = try await runner.begin(try #require(plan.database(Self.victim)), plan: plan, options: again)
    #expect(board.active.count == 2 && next.database.isExactly(Self.victim))
    await runner.cancelAll()
    await runner.waitForAll()
  }

  @Test func aTwinsRunRefusesNoneOnDemand() async throws {
    let (plan, board) = (try Self.plan(), RunBoard())
    let runner = JobRunner(job: "daily", surroundings: Self.surroundings(board))
    for name in [Self.twin, Self.victim] {
      _ = try await runner.begin(
        try #require(plan.database(name)), plan: plan, options: RunOptions(reason: "on demand"))
    }
    #expect(board.active.count == 2)
    await runner.cancelAll()
    await runner.waitForAll()
  }

  @Test func theBoardShowsTheLastRunOfEach() throws {
    let board = RunBoard()
    for (number, name) in [Self.victim, Self.twin].enumerated() {
      var run = RunReport(job: "daily", database: name, RunOptions(reason: "due"), asked: Self.start)
      (run.state, run.finished) = (number == 0 ? .failed : .succeeded, Self.start.addingTimeInterval(Double(number)))
      board.post(run)
    }
    #expect(board.lastOfEach.count == 2)
    #expect(board.last(job: "daily", database: Self.victim)?.state == .failed)
    #expect(board.last(database: Self.victim)?.state == .failed)
    #expect(board.last(database: Self.twin)?.state == .succeeded)
    board.forget(job: "daily", database: Self.twin)
    #expect(board.lastOfEach.map(\.state) == [.failed])
  }

  @Test func twinsDumpBesideEachOther() {
    var table = SlotTable(limit: 2)
    let tickets = [Self.victim, Self.twin, Self.victim].map { table.enter($0) }
    #expect(table.grant() == [tickets[0], tickets[1]])
    table.release(Self.twin)
    #expect(table.grant().isEmpty, "the victim still runs")
    table.release(Self.victim)
    #expect(table.grant() == [tickets[2]])
  }

  @Test func eachIsTriedAgain() {
    var table = RetryTable()
    for name in [Self.victim, Self.twin, Self.victim] {
      table.add(.init(job: "daily", database: name, due: Self.start, attempt: 2, start: Self.start, reason: "retry"))
    }
    #expect(table.all.count == 2 && Self.bytes(table.all.map(\.database)) == Self.both)
  }

  // MARK: - What is known of each

  private static func history(_ records: [LedgerRecord]) -> RunHistory {
    var history = RunHistory()
    for record in records { history.apply(record) }
    return history
  }

  @Test func whatOneHasDoneTheOtherLacks() {
    var due = LedgerRecord(.jobDue, at: Self.start)
    (due.job, due.due, due.databases) = ("daily", Self.start, [Self.victim, Self.twin])
    let history = Self.history([due, Self.finished(Self.twin)])
    #expect(history.jobs["daily"]?.remaining == [ExactText(Self.victim)])
    #expect(history.jobs["daily"]?.done == [])
    let failed = Self.history([due, Self.finished(Self.victim, "failed"), Self.finished(Self.twin)])
    #expect(failed.last[.init(job: "daily", database: Self.victim)]?.result == "failed")
    #expect(failed.last[.init(job: "daily", database: Self.twin)]?.result == "succeeded")
    #expect(failed.totals.lastSuccess[.init(job: "daily", database: Self.victim)] == nil)
    #expect(failed.totals.days.count == 2 && failed.totals.runs.values.allSatisfy { $0 == 1 })
  }

  /// The first backup, and what a restore has measured, replaced and put aside, is of one database.
  @Test func figuresAndWaysBackAreOfOneDatabase() {
    let id = BackupID(database: Self.twin, time: Self.start)
    var backup = Self.finished(Self.twin)
    backup.backup = id
    backup.detail = ["archive_bytes": "1", "stored_bytes": "1", "rows": "1", "stores": "local"]
    var restore = Self.finished(Self.twin)
    (restore.job, restore.backup) = ("restore", id)
    restore.detail = [
      "kept": "app_e\u{301}_before_1", "whole": "yes", "loaded_bytes": "5", "way": "in-place", "replaced": "nothing",
    ]
    let history = Self.history([backup, restore])
    let (victim, twin) = (ExactText(Self.victim), ExactText(Self.twin))
    #expect(history.firstBackups[victim] == nil && history.firstBackups[twin] == Self.start)
    #expect(history.measures[victim] == nil && history.measures[twin]?.count == 1)
    #expect(history.inPlace[victim] == nil && history.inPlace[twin] != nil)
    #expect(history.replacedNothing[victim] == nil && history.replacedNothing[twin] != nil)
    #expect(history.putAside == [twin: ["app_e\u{301}_before_1"]])
    #expect(history.totals.growth[victim] == nil && history.totals.growth[twin]?.count == 1)
    var undone = LedgerRecord(.databaseRolledBack, at: Self.start)
    (undone.database, undone.detail) = (Self.victim, ["from": "app_\u{E9}_before_1"])
    var after = history
    after.apply(undone)
    #expect(after.inPlace[twin] != nil && after.putAside[twin]?.count == 1)
  }

  /// Also in the file: JSON's objects pass through dictionaries that know one of them.
  @Test func eachHasItsIncident() throws {
    let channel = ChannelSettings(
      name: "a", kind: .command(["true"]), topics: [.failure, .recovered], every: nil, databases: nil)
    func problem(_ name: String) -> Problem {
      Problem(Fault(.dumpFailed, "'\(name)' failed"), database: name, job: "daily")
    }
    var book = IncidentBook()
    let opened = book.update(
      [Self.victim, Self.twin, "100%25"].map(problem), channels: [channel], at: Self.start, newID: { "#\($0)" })
    #expect(opened.count == 3)
    var kept = try ControlJSON.decode(IncidentBook.self, from: try ControlJSON.encode(book))
    #expect(kept == book && kept.open.count == 3)
    let over = kept.update(
      [Self.victim, "100%25"].map(problem), channels: [channel], at: Self.start, newID: { "#\($0)" })
    #expect(over.map(\.kind) == [.recovered])
    #expect(over.first?.incident.database.map(Self.twin.isExactly) == true)
  }

  /// A file of an earlier version.
  @Test func incidentsOfEarlierVersionsStayOpen() throws {
    var book = IncidentBook()
    let problem = Problem(Fault(.dumpFailed, "x"), database: Self.victim, job: "daily")
    _ = book.update([problem], channels: [], at: Self.start, newID: { "#\($0)" })
    let text = String(decoding: try ControlJSON.encode(book), as: UTF8.self)
    #expect(text.contains(bytes: "run|app.app_%c3%a9|daily|"))
    let old = text.replacingBytes(of: "%c3%a9", with: "\u{E9}")
    #expect(try ControlJSON.decode(IncidentBook.self, from: Data(old.utf8)) == book)
  }
}
