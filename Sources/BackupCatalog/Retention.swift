package import Foundation
import Quoting
import Units

/// How long backups of a type are kept.
package enum KeepRule: Sendable, Hashable {
  case forDuration(Duration)
  /// Until somebody deletes them.
  case untilDeleted
}

extension Collection where Element == KeepRule {
  /// The one that keeps longest.
  package var longest: KeepRule? {
    contains(.untilDeleted)
      ? .untilDeleted
      : compactMap { if case .forDuration(let age) = $0 { age } else { nil } }.max().map(KeepRule.forDuration)
  }
}

/// Why a backup stays or goes. A verdict without its reasons is not worth trusting.
package enum KeepReason: Sendable, Hashable {
  case pinned(by: String)
  /// Never deleted, whatever its age: without it the database would have no backup at all.
  case newestGood
  /// Nor is this one: what came after it is in doubt.
  case newestUndoubted
  case younger(than: Duration, until: Date)
  /// The same, where a store has a rule of its own.
  case youngerIn(store: String, than: Duration, until: Date)
  case untilDeleted
  /// The configuration does not know its type (any more): no rule says that it may go.
  case unknownType(String)
  /// It claims to be from the future: a clock was wrong, and no age can be told.
  case fromTheFuture
  /// Nobody who is trusted here has signed it: whose it is, and how old, nobody can say.
  case untrusted
  /// Another daemon's, which writes into the same store: that one's configuration says how long it stays.
  case ofAnother
  /// No store has a good backup of its database: what is left of any may be all that there is.
  case noneIsGood
}

extension KeepReason: CustomStringConvertible {
  package var description: String {
    switch self {
    case .pinned(let by): "pinned by \(by)"
    case .newestGood: "newest good backup of its database"
    case .newestUndoubted: "newest without a warning"
    case .younger(let age, let until): "younger than \(age.configurationText), until \(until.rfc3339)"
    case .youngerIn(let store, let age, let until):
      "younger than \(age.configurationText) in '\(store)', until \(until.rfc3339)"
    case .untilDeleted: "kept until deleted"
    case .unknownType(let type): "its type '\(type)' is not in the configuration"
    case .fromTheFuture: "its time lies in the future"
    case .untrusted: "signed by nobody who is trusted here"
    case .ofAnother: "another daemon's"
    case .noneIsGood: "no good backup of its database is left"
    }
  }
}

/// Where backups of a type belong, and for how long.
package struct TypePolicy: Sendable, Hashable {
  /// Where a new one is wanted.
  package var stores: [String]
  package var keep: KeepRule
  /// Where a store has a rule of its own.
  package var keepByStore: [String: KeepRule]

  package init(stores: [String], keep: KeepRule, keepByStore: [String: KeepRule] = [:]) {
    self.stores = stores
    self.keep = keep
    self.keepByStore = keepByStore
  }
}

/// What retention says of one backup.
package struct RetentionDecision: Sendable, Equatable {
  package let backup: Catalog.Backup
  /// Empty where it may go, everywhere.
  package let reasons: [KeepReason]
  /// When it became too old, where it did: in the stores that have or want it.
  package let expired: [String: Date]
  /// Whether it stays wherever it is, whatever its age: pinned, or the newest, or not ours to judge.
  package let isHeld: Bool

  package var isKept: Bool { !reasons.isEmpty }
}

