package import Faults
import Quoting

/// The newest backup can be withheld: a store may answer with an old state, and every signature in it is right. What is
/// signed proves that a backup was made, and never that none was made since. So whoever knows better says so: another
/// store, or the ledger.
extension Catalog {
  /// A backup that was made after another one and can't be used in its place.
  package struct Newer: Sendable, Equatable {
    package let id: BackupID
    package let type: String?
    /// Where the ledger has it; empty for what the stores show themselves.
    package let stores: Set<String>

    package init(id: BackupID, type: String?, stores: Set<String>) {
      (self.id, self.type, self.stores) = (id, type, stores)
    }
  }

  /// What to say of a backup that is about to be used, where a newer one exists and can't be: nil where none does, or
  /// where an older one than the newest good was chosen anyway.
  ///
  /// - Parameter onRecord: backups that a ledger has as made, and not as deleted since.
  package func caution(using chosen: Backup, onRecord: [Newer] = []) -> Fault? {
    let good = backups.filter { backup in
      backup.id.database.isExactly(chosen.id.database) && backup.id > chosen.id && backup.isGood && !backup.isSafety
    }
    // Of its own type it may be the newest all the same.
    let type = good.isEmpty ? nil : chosen.manifest.type
    guard !good.contains(where: { $0.manifest.type == chosen.manifest.type }) else { return nil }
    func isMeant(_ id: BackupID, _ other: String?) -> Bool {
      id.database.isExactly(chosen.id.database) && id > chosen.id && (type == nil || other == type)
    }
    let shown = Set(backups.map(\.id))
    if let lost = onRecord.filter({ !shown.contains($0.id) && isMeant($0.id, $0.type) }).max(by: { $0.id < $1.id }) {
      let hidden = unread.intersection(lost.stores).sorted()
      return Fault(
        .backupNewer,
        "A newer backup than \(chosen.id) was made, and no store that can be read shows it: \(lost.id).",
        cause: hidden.isEmpty
          ? "by the ledger it lies in \(lost.stores.sorted().joined(separator: ", ")), and nobody has deleted it"
          : "it lies in \(hidden.joined(separator: ", ")), which can't be read now",
        hint: "pgbackupctl status, before you go on with the older one")
    }
    let unusable = backups.last { !$0.isGood && !$0.isSafety && isMeant($0.id, $0.manifest.type) }
    return unusable.map { newer in
      Fault(
        .backupNewer,
        "A newer backup than \(chosen.id) can't be used: \(newer.id) "
          + (newer.isTrusted ? "lacks files in every store." : "is signed by no trusted key."),
        hint: "pgbackupctl show \(shell: newer.id)")
    }
  }

  /// Stores that show backups of a database and a type, and not the newest, which another store has whole. Either they
  /// are behind, or they withhold it.
  package func storesBehind() -> [(store: String, newest: Backup, has: BackupID)] {
    var found: [(store: String, newest: Backup, has: BackupID)] = []
    let kinds = Dictionary(grouping: backups.filter(\.isGood)) {
      [ExactText($0.id.database), ExactText($0.manifest.type)]
    }
    for (_, backups) in kinds.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      guard let newest = backups.last else { continue }
      let stores = Set(backups.flatMap(\.placements).map(\.store)).subtracting(newest.placements.map(\.store))
      for store in stores.subtracting(unread).sorted() {
        guard let last = backups.last(where: { $0.placements.contains { $0.store == store } }) else { continue }
        found.append((store, newest, last.id))
      }
    }
    return found
  }
}

extension Catalog.Backup {
  /// Made by a restore in place, of what it was about to replace.
  fileprivate var isSafety: Bool { manifest.type == "pre-restore" }
}
