import BackupCatalog
import Faults
import Foundation
import Quoting
import Storage
import Units

/// What the ledger knows better than the stores.
extension DaemonCore {
  /// What to say of a backup that is about to be used, where the ledger or a store knows of a newer one.
  ///
  /// - Parameter history: as it was before the catalog was read, so that nothing is missed that came meanwhile.
  func cautions(using backup: Catalog.Backup, in catalog: Catalog, before history: RunHistory) async -> [Fault] {
    let leaving = removing
    let now = await ledger.history
    let cutOff = Set(now.deleting.keys.map(\.backup))
    let onRecord = history.committed.compactMap { id, stores -> Catalog.Newer? in
      guard now.committed[id] != nil, !leaving.contains(id), !cutOff.contains(id) else { return nil }
      return Catalog.Newer(id: id, type: history.types[id], stores: stores)
    }
    return catalog.caution(using: backup, onRecord: onRecord).map { [$0] } ?? []
  }

  /// Stores that don't show the newest backup of a database, though it was stored there and nobody has deleted it,
  /// while another store shows it. A backup that no store shows is told as vanished.
  ///
  /// - Parameter committed: those that were made before the catalog was read.
  func stale(
    _ catalog: Catalog, _ committed: RunHistory.Committed, _ decisions: [RetentionDecision]
  ) async -> [Problem] {
    let leaving = removing
    let history = await ledger.history
    let readable = Set(plan.stores.map(\.name)).subtracting(catalog.unread)
    var problems: [Problem] = []
    for decision in decisions where decision.backup.isGood {
      let backup = decision.backup
      let id = backup.id
      guard let stores = committed[id], history.committed[id] != nil, !leaving.contains(id) else { continue }
      for store in stores.intersection(readable).sorted() {
        let isHere = { (one: Catalog.Backup) in one.placements.contains { $0.store == store } }
        // What is read there and can't be believed, or begins to go, is told as such.
        guard !isHere(backup), decision.expired[store] == nil, isWanted(backup, in: store),
          history.deleting[PlacementKey(backup: id, store: store)] == nil,
          !catalog.problems.contains(where: { $0.store == store && $0.folder == backup.manifest.layout.folder }),
          !catalog.backups.contains(where: { $0.id.database.isExactly(id.database) && $0.id > id && isHere($0) })
        else { continue }
        let last = catalog.backups.last { $0.id.database.isExactly(id.database) && isHere($0) }
        let fault = Fault(
          .storeStale, "Store '\(store)' does not show \(id), which was stored there and which nobody has deleted.",
          cause:
            "its newest is \(last.map { "\($0.id)" } ?? "none"): it lost what came later, or answers with an old state",
          hint: "look into that store; pgbackupctl reconcile --apply copies it there again")
        problems.append(Problem(fault, database: id.database, store: store, backup: id))
      }
    }
    return problems
  }

  /// Stores that show a backup again after somebody has deleted it there on demand. It is not copied to other stores.
  func returned(_ catalog: Catalog) async -> [Problem] {
    let leaving = removing
    let history = await ledger.history
    return catalog.backups.flatMap { backup in
      backup.placements.compactMap { placement -> Problem? in
        let key = PlacementKey(backup: backup.id, store: placement.store)
        guard let time = history.dismissed[key], history.deleting[key] == nil, !leaving.contains(backup.id) else {
          return nil
        }
        let fault = Fault(
          .storeStale,
          "Store '\(placement.store)' shows \(backup.id) again, which was deleted there on \(time.rfc3339).",
          cause: "it answers with an old state, or the files were put back; they are not copied to other stores",
          hint:
            "pgbackupctl delete \(shell: backup.id) deletes it again; to keep it: pgbackupctl pin \(shell: backup.id)")
        return Problem(fault, database: backup.id.database, store: placement.store, backup: backup.id)
      }
    }
  }

  /// Whether backups of that type still go into a store.
  private func isWanted(_ backup: Catalog.Backup, in store: String) -> Bool {
    plan.jobs.first { $0.name == backup.manifest.type }?.stores.contains(store) ?? true
  }
}
