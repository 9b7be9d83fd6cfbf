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
import Quoting
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
  /// What a check on demand is to look at.
  var selection: CheckSelection?
}

/// A choice of what a verify run reads, or of what a drill restores.
struct CheckSelection: Sendable {
  /// All where nil.
  var backups: Set<BackupID>?
  var stores: Set<String>?
  var level: VerifyLevel?
}

/// What a job runner needs of the daemon around it.
struct RunSurroundings: Sendable {
  /// Who may dump.
  let slots: DumpSlots
  /// Who may read backups back: a check waits for no dump, and no dump for a check.
  let checkSlots: DumpSlots
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
  let statistics: StatisticsFile
  let ledgerHead: @Sendable () async -> Manifest.LedgerWitness
  /// Takes note of what a placement turned out to be, in a run.
  let verified: @Sendable (Verification, _ run: String) async -> Void
  let lastVerified: @Sendable () async -> [PlacementKey: Date]
  /// How long restores and drills of a database have taken, and from where.
  let measures: @Sendable (_ database: String) async -> [RecoveryMeasure]
  /// When the quiet hours end that a job is in now, by the configuration in force; nil where it is in none.
  let quietUntil: @Sendable (_ job: String) async -> Date?
  /// Whether the configuration in force still has the job, and the database among its own.
  let isWanted: @Sendable (_ job: String, _ database: String) async -> Bool
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
    let slots: DumpSlots
    var machine = RunStateMachine()
    var work: Task<Void, Never>?
    var timer: DispatchTimer?
    let stallClock = StallClock()
    /// Given back once: at the run's end, or when it is given up.
    var holdsSlot = false
    var abandonTimer: DispatchTimer?
    var stallTimer: DispatchTimer?
    /// Who has asked it to end.
    var canceller: Caller?
    /// Waits for the end of its quiet hours.
    var isPostponed = false
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
  ///
  /// - Parameter job: the plan's own, unless somebody wants more of it than its schedule does.
  func begin(
    _ database: DaemonPlan.Database, job own: DaemonPlan.Job? = nil, plan: DaemonPlan, options: RunOptions
  ) async throws(Fault) -> RunReport {
    let job: DaemonPlan.Job
    if let own { job = own } else { job = try plan.job(name) }
    // One that waits for the end of its quiet hours keeps nobody from wanting it now.
    let others = runs.values.filter {
      $0.report.database.isExactly(database.name) && !($0.isPostponed && options.due == nil)
    }
    .map(\.report)
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
    let slots = job.action == .backup ? surroundings.slots : surroundings.checkSlots
    runs[id] = Run(report: report, options: options, windDown: plan.windDown, slots: slots)
    // Here and not in the task: who was asked for first is first in the queue.
    let ticket = await slots.enter(database.name)
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

  private var pulses: UInt64 = 0

  /// Answers, which shows that the runner's queue gets on. As of the ledger's: it must change something.
  func pulse() -> UInt64 {
    pulses &+= 1
    return pulses
  }

  /// For tests of the watchdog.
  func wedge() { DispatchSemaphore(value: 0).wait() }

  /// Asks one run to stop, because somebody wants it.
  func cancel(_ id: String, by caller: Caller?) {
    runs[id]?.canceller = caller
    handle(id, .stop(.requested))
  }

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
    guard let slots = runs[id]?.slots else { return }
    do {
      try await takeTurn(id, ticket, database.name, job, slots)
    } catch {
      await end(id, .failed(Fault(error)), outcome: nil)
      return
    }
    runs[id]?.holdsSlot = true
    handle(id, .slotGranted, timeout: job.timeout, stallAfter: plan.backup.stallAfter)
    do {
      guard let run = runs[id] else { return }
      let outcome = try await RunWork(
        report: run.report, options: run.options, database: database, job: job, plan: plan, surroundings: surroundings,
        clock: run.stallClock
      ).run()
      await giveBackSlot(id, database.name)
      await end(id, outcome.fault.map { .failed($0) } ?? .succeeded, outcome: outcome)
    } catch {
      await giveBackSlot(id, database.name)
      await end(id, .failed(Fault(error)), outcome: nil)
    }
    await surroundings.afterRun()
  }

