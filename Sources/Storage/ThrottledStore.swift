package import Units

/// How fast bytes may go: a pure token bucket. Whoever takes more than there is pays by waiting, and the next waits behind him.
package struct TokenBucket: Sendable {
  private let rate: Double
  /// Below zero: bytes that have gone and are not paid for yet.
  private var tokens: Double
  private var last: Double

  /// - Parameter bytesPerSecond: also how much may go at once after a pause.
  package init(bytesPerSecond: Double, at now: Double) {
    rate = bytesPerSecond
    tokens = bytesPerSecond
    last = now
  }

  /// Takes so many bytes and returns the seconds to wait before they may go.
  package mutating func take(_ bytes: Int, at now: Double) -> Double {
    tokens = min(rate, tokens + max(0, now - last) * rate)
    last = max(last, now)
    tokens -= Double(bytes)
    return max(0, -tokens / rate)
  }
}

/// A store that sends and receives no faster than it is told: uploads and reads share the rate.
package struct ThrottledStore: ObjectStore {
  private let store: any ObjectStore
  private let throttle: Throttle
  package let rateLimit: ByteCount?

  package init(_ store: any ObjectStore, bytesPerSecond: ByteCount) {
    self.store = store
    rateLimit = bytesPerSecond
    throttle = Throttle(bytesPerSecond)
  }

  package var name: String { store.name }
  package var location: String { store.location }
  package var canLink: Bool { store.canLink }

  package func check() async throws(StorageError) { try await store.check() }
  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    try await store.list(prefix: prefix)
  }
  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? { try await store.stat(key) }
  package func delete(_ key: ObjectKey) async throws(StorageError) { try await store.delete(key) }
  package func makeRoom(_ key: ObjectKey) async throws(StorageError) { try await store.makeRoom(key) }
  package var locks: Bool { store.locks }
  package func lockEnd(of key: ObjectKey) async throws(StorageError) -> Double? {
    try await store.lockEnd(of: key)
  }
  package func lock(_ key: ObjectKey, until end: Double) async throws(StorageError) {
    try await store.lock(key, until: end)
  }
  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool {
    try await store.link(key, as: other)
  }
  package func sweepUnfinished() async throws(StorageError) -> Int { try await store.sweepUnfinished() }
  package func unfinished() async throws(StorageError) -> [UnfinishedUpload] { try await store.unfinished() }
  package func abort(_ upload: UnfinishedUpload) async throws(StorageError) { try await store.abort(upload) }
  package func availableSpace() async throws(StorageError) -> ByteCount? { try await store.availableSpace() }

  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    try await throttle.wait(range.count, store.name)
    return try await store.read(key, range: range)
  }

  package func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    ThrottledUpload(upload: try await store.upload(key, options), store: store.name, throttle: throttle)
  }
}

private struct ThrottledUpload: ObjectUpload {
  let upload: any ObjectUpload
  let store: String
  let throttle: Throttle

  func write(_ bytes: [UInt8]) async throws(StorageError) {
    try await throttle.wait(bytes.count, store)
    try await upload.write(bytes)
  }
  func finish() async throws(StorageError) { try await upload.finish() }
  func abort() async { await upload.abort() }
  func leave() async { await upload.leave() }
}

private actor Throttle {
  private var bucket: TokenBucket
  private let start = ContinuousClock.now

  init(_ rate: ByteCount) { bucket = TokenBucket(bytesPerSecond: Double(rate.bytes), at: 0) }

  func wait(_ bytes: Int, _ store: String) async throws(StorageError) {
    let pause = bucket.take(bytes, at: start.duration(to: .now).inSeconds)
    guard pause > 0 else { return }
    do {
      try await Task.sleep(for: .seconds(pause))
    } catch {
      throw StorageError(.failed, store: store, reason: "cancelled")
    }
  }
}
