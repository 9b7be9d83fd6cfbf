import ArtifactFormat
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

/// What the control socket asks about backups, and does with them.
extension DaemonCore {
  func backups(of database: String?) async throws(Fault) -> [BackupSummary] {
    await summaries(of: database, try await readableCatalog())
  }

  /// The backups of all stores that can be read. Fails if none is known and a store was not read: nobody may take that
  /// for an empty store.
  private func readableCatalog(
    orSince choice: (@Sendable (Catalog) -> Date?)? = nil
  ) async throws(Fault) -> Catalog {
    let catalog = try await keeper.whole(orSince: choice)
    if catalog.backups.isEmpty, let unread = catalog.unreadStores.first { throw unread.fault }
    return catalog
  }

  /// What is known of them lately.
  func knownBackups(of database: String?) async -> [BackupSummary] {
    await summaries(of: database, await keeper.shown(within: .seconds(30)))
  }

  private func summaries(of database: String?, _ catalog: Catalog) async -> [BackupSummary] {
    let proofs = await proofs(catalog)
    return decisions(catalog, at: now()).filter { database.map($0.backup.id.database.isExactly) ?? true }
      .map { decision in
        var summary = BackupSummary(decision.backup, retention: decision.text)
        summary.note(proofs)
        return summary
      }
  }

  func backup(_ selector: String) async throws(Fault) -> BackupDetail {
    let (backup, catalog) = try await find(selector)
    let decision = decisions(catalog, at: now()).first { $0.backup == backup }
    let locations = backup.placements.compactMap { placement in
      plan.stores.first { $0.name == placement.store }
        .map { (placement.store, "\($0.location)/\(backup.manifest.layout.folder)") }
    }
    var detail = BackupDetail(
      backup: backup, retention: decision?.text ?? "", locations: Dictionary(uniqueKeysWithValues: locations))
    let proofs = await proofs(catalog)
    detail.proved = proofs[backup.id]
    detail.notCompared = await ledger.history.notCompared[backup.id]
    detail.failedProof = proofs.failed[backup.id]?.text
    if backup.manifest.flags?.isEmpty == false { detail.anomalies = try? await contents(of: backup).anomalies }
    return detail
  }

  /// A table's rows across all good backups of a database.
  func history(of table: String, in database: String) async throws(Fault) -> TableHistory {
    let backups = try await keeper.whole().backups.filter { $0.id.database.isExactly(database) && $0.isGood }
    guard !backups.isEmpty else {
      throw Fault(.backupMissing, "There is no good backup of '\(database)'.", hint: "pgbackupctl list")
    }
    var read: [(backup: Catalog.Backup, contents: Contents)] = []
    var unread: [TableHistory.Entry] = []
    var reason: Fault?
    for backup in backups {
      do throws(Fault) {
        read.append((backup, try await contents(of: backup)))
      } catch {
        // One that is damaged, or encrypted for others, must not hide what the others tell.
        reason = reason ?? error
        unread.append(
          .init(backup: backup.id, type: backup.manifest.type, rows: nil, bytes: nil, change: .unreadable))
      }
    }
    if let reason, read.isEmpty { throw reason }
    let meant = try read.flatMap(\.contents.tables).parts(
      named: table, or: "No backup of '\(database)' has a table \(table).",
      hint: "pgbackupctl contents \(shell: database)/latest")
    var history = TableHistory(table: meant.name, in: read)
    history.entries = (history.entries + unread).sorted { $0.backup < $1.backup }
    return history
  }

  /// A backup's archive, to be read.
  func source(_ selector: String, acceptUntrusted: Bool) async throws(Fault) -> ArchiveSource {
    let backup = try await find(selector, isEnough: true).0
    return try await ArchiveSource(
      backup.manifest, in: try plan.places(of: backup, acceptUntrusted: acceptUntrusted), identities: plan.identities)
  }

  /// Told here as well: whoever reads has only seen the connection break.
  func extractFailed(_ fault: Fault) { logger.error(.storeUnusable, fault, metadata: ["what": "extract"]) }

  func contents(_ selector: String) async throws(Fault) -> Contents {
    try await contents(of: try await find(selector, isEnough: true).0)
  }

