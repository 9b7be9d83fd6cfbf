package import ArtifactFormat
package import BackupCatalog
package import Faults
package import Foundation
package import Storage

/// Makes the stores hold what they should: carries out a plan, step by step.
package struct Reconcile: Sendable {
  package struct Result: Sendable {
    package let step: ReconcilePlan.Step
    /// Nil where it is done.
    package let fault: Fault?
    /// Of a copy: the store that it came from.
    package var source: String?
    /// Of a copy: stores that should have had the backup whole, and what is wrong there.
    package var damaged: [String: Fault] = [:]
  }

  private let stores: [any ObjectStore]
  private let policy: RetentionPolicy
  private let trusted: TrustedKeys

  /// - Parameter trusted: whose signatures a copied manifest must have; without any, none is checked.
  package init(stores: [any ObjectStore], policy: RetentionPolicy, trusted: TrustedKeys) {
    self.stores = stores
    self.policy = policy
    self.trusted = trusted
  }

  /// Does a step. Steps are idempotent: one that fails is repeated by the next reconcile. Nil where there was nothing to do any more.
  /// - Parameter progress: told of the bytes that are copied, out of how many.
  package func apply(
    _ step: ReconcilePlan.Step, progress: @escaping @Sendable (Int64, Int64) -> Void = { _, _ in }
  ) async -> Result? {
    switch step.action {
    case .copy(let manifest, let sources, let target):
      return await copy(manifest, from: sources, to: target, step, progress)
    case .copyProof(let name, let manifest, let source, let target):
      return await copyProof(name, manifest, from: source, to: target, step)
    case .writeText(let manifest, let target):
      return await writeText(manifest, to: target, step)
    case .lock(let manifest, let store, let end):
      return await lock(manifest, in: store, until: end, step)
    case .delete(let manifest, let store):
      return await remove(manifest.layout.folder, from: store, step)
    case .sweep(let leftover):
      return await remove(leftover.folder, from: leftover.store, step)
    case .abort(let upload):
      guard let store = stores.first(where: { $0.name == upload.store }) else { return nil }
      do throws(StorageError) {
        try await store.abort(
          UnfinishedUpload(
            key: upload.key, id: upload.upload, lastChanged: upload.lastChanged.timeIntervalSince1970))
        return Result(step: step, fault: nil)
      } catch {
        return Result(step: step, fault: error.fault)
      }
    }
  }

  /// Uploads into these stores that nobody here is at, and the stores that can't tell: much can be done in them all the same.
  package func unfinished() async -> (uploads: [Catalog.Unfinished], faults: [String: Fault]) {
    var found: [Catalog.Unfinished] = []
    var faults: [String: Fault] = [:]
    for store in stores {
      do throws(StorageError) {
        found += try await store.unfinished().map { upload in
          Catalog.Unfinished(
            store: store.name, key: upload.key, upload: upload.id,
            lastChanged: Date(timeIntervalSince1970: upload.lastChanged))
        }
      } catch {
        faults[store.name] = error.fault
      }
    }
    return (found, faults)
  }

  private func remove(_ folder: String, from name: String, _ step: ReconcilePlan.Step) async -> Result? {
    guard let store = stores.first(where: { $0.name == name }) else { return nil }
    do throws(StorageError) {
      if case .sweep = step.action, let manifest = ObjectKey("\(folder)/\(BackupLayout.manifestName)"),
        try await store.stat(manifest) != nil
      {
        // A run was still going on when the plan was made, and has committed it.
        return nil
      }
      try await BackupRemoval.remove(folder: folder, from: store)
      return Result(step: step, fault: nil)
    } catch {
      return Result(step: step, fault: error.fault)
    }
  }

  /// Each of its files, those that came later too. Whoever is interrupted leaves some locked longer, and the next one goes on: the
  /// manifest, which tells how far it came, is the last.
  private func lock(_ manifest: Manifest, in name: String, until end: Date, _ step: ReconcilePlan.Step) async -> Result?
  {
    guard let store = stores.first(where: { $0.name == name }) else { return nil }
    do throws(StorageError) {
      let keys = try await store.list(prefix: manifest.layout.folder + "/").map(\.key).filter {
        $0.name != BackupLayout.pinName
      }
      let isManifest = { (key: ObjectKey) in key.name == BackupLayout.manifestName }
      for key in keys.filter({ !isManifest($0) }) + keys.filter(isManifest) {
        try await store.lengthenLock(of: key, until: end.timeIntervalSince1970)
      }
      return Result(step: step, fault: nil)
    } catch {
      return Result(step: step, fault: error.fault)
    }
  }

  /// Until when a backup is locked in a store, as its manifest is; `distantPast` where it is not.
  package func lockEnd(of layout: BackupLayout, in name: String) async throws(StorageError) -> Date? {
    guard let store = stores.first(where: { $0.name == name }), store.locks,
      let key = ObjectKey(layout.path(BackupLayout.manifestName))
    else { return nil }
    return try await store.lockEnd(of: key).map { Date(timeIntervalSince1970: $0) } ?? .distantPast
  }

  private func copyProof(
    _ name: String, _ manifest: Manifest, from source: String, to target: String, _ step: ReconcilePlan.Step
  ) async -> Result? {
    guard let from = stores.first(where: { $0.name == source }), let to = stores.first(where: { $0.name == target })
    else { return nil }
    do {
      try await ProofRecord.copy(name, of: manifest, from: from, to: to, policy: policy, trusted: trusted)
      return Result(step: step, fault: nil, source: source)
    } catch {
      return Result(step: step, fault: (error as? StorageError)?.fault ?? Fault(error), source: source)
    }
  }

  /// As it was written first, which its digest tells.
  private func writeText(_ manifest: Manifest, to name: String, _ step: ReconcilePlan.Step) async -> Result? {
    guard let target = stores.first(where: { $0.name == name }), let file = manifest.recover,
      let bytes = RecoverText.committed(by: manifest)
    else { return nil }
    let end = RetentionTerm(policy, manifest.layout, keepSeconds: manifest.keepSeconds).end(in: name)
    do {
      let key = try Backup.key(manifest.layout, file.name)
      if try await target.stat(key) != nil { try await target.makeRoom(key) }
      try await target.put(key, bytes, retainUntil: end)
      return Result(step: step, fault: nil)
    } catch {
      return Result(step: step, fault: (error as? StorageError)?.fault ?? Fault(error))
    }
  }

  /// From the first store whose copy turns out to be what it should.
  private func copy(
    _ manifest: Manifest, from sources: [String], to name: String, _ step: ReconcilePlan.Step,
    _ progress: @escaping @Sendable (Int64, Int64) -> Void
  ) async -> Result? {
    guard let target = stores.first(where: { $0.name == name }) else { return nil }
    var result = Result(step: step, fault: Fault(.internal, "\(manifest.id) has no store to be copied from."))
    var damaged: [String: Fault] = [:]
    for source in sources.compactMap({ name in stores.first { $0.name == name } }) {
      do {
        let total = manifest.storedBytes
        try await BackupCopy(manifest, from: source, to: target, policy: policy, trusted: trusted) {
          progress($0, total)
        }.run()
        result = Result(step: step, fault: nil, source: source.name)
        break
      } catch {
        let fault = (error as? StorageError)?.fault ?? Fault(error)
        result = Result(step: step, fault: fault, source: source.name)
        // Another source is no help where the target is the trouble; nor is this one damaged then.
        if (error as? StorageError)?.store == target.name || Task.isCancelled { break }
        if [.artifactDamaged, .objectMissing].contains(fault.code) { damaged[source.name] = fault }
      }
    }
    result.damaged = damaged
    return result
  }
}

