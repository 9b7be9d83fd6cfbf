import Faults
import Logging
import Storage

/// One stream of bytes into several stores at once. A store that fails is dropped and the others go on; only when none is
/// left does the stream fail. What a dropped store lacks is copied there later, by reconcile.
struct FanOut {
  private struct Branch: Sendable {
    let store: any ObjectStore
    let upload: any ObjectUpload
  }

  private var branches: [Branch] = []
  /// Why each dropped store was dropped.
  private(set) var dropped: [String: Fault]

  /// Begins the upload in every store that takes it.
  /// - Parameter options: what a store is told besides, by its name.
  init(
    _ key: ObjectKey, into stores: [any ObjectStore], dropped: [String: Fault],
    options: (String) -> UploadOptions = { _ in UploadOptions() }
  ) async throws(Fault) {
    self.dropped = dropped
    for store in stores {
      do {
        branches.append(Branch(store: store, upload: try await store.upload(key, options(store.name))))
      } catch {
        self.dropped[store.name] = error.fault
      }
    }
    try requireOne()
  }

  /// The stores that have everything so far.
  var stores: [any ObjectStore] { branches.map(\.store) }

  mutating func write(_ bytes: [UInt8]) async throws(Fault) {
    try await each { upload throws(StorageError) in try await upload.write(bytes) }
  }

  mutating func finish() async throws(Fault) {
    try await each { upload throws(StorageError) in try await upload.finish() }
  }

  func abort() async {
    for branch in branches { await branch.upload.abort() }
  }

  private mutating func each(
    _ step: @escaping @Sendable (any ObjectUpload) async throws(StorageError) -> Void
  ) async throws(Fault) {
    // The common case needs no tasks: one store.
    let errors: [StorageError?]
    if branches.count == 1 {
      errors = [await Self.outcome(step, branches[0])]
    } else {
      let branches = branches
      errors = await withTaskGroup(of: (Int, StorageError?).self) { group in
        for (position, branch) in branches.enumerated() {
          group.addTask { (position, await Self.outcome(step, branch)) }
        }
        var errors = [StorageError?](repeating: nil, count: branches.count)
        for await (position, error) in group { errors[position] = error }
        return errors
      }
    }
    for (branch, error) in zip(branches, errors) {
      guard let error else { continue }
      dropped[branch.store.name] = error.fault
      await branch.upload.abort()
    }
    branches = zip(branches, errors).filter { $1 == nil }.map(\.0)
    try requireOne()
  }

  private static func outcome(
    _ step: @Sendable (any ObjectUpload) async throws(StorageError) -> Void, _ branch: Branch
  ) async -> StorageError? {
    do {
      try await step(branch.upload)
      return nil
    } catch {
      return error
    }
  }

  private func requireOne() throws(Fault) {
    guard branches.isEmpty else { return }
    throw dropped.values.min { $0.code.rawValue < $1.code.rawValue }
      ?? Fault(.internal, "A backup needs a store, and none was given.")
  }
}

/// Every store that a dump went to has failed; others may be left.
struct StoresLost: Error {
  /// Of one of them.
  let fault: Fault
}