  private func contents(of backup: Catalog.Backup) async throws(Fault) -> Contents {
    var reason: Fault?
    for placement in backup.placements where placement.isWhole {
      guard let store = plan.stores.first(where: { $0.name == placement.store }) else { continue }
      do throws(Fault) {
        return try await ContentsReader(store: store, identities: plan.identities).read(backup.manifest)
      } catch {
        reason = error
      }
    }
    throw reason
      ?? Fault(
        .objectMissing, "No store has the contents of \(backup.id).", hint: "pgbackupctl show \(shell: backup.id)")
  }

  func pin(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    try await exclusively(within: plan.windDown) { core throws(Fault) in try await core.pinNow(reference, by: caller) }
  }

  func unpin(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    try await exclusively(within: plan.windDown) { core throws(Fault) in try await core.unpinNow(reference, by: caller)
    }
  }

  /// Deletes a backup everywhere. A pinned one is refused; the last good one of its database needs `force`.
  func delete(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    try await exclusively(within: plan.windDown) { core throws(Fault) in try await core.deleteNow(reference, by: caller)
    }
  }

  /// Folders of a backup whose manifest is damaged: no selector finds them. A newer version's backup is not one of them.
  func damaged(_ id: String) async -> [DamagedBackup] {
    await keeper.refresh().problems.compactMap { problem in
      guard problem.fault.code == .manifestInvalid, let folder = problem.folder,
        let layout = BackupLayout(folder: folder), layout.id.description == id
      else {
        return nil
      }
      return DamagedBackup(id: layout.id, type: layout.type, store: problem.store, folder: folder, fault: problem.fault)
    }
  }

  /// Deletes what is left of a damaged backup, in every store where its manifest can't be read. Where another store has it whole,
  /// that copy stays.
  func deleteDamaged(_ id: String, by caller: Caller?) async throws(Fault) -> [DamagedBackup] {
    try await exclusively { core throws(Fault) in try await core.deleteDamagedNow(id, by: caller) }
  }

  private func deleteDamagedNow(_ id: String, by caller: Caller?) async throws(Fault) -> [DamagedBackup] {
    let found = await damaged(id)
    guard !found.isEmpty else {
      throw Fault(.backupMissing, "There is no damaged backup '\(id)'.", hint: "pgbackupctl status")
    }
    removing.formUnion(found.map(\.id))
    defer { removing.removeAll() }
    for damaged in found {
      guard let store = plan.stores.first(where: { $0.name == damaged.store }),
        let layout = BackupLayout(folder: damaged.folder)
      else { continue }
      await recordDeleting(layout, in: store.name, by: caller, reason: "on demand, damaged")
      do throws(StorageError) {
        try await BackupRemoval.remove(folder: damaged.folder, from: store)
      } catch {
        throw error.fault
      }
      var record = LedgerRecord(.backupDeleted, at: now())
      (record.backup, record.database, record.store) = (damaged.id, damaged.id.database, damaged.store)
      (record.by, record.reason, record.fault) = (caller, "on demand, damaged", damaged.fault)
      await append(record)
    }
    _ = await keeper.refresh()
    return found
  }

  private func pinNow(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    let (backup, _) = try await find(reference.id)
    let who = caller.map { "uid \($0.uid)" } ?? "pgbackupd"
    try await Pinning(stores: plan.stores).pin(backup, Pin(since: now().wholeSecond, by: who, note: reference.note))
    await record(.backupPinned, backup, by: caller, reason: reference.note)
    return try await self.backup(backup.id.description)
  }

  private func unpinNow(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    let (backup, catalog) = try await find(reference.id)
    try refuseUnread(catalog, "unpin", backup)
    try await Pinning(stores: plan.stores).unpin(backup)
    await record(.backupUnpinned, backup, by: caller, reason: nil)
    return try await self.backup(backup.id.description)
  }

