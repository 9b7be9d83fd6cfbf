import Storage

/// What one run has put into stores: the only things that it may take away again when it fails. A folder may hold another
/// run's backup (two daemons with one store, a clock set back), and that is not ours to touch.
actor WrittenObjects {
  private var objects: [(store: any ObjectStore, key: ObjectKey)] = []

  func add(_ key: ObjectKey, in store: any ObjectStore) { objects.append((store, key)) }

  /// Removes what was written, the last first: the manifest goes before what it names. Objects that can't be removed stay
  /// for the sweep; returns the first reason.
  func remove(from name: String? = nil) async -> StorageError? {
    var reason: StorageError?
    for (store, key) in objects.reversed() where name == nil || store.name == name {
      do throws(StorageError) {
        try await store.delete(key)
      } catch {
        reason = reason ?? error
      }
    }
    objects.removeAll { name == nil || $0.store.name == name }
    return reason
  }
}
