package import Storage
import Synchronization
package import Units

/// A store that behaves like the one below it until a chosen call, and fails from then on or for that call alone.
package final class FaultyStore: ObjectStore {
  package enum Fault: Sendable {
    /// The nth call that changes something fails, and every later one: the store is gone.
    case goneAfter(calls: Int)
    /// So many bytes fit, then the disk is full; deletes still work.
    case fullAfter(bytes: Int)
  }

  private struct State {
    var calls = 0
    var bytes = 0
  }

  private let store: any ObjectStore
  private let fault: Fault
  private let state = Mutex(State())

  package init(_ store: any ObjectStore, _ fault: Fault) {
    self.store = store
    self.fault = fault
  }

  package var name: String { store.name }
  package var location: String { store.location }
  package var canLink: Bool { store.canLink }

  /// The calls that were made: one more than the last position worth failing at.
  package var calls: Int { state.withLock { $0.calls } }
  package var bytes: Int { state.withLock { $0.bytes } }

  fileprivate func step(bytes: Int = 0) throws(StorageError) {
    let (calls, total) = state.withLock { state in
      state.calls += 1
      state.bytes += bytes
      return (state.calls, state.bytes)
    }
    switch fault {
    case .goneAfter(let limit) where calls > limit:
      throw StorageError(.failed, store: name, reason: "injected at call \(calls)")
    case .fullAfter(let limit) where total > limit:
      throw StorageError(.full, store: name, reason: "injected at byte \(total)")
    default: break
    }
  }

  package func check() async throws(StorageError) {
    try step()
    try await store.check()
  }

  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    try await store.list(prefix: prefix)
  }
  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool {
    try step()
    return try await store.link(key, as: other)
  }
  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? { try await store.stat(key) }
  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    try await store.read(key, range: range)
  }

  package func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    try step()
    return FaultyUpload(store: self, upload: try await store.upload(key, options))
  }

  package func delete(_ key: ObjectKey) async throws(StorageError) {
    if case .goneAfter = fault { try step() }
    try await store.delete(key)
  }

  package func sweepUnfinished() async throws(StorageError) -> Int { try await store.sweepUnfinished() }
  package func availableSpace() async throws(StorageError) -> ByteCount? { try await store.availableSpace() }
}

private struct FaultyUpload: ObjectUpload {
  let store: FaultyStore
  let upload: any ObjectUpload

  func write(_ bytes: [UInt8]) async throws(StorageError) {
    try store.step(bytes: bytes.count)
    try await upload.write(bytes)
  }

  func finish() async throws(StorageError) {
    try store.step()
    try await upload.finish()
  }

  func abort() async { await upload.abort() }
}
