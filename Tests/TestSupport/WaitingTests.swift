import Dispatch
package import Testing

/// For tests that wait, on the thread that they run on, for programs and servers: each gets a thread however many wait. Swift's own pool
/// has one for each core. Two tests that wait there for psql would keep all others from going on, also the one whose session psql's server
/// waits for.
package struct WaitingTests: SuiteTrait, TestTrait, TestScoping {
  package var isRecursive: Bool { true }

  package func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
  ) async throws {
    try await withTaskExecutorPreference(Threads.shared) { try await function() }
  }
}

extension Trait where Self == WaitingTests {
  /// They wait for programs and servers on the thread that they run on.
  package static var waits: Self { Self() }
}

private final class Threads: TaskExecutor {
  static let shared = Threads()

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    // Dispatch finds a thread for each serial queue, or makes one.
    DispatchQueue(label: "tests").async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }
}
