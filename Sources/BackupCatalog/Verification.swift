package import Faults
package import Foundation
import Quoting

/// How deep a stored backup is looked into.
package enum VerifyLevel: String, Codable, Sendable, CaseIterable {
  /// Every stored byte is read: sums and signature are those of the manifest. Needs no key.
  case checksum
  /// Besides, all of it is decrypted, decompressed and parsed: every table's rows and fingerprint are those of the contents.
  case archive
}

/// What reading one placement back has found.
package struct Verification: Codable, Sendable, Equatable {
  package var backup: BackupID
  package var type: String
  package var store: String
  /// How far it was really looked into.
  package var level: VerifyLevel
  /// Why it was not looked into as far as wanted; nil where it was.
  package var note: String?
  package var finished: Date
  package var seconds: Double
  package var storedBytes: Int64 = 0
  /// Plain bytes that were parsed; 0 at the level of sums.
  package var archiveBytes: Int64 = 0
  /// Rows that were compared.
  package var rows: Int64 = 0
  /// What is wrong with it, or why it could not be looked into.
  package var fault: Fault?

  package init(backup: BackupID, type: String, store: String, level: VerifyLevel, finished: Date, seconds: Double) {
    self.backup = backup
    self.type = type
    self.store = store
    self.level = level
    self.finished = finished
    self.seconds = seconds
  }

  /// The placement itself is bad, and not only the way to it.
  package var isDamaged: Bool { fault.map { Self.damage.contains($0.code) } ?? false }

  /// Codes that speak of the stored bytes.
  package static let damage: Set<FaultCode> = [
    .artifactDamaged, .signatureInvalid, .manifestInvalid, .objectMissing, .archiveMalformed,
  ]
}

/// One backup in one store, by name.
package struct PlacementKey: Hashable, Sendable {
  package let backup: BackupID
  package let store: String

  package init(backup: BackupID, store: String) {
    self.backup = backup
    self.store = store
  }
}

/// How much a verify run looks at.
package struct VerifyBudget: Hashable, Sendable {
  package enum Newest: String, Sendable, CaseIterable {
    /// Every placement of each database's newest backup, each time.
    case all
    /// One of them.
    case one
    /// None before its turn.
    case off
  }

  package var newest: Newest
  /// Of all other placements, in each run; in percent.
  package var restPercent: Int

  package init(newest: Newest = .all, restPercent: Int = 10) {
    self.newest = newest
    self.restPercent = restPercent
  }

  /// Everything at once.
  package static let everything = VerifyBudget(newest: .all, restPercent: 100)

  /// In how many runs at most a placement that was read has its turn again; nil where it never has. (Half of each run's share is for
  /// those that nobody has read yet.)
  package var runsForAll: Int? { restPercent > 0 ? restPercent < 100 ? (200 + restPercent - 1) / restPercent : 1 : nil }
}

/// Which placements a verify run reads, in order: a pure function of catalog, history and budget.
package struct VerifyPlan: Sendable {
  package struct Item: Sendable, Equatable {
    package let manifest: Manifest
    package let store: String
  }

  package let items: [Item]

  /// - Parameters:
  ///   - catalog: what there is. A placement that is known to be bad is read like any other: it may have been mended.
  ///   - last: when each placement was last verified; one that never was comes first.
  package init(
    _ catalog: Catalog, of database: String, stores: [String], last: [PlacementKey: Date], budget: VerifyBudget
  ) {
    let backups = catalog.backups.filter { $0.id.database.isExactly(database) }
    let newest = backups.last { $0.isGood }
    var first: [Item] = []
    var rest: [(item: Item, last: Date)] = []
    for backup in backups {
      for placement in backup.placements where stores.contains(placement.store) {
        let item = Item(manifest: backup.manifest, store: placement.store)
        if backup == newest, budget.newest == .all || budget.newest == .one && first.isEmpty {
          first.append(item)
        } else {
          rest.append((item, last[PlacementKey(backup: backup.id, store: placement.store)] ?? .distantPast))
        }
      }
    }
    let count = (rest.count * budget.restPercent + 99) / 100
    // Of those that were never verified the newest first: it is the one that would be restored.
    let turn = rest.enumerated().sorted { ($0.element.last, -$0.offset) < ($1.element.last, -$1.offset) }.map(\.element)
    // Where backups come faster than they are read, old ones would never have another turn behind new ones: each have their half.
    let unread = turn.prefix { $0.last == .distantPast }
    let known = turn.dropFirst(unread.count).prefix(max((count + 1) / 2, count - unread.count))
    let new = unread.prefix(max(count == 0 ? 0 : 1, count - known.count))
    items = first + (known + new).map(\.item)
  }
}
