import BackupCatalog
import Quoting
package import Storage

/// Takes a backup out of a store.
package enum BackupRemoval {
  /// Deletes everything in a backup's folder, the manifest first: from then on it is no backup any more, and an abort at any
  /// later line leaves only what a sweep takes away.
  package static func remove(folder: String, from store: any ObjectStore) async throws(StorageError) {
    let objects = try await store.list(prefix: folder + "/")
    let manifests = objects.filter { $0.key.name == BackupLayout.manifestName }
    let signatures = objects.filter { $0.key.name == BackupLayout.signatureName }
    let rest = objects.filter { !$0.key.name.starts(withBytes: BackupLayout.manifestName) }
    for object in manifests + signatures + rest { try await store.delete(object.key) }
  }
}
