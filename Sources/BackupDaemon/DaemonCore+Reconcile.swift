import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import Quoting
import Storage
import SystemdSupport
import Units

/// Making the stores hold what they should. What is taken away is done under the lock that every change of the catalog takes; copies are
/// made beside it, one after the other for each store: they may take hours, and hold up nobody.
extension DaemonCore {
  /// What reconcile would do, or has done. Whoever asks for it by hand also confirms the clock.
  func reconcile(apply: Bool, by caller: Caller?) async throws(Fault) -> ReconcileReport {
    guard apply else {
      await lookAtLocks()
      let plan = await reconcilePlan(withUnfinished: true)
      var report = ReconcileReport(
        applied: false, steps: plan.steps.map { ReconcileReport.Step($0, fault: nil) }, kept: Self.kept(plan))
      report.unread = await unreadStores()
      return report
    }
    try refuseWhileStopping()
    if caller != nil { await confirmClock(by: caller) }
    await lookAtLocks()
    let (removed, plan) = try await exclusively { core throws(Fault) in await core.takeAway(by: caller) }
    let copied = await copyMissing(by: caller)
    var report = ReconcileReport(
      applied: true, steps: (removed + copied).map { ReconcileReport.Step($0.step, fault: $0.fault) },
      kept: Self.kept(plan))
    report.unread = await unreadStores()
    return report
  }

  /// Reconcile as the daemon does it by itself, after each run, at the start and every so often: what fails is logged and done by the
  /// next one. Returns when what is to go has gone; copies go on.
  func settleStores() async {
    reconciledAt = SystemClock.running()
    guard !isStopping else { return }
    if standingProblems["clock"] == nil {
      await lookAtLocks()
      do throws(Fault) {
        _ = try await exclusively { core throws(Fault) in await core.takeAway(by: nil) }
      } catch {
        logger.error(.storeUnusable, error)
      }
    }
    Task { _ = await self.copyMissing(by: nil) }
  }

  /// Called at each beat.
  func settleStoresWhenDue() async {
    await putBackWhatWasCut()
    guard SystemClock.running() - reconciledAt >= plan.reconcileEvery.inSeconds else { return }
    await settleStores()
    await lookForKept()
    await lookAtLedger()
  }

  private func reconcilePlan(withUnfinished: Bool = false) async -> ReconcilePlan {
    // Before the stores are read: what is seen half-written there may be whole and reported a moment later.
    let before = board.active
    let catalog = await keeper.refresh()
    let unknown = catalog.unread
    var unfinished: [Catalog.Unfinished] = []
    if withUnfinished {
      let known = plan.stores.filter { !unknown.contains($0.name) }
      let answer = await Reconcile(stores: known, policy: plan.retention, trusted: plan.trustedKeys).unfinished()
      unfinished = answer.uploads
      for (store, fault) in answer.faults where !mute.contains(store) {
        mute.insert(store)
        logger.warning(.storeUnusable, fault, metadata: ["store": "\(store)", "what": "its unfinished uploads"])
      }
      mute.formIntersection(answer.faults.keys)
    }
    let active = before + board.active
    let time = now()
    // What nobody has asked for yet in a store that locks is not known to be free.
    let locks = plan.stores.filter(\.locks).reduce(into: [:]) { $0[$1.name] = lockEnds[$1.name] ?? [:] }
    let made = ReconcilePlan(
      catalog, policy: plan.retention, stores: plan.stores.map(\.name), unknown: unknown, at: time,
      unfinished: unfinished, busy: active.map(\.database).exact,
      running: Dictionary(active.map { (ExactText($0.database), $0.started ?? time) }, uniquingKeysWith: min),
      others: others(catalog), locks: locks, dismissed: Set(await ledger.history.dismissed.keys.map(\.backup)))
    // What nobody wants any more is no trouble any more.
    let wanted = Set(made.steps.map(\.name))
    failedSteps = failedSteps.filter {
      wanted.contains($0.key) || !withUnfinished && $0.key.starts(withBytes: "abort ")
        || $0.key.starts(withBytes: Self.finishing)
    }
    return made
  }