/// Retention: a pure function of rules, catalog and time.
package struct RetentionPolicy: Sendable, Equatable {
  /// By type.
  package var rules: [String: TypePolicy]
  /// In how many stores a backup must be to count as a good one.
  package var quorum: Int

  /// What is further ahead than this was dated by a wrong clock. (An id may be some seconds ahead, to be the only one of its name.)
  package static let clockTolerance: TimeInterval = 300

  package init(rules: [String: TypePolicy], quorum: Int = 1) {
    self.rules = rules
    self.quorum = quorum
  }

  /// One decision for each backup, in the catalog's order.
  /// - Parameter others: backups that another daemon has made, of databases that are none of this configuration.
  package func decide(_ catalog: Catalog, others: Set<BackupID> = [], at now: Date) -> [RetentionDecision] {
    let databases = Set(catalog.backups.map { ExactText($0.id.database) })
    // A backup "from the future" is no reason to give up the newest of those whose age is known; nor is one with too few copies
    // for the newest that has enough.
    func newest(_ isMeant: (Catalog.Backup) -> Bool) -> [Catalog.Backup] {
      databases.flatMap { database in
        [1, quorum].compactMap { copies in
          catalog.backups.last {
            $0.id.database.isExactly(database.text) && $0.wholeCopies >= copies && !Self.isAhead($0, of: now)
              && isMeant($0)
          }
        }
      }
    }
    let (good, undoubted) = (newest { _ in true }, newest { !$0.isFlagged })
    let withGood = Set(good.map { ExactText($0.id.database) })
    func isAmong(_ backups: [Catalog.Backup], _ backup: Catalog.Backup) -> Bool {
      backups.contains { $0.id == backup.id && $0.manifest.type == backup.manifest.type }
    }
    return catalog.backups.map { backup in
      var holds: [KeepReason] = []
      if let pin = backup.pin { holds.append(.pinned(by: pin.by)) }
      if isAmong(good, backup) {
        holds.append(.newestGood)
      } else if isAmong(undoubted, backup) {
        holds.append(.newestUndoubted)
      }
      if others.contains(backup.id) { holds.append(.ofAnother) }
      if !backup.isTrusted {
        holds.append(.untrusted)
      } else if !withGood.contains(ExactText(backup.id.database)) {
        holds.append(.noneIsGood)
      }
      return decide(backup, holds: holds, now)
    }
  }

  /// Whether a backup claims to be from the future.
  package static func isAhead(_ backup: Catalog.Backup, of now: Date) -> Bool {
    backup.id.time > now.addingTimeInterval(clockTolerance)
  }

  /// Until when a backup is kept in a store; nil where there is no such time.
  /// - Parameter keepSeconds: the backup's own, which overrides its type's.
  package func end(of layout: BackupLayout, keepSeconds: Int64?, in store: String) -> Date? {
    guard case .forDuration(let age)? = rule(layout.type, keepSeconds, in: store) else { return nil }
    return layout.id.time.addingTimeInterval(age.inSeconds)
  }

  private func rule(_ type: String, _ keepSeconds: Int64?, in store: String) -> KeepRule? {
    keepSeconds.map { .forDuration(.seconds($0)) } ?? rules[type]?.keepByStore[store] ?? rules[type]?.keep
  }

  private func decide(_ backup: Catalog.Backup, holds: [KeepReason], _ now: Date) -> RetentionDecision {
    var reasons = holds
    var expired: [String: Date] = [:]
    let own = rules[backup.manifest.type]?.keepByStore ?? [:]
    for store in Set(backup.placements.map(\.store) + (rules[backup.manifest.type]?.stores ?? [])).sorted() {
      let reason: KeepReason
      switch rule(backup.manifest.type, backup.manifest.keepSeconds, in: store) {
      case nil: reason = .unknownType(backup.manifest.type)
      case .untilDeleted: reason = .untilDeleted
      case .forDuration(let age):
        let end = backup.id.time.addingTimeInterval(age.inSeconds)
        if Self.isAhead(backup, of: now) {
          reason = .fromTheFuture
        } else if now < end {
          reason =
            own[store] == nil || backup.manifest.keepSeconds != nil
            ? .younger(than: age, until: end) : .youngerIn(store: store, than: age, until: end)
        } else {
          expired[store] = end
          continue
        }
      }
      if !reasons.contains(reason) { reasons.append(reason) }
    }
    return RetentionDecision(backup: backup, reasons: reasons, expired: expired, isHeld: !holds.isEmpty)
  }
}
