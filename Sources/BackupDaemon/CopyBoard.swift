import BackupCatalog
import ControlAPI
import Synchronization

/// The copies that are being made now, one for each store, for whoever asks. Reported to from other threads, so it is a locked value.
final class CopyBoard: Sendable {
  private let current = Mutex<[String: StatusReport.Copy]>([:])

  func begin(_ backup: BackupID, to store: String, bytes: Int64) {
    current.withLock { $0[store] = StatusReport.Copy(backup: backup, store: store, doneBytes: 0, totalBytes: bytes) }
  }

  func progress(_ bytes: Int64, to store: String) { current.withLock { $0[store]?.doneBytes = bytes } }
  func end(_ store: String) { current.withLock { $0[store] = nil } }
  /// By the stores' names.
  var copies: [StatusReport.Copy] { current.withLock { $0.values.sorted { $0.store < $1.store } } }
}