  /// So many locks are asked for at a time: what is left is asked for by the next reconcile.
  private static let locksAtATime = 100

  /// Before anything is taken away: what is locked can't be.
  private func lookAtLocks() async {
    let locking = plan.stores.filter(\.locks)
    guard !locking.isEmpty else { return }
    // The plan that follows reads anew; of what has come since, no lock is known, and nothing expires.
    _ = await keeper.recent()
    for store in locking { await lookAtLocks(in: store) }
  }

  /// Learns until when backups are locked in a store that locks: once for each, since nothing but we changes it. What it costs is nobody's
  /// to wait for but this store's; one that does not answer, or does not let us ask, is told and asked again the next time.
  private func lookAtLocks(in store: any ObjectStore) async {
    let catalog = await keeper.catalog
    let reconcile = Reconcile(stores: [store], policy: plan.retention, trusted: plan.trustedKeys)
    let (known, time) = (lockEnds[store.name] ?? [:], now())
    let unknown = decisions(catalog, at: time).reversed().filter { decision in
      known[decision.backup.manifest.layout.folder] == nil
        && decision.backup.placements.contains { $0.store == store.name }
    }
    // Those that wait to expire first, then the newest.
    let layouts = (unknown.filter { $0.expired[store.name] != nil } + unknown.filter { $0.expired[store.name] == nil })
      .prefix(Self.locksAtATime).map(\.backup.manifest.layout)
    for layout in layouts {
      let answer = await withDeadline(plan.windDown) { () -> Result<Date?, StorageError> in
        do throws(StorageError) {
          return .success(try await reconcile.lockEnd(of: layout, in: store.name))
        } catch {
          return .failure(error)
        }
      }
      switch answer {
      case .success(let end):
        lockEnds[store.name, default: [:]][layout.folder] = end
        lockFaults[store.name] = nil
      case .failure(let error):
        lockFaults[store.name] = Self.unseen(error.fault, store)
        return
      case nil:
        lockFaults[store.name] = Self.unseen(CatalogKeeper.silence(of: store), store)
        return
      }
    }
  }

  private static func unseen(_ fault: Fault, _ store: any ObjectStore) -> Fault {
    Fault(
      fault.code,
      "Until when backups are locked in store '\(store.name)' can't be seen: none is locked longer, and none expires there.",
      cause: "\(fault.message)\n\(fault.cause ?? "")",
      hint: "grant s3:GetObjectRetention and s3:PutObjectRetention there; pgbackupctl reconcile asks again")
  }

  /// Why stores were not read when that was last tried.
  func unreadStores() async -> [Fault] {
    await keeper.catalog.unreadStores.map(\.fault)
  }

  /// Leftovers that one pass takes away of one store; the next pass takes more.
  private static let mostSweeps = 100

  private func takeAway(by caller: Caller?) async -> ([Reconcile.Result], ReconcilePlan) {
    // One plan of the daemon for all: a reload meanwhile must not lead to other stores.
    let reconcile = Reconcile(stores: plan.stores, policy: plan.retention, trusted: plan.trustedKeys)
    let plan = await reconcilePlan(withUnfinished: true)
    var results: [Reconcile.Result] = []
    await finishDeletions()
    let committed = await ledger.history.committed
    var silent: Set<String> = []
    var sweeps: [String: Int] = [:]
    for step in plan.removals {
      if case .sweep = step.action {
        // Who can write there could invent a million of them, and again when they are gone.
        guard sweeps[step.store, default: 0] < Self.mostSweeps, !isStopping else { continue }
        sweeps[step.store, default: 0] += 1
      }
      // What was a backup, and nobody has deleted, is no leftover: somebody took its manifest away.
      if case .sweep(let leftover) = step.action, let id = BackupLayout(folder: leftover.folder)?.id,
        committed[id] != nil
      {
        continue
      }
      if silent.contains(step.store) { continue }
      if case .delete(let manifest, let store) = step.action {
        removing.insert(manifest.id)
        await recordDeleting(manifest.layout, in: store, by: caller, reason: step.reason)
      }
      defer { removing.removeAll() }
      let answer = await withDeadline(self.plan.windDown) { () -> Reconcile.Result? in await reconcile.apply(step) }
      guard let answer else {
        // One that hangs keeps nobody from changing the others.
        silent.insert(step.store)
        if let store = self.plan.stores.first(where: { $0.name == step.store }) {
          let silence = CatalogKeeper.silence(of: store)
          failedSteps[step.name] = Fault(.storeFailed, silence.message, hint: silence.hint)
        }
        continue
      }
      guard let result = answer else { continue }
      results.append(result)
      if case .sweep = step.action, result.fault == nil, sweeps[step.store, default: 0] > 1 {
        failedSteps[step.name] = nil
      } else {
        await report(result, by: caller)
      }
    }
    for (store, count) in sweeps.sorted(by: { $0.key < $1.key }) where count > 1 {
      var record = LedgerRecord(.leftoversSwept, at: now())
      (record.store, record.by, record.reason) = (store, caller, "no manifest: these besides the one before")
      record.detail = ["folders": "\(count - 1)"]
      await append(record)
      logger.info(.leftoversSwept, "sweep done", metadata: ["store": "\(store)", "folders": "\(count)"])
    }
    if !results.isEmpty { _ = await keeper.refresh() }
    return (results, plan)
  }

