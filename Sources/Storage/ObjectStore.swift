package import Units

/// A place where objects live under keys: a local directory, S3. This is the contract; one conformance suite runs on every
/// store.
///
/// - Keys are relative paths with `/` between parts (see `ObjectKey`). There are no folders, only common prefixes.
/// - An object appears whole, at `finish` of its upload, or not at all: readers never see half of one, and a crash at any
///   point leaves either nothing or the whole object under its key.
/// - An object is never overwritten: an upload onto an existing key fails with `.exists`, at the latest at `finish`.
/// - What `finish` has returned from survives a power cut.
/// - Deleting what is not there succeeds: deletes are idempotent.
/// - Every error is a `StorageError`. A store over a network repeats single requests where that can help; nobody above it does.
package protocol ObjectStore: Sendable {
  /// The name that the configuration gave it.
  var name: String { get }

  /// Where it is, for people: a path, a URL. Never a secret.
  var location: String { get }

  /// Whether the store is there and takes writes. Throws what an upload would meet.
  func check() async throws(StorageError)

  /// Every object whose key begins with `prefix`, in the order of their keys' bytes. Unfinished uploads don't show.
  func list(prefix: String) async throws(StorageError) -> [StoredObject]

  /// The object under `key`, or nil.
  func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject?

  /// The bytes of `range`, exactly; `.missing` where there is no object, `.failed` where it is shorter.
  func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8]

  /// Begins an upload. Several may run at once.
  func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload

  func delete(_ key: ObjectKey) async throws(StorageError)

  /// Makes room for another object under the key. A store that keeps versions may keep this one, and one that is locked it must.
  func makeRoom(_ key: ObjectKey) async throws(StorageError)

  /// Whether objects are locked here until their retention ends.
  var locks: Bool { get }

  /// Until when an object is locked, in seconds since 1970; nil where it is not.
  func lockEnd(of key: ObjectKey) async throws(StorageError) -> Double?

  /// Locks an object until then, which must not be earlier than it is locked already. Nothing where the store locks nothing.
  func lock(_ key: ObjectKey, until end: Double) async throws(StorageError)

  /// Bytes a second at most, where it was told so: what holds up others should not wait for it.
  var rateLimit: ByteCount? { get }

  /// Whether `link` is worth a try.
  var canLink: Bool { get }

  /// Gives an object a second key without moving its bytes through us; deleting one leaves the other. False, and nothing done,
  /// where the store can't. Fails with `.exists` where the second key is taken.
  func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool

  /// Removes what uploads of dead processes left unfinished, and never an upload that is going on; returns how many.
  func sweepUnfinished() async throws(StorageError) -> Int

  /// Uploads that were begun and neither finished nor aborted, where others can see them and pay for them. Those of this process that go on
  /// are not among them.
  func unfinished() async throws(StorageError) -> [UnfinishedUpload]

  /// Gives such an upload up for whoever began it.
  func abort(_ upload: UnfinishedUpload) async throws(StorageError)

  /// Room for new objects, or nil where a store has no such bound.
  func availableSpace() async throws(StorageError) -> ByteCount?
}

/// An object on its way into a store. Bytes go in order through `write`; then exactly one of `finish` and `abort`.
package protocol ObjectUpload: Sendable {
  func write(_ bytes: [UInt8]) async throws(StorageError)
  /// Makes the object appear, durably.
  func finish() async throws(StorageError)
  /// Leaves nothing behind; never fails, and is harmless after `finish` or a failed `write`.
  func abort() async
  /// Ends it where another upload of the same bytes will go on with what has come already, in a store that can; else as `abort`.
  func leave() async
}

/// An upload that somebody has begun.
package struct UnfinishedUpload: Sendable, Hashable {
  /// As `ObjectKey` has it; of other programs it may be any text.
  package let key: String
  package let id: String
  /// When its last bytes came. Seconds since 1970, by our clock, whatever the store's shows.
  package let lastChanged: Double

  package init(key: String, id: String, lastChanged: Double) {
    self.key = key
    self.id = id
    self.lastChanged = lastChanged
  }
}

extension ObjectUpload {
  package func leave() async { await abort() }
}

/// What a store may be told of an upload besides its bytes.
package struct UploadOptions: Sendable {
  /// How many bytes will come, about.
  package var expectedBytes: UInt64?
  /// Seconds since 1970. A store that can lock objects lets nobody delete or change this one until then.
  package var retainUntil: Double?
  /// The very same bytes may have been on their way before, in a process that died: what came then need not come again.
  package var canResume = false

  package init(expectedBytes: UInt64? = nil, retainUntil: Double? = nil, canResume: Bool = false) {
    self.expectedBytes = expectedBytes
    self.retainUntil = retainUntil
    self.canResume = canResume
  }
}

package struct StoredObject: Sendable, Hashable {
  package let key: ObjectKey
  package let size: UInt64
  /// Seconds since 1970, by the store's clock.
  package let modified: Double

  package init(key: ObjectKey, size: UInt64, modified: Double) {
    self.key = key
    // What a store tells may be anything; no object is larger than a file can be.
    self.size = min(size, UInt64(Int64.max))
    self.modified = modified
  }
}

extension ObjectStore {
  package func unfinished() async throws(StorageError) -> [UnfinishedUpload] { [] }

  package func abort(_ upload: UnfinishedUpload) async throws(StorageError) {}

  package func makeRoom(_ key: ObjectKey) async throws(StorageError) { try await delete(key) }

  package var rateLimit: ByteCount? { nil }

  package var locks: Bool { false }

  package func lockEnd(of key: ObjectKey) async throws(StorageError) -> Double? { nil }

  package func lock(_ key: ObjectKey, until end: Double) async throws(StorageError) {}

  /// Locks an object until then, where it is not locked for as long already: nobody can shorten a lock.
  package func lengthenLock(of key: ObjectKey, until end: Double) async throws(StorageError) {
    guard locks else { return }
    if let old = try await lockEnd(of: key), old >= end { return }
    try await lock(key, until: end)
  }

  package var canLink: Bool { false }

  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool { false }

  package func upload(_ key: ObjectKey) async throws(StorageError) -> any ObjectUpload {
    try await upload(key, UploadOptions())
  }

  /// Writes a small object in one go.
  package func put(_ key: ObjectKey, _ bytes: [UInt8], retainUntil: Double? = nil) async throws(StorageError) {
    let upload = try await upload(key, UploadOptions(expectedBytes: UInt64(bytes.count), retainUntil: retainUntil))
    do {
      try await upload.write(bytes)
      try await upload.finish()
    } catch {
      await upload.abort()
      throw error
    }
  }

  /// Reads a small object that was listed, in one request; fails with `.missing` where it is gone. `limit` as in `get`.
  package func read(_ object: StoredObject, limit: ByteCount) async throws(StorageError) -> [UInt8] {
    guard object.size <= UInt64(limit.bytes) else {
      throw StorageError(
        .failed, store: name, key: object.key, reason: "\(object.size) bytes are more than \(limit) allowed here")
    }
    return try await read(object.key, range: 0..<object.size)
  }

  /// Reads a small object whole; nil where there is none. `limit` bounds what a damaged or hostile store can make us
  /// hold.
  package func get(_ key: ObjectKey, limit: ByteCount) async throws(StorageError) -> [UInt8]? {
    guard let object = try await stat(key) else { return nil }
    return try await read(object, limit: limit)
  }
}
