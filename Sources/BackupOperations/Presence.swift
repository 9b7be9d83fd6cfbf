import BackupCatalog
import Faults
import Storage

/// Whether everything that a manifest names is in a store: asked once more when it is written, so that nothing is told to be whole
/// that somebody has meanwhile taken away.
struct Presence {
  private let manifest: Manifest

  init(_ manifest: Manifest) { self.manifest = manifest }

  /// - Parameter withText: RECOVER.txt too.
  func check(in store: any ObjectStore, withText: Bool = true) async throws {
    for file in withText ? manifest.committed : manifest.files {
      let key = try Backup.key(manifest.layout, file.name)
      guard let object = try await store.stat(key), Int64(object.size) == file.size else {
        throw StorageError(.failed, store: store.name, key: key, reason: "it vanished while the backup was committed")
      }
    }
  }
}