  /// Told before the first file goes: whoever dies meanwhile leaves what is no backup any more, and was not lost.
  func recordDeleting(_ layout: BackupLayout, in store: String, by caller: Caller?, reason: String) async {
    var record = LedgerRecord(.backupDeleting, at: now())
    (record.backup, record.database, record.store) = (layout.id, layout.id.database, store)
    (record.by, record.reason, record.detail) = (caller, reason, ["folder": layout.folder])
    await append(record)
  }

  private static let finishing = "finish deleting "

  /// Takes away what is left of deletions that somebody died in, or that failed half-way. One whose manifest is still there had not begun.
  private func finishDeletions() async {
    failedSteps = failedSteps.filter { !$0.key.starts(withBytes: Self.finishing) }
    for (place, folder) in await ledger.history.deleting.sorted(by: { $0.value < $1.value }) {
      guard let store = plan.stores.first(where: { $0.name == place.store }),
        let manifest = ObjectKey("\(folder)/\(BackupLayout.manifestName)")
      else { continue }
      let answer = await withDeadline(plan.windDown) { () -> Result<Bool, StorageError> in
        do throws(StorageError) {
          if try await store.stat(manifest) != nil { return .success(false) }
          try await BackupRemoval.remove(folder: folder, from: store)
          return .success(true)
        } catch {
          return .failure(error)
        }
      }
      var record = LedgerRecord(.backupDeleted, at: now())
      (record.backup, record.database, record.store) = (place.backup, place.backup.database, place.store)
      switch answer {
      case .success(let isDone):
        record.reason = isDone ? "what a deletion that was cut off had left" : "a deletion was cut off before it began"
        record.result = isDone ? nil : LedgerRecord.deletionFailed
        await append(record)
      case .failure(let error):
        failedSteps["\(Self.finishing)\(folder) from \(place.store)"] = error.fault
        logger.error(.storeUnusable, error.fault, metadata: ["backup": "\(place.backup)", "store": "\(place.store)"])
      case nil: continue
      }
    }
  }

  // MARK: - Copies

  /// Makes every copy that is missing. One such walk at a time into each store, and no store waits for another; who comes meanwhile gets a
  /// walk of his own afterwards.
  private func copyMissing(by caller: Caller?) async -> [Reconcile.Result] {
    let walks = plan.stores.map { store in
      let earlier = copying[store.name]
      copyWalks += 1
      let task = Task { () -> [Reconcile.Result] in
        _ = await earlier?.value
        let results = await self.copyNow(to: store.name, by: caller)
        self.copyWalks -= 1
        return results
      }
      copying[store.name] = task
      return task
    }
    return await withTaskCancellationHandler {
      var results: [Reconcile.Result] = []
      for walk in walks { results += await walk.value }
      return results
    } onCancel: {
      for walk in walks { walk.cancel() }
    }
  }