  /// Waits for the run's turn. A scheduled run whose turn comes in its job's quiet hours lets the others go on, and queues anew when
  /// those have ended.
  private func takeTurn(
    _ id: String, _ first: Int, _ database: String, _ job: DaemonPlan.Job, _ slots: DumpSlots
  ) async throws {
    var ticket = first
    while true {
      try await slots.wait(ticket)
      if let due = runs[id]?.options.due, await !surroundings.isWanted(name, database) {
        await slots.release(database)
        await surroundings.skip(name, due, "a reload took it out of the configuration before its turn", database)
        throw Fault(
          .runAborted, "The job or its database is not in the configuration any more.", hint: "pgbackupctl jobs")
      }
      let now = surroundings.now()
      guard runs[id]?.options.due != nil, let end = job.timing?.afterQuiet(now), end > now else { return }
      await slots.release(database)
      var record = LedgerRecord(.runPostponed, at: now)
      record.describe(runs[id]?.report)
      record.reason = "quiet hours until \(end.rfc3339)"
      await surroundings.append(record)
      surroundings.logger.notice(
        .runPostponed, "a queued run waits for the end of its quiet hours",
        metadata: ["job": "\(name)", "database": "\(database)", "run": "\(id)", "until": "\(end.rfc3339)"])
      let reason = runs[id]?.report.reason ?? ""
      runs[id]?.isPostponed = true
      runs[id]?.report.reason = "\(reason), after quiet hours at \(end.rfc3339)"
      if let report = runs[id]?.report { surroundings.board.post(report) }
      // By the wall clock, which may be moved meanwhile, and by the hours that are in force then.
      while surroundings.now() < end, let until = await surroundings.quietUntil(name), until > surroundings.now() {
        try await Task.sleep(for: .seconds(min(10, max(0.1, end.timeIntervalSince(surroundings.now())))))
      }
      runs[id]?.isPostponed = false
      // Another due instant may have taken it over meanwhile.
      let own = runs[id]?.options.reason ?? reason
      runs[id]?.report.reason = own
      ticket = await slots.enter(database)
    }
  }

  private func giveBackSlot(_ id: String, _ database: String) async {
    guard let run = runs[id], run.holdsSlot else { return }
    runs[id]?.holdsSlot = false
    await run.slots.release(database)
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

  private func end(_ id: String, _ event: RunStateMachine.Event, outcome: RunOutcome?) async {
    guard var run = runs.removeValue(forKey: id), case .conclude(let state, let fault) = run.machine.handle(event)
    else {
      return
    }
    run.report.state = state
    run.report.fault = fault
    run.report.finished = surroundings.now()
    run.report.progress = nil
    run.report.backup = outcome?.backup
    run.report.storedBytes = outcome?.storedBytes
    run.report.rows = outcome?.rows
    run.report.warnings = outcome?.warnings ?? []
    run.report.verified = outcome?.verified
    run.report.drill = outcome?.drill
    run.report.later = outcome.flatMap { $0.later.isEmpty ? nil : $0.later }
    run.report.anomalies = outcome.flatMap { $0.anomalies.isEmpty ? nil : $0.anomalies }
    run.report.retry = await surroundings.retry(run.report)
    log(run.report, outcome)

    var record = LedgerRecord(.runFinished, at: run.report.finished ?? surroundings.now())
    record.describe(run.report)
    record.detail = outcome?.detail
    if state == .aborted, let canceller = run.canceller {
      record.detail = (record.detail ?? [:]).merging(RunHistory.cancelled(by: canceller)) { $1 }
    }
    await surroundings.append(record)
    surroundings.board.post(run.report)
  }

  private func log(_ run: RunReport, _ outcome: RunOutcome?) {
    var fields: Logger.Metadata = ["job": "\(run.job)", "database": "\(run.database)", "run": "\(run.id)"]
    if let backup = run.backup { fields["backup"] = "\(backup)" }
    if let bytes = run.storedBytes { fields["stored"] = "\(ByteCount(bytes))" }
    if let started = run.started, let finished = run.finished {
      fields["took"] = "\(Duration.seconds(finished.timeIntervalSince(started)).spoken)"
    }
    if let retry = run.retry { fields["retry"] = "\(retry.rfc3339)" }
    if let fault = run.fault {
      surroundings.logger.error(run.state == .aborted ? .runAborted : .runFailed, fault, metadata: fields)
    } else if let outcome {
      surroundings.logger.notice(outcome.event, outcome.sentence, metadata: fields)
    }
    let doubts = (run.anomalies ?? []).filter(\.kind.isAlarming)
    if !doubts.isEmpty {
      fields["doubts"] = "\(doubts.prefix(6).map(\.text).joined(separator: "; "))"
      surroundings.logger.warning(.backupDoubtful, "the backup is not what its history lets expect", metadata: fields)
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
