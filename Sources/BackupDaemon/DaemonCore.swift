import BackupCatalog
import BackupOperations
package import ControlAPI
import CronSchedule
package import Faults
package import Foundation
package import Logging
import Storage
import SystemdSupport
import Units

/// The daemon's centre: holds the plan in force, and does what schedules, signals and the control socket ask for.
package actor DaemonCore {
  var plan: DaemonPlan
  let board = RunBoard()
  package let ledger: Ledger
  let keeper: CatalogKeeper
  let now: @Sendable () -> Date
  let logger: Logger
  let started: Date
  private(set) var scheduler: Scheduler
  /// What is wrong until somebody mends it: a refused reload, a damaged ledger.
  var standingProblems: [String: Fault] = [:]

  private let slots: DumpSlots
  private let notifier = ServiceNotifier()
  private let reload: @Sendable () throws(Fault) -> DaemonPlan
  private var runners: [String: JobRunner] = [:]
  private var isStopping = false
  private var lastChange: Task<Void, Never>?

  /// `reload` reads the configuration anew, or throws why it can't be taken.
  package init(
    plan: DaemonPlan, ledger: Ledger, now: @escaping @Sendable () -> Date, logger: Logger,
    reload: @escaping @Sendable () throws(Fault) -> DaemonPlan
  ) {
    self.plan = plan
    self.ledger = ledger
    self.now = now
    self.logger = logger
    self.reload = reload
    started = now()
    slots = DumpSlots(limit: plan.parallelRuns)
    keeper = CatalogKeeper(stores: plan.stores)
    // Replaced in `start`: the closure needs `self`.
    scheduler = Scheduler(now: now) { _ in }
  }

  // MARK: - Life

  /// Sweeps what a crash left, brings the stores in order and puts the schedules into force.
  package func start() async throws(Fault) {
    scheduler = Scheduler(now: now) { [weak self] due in
      Task { await self?.fire(due) }
    }
    if ledger.repairedBytes > 0 {
      var record = LedgerRecord(.ledgerRepaired, at: now())
      record.detail = ["torn_bytes": "\(ledger.repairedBytes)"]
      try await ledger.append(record)
      logger.warning("a torn last line of the ledger was cut off", metadata: ["bytes": "\(ledger.repairedBytes)"])
    }
    if let damage = ledger.damage {
      standingProblems["ledger"] = damage
      logger.error("\(damage.message)", metadata: ["error": "\(damage.code.rawValue)"])
    }
    var record = LedgerRecord(.daemonStarted, at: now())
    record.detail = ["version": Backup.version]
    try await ledger.append(record)
    for store in plan.stores { await prepare(store) }
    await scheduler.replace(schedules)
    await reportStatus()
    notifier.ready()
  }

  /// Brings the stores in order after a start: what expired while nobody looked, and leftovers. Not part of `start`: a slow
  /// store must not delay readiness.
  package func settle() async { await expire() }

  /// Stops every run and takes no more.
  package func stop() async {
    isStopping = true
    notifier.stopping()
    await scheduler.stop()
    // All at once: a slot that one run gives up must not start the next one.
    for runner in runners.values { await runner.cancelAll() }
    for runner in runners.values { await runner.waitForAll() }
    try? await ledger.append(LedgerRecord(.daemonStopped, at: now()))
    await ledger.endFollowing()
  }

  /// One change of the catalog after the other. Each decides on what it finds and then awaits the stores: two at once could
  /// delete a backup that was just pinned, or the last two good ones.
  func exclusively<Value: Sendable>(
    _ change: @escaping @Sendable (DaemonCore) async throws(Fault) -> Value
  ) async throws(Fault) -> Value {
    let earlier = lastChange
    let work = Task { () -> Result<Value, Fault> in
      await earlier?.value
      do throws(Fault) {
        return .success(try await change(self))
      } catch {
        return .failure(error)
      }
    }
    lastChange = Task { _ = await work.value }
    return try await work.value.get()
  }

  private func prepare(_ store: any ObjectStore) async {
    do throws(StorageError) {
      try await store.check()
      let swept = try await store.sweepUnfinished()
      guard swept > 0 else { return }
      logger.notice(
        "uploads that a dead process left were swept", metadata: ["store": "\(store.name)", "files": "\(swept)"])
      var record = LedgerRecord(.leftoversSwept, at: now())
      record.store = store.name
      record.reason = "unfinished uploads of a dead process"
      record.detail = ["files": "\(swept)"]
      try? await ledger.append(record)
    } catch {
      let fault = error.fault
      logger.error("\(fault.message)", metadata: ["error": "\(fault.code.rawValue)", "cause": "\(error.reason)"])
    }
  }

  // MARK: - Runs

  private var schedules: [String: ZonedSchedule] {
    Dictionary(uniqueKeysWithValues: plan.jobs.compactMap { job in job.schedule.map { (job.name, $0) } })
  }

  private func fire(_ due: ScheduleTable.Due) async {
    guard !isStopping else { return }
    do throws(Fault) {
      _ = try await run(job: due.job, options: RunOptions(reason: "schedule \(due.instant.rfc3339)"))
    } catch {
      logger.error(
        "\(error.message)",
        metadata: ["job": "\(due.job)", "error": "\(error.code.rawValue)", "cause": "\(error.cause ?? "")"])
    }
    await reportStatus()
  }

  /// Begins a job on all its databases. A database that can't be listed or is busy is told of and does not stop the others;
  /// where nothing could be begun, the first reason is thrown.
  func run(job name: String, options: RunOptions) async throws(Fault) -> [RunReport] {
    let plan = plan
    let job = try plan.job(name)
    var begun: [RunReport] = []
    var faults: [Fault] = []
    for entry in plan.databases(of: job) {
      do throws(Fault) {
        for database in try await entry.resolve() {
          do throws(Fault) {
            try refuseWhileStopping()
            begun.append(try await runner(name).begin(database, plan: plan, options: options))
          } catch {
            faults.append(error)
          }
        }
      } catch {
        faults.append(error)
        await recordUnstarted(name, entry.name, options, error)
      }
    }
    if let first = faults.first, begun.isEmpty { throw first }
    for fault in faults {
      logger.warning("\(fault.message)", metadata: ["job": "\(name)", "error": "\(fault.code.rawValue)"])
    }
    return begun
  }

  func backup(_ command: BackupCommand, by caller: Caller?) async throws(Fault) -> RunReport {
    try refuseWhileStopping()
    let plan = plan
    var keep: Duration?
    if let text = command.keep {
      guard let duration = Duration(parsing: text) else {
        throw Fault(.usage, "'\(text)' is no duration: write 90m, 36h or 7d.", hint: "pgbackupctl backup --help")
      }
      keep = duration
    }
    try Self.check(label: command.label)
    let job = try plan.job(command.type ?? "manual")
    let database = try await database(named: command.database)
    try refuseWhileStopping()
    return try await runner(job.name).begin(
      database, plan: plan, options: RunOptions(reason: "on demand", by: caller, label: command.label, keep: keep))
  }

  /// A label ends up in listings and terminals: short, and nothing that moves a cursor.
  private static func check(label: String?) throws(Fault) {
    guard let label else { return }
    guard label.count <= 200, label.unicodeScalars.allSatisfy({ $0.value >= 32 && !(127..<160).contains($0.value) })
    else {
      throw Fault(
        .usage, "A label has 200 characters at most, and no control characters.", hint: "pgbackupctl backup --help")
    }
  }

  func refuseWhileStopping() throws(Fault) {
    if isStopping {
      throw Fault(.runAborted, "The daemon is stopping and begins nothing new.", hint: "systemctl status pgbackupd")
    }
  }

  private func database(named name: String) async throws(Fault) -> DaemonPlan.Database {
    if let database = plan.databases.first(where: { $0.name == name && $0.includes == nil }) { return database }
    // `server.database`, of a pattern.
    for entry in plan.databases where entry.includes != nil && name.hasPrefix(entry.name + ".") {
      if let member = try await entry.resolve().first(where: { $0.name == name }) { return member }
    }
    throw Fault(
      .databaseMissing,
      "No database '\(name)' is configured; there are \(plan.databases.map(\.name).joined(separator: ", ")).",
      hint: "pgbackupctl status")
  }

  private func runner(_ job: String) -> JobRunner {
    if let runner = runners[job] { return runner }
    let runner = JobRunner(
      job: job,
      surroundings: RunSurroundings(
        slots: slots, board: board, ledger: ledger, keeper: keeper, now: now, logger: logger,
        afterRun: { [weak self] in
          await self?.expire()
          await self?.reportStatus()
        }))
    runners[job] = runner
    return runner
  }

  /// A scheduled run that could not even begin is a failed run, and must not be silent.
  private func recordUnstarted(_ job: String, _ database: String, _ options: RunOptions, _ fault: Fault) async {
    var run = RunReport(
      id: String(UUID().uuidString.prefix(8)).lowercased(), job: job, database: database, reason: options.reason,
      by: options.by, asked: now())
    run.state = .failed
    run.fault = fault
    run.finished = now()
    board.post(run)
    var record = LedgerRecord(.runFinished, at: now())
    (record.job, record.database, record.run) = (job, database, run.id)
    (record.by, record.reason, record.result, record.fault) = (options.by, options.reason, run.state.rawValue, fault)
    try? await ledger.append(record)
  }

  // MARK: - Reload

  /// Reads the configuration anew: all of it comes into force, or nothing. Runs in flight end as they began.
  package func reload(by caller: Caller?) async throws(Fault) -> ReloadReport {
    notifier.reloading()
    defer { notifier.ready() }
    let new: DaemonPlan
    do throws(Fault) {
      new = try reload()
    } catch {
      standingProblems["configuration"] = Fault(
        error.code, "The configuration file was refused, and the old one is still in force. " + error.message,
        cause: error.cause, hint: error.hint)
      logger.error(
        "the configuration was refused; the old one stays in force",
        metadata: ["cause": "\(error.cause ?? error.message)"])
      var record = LedgerRecord(.configurationRejected, at: now())
      record.by = caller
      record.fault = error
      try? await ledger.append(record)
      throw error
    }
    standingProblems["configuration"] = nil
    let changes = plan.changes(to: new)
    plan = new
    await keeper.use(new.stores)
    await slots.setLimit(new.parallelRuns)
    await scheduler.replace(schedules)
    var record = LedgerRecord(.configurationReloaded, at: now())
    record.by = caller
    record.detail = Dictionary(uniqueKeysWithValues: changes.enumerated().map { ("change.\($0 + 1)", $1) })
    try await ledger.append(record)
    logger.notice(
      "configuration reloaded", metadata: ["changes": "\(changes.isEmpty ? "none" : changes.joined(separator: "; "))"])
    await reportStatus()
    return ReloadReport(changes: changes)
  }

  private func reportStatus() async {
    let active = board.active
    let running = active.filter { $0.state == .running }.map { "\($0.job) of \($0.database)" }
    let next = await scheduler.next.map { "next: \($0.job) at \($0.instant.rfc3339)" } ?? "nothing is scheduled"
    notifier.status(running.isEmpty ? next : "running \(running.joined(separator: ", ")); \(next)")
  }
}