  private func deleteNow(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    let (backup, catalog) = try await find(reference.id)
    let detail = try await self.backup(reference.id)
    if let pin = backup.pin {
      throw Fault(.backupPinned, "\(backup.id) is pinned by \(pin.by).", hint: "pgbackupctl unpin \(shell: backup.id)")
    }
    let others = catalog.backups.filter {
      $0.id.database.isExactly(backup.id.database) && $0.isGood && $0.id != backup.id
    }
    if let reader = board.active.first(where: { $0.job == Self.restoreJob && $0.backup == backup.id }) {
      throw Fault(
        .runConflict, "\(backup.id) is being restored by run \(reader.id).",
        hint: "pgbackupctl cancel \(shell: reader.id)")
    }
    if others.isEmpty, reference.force != true {
      throw Fault(
        .backupLast, "\(backup.id) is the only good backup of '\(backup.id.database)'.",
        hint: "pgbackupctl backup \(shell: backup.id.database), or delete it with --force")
    }
    try refuseUnread(catalog, "delete", backup)
    let stores = plan.stores.filter { store in backup.placements.contains { $0.store == store.name } }
    removing.insert(backup.id)
    defer { removing.removeAll() }
    // Those that may refuse it first: as long as nothing has gone, nothing is lost.
    for store in stores.filter({ !$0.canLink }) + stores.filter(\.canLink) {
      if Task.isCancelled { throw Fault(CancellationError()) }
      await recordDeleting(backup.manifest.layout, in: store.name, by: caller, reason: LedgerRecord.onDemand)
      do throws(StorageError) {
        try await BackupRemoval.remove(folder: backup.manifest.layout.folder, from: store)
      } catch {
        await record(
          .backupDeleted, backup, by: caller, reason: LedgerRecord.onDemand, store: store.name, failure: error.fault)
        throw Fault(
          error.fault.code,
          "\(backup.id) could not be deleted from store '\(store.name)', and stays in the stores behind it.",
          cause: error.reason,
          hint:
            "where it is locked (Object Lock) it goes when its retention ends; then: pgbackupctl delete \(shell: backup.id)"
        )
      }
      await record(.backupDeleted, backup, by: caller, reason: LedgerRecord.onDemand, store: store.name)
    }
    _ = await keeper.refresh()
    return detail
  }

  /// What is taken from some stores while another can't be asked comes back from there.
  private func refuseUnread(_ catalog: Catalog, _ command: String, _ backup: Catalog.Backup) throws(Fault) {
    guard let problem = catalog.unreadStores.first else { return }
    throw Fault(
      .storeUnreachable,
      "Store '\(problem.store)' can't be read, and may hold \(backup.id) too: it would come back from there.",
      cause: problem.fault.message,
      hint:
        "pgbackupctl status; when the store is there again, or taken out of the configuration: pgbackupctl \(command) \(shell: backup.id)"
    )
  }

  /// The backup that a selector names, and the catalog.
  ///
  /// - Parameter isEnough: the catalog may lack what is older than the backup, as long as a store is read for the first
  ///   time: whoever restores the newest need not wait for the rest.
  func find(_ selector: String, isEnough: Bool = false) async throws(Fault) -> (Catalog.Backup, Catalog) {
    var selector = try BackupSelector(parsing: selector)
    let choice = { @Sendable [selector] (catalog: Catalog) -> Date? in
      guard let found = try? catalog.select(selector, databases: []) else { return nil }
      // Nothing that a store may still show is a better one than the very backup that is named.
      if case .exact = selector.choice, found.isGood { return .distantFuture }
      return found.id.time
    }
    let catalog = try await readableCatalog(orSince: isEnough && selector.isOfNewest ? choice : nil)
    if case .latest("proved"?) = selector.choice {
      let proofs = await proofs(catalog)
      let name = selector.database ?? (plan.databases.count == 1 ? plan.databases[0].name : nil)
      guard let name,
        let newest = catalog.backups.last(where: { $0.id.database.isExactly(name) && $0.isGood && proofs[$0.id] != nil }
        )
      else {
        throw Fault(
          .backupMissing, "No backup\(name.map { " of '\($0)'" } ?? "") has been proved.",
          hint: "pgbackupctl drill \(shell: name ?? "DATABASE") proves the newest")
      }
      selector = try BackupSelector(parsing: newest.id.description)
    }
    return (try catalog.select(selector, databases: plan.databases.filter { $0.includes == nil }.map(\.name)), catalog)
  }

