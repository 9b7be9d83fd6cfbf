package import Foundation
import Units

/// How long backups of a type are kept.
package enum KeepRule: Sendable, Hashable {
  case forDuration(Duration)
  /// Until somebody deletes them.
  case untilDeleted
}

/// Why a backup stays or goes. A verdict without its reasons is not worth trusting.
package enum KeepReason: Sendable, Hashable {
  case pinned(by: String)
  /// Never deleted, whatever its age: without it the database would have no backup at all.
  case newestGood
  case younger(than: Duration, until: Date)
  case untilDeleted
  /// The configuration does not know its type (any more): no rule says that it may go.
  case unknownType(String)
  /// It claims to be from the future: a clock was wrong, and no age can be told.
  case fromTheFuture
}

extension KeepReason: CustomStringConvertible {
  package var description: String {
    switch self {
    case .pinned(let by): "pinned by \(by)"
    case .newestGood: "newest good backup of its database"
    case .younger(let age, let until): "younger than \(age.configurationText), until \(until.rfc3339)"
    case .untilDeleted: "kept until deleted"
    case .unknownType(let type): "its type '\(type)' is not in the configuration"
    case .fromTheFuture: "its time lies in the future"
    }
  }
}

/// What retention says of one backup.
package struct RetentionDecision: Sendable, Equatable {
  package let backup: Catalog.Backup
  /// Empty where it may go.
  package let reasons: [KeepReason]
  /// When it became too old, where it did.
  package let expired: Date?

  package var isKept: Bool { !reasons.isEmpty }
}

/// Retention: a pure function of rules, catalog and time.
package struct RetentionPolicy: Sendable, Equatable {
  /// By type.
  package var rules: [String: KeepRule]

  package init(rules: [String: KeepRule]) { self.rules = rules }

  /// One decision for each backup, in the catalog's order.
  package func decide(_ catalog: Catalog, at now: Date) -> [RetentionDecision] {
    let databases = Set(catalog.backups.map(\.id.database))
    // A backup "from the future" is no reason to give up the newest of those whose age is known.
    let newest = databases.compactMap { database in
      catalog.backups.last { $0.id.database == database && $0.isGood && $0.id.time <= now }
    }
    return catalog.backups.map { backup in
      decide(
        backup, isNewestGood: newest.contains { $0.id == backup.id && $0.manifest.type == backup.manifest.type }, now)
    }
  }

  private func decide(_ backup: Catalog.Backup, isNewestGood: Bool, _ now: Date) -> RetentionDecision {
    var reasons: [KeepReason] = []
    var expired: Date?
    if let pin = backup.pin { reasons.append(.pinned(by: pin.by)) }
    if isNewestGood { reasons.append(.newestGood) }
    let rule = backup.manifest.keepSeconds.map { KeepRule.forDuration(.seconds($0)) } ?? rules[backup.manifest.type]
    switch rule {
    case nil: reasons.append(.unknownType(backup.manifest.type))
    case .untilDeleted: reasons.append(.untilDeleted)
    case .forDuration(let age):
      let end = backup.id.time.addingTimeInterval(age.inSeconds)
      if backup.id.time > now {
        reasons.append(.fromTheFuture)
      } else if now < end {
        reasons.append(.younger(than: age, until: end))
      } else {
        expired = end
      }
    }
    return RetentionDecision(backup: backup, reasons: reasons, expired: expired)
  }
}
