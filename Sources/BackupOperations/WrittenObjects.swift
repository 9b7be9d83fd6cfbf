import Storage
import Units

/// What one run has put into stores: the only things that it may take away again when it fails. A folder may hold another
/// run's backup (two daemons with one store, a clock set back), and that is not ours to touch.
actor WrittenObjects {
  private struct Written {
    let store: any ObjectStore
    let key: ObjectKey
    /// Of an object whose writing has not been answered: it may be there or not, and it may be another's. Nil once it is known as ours.
    var doubt: [UInt8]?
  }

  private var objects: [Written] = []

  /// The bytes are about to be written under the key: such as no other run would write.
  func attempt(_ key: ObjectKey, _ bytes: [UInt8], in store: any ObjectStore) {
    objects.append(Written(store: store, key: key, doubt: bytes))
  }

  /// The object is there, and ours.
  func add(_ key: ObjectKey, in store: any ObjectStore) {
    objects.removeAll { $0.key == key && $0.store.name == store.name }
    objects.append(Written(store: store, key: key))
  }

  /// Removes what was written, the last first: the manifest goes before what it names. Objects that can't be removed stay
  /// for the sweep; returns the first reason.
  func remove(from name: String? = nil) async -> StorageError? {
    var reason: StorageError?
    for object in objects.reversed() where name == nil || object.store.name == name {
      do throws(StorageError) {
        if try await isOurs(object) { try await object.store.delete(object.key) }
      } catch {
        reason = reason ?? error
      }
    }
    objects.removeAll { name == nil || $0.store.name == name }
    return reason
  }

  private func isOurs(_ object: Written) async throws(StorageError) -> Bool {
    guard let bytes = object.doubt else { return true }
    return try await object.store.get(object.key, limit: ByteCount(max(bytes.count, 1 << 20))) == bytes
  }
}
