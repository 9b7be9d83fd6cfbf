import BackupCatalog
import Foundation

/// Until when one backup is kept, store by store: what stores that can lock objects are told.
struct RetentionTerm: Sendable {
  private let policy: RetentionPolicy
  private let layout: BackupLayout
  private let keepSeconds: Int64?

  init(_ policy: RetentionPolicy, _ layout: BackupLayout, keepSeconds: Int64?) {
    self.policy = policy
    self.layout = layout
    self.keepSeconds = keepSeconds
  }

  init(_ request: Backup.Request, _ layout: BackupLayout) {
    self.init(request.retention, layout, keepSeconds: request.keep.map { $0.components.seconds })
  }

  /// Seconds since 1970; nil where no rule says.
  func end(in store: String) -> Double? {
    policy.end(of: layout, keepSeconds: keepSeconds, in: store)?.timeIntervalSince1970
  }
}