/// Sets and lifts the hold on a backup, in every store that has it.
package struct Pinning: Sendable {
  private let stores: [any ObjectStore]

  package init(stores: [any ObjectStore]) { self.stores = stores }

  package func pin(_ backup: Catalog.Backup, _ pin: Pin) async throws(Fault) {
    guard backup.pin == nil else {
      throw Fault(
        .runConflict, "\(backup.id) is pinned already, by \(backup.pin?.by ?? "").",
        hint: "pgbackupctl show \(shell: backup.id)")
    }
    for (store, key) in try places(of: backup) {
      do {
        try await store.put(key, try pin.encoded())
      } catch let error as StorageError {
        throw error.fault
      } catch {
        throw Fault(error)
      }
    }
  }

  package func unpin(_ backup: Catalog.Backup) async throws(Fault) {
    for (store, key) in try places(of: backup) {
      do throws(StorageError) {
        try await store.delete(key)
      } catch {
        throw error.fault
      }
    }
  }

  private func places(of backup: Catalog.Backup) throws(Fault) -> [(any ObjectStore, ObjectKey)] {
    let key = try Backup.key(backup.manifest.layout, BackupLayout.pinName)
    return backup.placements.compactMap { placement in
      stores.first { $0.name == placement.store }.map { ($0, key) }
    }
  }
}
