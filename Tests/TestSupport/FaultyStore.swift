package import Storage
import Synchronization
package import Units

/// A store that behaves like the one below it but for what is injected.
package final class FaultyStore: ObjectStore {
  package enum Fault: Sendable {
    /// The nth call that changes something fails, and every later one: the store is gone.
    case goneAfter(calls: Int)
    /// So many bytes fit, then the disk is full; deletes still work.
    case fullAfter(bytes: Int)
    /// The nth call of any kind fails (from 0), and no other.
    case failsAt(call: Int)
    /// The nth call of any kind fails, and every later one.
    case diesAt(call: Int)
    /// The nth call of any kind is carried out, and then its answer is lost.
    case losesAnswerOf(call: Int)
    /// The nth call is carried out, and then its answer and all later ones are lost: the line is cut.
    case isCutAfter(call: Int)
    /// The nth call and every later one fail, after somebody has been told.
    case diesTelling(call: Int, @Sendable () -> Void)
    /// The nth call comes late: somebody else goes first.
    case delays(call: Int, @Sendable () async -> Void)
    /// The nth call, if it is a read, gives fewer bytes than were asked for.
    case truncatesAt(call: Int)
    /// The nth call, if it is a read, gives other bytes than are there.
    case liesAt(call: Int)
    /// The nth call of any kind cancels whom it is told to; and as over a network, nothing can be asked by a task that is cancelled.
    case cancelsAt(call: Int, @Sendable () -> Void)
    case none
  }

  private struct State {
    var changes = 0
    var calls = 0
    var bytes = 0
  }

  private let store: any ObjectStore
  private let isRemote: Bool
  fileprivate let fault: Fault
  private let state = Mutex(State())

  /// - Parameter isRemote: it is no disk of this machine, whatever the store below is.
  package init(_ store: any ObjectStore, _ fault: Fault, isRemote: Bool = false) {
    self.store = store
    self.isRemote = isRemote
    self.fault = fault
  }

  package var name: String { store.name }
  package var location: String { store.location }
  package var rateLimit: ByteCount? { store.rateLimit }
  package var canLink: Bool { !isRemote && store.canLink }

  /// The calls that changed something: one more than the last position worth failing at.
  package var calls: Int { state.withLock { $0.changes } }
  /// The calls of any kind.
  package var allCalls: Int { state.withLock { $0.calls } }
  package var bytes: Int { state.withLock { $0.bytes } }

  fileprivate func step(bytes: Int = 0) throws(StorageError) {
    let (changes, total) = state.withLock { state in
      state.changes += 1
      state.bytes += bytes
      return (state.changes, state.bytes)
    }
    switch fault {
    case .goneAfter(let limit) where changes > limit:
      throw StorageError(.failed, store: name, reason: "injected at call \(changes)")
    case .fullAfter(let limit) where total > limit:
      throw StorageError(.full, store: name, reason: "injected at byte \(total)")
    default: break
    }
  }

  /// Every call goes through here, numbered from 0.
  fileprivate func call<Value>(
    _ work: (Int) async throws(StorageError) -> Value
  ) async throws(StorageError) -> Value {
    let number = state.withLock { state in
      state.calls += 1
      return state.calls - 1
    }
    if case .cancelsAt(let position, let cancel) = fault {
      if position == number { cancel() }
      guard !Task.isCancelled else { throw injected(number) }
    }
    switch fault {
    case .isCutAfter(let last) where number >= last:
      if number == last { _ = try await work(number) }
      throw injected(number)
    case .diesTelling(let first, let tell) where number >= first:
      if number == first { tell() }
      throw injected(number)
    case .delays(number, let wait):
      await wait()
      return try await work(number)
    case .failsAt(number): throw injected(number)
    case .diesAt(let first) where number >= first: throw injected(number)
    case .losesAnswerOf(number):
      _ = try await work(number)
      throw injected(number)
    default: return try await work(number)
    }
  }

  private func injected(_ number: Int) -> StorageError {
    StorageError(.failed, store: name, reason: "injected at call \(number)")
  }

  package func check() async throws(StorageError) {
    try step()
    try await call { _ throws(StorageError) in try await store.check() }
  }

  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    try await call { _ throws(StorageError) in try await store.list(prefix: prefix) }
  }

  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool {
    try step()
    return try await call { _ throws(StorageError) in try await store.link(key, as: other) }
  }

  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? {
    try await call { _ throws(StorageError) in try await store.stat(key) }
  }

  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    try await call { number throws(StorageError) in
      var bytes = try await store.read(key, range: range)
      if case .liesAt(number) = fault, !bytes.isEmpty { bytes[bytes.count / 2] ^= 1 }
      if case .truncatesAt(number) = fault { bytes.removeLast(bytes.count / 2) }
      return bytes
    }
  }

  package func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    try step()
    let upload = try await call { _ throws(StorageError) in try await store.upload(key, options) }
    return FaultyUpload(store: self, upload: upload)
  }

  package func delete(_ key: ObjectKey) async throws(StorageError) {
    if case .goneAfter = fault { try step() }
    try await call { _ throws(StorageError) in try await store.delete(key) }
  }

  package func sweepUnfinished() async throws(StorageError) -> Int { try await store.sweepUnfinished() }
  package func unfinished() async throws(StorageError) -> [UnfinishedUpload] { try await store.unfinished() }
  package func abort(_ upload: UnfinishedUpload) async throws(StorageError) { try await store.abort(upload) }
  package func availableSpace() async throws(StorageError) -> ByteCount? { try await store.availableSpace() }
}

private struct FaultyUpload: ObjectUpload {
  let store: FaultyStore
  let upload: any ObjectUpload

  func write(_ bytes: [UInt8]) async throws(StorageError) {
    try store.step(bytes: bytes.count)
    try await store.call { _ throws(StorageError) in try await upload.write(bytes) }
  }

  func finish() async throws(StorageError) {
    try store.step()
    try await store.call { _ throws(StorageError) in try await upload.finish() }
  }

  func abort() async {
    if case .cancelsAt = store.fault, Task.isCancelled { return }
    await upload.abort()
  }
}
