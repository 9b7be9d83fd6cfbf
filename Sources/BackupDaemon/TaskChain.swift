import Synchronization

/// Work that is done one after the other, in the order of the calls: who awaits in the middle of a decision must not meet another who
/// decides on the same.
final class TaskChain: Sendable {
  private let last = Mutex<Task<Void, Never>?>(nil)

  func run<Value: Sendable, Failure: Error>(
    _ work: @escaping @Sendable () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    let task = last.withLock { last in
      let earlier = last
      let task = Task { () -> Result<Value, Failure> in
        await earlier?.value
        do throws(Failure) {
          return .success(try await work())
        } catch {
          return .failure(error)
        }
      }
      last = Task { _ = await task.value }
      return task
    }
    return try await task.value.get()
  }
}
