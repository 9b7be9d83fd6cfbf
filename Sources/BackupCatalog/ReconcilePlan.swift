package import Foundation
import Units

/// What must be done so that every store holds what it should, with the reason of each step.
package struct ReconcilePlan: Sendable {
  package enum Action: Sendable, Equatable {
    /// A backup that expired leaves a store.
    case delete(Manifest, store: String)
    /// What a cut-off run left behind leaves a store.
    case sweep(Catalog.Leftover)
  }

  package struct Step: Sendable, Equatable {
    package let action: Action
    package let reason: String
  }

  package private(set) var steps: [Step]
  package let kept: [RetentionDecision]

  /// Leftovers younger than this may belong to a run that is going on, here or on another host.
  package static let leftoverAge: TimeInterval = 86400

  /// - Parameter busy: databases with a run going on, whose folders without a manifest are no leftovers, whatever their files'
  ///   times say: a store's clock may be wrong, and a link has the time of what it links to.
  package init(_ catalog: Catalog, policy: RetentionPolicy, at now: Date, busy: Set<String> = []) {
    let decisions = policy.decide(catalog, at: now)
    var steps: [Step] = []
    for decision in decisions where !decision.isKept {
      let since = decision.expired?.rfc3339 ?? now.rfc3339
      for placement in decision.backup.placements {
        steps.append(
          Step(action: .delete(decision.backup.manifest, store: placement.store), reason: "expired since \(since)"))
      }
    }
    for leftover in catalog.leftovers where now.timeIntervalSince(leftover.lastChanged) > Self.leftoverAge {
      if let layout = BackupLayout(folder: leftover.folder), busy.contains(layout.id.database) { continue }
      steps.append(
        Step(action: .sweep(leftover), reason: "no manifest, and unchanged since \(leftover.lastChanged.rfc3339)"))
    }
    self.steps = steps
    kept = decisions.filter(\.isKept)
  }

  /// The plan without what it would do in these stores.
  package func without(stores: Set<String>) -> ReconcilePlan {
    var plan = self
    plan.steps.removeAll { step in
      switch step.action {
      case .delete(_, let store): stores.contains(store)
      case .sweep(let leftover): stores.contains(leftover.store)
      }
    }
    return plan
  }
}