  /// When backups were last restored whole, with every fingerprint matching: by a drill or by a restore.
  func proofs(_ catalog: Catalog) async -> KnownProofs {
    let beside = catalog.backups.compactMap { backup in
      backup.proof.flatMap { $0.isWhole || $0.isOfRows ? (backup.id, $0.finished) : nil }
    }
    let failed = catalog.backups.compactMap { backup in
      backup.proof.flatMap { $0.isOfRows ? nil : RunHistory.FailedProof($0) }.map { (backup.id, $0) }
    }
    let incomplete = catalog.backups.compactMap { backup in
      backup.proof.flatMap { $0.isOfRows ? RunHistory.FailedProof($0) : nil }.map { (backup.id, $0) }
    }
    let history = await ledger.history
    return KnownProofs(
      Dictionary(beside, uniquingKeysWith: max).merging(history.proofs, uniquingKeysWith: max),
      failed: history.failedProofs.merging(failed) { $0.time < $1.time ? $1 : $0 },
      incomplete: history.incompleteProofs.merging(incomplete) { $0.time < $1.time ? $1 : $0 })
  }

  private func record(
    _ kind: LedgerRecord.Kind, _ backup: Catalog.Backup, by caller: Caller?, reason: String?, store: String? = nil,
    failure: Fault? = nil
  ) async {
    var record = LedgerRecord(kind, at: now())
    record.backup = backup.id
    record.database = backup.id.database
    record.by = caller
    record.reason = reason
    record.store = store
    record.fault = failure
    if failure != nil { record.result = LedgerRecord.deletionFailed }
    await append(record)
  }

  // MARK: - Retention

  /// What retention says of each backup.
  func decisions(_ catalog: Catalog, at time: Date) -> [RetentionDecision] {
    plan.retention.decide(catalog, others: others(catalog), at: time)
  }

  /// Backups that another daemon, whose key is trusted here, has made of a database that is none of this configuration: it writes into the
  /// same store, and its own configuration says what becomes of them. What this daemon's ledger has made is its own under whatever key.
  func others(_ catalog: Catalog) -> Set<BackupID> {
    guard let own = plan.backup.signingKey?.publicKey.description else { return [] }
    return Set(
      catalog.backups.filter { backup in
        let signers = Set(backup.placements.compactMap(\.signer))
        return !signers.isEmpty && !signers.contains(own) && !isConfigured(backup.id.database)
          && !madeHere.contains(backup.id)
      }.map(\.id))
  }
}

/// Which backups were proved, and which a drill found to be something else than what was backed up. The last word counts.
struct KnownProofs {
  private let proved: [BackupID: Date]
  let failed: [BackupID: RunHistory.FailedProof]

  /// Those whose rows were proved, and whose schema could not be made whole.
  let incomplete: [BackupID: RunHistory.FailedProof]

  init(
    _ proved: [BackupID: Date], failed: [BackupID: RunHistory.FailedProof],
    incomplete: [BackupID: RunHistory.FailedProof] = [:]
  ) {
    let standing = failed.filter { id, one in proved[id].map { $0 < one.time } ?? true }
    self.failed = standing
    self.proved = proved.filter { id, _ in standing[id] == nil }
    // A later proof of the whole takes it back.
    self.incomplete = incomplete.filter { id, one in standing[id] == nil && proved[id].map { $0 <= one.time } ?? true }
  }

  /// When it was proved; nil where it was not, or a later drill says otherwise.
  subscript(id: BackupID) -> Date? { proved[id] }
}

extension RunHistory.FailedProof {
  /// What lies beside a backup, by whatever host; nil where it says no such thing.
  fileprivate init?(_ proof: Proof) {
    guard let failure = proof.failure else { return nil }
    time = proof.finished
    fault = Fault(
      FaultCode(rawValue: failure) ?? .proofFailed,
      proof.isOfRows
        ? "A drill on \(proof.host) proved every row, and could not make \(proof.unmade ?? 1) objects: \(failure)."
        : "A drill on \(proof.host) did not prove it: \(failure).",
      hint: "pgbackupctl drill \(shell: proof.backup) tries again")
  }

  var basis: String { record.map { "ledger #\($0)" } ?? "by its signed record beside the backup" }

  var text: String { "FAILED \(time.rfc3339), \(basis): \(fault.message)" }
}

extension BackupSummary {
  mutating func note(_ proofs: KnownProofs) {
    proved = proofs[id]
    proofFailed = proofs.failed[id]?.time
    isIncomplete = proofs.incomplete[id] == nil ? nil : true
  }
}

extension RetentionDecision {
  /// The reasons in a few words.
  fileprivate var text: String {
    isKept ? reasons.map(\.description).joined(separator: "; ") : "expired since \(expired.values.max()?.rfc3339 ?? "")"
  }
}
