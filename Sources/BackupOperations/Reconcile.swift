package import BackupCatalog
package import Faults
import Foundation
package import Storage

/// Makes the stores hold what they should: carries out a plan, step by step.
package struct Reconcile: Sendable {
  package struct Result: Sendable {
    package let step: ReconcilePlan.Step
    /// Nil where it is done.
    package let fault: Fault?
  }

  private let stores: [any ObjectStore]

  package init(stores: [any ObjectStore]) { self.stores = stores }

  /// Does every step; one that fails stops none of the others. Steps are idempotent, so the next reconcile repeats it.
  package func apply(_ plan: ReconcilePlan) async -> [Result] {
    var results: [Result] = []
    for step in plan.steps {
      if Task.isCancelled { break }
      let (folder, name) =
        switch step.action {
        case .delete(let manifest, let store): (manifest.layout.folder, store)
        case .sweep(let leftover): (leftover.folder, leftover.store)
        }
      guard let store = stores.first(where: { $0.name == name }) else { continue }
      do throws(StorageError) {
        if case .sweep = step.action, let manifest = ObjectKey("\(folder)/\(BackupLayout.manifestName)"),
          try await store.stat(manifest) != nil
        {
          // A run was still going on when the plan was made, and has committed it.
          continue
        }
        try await BackupRemoval.remove(folder: folder, from: store)
        results.append(Result(step: step, fault: nil))
      } catch {
        results.append(Result(step: step, fault: error.fault))
      }
    }
    return results
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
        hint: "pgbackupctl show \(backup.id)")
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