  private func copyNow(to store: String, by caller: Caller?) async -> [Reconcile.Result] {
    var results: [Reconcile.Result] = []
    if let target = plan.stores.first(where: { $0.name == store }), target.locks { await lookAtLocks(in: target) }
    var walk = CopyWalk(into: store)
    while !isStopping, !Task.isCancelled {
      let reconcile = Reconcile(stores: plan.stores, policy: plan.retention, trusted: plan.trustedKeys)
      guard let step = walk.next(in: await reconcilePlan()) else { break }
      guard case .copy(let manifest, _, let target) = step.action else {
        // A proof, or a lock: some hundred bytes.
        guard let result = await reconcile.apply(step), !isStopping else { break }
        if case .lock(let manifest, let store, let end) = step.action, result.fault == nil {
          lockEnds[store, default: [:]][manifest.layout.folder] = end
        }
        results.append(result)
        await report(result, by: caller)
        continue
      }
      let copies = copies
      copies.begin(manifest.id, to: target, bytes: manifest.storedBytes)
      let result = await reconcile.apply(step) { done, _ in copies.progress(done, to: target) }
      copies.end(target)
      guard let result, !isStopping else { break }
      results.append(result)
      if result.fault == nil { await keeper.mend(manifest.layout.folder, in: target) }
      for (store, fault) in result.damaged {
        // The next plan brings it a good one, where there is one.
        await keeper.markDamaged(manifest.layout.folder, in: store)
        logger.error(.storeUnusable, fault, metadata: ["backup": "\(manifest.id)", "store": "\(store)"])
      }
      await report(result, by: caller)
    }
    return results
  }

  func stopCopying() async {
    let walks = Array(copying.values)
    for walk in walks { walk.cancel() }
    _ = await withDeadline(plan.windDown) { for walk in walks { _ = await walk.value } }
  }

  /// What reconcile still wants and could not do; a store that is away is told already.
  var reconcileProblems: [Fault] {
    lockFaults.sorted { $0.key < $1.key }.map(\.value)
      + failedSteps.sorted { $0.key < $1.key }.compactMap { step, fault in
        if [.storeUnreachable, .storeSilent, .runAborted].contains(fault.code) { return nil }
        return Fault(fault.code, "\(step): \(fault.message)", cause: fault.cause, hint: fault.hint)
      }
  }

  // MARK: - The clock

  /// Called at each beat. A clock that is set forward makes everything look old: then nothing expires by itself before somebody has
  /// looked.
  func watchClock() async {
    let before = clockGuard.doubt
    clockGuard.observe(wall: now().timeIntervalSince1970, running: SystemClock.running())
    switch (before, clockGuard.doubt) {
    case (nil, let ahead?): await beginDoubt("set forward by \(Duration.seconds(ahead).spoken)")
    case (_?, nil): await confirmClock(by: nil)
    case (_?, _?) where clockGuard.isOfStart && SystemClock.isKept: await confirmClock(by: nil)
    default: break
    }
  }

  func beginDoubt(_ how: String) async {
    var record = LedgerRecord(.clockAdvanced, at: now())
    record.reason = how
    await append(record)
    doubtClock(how)
  }

  /// The clock was set forward, or began so: told until it is set back, or somebody confirms it.
  func doubtClock(_ how: String) {
    let fault = Fault(
      .clockDoubtful, "The clock is \(how): no backup expires until that is confirmed.",
      hint: "timedatectl; if the time is right: pgbackupctl reconcile --apply")
    standingProblems["clock"] = fault
    logger.critical(.clockAdvanced, "\(fault.message)", metadata: ["next": "\(fault.hint ?? "")"])
  }

  private func confirmClock(by caller: Caller?) async {
    guard standingProblems.removeValue(forKey: "clock") != nil else { return }
    clockGuard.confirm()
    var record = LedgerRecord(.clockConfirmed, at: now())
    record.by = caller
    await append(record)
  }

  // MARK: - Telling

