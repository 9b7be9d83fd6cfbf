package import Foundation
package import Quoting
import Units

/// What must be done so that every store holds what it should, with the reason of each step: a pure function of policy, catalog and
/// time.
package struct ReconcilePlan: Sendable {
  package enum Action: Sendable, Equatable {
    /// A backup is missing in a store, or not whole there; the stores that have it whole, the best first.
    case copy(Manifest, from: [String], to: String)
    /// A store that has a backup whole lacks its newest proof, or has one there that nobody who is trusted has signed.
    case copyProof(String, Manifest, from: String, to: String)
    /// A store lacks the text beside a backup that says the way back.
    case writeText(Manifest, store: String)
    /// A backup's lock ends before its retention does: that was made longer since, or the store did not lock then.
    case lock(Manifest, store: String, until: Date)
    /// A backup that expired leaves a store.
    case delete(Manifest, store: String)
    /// What a cut-off run left behind leaves a store.
    case sweep(Catalog.Leftover)
    /// An upload that nobody goes on with is given up: its parts can't be seen, and cost.
    case abort(Catalog.Unfinished)
  }

  package struct Step: Sendable, Equatable {
    package let action: Action
    package let reason: String

    /// The store that it changes.
    package var store: String {
      switch action {
      case .copy(_, _, let target), .copyProof(_, _, _, let target): target
      case .delete(_, let store), .lock(_, let store, _), .writeText(_, let store): store
      case .sweep(let leftover): leftover.store
      case .abort(let upload): upload.store
      }
    }

    fileprivate var isCopy: Bool {
      switch action {
      case .copy, .copyProof, .lock, .writeText: true
      case .delete, .sweep, .abort: false
      }
    }

    /// Tells steps apart, from one plan to the next.
    package var name: String {
      switch action {
      case .copy(let manifest, _, let target): "copy \(manifest.layout.folder) to \(target)"
      case .copyProof(let name, let manifest, _, let target): "copy \(manifest.layout.folder)/\(name) to \(target)"
      case .writeText(let manifest, let store):
        "write \(manifest.layout.folder)/\(BackupLayout.recoverName) in \(store)"
      case .lock(let manifest, let store, _): "lock \(manifest.layout.folder) in \(store)"
      case .delete(let manifest, let store): "delete \(manifest.layout.folder) from \(store)"
      case .sweep(let leftover): "sweep \(leftover.folder) from \(leftover.store)"
      case .abort(let upload): "abort \(upload.upload) in \(upload.store)"
      }
    }
  }

  package private(set) var steps: [Step]
  package let kept: [RetentionDecision]

  /// A lock may end so much before the retention: nobody prolongs it for the seconds that clocks differ by.
  package static let lockTolerance: TimeInterval = 3600

  /// Leftovers younger than this may belong to a run that is going on, here or on another host.
  package static let leftoverAge: TimeInterval = 86400

  /// - Parameters:
  ///   - stores: all stores of the configuration; the first are preferred as sources.
  ///   - unknown: stores that could not be read. Nothing is done in them, and what may be the only copy of a backup that belongs there
  ///     stays elsewhere.
  ///   - unfinished: uploads into the stores that nobody here is at.
  ///   - busy: databases with a run going on. Their folders without a manifest are no leftovers, whatever their files' times say: a
  ///     store's clock may be wrong, and a link has the time of what it links to.
  ///   - others: backups that another daemon has made, of databases that are none of this configuration: nothing is done with them.
  ///   - locks: of stores that lock, by their names, until when each backup is locked there, by its folder. One that nobody has asked for
  ///     is left out, and deleted only when it is known.
  ///   - dismissed: backups that somebody has deleted on demand. If a store shows one again, it is not copied to
  ///     other stores.
  ///   - running: since when the first of those runs goes on, by database: backups that were finished since may be half-written in some
  ///     store.
  package init(
    _ catalog: Catalog, policy: RetentionPolicy, stores: [String], unknown: Set<String> = [], at now: Date,
    unfinished: [Catalog.Unfinished] = [], busy: Set<ExactText> = [], running: [ExactText: Date] = [:],
    others: Set<BackupID> = [], locks: [String: [String: Date]] = [:], dismissed: Set<BackupID> = []
  ) {
    let decisions = policy.decide(catalog, others: others, at: now)
    var copies: [Step] = []
    var deletes: [Step] = []
    /// Folders of known backups, and the stores where they are to be made whole.
    var repaired: [String: Set<String>] = [:]
    for decision in decisions {
      let wanted = Self.wanted(decision, policy, stores)
      let whole = stores.filter { store in
        decision.backup.placements.contains { $0.store == store && $0.isWhole }
      }
      let lacking =
        dismissed.contains(decision.backup.id) ? [] : wanted.filter { !whole.contains($0) }
      repaired[decision.backup.manifest.layout.folder] = Set(whole.isEmpty || decision.isHeld ? stores : lacking)
      // Manifests have whole seconds.
      let isBeingWritten =
        running[ExactText(decision.backup.id.database)].map {
          decision.backup.manifest.finished.timeIntervalSince($0) > -1
        }
        ?? false
      if !whole.isEmpty, !isBeingWritten {
        for store in lacking.reversed() where !unknown.contains(store) {
          copies.append(
            Step(
              action: .copy(decision.backup.manifest, from: whole, to: store),
              reason: Self.lack(decision.backup, store)))
        }
      }
      if !isBeingWritten {
        let staying = decision.backup.placements.filter {
          $0.isWhole && wanted.contains($0.store) && !unknown.contains($0.store)
        }
        copies += Self.proofs(decision.backup, staying)
        copies += Self.texts(decision.backup, staying)
        copies += Self.locks(decision.backup.manifest, staying, policy, locks)
      }
      guard !decision.isHeld else { continue }
      for placement in decision.backup.placements where !unknown.contains(placement.store) {
        guard let since = decision.expired[placement.store] else { continue }
        // What is locked there can't be deleted, whatever was said of its keep since.
        if let known = locks[placement.store],
          known[decision.backup.manifest.layout.folder].map({ $0 > now }) ?? true
        {
          continue
        }
        // It is what the others are to be copied from.
        if placement.isWhole, !lacking.isEmpty, whole.allSatisfy({ decision.expired[$0] != nil }) { continue }
        deletes.append(
          Step(
            action: .delete(decision.backup.manifest, store: placement.store),
            reason: "expired since \(since.rfc3339)"))
      }
    }
    for leftover in catalog.leftovers where now.timeIntervalSince(leftover.lastChanged) > Self.leftoverAge {
      if unknown.contains(leftover.store) { continue }
      // A repair that has not come to its end: what is there may be all that is left of it. And a pin holds whatever it lies in.
      if repaired[leftover.folder]?.contains(leftover.store) == true || leftover.files.contains(BackupLayout.pinName) {
        continue
      }
      if let layout = BackupLayout(folder: leftover.folder), busy.contains(ExactText(layout.id.database)) { continue }
      deletes.append(
        Step(action: .sweep(leftover), reason: "no manifest, and unchanged since \(leftover.lastChanged.rfc3339)"))
    }
    for upload in unfinished
    where Self.isOurs(upload, busy: busy, unknown: unknown)
      && now.timeIntervalSince(upload.lastChanged) > Self.leftoverAge
    {
      deletes.append(
        Step(action: .abort(upload), reason: "unfinished, and nothing has come since \(upload.lastChanged.rfc3339)"))
    }
    // What goes makes room for what comes. Of what comes, the newest first: it is the one that would be restored.
    steps = deletes + copies.reversed()
    kept = decisions.filter(\.isKept)
  }

  /// Only what changes nothing but to take away.
  package var removals: [Step] {
    steps.filter { !$0.isCopy }
  }

  package var copies: [Step] {
    steps.filter(\.isCopy)
  }

  /// Others may use the same bucket: only what would have become a file of a backup is ours to give up.
  private static func isOurs(_ upload: Catalog.Unfinished, busy: Set<ExactText>, unknown: Set<String>) -> Bool {
    let parts = upload.key.split(separator: "/", omittingEmptySubsequences: false)
    // What a check of the store has begun, and died in.
    if upload.key == ".pgbackupd-check" { return !unknown.contains(upload.store) }
    guard parts.count == 4, let layout = BackupLayout(folder: parts.prefix(3).joined(separator: "/")) else {
      return false
    }
    return !busy.contains(ExactText(layout.id.database)) && !unknown.contains(upload.store)
  }

  /// The stores that a backup belongs in now.
  private static func wanted(
    _ decision: RetentionDecision, _ policy: RetentionPolicy, _ stores: [String]
  ) -> [String] {
    // Of an unknown type nobody can say; what calls itself from the future is not spread, and what is another's not ours to spread.
    guard let rule = policy.rules[decision.backup.manifest.type], !decision.reasons.contains(.fromTheFuture),
      !decision.reasons.contains(.ofAnother)
    else { return [] }
    return rule.stores.filter { stores.contains($0) && decision.expired[$0] == nil }
  }

  /// The newest proof belongs beside every copy that stays.
  private static func proofs(_ backup: Catalog.Backup, _ staying: [Catalog.Placement]) -> [Step] {
    let whole = backup.placements.filter(\.isWhole)
    guard let newest = whole.compactMap(\.proof).max(), let source = whole.first(where: { $0.proof == newest }) else {
      return []
    }
    return staying.filter { $0.proof != newest }.map {
      Step(
        action: .copyProof(newest, backup.manifest, from: source.store, to: $0.store),
        reason: $0.proof == nil ? "no signed proof there" : "the proof there is an older one")
    }
  }

  private static func texts(_ backup: Catalog.Backup, _ staying: [Catalog.Placement]) -> [Step] {
    staying.filter(\.lacksText).map {
      Step(
        action: .writeText(backup.manifest, store: $0.store),
        reason: "\(BackupLayout.recoverName) is missing there")
    }
  }

  /// What is kept without an end has no lock, whatever holds it: nobody knows until when.
  private static func locks(
    _ manifest: Manifest, _ staying: [Catalog.Placement], _ policy: RetentionPolicy, _ locks: [String: [String: Date]]
  ) -> [Step] {
    staying.compactMap { placement in
      guard let locked = locks[placement.store]?[manifest.layout.folder],
        let end = policy.end(of: manifest.layout, keepSeconds: manifest.keepSeconds, in: placement.store),
        end.timeIntervalSince(locked) > lockTolerance
      else { return nil }
      return Step(
        action: .lock(manifest, store: placement.store, until: end),
        reason: locked == .distantPast ? "not locked there" : "locked there until \(locked.rfc3339) only")
    }
  }

  private static func lack(_ backup: Catalog.Backup, _ store: String) -> String {
    guard let placement = backup.placements.first(where: { $0.store == store }) else { return "missing there" }
    if placement.signature == .missing { return "the manifest there is not signed" }
    if placement.signature == .invalid { return "the manifest there is forged or damaged" }
    return "not whole there: \(placement.missing.joined(separator: ", "))"
  }
}

/// A walk through the copies that one store lacks. Each may take hours, so it is asked with a plan that was made anew, and names none twice.
package struct CopyWalk: Sendable {
  private let store: String
  private var tried: Set<String> = []

  package init(into store: String) { self.store = store }

  package mutating func next(in plan: ReconcilePlan) -> ReconcilePlan.Step? {
    guard let step = plan.copies.first(where: { $0.store == store && !tried.contains($0.name) }) else { return nil }
    tried.insert(step.name)
    return step
  }
}
