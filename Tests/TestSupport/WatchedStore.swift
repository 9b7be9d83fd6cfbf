package import Storage
import Synchronization
package import Units

/// A store that counts what it is asked, and whose reads wait where they are told to: as over a line that is slow,
/// without a clock.
package final class WatchedStore: ObjectStore {
  package struct Counts: Sendable, Equatable {
    package var lists = 0
    package var stats = 0
    package var reads = 0
    /// Reads that were going on at the same time, at most.
    package var together = 0

    package init(lists: Int = 0, stats: Int = 0, reads: Int = 0, together: Int = 0) {
      (self.lists, self.stats, self.reads, self.together) = (lists, stats, reads, together)
    }
  }

  private struct State {
    var counts = Counts()
    var going = 0
    /// Reads that may pass; nil where none has to wait.
    var permits: Int?
    var waiting: [CheckedContinuation<Void, Never>] = []
    var holdsLists: Bool
    var waitingLists: [CheckedContinuation<Void, Never>] = []
  }

  package let name: String
  private let store: any ObjectStore
  private let state: Mutex<State>

  /// - Parameters:
  ///   - permits: so many reads pass, and each later one waits for `letThrough`. Nil: all pass.
  ///   - holdsLists: each listing waits for `letListsThrough`.
  ///   - name: its own, where it is another one.
  package init(_ store: any ObjectStore, permits: Int? = nil, holdsLists: Bool = false, name: String? = nil) {
    self.store = store
    self.name = name ?? store.name
    state = Mutex(State(permits: permits, holdsLists: holdsLists))
  }

  package var counts: Counts { state.withLock(\.counts) }
  /// Reads that wait now.
  package var waiting: Int { state.withLock(\.waiting.count) }
  package var waitingLists: Int { state.withLock(\.waitingLists.count) }

  /// So many more reads pass; all from now on where nil.
  package func letThrough(_ count: Int? = nil) {
    let freed = state.withLock { state in
      guard let count else {
        state.permits = nil
        defer { state.waiting = [] }
        return state.waiting
      }
      let freed = Array(state.waiting.prefix(count))
      state.waiting.removeFirst(freed.count)
      state.permits = state.permits.map { $0 + count - freed.count }
      return freed
    }
    for one in freed { one.resume() }
  }

  /// The listings that wait now pass; later ones wait again.
  package func letListsThrough() {
    let freed = state.withLock { state in
      defer { state.waitingLists = [] }
      return state.waitingLists
    }
    for one in freed { one.resume() }
  }

  package var location: String { store.location }
  package var canLink: Bool { store.canLink }

  package func check() async throws(StorageError) { try await store.check() }

  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    await withCheckedContinuation { continuation in
      let passes = state.withLock { state in
        state.counts.lists += 1
        if state.holdsLists { state.waitingLists.append(continuation) }
        return !state.holdsLists
      }
      if passes { continuation.resume() }
    }
    return try await store.list(prefix: prefix)
  }

  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? {
    state.withLock { $0.counts.stats += 1 }
    return try await store.stat(key)
  }

  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    state.withLock { state in
      state.counts.reads += 1
      state.going += 1
      state.counts.together = max(state.counts.together, state.going)
    }
    defer { state.withLock { $0.going -= 1 } }
    await withCheckedContinuation { continuation in
      let passes = state.withLock { state in
        guard let permits = state.permits else { return true }
        guard permits == 0 else {
          state.permits = permits - 1
          return true
        }
        state.waiting.append(continuation)
        return false
      }
      if passes { continuation.resume() }
    }
    return try await store.read(key, range: range)
  }

  package func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    try await store.upload(key, options)
  }

  package func delete(_ key: ObjectKey) async throws(StorageError) { try await store.delete(key) }
  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool {
    try await store.link(key, as: other)
  }
  package func sweepUnfinished() async throws(StorageError) -> Int { try await store.sweepUnfinished() }
  package func unfinished() async throws(StorageError) -> [UnfinishedUpload] { try await store.unfinished() }
  package func abort(_ upload: UnfinishedUpload) async throws(StorageError) { try await store.abort(upload) }
  package func availableSpace() async throws(StorageError) -> ByteCount? { try await store.availableSpace() }
}
