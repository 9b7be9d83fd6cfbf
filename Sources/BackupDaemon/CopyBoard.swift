import BackupCatalog
import ControlAPI
import Synchronization

/// The copy that is being made now, for whoever asks. Reported to from other threads, so it is a locked value.
final class CopyBoard: Sendable {
  private let current = Mutex<StatusReport.Copy?>(nil)

  func begin(_ backup: BackupID, to store: String, bytes: Int64) {
    current.withLock { $0 = StatusReport.Copy(backup: backup, store: store, doneBytes: 0, totalBytes: bytes) }
  }

  func progress(_ bytes: Int64) { current.withLock { $0?.doneBytes = bytes } }
  func end() { current.withLock { $0 = nil } }
  var copy: StatusReport.Copy? { current.withLock { $0 } }
}
