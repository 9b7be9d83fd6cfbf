import BackupCatalog
import BackupOperations
import ControlAPI
import Dispatch
import Faults
import Foundation
import Logging
import QueueExecution
import Storage
import Units

/// What a run is asked for with, besides its job and its database.
struct RunOptions: Sendable {
  var reason: String
  var by: Caller?
  var label: String?
  var keep: Duration?
}

/// What a job runner needs of the daemon around it.
struct RunSurroundings: Sendable {
  let slots: DumpSlots
  let board: RunBoard
  let ledger: Ledger
  let keeper: CatalogKeeper
  let now: @Sendable () -> Date
  let logger: Logger
  /// Called after each run that changed a store.
  let afterRun: @Sendable () async -> Void
}

/// One job, as an actor on a serial queue of its own: its runs, their timeouts and their ends.
actor JobRunner {
  private struct Run {
    var report: RunReport
    var machine = RunStateMachine()
    var work: Task<Void, Never>?
    var timer: DispatchTimer?
  }

  private let executor: QueueExecutor
  private let name: String
  private let surroundings: RunSurroundings
  private var runs: [String: Run] = [:]

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(job name: String, surroundings: RunSurroundings) {
    self.name = name
    self.surroundings = surroundings
    executor = QueueExecutor(label: "pgbackupd.job.\(name)")
  }

  /// Begins a run of the job on one database, or queues it. A second run of the same job on the same database is refused
  /// while the first has not ended. The run goes on under `plan`, whatever is reloaded meanwhile.
  func begin(_ database: DaemonPlan.Database, plan: DaemonPlan, options: RunOptions) throws(Fault) -> RunReport {
    let job = try plan.job(name)
    if let other = runs.values.first(where: { $0.report.database == database.name }) {
      throw Fault(
        .runConflict, "Job '\(name)' on '\(database.name)' is \(other.report.state.rawValue) already.",
        cause: "run \(other.report.id), asked \(other.report.asked.rfc3339)", hint: "pgbackupctl status")
    }
    let id = String(UUID().uuidString.prefix(8)).lowercased()
    let report = RunReport(
      id: id, job: name, database: database.name, reason: options.reason, by: options.by, asked: surroundings.now())
    surroundings.board.post(report)
    runs[id] = Run(report: report)
    runs[id]?.work = Task { await self.work(id, database, job, plan, options) }
    return report
  }

  /// Asks all runs to stop.
  func cancelAll() { for id in runs.keys { handle(id, .stop(.shutdown)) } }

  /// Waits for the ends of all runs.
  func waitForAll() async { for work in runs.values.compactMap(\.work) { await work.value } }

  // MARK: - One run

  private func work(
    _ id: String, _ database: DaemonPlan.Database, _ job: DaemonPlan.Job, _ plan: DaemonPlan, _ options: RunOptions
  ) async {
    do {
      try await surroundings.slots.acquire(database.name)
    } catch {
      await end(id, .failed(Fault(error)), outcome: nil)
      return
    }
    handle(id, .slotGranted, timeout: job.timeout)
    do {
      let outcome = try await backup(id, database, job, plan, options)
      await surroundings.slots.release(database.name)
      await end(id, .succeeded, outcome: outcome)
    } catch {
      await surroundings.slots.release(database.name)
      await end(id, .failed(Fault(error)), outcome: nil)
    }
    await surroundings.afterRun()
  }

  private func backup(
    _ id: String, _ database: DaemonPlan.Database, _ job: DaemonPlan.Job, _ plan: DaemonPlan, _ options: RunOptions
  ) async throws -> Backup.Outcome {
    try Task.checkCancellation()
    let catalog = await surroundings.keeper.refresh()
    var record = LedgerRecord(.runStarted, at: surroundings.now())
    record.describe(runs[id]?.report)
    try await surroundings.ledger.append(record)

    let board = surroundings.board
    let backup = Backup(
      Backup.Request(
        database: database.name, connection: database.connection, type: name, label: options.label, job: name, run: id,
        keep: options.keep),
      settings: plan.backup, stores: plan.stores(of: job),
      history: Backup.History(
        last: catalog.newestGood(of: database.name)?.manifest,
        takenTimes: Set(catalog.backups.filter { $0.id.database == database.name }.map(\.id.time))),
      context: OperationContext(now: surroundings.now) { board.progress(id, RunReport.Progress($0)) },
      logger: surroundings.logger)
    return try await backup.run()
  }

  /// Feeds an event to the run's state machine and carries out what it says, except the conclusion, which `end` does.
  private func handle(_ id: String, _ event: RunStateMachine.Event, timeout: Duration? = nil) {
    guard let action = runs[id]?.machine.handle(event) else { return }
    switch action {
    case .begin:
      runs[id]?.report.state = .running
      runs[id]?.report.started = surroundings.now()
      if let report = runs[id]?.report { surroundings.board.post(report) }
      if let timeout {
        let timer = DispatchTimer(queue: executor.queue) { @Sendable [weak self] in
          self?.assumeIsolated { $0.handle(id, .stop(.timeout(timeout))) }
        }
        timer.arm(after: timeout)
        runs[id]?.timer = timer
      }
    case .cancelWork:
      runs[id]?.work?.cancel()
    case .conclude, .none:
      break
    }
  }

  private func end(_ id: String, _ event: RunStateMachine.Event, outcome: Backup.Outcome?) async {
    guard var run = runs.removeValue(forKey: id), case .conclude(let state, let fault) = run.machine.handle(event)
    else {
      return
    }
    run.report.state = state
    run.report.fault = fault
    run.report.finished = surroundings.now()
    run.report.progress = nil
    run.report.backup = outcome?.manifest.id
    run.report.storedBytes = outcome?.manifest.storedBytes
    run.report.rows = outcome?.manifest.totals.rows
    run.report.warnings = outcome?.dropped.sorted { $0.key < $1.key }.map(\.value) ?? []
    log(run.report)

    var record = LedgerRecord(.runFinished, at: run.report.finished ?? surroundings.now())
    record.describe(run.report)
    record.result = state.rawValue
    record.fault = fault
    record.detail = outcome.map { outcome in
      [
        "stores": outcome.stores.joined(separator: ","), "archive_bytes": "\(outcome.manifest.artifact.archiveBytes)",
        "stored_bytes": "\(outcome.manifest.storedBytes)", "rows": "\(outcome.manifest.totals.rows)",
      ].merging(outcome.dropped.map { ("dropped." + $0.key, $0.value.code.rawValue) }) { $1 }
    }
    do {
      try await surroundings.ledger.append(record)
    } catch {
      surroundings.logger.error("the ledger could not be written", metadata: ["cause": "\(error.cause ?? "")"])
    }
    _ = await surroundings.keeper.refresh()
    surroundings.board.post(run.report)
  }

  private func log(_ run: RunReport) {
    var fields: Logger.Metadata = ["job": "\(run.job)", "database": "\(run.database)", "run": "\(run.id)"]
    if let backup = run.backup { fields["backup"] = "\(backup)" }
    if let bytes = run.storedBytes { fields["stored"] = "\(ByteCount(bytes))" }
    if let started = run.started, let finished = run.finished {
      fields["took"] = "\(Duration.seconds(finished.timeIntervalSince(started)).spoken)"
    }
    if let fault = run.fault {
      fields["error"] = "\(fault.code.rawValue)"
      if let cause = fault.cause { fields["cause"] = "\(cause)" }
      if let hint = fault.hint { fields["next"] = "\(hint)" }
      surroundings.logger.error("\(fault.message)", metadata: fields)
    } else {
      surroundings.logger.info("backup \(run.state.rawValue)", metadata: fields)
    }
    for warning in run.warnings {
      surroundings.logger.warning(
        "\(warning.message)",
        metadata: ["run": "\(run.id)", "error": "\(warning.code.rawValue)", "cause": "\(warning.cause ?? "")"])
    }
  }
}

extension LedgerRecord {
  fileprivate mutating func describe(_ run: RunReport?) {
    job = run?.job
    database = run?.database
    self.run = run?.id
    backup = run?.backup
    by = run?.by
    reason = run?.reason
  }
}

extension RunReport.Progress {
  fileprivate init(_ progress: RunProgress) {
    self.init(
      phase: progress.phase.rawValue, archiveBytes: progress.archiveBytes, storedBytes: progress.storedBytes,
      expectedBytes: progress.expectedBytes, table: progress.table)
  }
}
