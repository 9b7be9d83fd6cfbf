package import Faults
package import Foundation
import Quoting

/// The backups of all stores, merged. It is always rebuilt from the stores: no state is needed to recover.
package struct Catalog: Sendable {
  package enum Signature: String, Codable, Sendable {
    case valid
    /// Not signed, where every manifest has to be.
    case missing
    /// No key is known here to check it with.
    case unchecked
    /// Signed by nobody who is trusted, or changed since: forged, for all that is known.
    case invalid
  }

  /// One copy of a backup in one store.
  package struct Placement: Codable, Sendable, Equatable {
    package let store: String
    /// Files that the manifest names and that are missing there, or have another size.
    package let missing: [String]
    /// Whether the manifest there is signed by a key that is trusted here.
    package let signature: Signature
    /// The trusted key that has signed it, as the configuration takes keys.
    package let signer: String?
    /// The trusted key that has signed it and may not sign for its database; the signature is then `invalid`.
    package var outsider: String?
    /// The file of the newest proof there that somebody who is trusted has signed.
    package var proof: String?
    /// RECOVER.txt is missing there. It tells people the way back, and no command needs it: the backup is whole without.
    package var lacksText = false

    package init(store: String, missing: [String], signature: Signature = .unchecked, signer: String? = nil) {
      self.store = store
      self.missing = missing
      self.signature = signature
      self.signer = signer
    }

    /// The same, with another manifest than it should have.
    fileprivate var withoutManifest: Placement {
      Placement(
        store: store, missing: missing + [BackupLayout.manifestName], signature: signature, signer: signer)
    }

    /// Somebody who is trusted has signed the manifest. Where nobody is, nothing can be asked.
    package var isTrusted: Bool { signature == .valid || signature == .unchecked }

    /// All files are there, and the manifest is signed by somebody who is trusted.
    package var isWhole: Bool { missing.isEmpty && isTrusted }
  }

  package struct Backup: Codable, Sendable, Equatable {
    package let manifest: Manifest
    package var placements: [Placement]
    package var pin: Pin?
    /// The last proof that lies beside it, signed by somebody who is trusted.
    package var proof: Proof?
    /// Somebody has said that what it was flagged for is right.
    package var isAccepted = false

    /// Its data is in doubt.
    package var isFlagged: Bool { !isAccepted && manifest.flags?.isEmpty == false }

    /// Nothing else is in doubt than what it should be like, which nobody knew where it was made.
    package var isOnlyUncompared: Bool { manifest.flags == [Anomaly.Kind.notCompared.rawValue] }

    /// Said to whoever is about to use it: what is in doubt, and which one before it is not.
    package func doubt(among catalog: Catalog) -> Fault? {
      guard isFlagged else { return nil }
      let flags = manifest.flags?.joined(separator: ", ") ?? ""
      let before = catalog.backups.last {
        $0.id.database.isExactly(id.database) && $0.id < id && $0.isGood && !$0.isFlagged
      }
      return Fault(
        .backupDoubtful,
        isOnlyUncompared
          ? "\(id) is in doubt: it was compared with nothing that is known to be right."
          : "\(id) is in doubt: compared with those before it, rows or tables are missing.", cause: flags,
        hint: before.map { "the newest one before it that is in no doubt: \($0.id)" }
          ?? "pgbackupctl show \(shell: id) tells what is missing")
    }

    package init(manifest: Manifest, placements: [Placement], pin: Pin?) {
      self.manifest = manifest
      self.placements = placements
      self.pin = pin
    }

    package var id: BackupID { manifest.id }
    /// At least one store has all of it.
    package var isGood: Bool { wholeCopies > 0 }
    /// In some store, somebody who is trusted has signed it.
    package var isTrusted: Bool { placements.contains(where: \.isTrusted) }
    /// How far its manifest can be believed.
    fileprivate var trust: Int {
      placements.map { placement in
        switch placement.signature {
        case .valid: 3
        case .unchecked: 2
        case .missing: 1
        case .invalid: 0
        }
      }.max() ?? 0
    }

    /// The stores that have all of it.
    package var wholeCopies: Int { placements.count(where: \.isWhole) }
  }

  /// An upload into a store that somebody has begun and not finished.
  package struct Unfinished: Sendable, Equatable {
    package let store: String
    package let key: String
    package let upload: String
    package let lastChanged: Date

    package init(store: String, key: String, upload: String, lastChanged: Date) {
      self.store = store
      self.key = key
      self.upload = upload
      self.lastChanged = lastChanged
    }
  }

  /// Files in a backup's folder without a manifest: a run that was cut off, or one that is still going on.
  package struct Leftover: Sendable, Equatable {
    package let store: String
    package let folder: String
    package let files: [String]
    package let lastChanged: Date

    package init(store: String, folder: String, files: [String], lastChanged: Date) {
      self.store = store
      self.folder = folder
      self.files = files
      self.lastChanged = lastChanged
    }
  }

  /// A store or a backup that can't be read, and why.
  package struct Problem: Codable, Sendable, Equatable {
    package let store: String
    /// Nil where it is the store itself.
    package let folder: String?
    package let fault: Fault

    package init(store: String, folder: String?, fault: Fault) {
      self.store = store
      self.folder = folder
      self.fault = fault
    }
  }

  /// The oldest first.
  package private(set) var backups: [Backup] = []
  package private(set) var leftovers: [Leftover] = []
  package private(set) var problems: [Problem] = []

  package init() {}

  package mutating func add(_ backup: Backup) {
    let first = position(of: backup.id)
    if let position = backups[first...].prefix(while: { $0.id == backup.id }).firstIndex(where: {
      $0.manifest.type == backup.manifest.type
    }) {
      let known = backups[position]
      // The manifest that is believed most is the backup's; a copy that tells another story is none.
      let manifest = backup.trust > known.trust ? backup.manifest : known.manifest
      let placements = [known, backup].flatMap { part in
        part.manifest == manifest ? part.placements : part.placements.map(\.withoutManifest)
      }
      backups[position] = Backup(manifest: manifest, placements: placements, pin: known.pin ?? backup.pin)
      backups[position].proof = [known.proof, backup.proof].compactMap { $0 }.max { $0.finished < $1.finished }
    } else {
      let others = backups[first...].prefix { $0.id == backup.id }
      backups.insert(backup, at: others.endIndex)
    }
  }

  /// Where backups with this name begin, or would.
  private func position(of id: BackupID) -> Int {
    var (low, high) = (0, backups.count)
    while low < high {
      let middle = (low + high) / 2
      if backups[middle].id < id { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Takes in what another reading has found.
  package mutating func add(_ other: Catalog) {
    for backup in other.backups { add(backup) }
    leftovers += other.leftovers
    problems += other.problems
  }

  /// The catalog with these folders' placements in a store told to be damaged.
  package func marking(_ folders: Set<String>, in store: String) -> Catalog {
    guard !folders.isEmpty else { return self }
    var marked = self
    for position in marked.backups.indices
    where folders.contains(marked.backups[position].manifest.layout.folder) {
      let file = marked.backups[position].manifest.artifact.file.name
      marked.backups[position].placements = marked.backups[position].placements.map { placement in
        placement.store == store && placement.missing.isEmpty
          ? Placement(store: store, missing: [file], signature: placement.signature, signer: placement.signer)
          : placement
      }
    }
    return marked
  }

  /// The catalog with these backups' flags taken for explained.
  package func accepting(_ backups: Set<BackupID>) -> Catalog {
    var copy = self
    for position in copy.backups.indices where backups.contains(copy.backups[position].id) {
      copy.backups[position].isAccepted = true
    }
    return copy
  }

  /// The catalog with only some of its backups.
  package func keeping(_ isWanted: (Backup) -> Bool) -> Catalog {
    var copy = self
    copy.backups = backups.filter(isWanted)
    return copy
  }

  package mutating func add(_ leftover: Leftover) { leftovers.append(leftover) }
  package mutating func add(_ problem: Problem) { problems.append(problem) }

  /// The stores that could not be read: nothing is decided about them, as what is known of them is old, or nothing.
  package var unread: Set<String> { Set(unreadStores.map(\.store)) }

  /// The same, each with why.
  package var unreadStores: [Problem] { problems.filter { $0.folder == nil } }

  package func newestGood(of database: String, type: String? = nil) -> Backup? {
    backups.last { $0.id.database.isExactly(database) && $0.isGood && (type == nil || $0.manifest.type == type) }
  }
}
