import ArtifactFormat
import BackupCatalog
import BackupOperations
import ControlAPI
import CronSchedule
import Dispatch
import Faults
import Foundation
import Logging
import QueueExecution
import Storage
import SystemdSupport
import Units

/// What a run is asked for with, besides its job and its database.
struct RunOptions: Sendable {
  var reason: String
  var by: Caller?
  var label: String?
  var keep: Duration?
  /// The due instant of a scheduled run, and which try it is.
  var due: Date?
  var attempt: Int?
}

/// What a job runner needs of the daemon around it.
struct RunSurroundings: Sendable {
  let slots: DumpSlots
  let board: RunBoard
  /// Puts a deed on record.
  let append: @Sendable (LedgerRecord) async -> Void
  let keeper: CatalogKeeper
  let now: @Sendable () -> Date
  let logger: Logger
  /// Told of each run's progress, besides the board.
  let status: StatusLine
  /// Decides whether a failed run is tried again, and when.
  let retry: @Sendable (RunReport) async -> Date?
  /// Puts on record that a job's due instant got no run of its own on a database, and why.
  let skip: @Sendable (_ job: String, _ due: Date, _ reason: String, _ database: String) async -> Void
  /// Called after each run that changed a store.
  let afterRun: @Sendable () async -> Void
}

