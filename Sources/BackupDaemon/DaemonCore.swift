import BackupCatalog
import BackupOperations
package import ControlAPI
package import CronSchedule
import Dispatch
package import Faults
package import Foundation
package import Logging
package import MetricsText
import Quoting
import Storage
package import SystemdSupport
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
  var scheduler: Scheduler
  /// What is wrong until somebody mends it: a refused reload, a damaged ledger.
  var standingProblems: [ExactText: Fault] = [:]
  var runners: [String: JobRunner] = [:]
  var isStopping = false
  /// Requests that were refused for want of a role.
  var refusals = RefusalBook()
  /// Who has asked restores to end.
  var cancellers: [String: Caller] = [:]
  /// gpg has a secret key here that opens the backups.
  var opensByGPG = false
  /// In running time.
  var keysLookedAt: TimeInterval = 0
  /// The copying into each store that was asked for last.
  var copying: [String: Task<[Reconcile.Result], Never>] = [:]
  let copies = CopyBoard()
  /// Walks through the missing copies that are going on, or wait for their turn.
  var copyWalks = 0
  /// What reconcile could not do the last time that it tried, by step.
  var failedSteps: [String: Fault] = [:]
  /// Of stores that lock: until when each backup is locked there, by its folder, as far as anybody has asked.
  var lockEnds: [String: [String: Date]] = [:]
  /// Backups that the ledger had on record as made here at the start, under whatever key. Those that came since bear the present one.
  var madeHere: Set<BackupID> = []
  /// Why that can't be asked, by store.
  var lockFaults: [String: Fault] = [:]
  /// Stores that can't tell of unfinished uploads, which was logged.
  var mute: Set<String> = []
  /// Restores that are going on, by their runs.
  var restores: [String: Task<Void, Never>] = [:]
  /// What restores have put aside, as it was found last.
  var keptDatabases: [StatusReport.Kept] = []
  /// What is not as safe as it could be about the connections to databases, as it was found last.
  var connectionWarnings: [Fault] = []
  /// In running time.
  var connectionsLookedAt: TimeInterval = 0
  /// Running time, in seconds.
  var reconciledAt: TimeInterval = 0
  var clockGuard: ClockGuard
  /// Scheduled jobs that the ledger knew nothing of at the start.
  var unknownJobs: Set<String> = []

  let slots: DumpSlots
  /// One check at a time, over all databases: they read much, and nobody waits for them.
  let checkSlots = DumpSlots(limit: 1)
  let status: StatusLine
  let liveness = Liveness()
  private var pulses: UInt64 = 0
  let notifier = ServiceNotifier()
  /// What the rooms below count.
  let registry: MetricsRegistry
  let courier: AlertCourier
  /// What is wrong, and who was told.
  var incidents = IncidentBook()
  /// A look at what is wrong is being taken; another one is wanted behind it.
  var isWatching = false
  var watchAgain = false
  /// What the journal was told of, by what it is about.
  var toldProblems: [ExactText: Problem] = [:]
  /// Running time, in seconds.
  var watchedAt: TimeInterval = 0
  /// What each store has said last, and when, in running time.
  var storeAnswers: [String: (free: Int64?, fault: Fault?, at: TimeInterval)] = [:]
  /// What stores were asked last in vain; set once the answer has come.
  var hangingQuestions: [String: Flag] = [:]
  /// Restores in place that an earlier process died in, and whose database may be gone.
  var cutInPlace: [LedgerRecord] = []
  var isPuttingBack = false
  /// Backups that are being deleted from a store, and that the ledger does not tell so of yet.
  var removing: Set<BackupID> = []
  /// The zone rules that a job's schedule has now; they change when the machine's zone files do.
  let zone: @Sendable (DaemonPlan.Job) -> ZoneRules?
  /// The rules of a zone by its name; nil where there are none.
  let namedZone: @Sendable (String) -> ZoneRules?
  let logTail: LogTail
  private let reload: @Sendable () throws(Fault) -> DaemonPlan
  private let changes = TaskChain()
  private let beginning = Flag()
  private var waitingForStart: [CheckedContinuation<Void, Never>] = []
  /// Records that could not be written, since when.
  var lost: (count: Int, since: Date)?
  let reloads = TaskChain()

  /// - Parameters:
  ///   - zone: the rules of a job's zone as its file says now; nil where it can't be read.
  ///   - registry: what swift-metrics was bootstrapped with.
  ///   - logTail: what the log was bootstrapped with.
  ///   - reload: reads the configuration anew, or throws why it can't be taken.
  package init(
    plan: DaemonPlan, ledger: Ledger, now: @escaping @Sendable () -> Date, logger: Logger,
    zone: @escaping @Sendable (DaemonPlan.Job) -> ZoneRules?, namedZone: @escaping @Sendable (String) -> ZoneRules?,
    registry: MetricsRegistry, logTail: LogTail, reload: @escaping @Sendable () throws(Fault) -> DaemonPlan
  ) {
    self.registry = registry
    self.logTail = logTail
    self.plan = plan
    self.ledger = ledger
    self.now = now
    self.logger = logger
    self.zone = zone
    self.namedZone = namedZone
    self.reload = reload
    started = now()
    clockGuard = ClockGuard(wall: started.timeIntervalSince1970, running: SystemClock.running())
    slots = DumpSlots(limit: plan.parallelRuns)
    keeper = CatalogKeeper(
      stores: plan.stores, trusted: plan.trustedKeys, cache: RecordCache(folder: plan.state + "/catalog"))
    status = StatusLine(notifier)
    courier = AlertCourier(folder: plan.state + "/alerts", now: now, logger: logger)
    // Replaced in `start`: the closures need `self`.
    scheduler = Scheduler(now: now, beat: .seconds(60), onDue: { _ in }, onBeat: {})
  }

  // MARK: - Life

  /// Closes what a crash left open, sweeps its files, and puts the schedules into force: what was missed meanwhile begins.
  package func start() async {
    if ledger.repairedBytes > 0 {
      var record = LedgerRecord(.ledgerRepaired, at: now())
      record.detail = ["torn_bytes": "\(ledger.repairedBytes)"]
      await append(record)
      logger.warning(
        .ledgerRepaired, "a torn last line of the ledger was cut off", metadata: ["bytes": "\(ledger.repairedBytes)"])
    }
    if let damage = ledger.damage {
      standingProblems["ledger"] = damage
      logger.error(.ledgerDamaged, damage)
    }
    let history = await ledger.history
    if history.isCorrected(at: now()), let newest = history.newest {
      await recordCorrection(by: newest.timeIntervalSince(now()))
      // Set right while nobody was looking.
      if history.clockDoubt != nil { await append(LedgerRecord(.clockConfirmed, at: now())) }
    }
    madeHere = Set(history.made.keys)
    let clockDoubt = await ledger.history.clockDoubt
    clockGuard = ClockGuard(
      wall: now().timeIntervalSince1970, running: SystemClock.running(),
      onRecord: history.newest?.timeIntervalSince1970,
      isDoubtful: clockDoubt != nil, isSynchronized: SystemClock.isKept)
    if let clockDoubt {
      doubtClock(clockDoubt)
    } else if let ahead = clockGuard.doubt {
      await beginDoubt(
        "later than all that is on record by \(Duration.seconds(ahead).spoken)")
    }
    var record = LedgerRecord(.daemonStarted, at: now())
    record.detail = ["version": Backup.version]
    record.databases = plan.databases.map(\.name)
    await append(record)
    // A store that hangs must not delay readiness; its sweep then comes when it answers.
    await withTaskGroup(of: Void.self) { group in
      for store in plan.stores { group.addTask { _ = await withDeadline(.seconds(5)) { await self.prepare(store) } } }
    }
    await concludeInterrupted()
    await showLastRuns()
    await keeper.accept(await ledger.history.accepted)
    for (placement, layout) in await ledger.history.damaged { await keeper.markDamaged(layout, in: placement.store) }
    scheduler = makeScheduler()
    await installSchedules(afterStart: true)
    await reportStatus()
    await beginWatching()
    beginning.set()
    for one in waitingForStart { one.resume() }
    waitingForStart = []
    notifier.ready()
    logger.notice(.daemonReady, "pgbackupd is ready", metadata: ["version": "\(Backup.version)"])
  }

  /// Brings the stores in order after a start: what expired while nobody looked, leftovers, and runs that only the catalog shows
  /// to be missing. Not part of `start`: a slow store must not delay readiness.
  package func settle() async {
    // On the side: a gpg that hangs holds up nobody.
    Task { await self.lookAtKeys() }
    Task { await self.lookAtConnections() }
    await sweepDrills()
    await catchUpFromCatalog()
    await settleStores()
    await putBackWhatWasCut()
    await lookForKept()
    await lookAtLedger()
    await watch()
  }

  /// Returns when the ledger has been read and the schedules are in force: who asks for something before would meet neither.
  func whenStarted() async {
    if beginning.isSet || isStopping { return }
    await withCheckedContinuation { waitingForStart.append($0) }
  }

  private func makeScheduler() -> Scheduler {
    // Three beats in a watchdog's interval: one that comes late does no harm.
    let beat = min(.seconds(60), notifier.watchdogInterval().map { $0 / 3 } ?? .seconds(60))
    liveness.add("daemon") { [weak self] answer in
      Task {
        _ = await self?.pulse()
        answer()
      }
    }
    let ledger = ledger
    liveness.add("ledger") { answer in
      Task {
        _ = await ledger.pulse()
        answer()
      }
    }
    let liveness = liveness
    let logger = logger
    let notifier = notifier
    // One batch after the other, in the order that they fell due: the ledger must not go back in time.
    let (stream, batches) = AsyncStream<Scheduler.Batch>.makeStream()
    Task { [weak self] in
      for await batch in stream { await self?.begin(batch) }
    }
    return Scheduler(
      now: now, beat: beat,
      onDue: { batches.yield($0) },
      onBeat: { [weak self] in
        let silent = liveness.beat()
        if silent.isEmpty {
          notifier.alive()
        } else {
          logger.critical(
            .watchdogWithheld, "parts of the daemon don't answer; systemd is not told that it lives",
            metadata: ["parts": "\(silent.joined(separator: ", "))"])
        }
        Task {
          await self?.watchClock()
          await self?.followZones()
          await self?.watchWhenDue()
          await self?.settleStoresWhenDue()
          await self?.lookAtKeysWhenDue()
          await self?.lookAtConnectionsWhenDue()
        }
      })
  }

  /// As of the ledger's: it must change something.
  private func pulse() -> UInt64 {
    pulses &+= 1
    return pulses
  }

  private func hang() { DispatchSemaphore(value: 0).wait() }

  /// A part of the daemon that the watchdog asks.
  package enum Part: String, CaseIterable, Sendable { case scheduler, daemon, ledger, job }

  /// For tests of the watchdog: one part stops for good.
  package func wedge(_ part: Part) async {
    switch part {
    case .scheduler: await scheduler.wedge()
    case .daemon: hang()
    case .ledger: await ledger.wedge()
    case .job: if let job = plan.jobs.first { await runner(job.name).wedge() }
    }
  }

  /// Stops every run and takes no more.
  package func stop() async {
    isStopping = true
    for one in waitingForStart { one.resume() }
    waitingForStart = []
    notifier.stopping()
    logger.notice(.daemonStopping, "pgbackupd is stopping", metadata: ["runs": "\(board.active.count)"])
    let winding = TimeoutExtension(notifier)
    await scheduler.stop()
    // All at once: a slot that one run gives up must not start the next one.
    for runner in runners.values { await runner.cancelAll() }
    await withTaskGroup(of: Void.self) { group in
      for runner in runners.values { group.addTask { await runner.waitForAll() } }
    }
    await stopRestores()
    await stopCopying()
    winding.end()
    await courier.stop()
    await append(LedgerRecord(.daemonStopped, at: now()))
    await ledger.endFollowing()
  }

  /// One change of the catalog after the other. Each decides on what it finds and then awaits the stores: two at once could
  /// delete a backup that was just pinned, or the last two good ones.
  ///
  /// - Parameter limit: after so long a change that hangs in a store is asked to end, and holds up the others no more.
  func exclusively<Value: Sendable>(
    within limit: Duration? = nil, _ change: @escaping @Sendable (DaemonCore) async throws(Fault) -> Value
  ) async throws(Fault) -> Value {
    try await changes.run { () async throws(Fault) -> Value in
      guard let limit else { return try await change(self) }
      let work = Task { () async -> Result<Value, Fault> in
        do throws(Fault) {
          return .success(try await change(self))
        } catch {
          return .failure(error)
        }
      }
      if let result = await withDeadline(limit, { await work.value }) { return try result.get() }
      work.cancel()
      throw Fault(
        .storeSilent, "A store does not answer: the change was not finished, and may be half done there.",
        hint: "pgbackupctl status; when the store answers again, do it once more")
    }
  }

  private func prepare(_ store: any ObjectStore) async {
    do throws(StorageError) {
      try await store.check()
      let swept = try await store.sweepUnfinished()
      guard swept > 0 else { return }
      logger.notice(
        .leftoversSwept, "uploads that a dead process left were swept",
        metadata: ["store": "\(store.name)", "files": "\(swept)"])
      var record = LedgerRecord(.leftoversSwept, at: now())
      record.store = store.name
      record.reason = "unfinished uploads of a dead process"
      record.detail = ["files": "\(swept)"]
      await append(record)
    } catch {
      logger.error(.storeUnusable, error.fault, metadata: ["store": "\(store.name)"])
    }
  }

  // MARK: - Reload

  /// Reads the configuration anew: all of it comes into force, or nothing. Runs in flight end as they began.
  package func reload(by caller: Caller?) async throws(Fault) -> ReloadReport {
    try refuseWhileStopping()
    // One after the other: each swaps the plan and then awaits those who go by it.
    return try await reloads.run { () async throws(Fault) -> ReloadReport in try await self.reloadNow(by: caller) }
  }

  private func reloadNow(by caller: Caller?) async throws(Fault) -> ReloadReport {
    try refuseWhileStopping()
    notifier.reloading()
    defer { notifier.ready() }
    let new: DaemonPlan
    do throws(Fault) {
      new = try reload()
    } catch {
      standingProblems["configuration"] = Fault(
        error.code, "The configuration file was refused, and the old one is still in force. " + error.message,
        cause: error.cause, hint: error.hint)
      logger.error(.configurationRejected, standingProblems["configuration"] ?? error)
      var record = LedgerRecord(.configurationRejected, at: now())
      record.by = caller
      record.fault = error
      await append(record)
      await watch()
      throw error
    }
    standingProblems["configuration"] = nil
    let changes = plan.changes(to: new)
    let gpg = plan.backup.gpg
    plan = new
    // A store of the same name may be another one.
    (lockEnds, lockFaults) = ([:], [:])
    await keeper.use(new.stores, trusted: new.trustedKeys)
    await slots.setLimit(new.parallelRuns)
    await installSchedules(afterStart: false)
    if gpg != nil || new.backup.gpg != nil { Task { await self.lookAtKeys() } }
    Task { await self.lookAtConnections() }
    var record = LedgerRecord(.configurationReloaded, at: now())
    record.by = caller
    record.databases = new.databases.map(\.name)
    record.detail = Dictionary(uniqueKeysWithValues: changes.enumerated().map { ("change.\($0 + 1)", $1) })
    await append(record)
    logger.notice(
      .configurationReloaded, "the configuration was reloaded",
      metadata: ["changes": "\(changes.isEmpty ? "none" : changes.joined(separator: "; "))"])
    await courier.use(new.alerts)
    await tellReload(changes)
    await watch()
    await reportStatus()
    return ReloadReport(changes: changes)
  }

  func reportStatus() async {
    let next = await scheduler.next.map { "next: \($0.job) at \($0.start.rfc3339)" } ?? "nothing is scheduled"
    status.changed(board, next: next)
  }
}