  private func report(_ result: Reconcile.Result, by caller: Caller?) async {
    failedSteps[result.step.name] = result.fault
    await append(LedgerRecord(result, by: caller, at: now()))
    let step = ReconcileReport.Step(result.step, fault: result.fault)
    let fields: Logger.Metadata = ["what": "\(step.what)", "store": "\(step.store)", "reason": "\(step.reason)"]
    if let fault = result.fault {
      logger.error(.storeUnusable, fault, metadata: fields)
      return
    }
    switch result.step.action {
    case .copy: logger.notice(.backupCopied, "a backup was copied", metadata: fields)
    case .copyProof, .writeText: logger.info(.backupCopied, "a file was copied", metadata: fields)
    case .lock: logger.info("a backup is locked longer", metadata: fields)
    case .delete: logger.info(.backupDeleted, "delete done", metadata: fields)
    case .sweep: logger.info(.leftoversSwept, "sweep done", metadata: fields)
    case .abort: logger.info(.leftoversSwept, "an unfinished upload was given up", metadata: fields)
    }
  }

  private static func kept(_ plan: ReconcilePlan) -> [ReconcileReport.Kept] {
    plan.kept.map {
      ReconcileReport.Kept(id: $0.backup.id, type: $0.backup.manifest.type, reasons: $0.reasons.map(\.description))
    }
  }
}

extension LedgerRecord {
  fileprivate init(_ result: Reconcile.Result, by caller: Caller?, at time: Date) {
    switch result.step.action {
    case .copy(let manifest, _, let target):
      self.init(.backupCopied, at: time)
      (backup, database, store) = (manifest.id, manifest.id.database, target)
      detail = ["from": result.source ?? ""]
    case .copyProof(let name, let manifest, _, let target):
      self.init(.proofCopied, at: time)
      (backup, database, store) = (manifest.id, manifest.id.database, target)
      detail = ["from": result.source ?? "", "file": name]
    case .writeText(let manifest, let name):
      self.init(.recoverWritten, at: time)
      (backup, database, store) = (manifest.id, manifest.id.database, name)
    case .lock(let manifest, let name, let end):
      self.init(.backupLocked, at: time)
      (backup, database, store) = (manifest.id, manifest.id.database, name)
      detail = ["until": end.rfc3339]
    case .delete(let manifest, let name):
      self.init(.backupDeleted, at: time)
      (backup, database, store) = (manifest.id, manifest.id.database, name)
    case .sweep(let leftover):
      self.init(.leftoversSwept, at: time)
      store = leftover.store
      detail = ["folder": leftover.folder]
    case .abort(let upload):
      self.init(.leftoversSwept, at: time)
      store = upload.store
      detail = ["unfinished": upload.key]
    }
    by = caller
    reason = result.step.reason
    fault = result.fault
    if kind == .backupDeleted, fault != nil { self.result = Self.deletionFailed }
  }
}

extension ReconcileReport.Step {
  fileprivate init(_ step: ReconcilePlan.Step, fault: Fault?) {
    switch step.action {
    case .copy(let manifest, let sources, let target):
      self.init(
        action: "copy", what: "\(manifest.id) (\(manifest.type)) from \(sources.first ?? "")", store: target,
        reason: step.reason, fault: fault)
    case .copyProof(let name, let manifest, let source, let target):
      self.init(
        action: "copy", what: "\(name) of \(manifest.id) (\(manifest.type)) from \(source)", store: target,
        reason: step.reason, fault: fault)
    case .writeText(let manifest, let store):
      self.init(
        action: "write", what: "\(BackupLayout.recoverName) of \(manifest.id) (\(manifest.type))", store: store,
        reason: step.reason, fault: fault)
    case .lock(let manifest, let store, let end):
      self.init(
        action: "lock", what: "\(manifest.id) (\(manifest.type)) until \(end.rfc3339)", store: store,
        reason: step.reason, fault: fault)
    case .delete(let manifest, let store):
      self.init(
        action: "delete", what: "\(manifest.id) (\(manifest.type))", store: store, reason: step.reason, fault: fault)
    case .sweep(let leftover):
      self.init(action: "sweep", what: leftover.folder, store: leftover.store, reason: step.reason, fault: fault)
    case .abort(let upload):
      self.init(
        action: "abort", what: "upload of \(upload.key)", store: upload.store, reason: step.reason, fault: fault)
    }
  }
}