/// One job, as an actor on a serial queue of its own: its runs, their timeouts and their ends.
actor JobRunner {
  private struct Run {
    var report: RunReport
    var options: RunOptions
    /// How long it may take to end once it is asked to.
    let windDown: Duration
    var machine = RunStateMachine()
    var work: Task<Void, Never>?
    var timer: DispatchTimer?
    let stallClock = StallClock()
    /// Given back once: at the run's end, or when it is given up.
    var holdsSlot = false
    var abandonTimer: DispatchTimer?
    var stallTimer: DispatchTimer?
  }

  private let executor: QueueExecutor
  private let name: String
  private let surroundings: RunSurroundings
  private var runs: [String: Run] = [:]
  private var isStopped = false

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(job name: String, surroundings: RunSurroundings) {
    self.name = name
    self.surroundings = surroundings
    executor = QueueExecutor(label: "pgbackupd.job.\(name)")
  }

  /// Begins a run of the job on one database, or queues it. While a run of the same job on the same database has not ended, a
  /// second one on demand is refused; a scheduled one queues behind it, and one that is queued already stands for the newest due
  /// instant instead. The run goes on under `plan`, whatever is reloaded meanwhile.
  func begin(_ database: DaemonPlan.Database, plan: DaemonPlan, options: RunOptions) async throws(Fault) -> RunReport {
    let job = try plan.job(name)
    let others = runs.values.map(\.report).filter { $0.database == database.name }
    if let other = others.first, options.due == nil {
      throw Fault(
        .runConflict, "Job '\(name)' on '\(database.name)' is \(other.state.rawValue) already.",
        cause: "run \(other.id), asked \(other.asked.rfc3339)", hint: "pgbackupctl status")
    }
    if let queued = others.first(where: { $0.state == .queued && $0.due != nil }) {
      return await takeOver(queued, options)
    }
    let report = RunReport(job: name, database: database.name, options, asked: surroundings.now())
    let id = report.id
    surroundings.board.post(report)
    runs[id] = Run(report: report, options: options, windDown: plan.windDown)
    // Here and not in the task: who was asked for first is first in the queue.
    let ticket = await surroundings.slots.enter(database.name)
    runs[id]?.work = Task { await self.work(id, ticket, database, job, plan) }
    // A stop that came meanwhile found nothing to cancel.
    if isStopped {
      handle(id, .stop(.shutdown))
      runs[id]?.work?.cancel()
    }
    return report
  }

  /// The queued run is now the one of a later due instant.
  private func takeOver(_ queued: RunReport, _ options: RunOptions) async -> RunReport {
    var report = queued
    (report.due, report.reason, report.attempt) = (options.due, options.reason, options.attempt)
    runs[queued.id]?.report = report
    runs[queued.id]?.options = options
    surroundings.board.post(report)
    if let earlier = queued.due, earlier != options.due {
      await surroundings.skip(name, earlier, "its run was still queued when the next was due", queued.database)
    }
    return report
  }

  /// Answers, which shows that the runner's queue gets on.
  func pulse() {}

  /// Asks one run to stop, because somebody wants it.
  func cancel(_ id: String) { handle(id, .stop(.requested)) }

  /// Asks all runs to stop.
  func cancelAll() {
    isStopped = true
    for id in runs.keys { handle(id, .stop(.shutdown)) }
  }

  /// Waits for the ends of all runs; for one that hangs in a store that does not answer, no longer than until it is given up.
  func waitForAll() async {
    await withTaskGroup(of: Void.self) { group in
      for run in runs.values {
        guard let work = run.work else { continue }
        group.addTask { _ = await withDeadline(run.windDown + .seconds(5)) { await work.value } }
      }
    }
  }

  // MARK: - One run

  private func work(
    _ id: String, _ ticket: Int, _ database: DaemonPlan.Database, _ job: DaemonPlan.Job, _ plan: DaemonPlan
  ) async {
    do {
      try await takeTurn(id, ticket, database.name, job)
    } catch {
      await end(id, .failed(Fault(error)), outcome: nil)
      return
    }
    runs[id]?.holdsSlot = true
    handle(id, .slotGranted, timeout: job.timeout, stallAfter: plan.backup.stallAfter)
    do {
      let outcome = try await backup(id, database, job, plan)
      await giveBackSlot(id, database.name)
      await end(id, .succeeded, outcome: outcome)
    } catch {
      await giveBackSlot(id, database.name)
      await end(id, .failed(Fault(error)), outcome: nil)
    }
    await surroundings.afterRun()
  }

  /// Waits for the run's turn. A scheduled run whose turn comes in its job's quiet hours lets the others go on, and queues anew when
  /// those have ended.
  private func takeTurn(_ id: String, _ first: Int, _ database: String, _ job: DaemonPlan.Job) async throws {
    var ticket = first
    while true {
      try await surroundings.slots.wait(ticket)
      let now = surroundings.now()
      guard runs[id]?.options.due != nil, let end = job.timing?.afterQuiet(now), end > now else { return }
      await surroundings.slots.release(database)
      var record = LedgerRecord(.runPostponed, at: now)
      record.describe(runs[id]?.report)
      record.reason = "quiet hours until \(end.rfc3339)"
      await surroundings.append(record)
      surroundings.logger.notice(
        .runPostponed, "a queued run waits for the end of its quiet hours",
        metadata: ["job": "\(name)", "database": "\(database)", "run": "\(id)", "until": "\(end.rfc3339)"])
      // By the wall clock, which may be moved meanwhile.
      while surroundings.now() < end {
        try await Task.sleep(for: .seconds(min(10, max(0.1, end.timeIntervalSince(surroundings.now())))))
      }
      ticket = await surroundings.slots.enter(database)
    }
  }

  private func giveBackSlot(_ id: String, _ database: String) async {
    guard runs[id]?.holdsSlot == true else { return }
    runs[id]?.holdsSlot = false
    await surroundings.slots.release(database)
  }

  /// A run that was asked to end and does not: a call into a store that never returns can't be cancelled. It is given up, so that the
  /// database's next run can begin.
  private func abandon(_ id: String) {
    guard let run = runs[id] else { return }
    Task {
      await self.giveBackSlot(id, run.report.database)
      await self.end(
        id, .failed(Fault(.runStalled, "The run did not end when it was asked to, and was given up.")), outcome: nil)
    }
  }

  private func backup(
    _ id: String, _ database: DaemonPlan.Database, _ job: DaemonPlan.Job, _ plan: DaemonPlan
  ) async throws -> Backup.Outcome {
    try Task.checkCancellation()
    guard let options = runs[id]?.options else { throw CancellationError() }
    let catalog = await surroundings.keeper.refresh()
    var record = LedgerRecord(.runStarted, at: surroundings.now())
    record.describe(runs[id]?.report)
    await surroundings.append(record)

    let (board, status, clock) = (surroundings.board, surroundings.status, runs[id]?.stallClock)
    let context = OperationContext(now: surroundings.now) { progress in
      let progress = RunReport.Progress(progress)
      clock?.note(progress)
      board.progress(id, progress)
      status.progressed(board, id, phase: progress.phase)
    }
    var request = Backup.Request(
      database: database.name, connection: database.connection, type: name, label: options.label, job: name, run: id,
      keep: options.keep, due: options.due)
    request.retention = plan.retention
    let history = Backup.History(
      last: catalog.newestGood(of: database.name)?.manifest,
      takenTimes: Set(catalog.backups.filter { $0.id.database == database.name }.map(\.id.time)))
    if let due = options.due, job.timing?.share == true,
      let source = Self.shareable(catalog, database.name, type: name, due: due, plan)
    {
      do {
        return try await SharedBackup(
          request, of: source, from: plan.stores, to: plan.stores(of: job), signingKey: plan.backup.signingKey,
          history: history, context: context,
          logger: surroundings.logger
        ).run()
      } catch {
        try Task.checkCancellation()
        // A damaged or vanished original is no reason to have no backup: the database is there to be read.
        surroundings.logger.warning(
          .storeUnusable, Fault(error), metadata: ["job": "\(name)", "database": "\(database.name)", "run": "\(id)"])
      }
    }
    return try await Backup(
      request, settings: plan.backup, stores: plan.stores(of: job), history: history, context: context,
      logger: surroundings.logger
    ).run()
  }

  /// A backup that another job made of the same database, due within the hour of this one and encrypted to the same recipients:
  /// the database need not be read twice.
  private static func shareable(
    _ catalog: Catalog, _ database: String, type: String, due: Date, _ plan: DaemonPlan
  ) -> Catalog.Backup? {
    guard let own = plan.jobs.first(where: { $0.name == type })?.timing, isDailyAtMost(own, at: due) else { return nil }
    return catalog.backups.last { backup in
      // Only a dump of its own: what was taken over itself may be older than it looks, and a chain would have no end.
      guard backup.manifest.sharedFrom == nil, backup.id.database == database, backup.isGood,
        backup.manifest.type != type,
        Set(backup.manifest.encryption?.recipients ?? []) == Set(plan.backup.encryption.recipients),
        let other = backup.manifest.due,
        let job = backup.manifest.job, let timing = plan.jobs.first(where: { $0.name == job })?.timing,
        timing.share, isDailyAtMost(timing, at: other)
      else { return false }
      return abs(due.timeIntervalSince(other)) <= 3600
    }
  }

  /// Who wants a backup more often than daily wants each of them fresh. (A day of spring has 23 hours.)
  private static func isDailyAtMost(_ timing: JobTiming, at due: Date) -> Bool {
    guard let next = timing.schedule.next(after: due) else { return true }
    return next.timeIntervalSince(due) >= 23 * 3600
  }

  /// Feeds an event to the run's state machine and carries out what it says, except the conclusion, which `end` does.
  private func handle(
    _ id: String, _ event: RunStateMachine.Event, timeout: Duration? = nil, stallAfter: Duration? = nil
  ) {
    guard let action = runs[id]?.machine.handle(event) else { return }
    switch action {
    case .begin:
      runs[id]?.report.state = .running
      runs[id]?.report.started = surroundings.now()
      if let report = runs[id]?.report { surroundings.board.post(report) }
      surroundings.status.progressed(surroundings.board, id, phase: "begin")
      if let timeout {
        runs[id]?.timer = timer(after: timeout) { $0.handle(id, .stop(.timeout(timeout))) }
      }
      if let stallAfter { watchProgress(id, stallAfter) }
    case .cancelWork:
      guard let run = runs[id] else { return }
      run.work?.cancel()
      runs[id]?.abandonTimer = timer(after: run.windDown) { $0.abandon(id) }
    case .conclude, .none:
      break
    }
  }

  /// Stops a run that stands still. The dump has a deadline of its own, which says more; this one is for the other phases, and a
  /// little later.
  private func watchProgress(_ id: String, _ limit: Duration) {
    let limit = limit + .seconds(30)
    runs[id]?.stallTimer = timer(after: limit) { $0.checkProgress(id, limit) }
  }

  /// A timer on the runner's queue.
  private func timer(
    after delay: Duration, _ fire: @escaping @Sendable (isolated JobRunner) -> Void
  ) -> DispatchTimer {
    let timer = DispatchTimer(queue: executor.queue) { @Sendable [weak self] in self?.assumeIsolated { fire($0) } }
    timer.arm(after: delay)
    return timer
  }

  private func checkProgress(_ id: String, _ limit: Duration) {
    guard let run = runs[id] else { return }
    let (duration, phase) = run.stallClock.standstill
    if duration >= limit {
      handle(id, .stop(.stalled(phase: phase, limit)))
    } else {
      run.stallTimer?.arm(after: limit - duration + .milliseconds(10))
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
    run.report.retry = await surroundings.retry(run.report)
    log(run.report)

    var record = LedgerRecord(.runFinished, at: run.report.finished ?? surroundings.now())
    record.describe(run.report)
    record.detail = outcome.map { outcome in
      [
        "stores": outcome.stores.joined(separator: ","), "archive_bytes": "\(outcome.manifest.artifact.archiveBytes)",
        "stored_bytes": "\(outcome.manifest.storedBytes)", "rows": "\(outcome.manifest.totals.rows)",
      ].merging(outcome.dropped.map { ("dropped." + $0.key, $0.value.code.rawValue) }) { $1 }
    }
    await surroundings.append(record)
    surroundings.board.post(run.report)
  }

  private func log(_ run: RunReport) {
    var fields: Logger.Metadata = ["job": "\(run.job)", "database": "\(run.database)", "run": "\(run.id)"]
    if let backup = run.backup { fields["backup"] = "\(backup)" }
    if let bytes = run.storedBytes { fields["stored"] = "\(ByteCount(bytes))" }
    if let started = run.started, let finished = run.finished {
      fields["took"] = "\(Duration.seconds(finished.timeIntervalSince(started)).spoken)"
    }
    if let retry = run.retry { fields["retry"] = "\(retry.rfc3339)" }
    if let fault = run.fault {
      surroundings.logger.error(run.state == .aborted ? .runAborted : .runFailed, fault, metadata: fields)
    } else {
      surroundings.logger.notice(.backupSucceeded, "backup succeeded", metadata: fields)
    }
    for warning in run.warnings {
      surroundings.logger.warning(
        .storeUnusable, warning, metadata: ["job": "\(run.job)", "database": "\(run.database)", "run": "\(run.id)"])
    }
  }
}

extension LedgerRecord {
  mutating func describe(_ run: RunReport?) {
    job = run?.job
    database = run?.database
    self.run = run?.id
    backup = run?.backup
    by = run?.by
    reason = run?.reason
    due = run?.due
    attempt = run?.attempt
    guard let run, run.state.isFinal else { return }
    (result, fault, retry) = (run.state.rawValue, run.fault, run.retry)
  }
}

extension RunReport {
  /// A run that is asked for now, under an id of its own.
  init(job: String, database: String, _ options: RunOptions, asked: Date) {
    self.init(
      id: String(UUID().uuidString.prefix(8)).lowercased(), job: job, database: database, reason: options.reason,
      by: options.by, asked: asked)
    (due, attempt) = (options.due, options.attempt)
  }
}
