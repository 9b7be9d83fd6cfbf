package import Dispatch

/// A serial Dispatch queue as an actor's executor: blocking work inside such an actor (libpq, fsync) holds up nobody else,
/// and a Dispatch timer on `queue` may enter the actor with `assumeIsolated`.
///
/// Dispatch on Linux has no `DispatchSerialQueue`, so this is the small bridge that Darwin's SDK carries itself. The queue
/// keeps its default target: Dispatch then gives each busy queue a thread of its own, and an idle queue costs nothing.
///
/// - Safety: `@unchecked` because `DispatchQueue` is not marked `Sendable` in this SDK; it is documented as thread-safe, and
///   it is the only stored property.
package final class QueueExecutor: SerialExecutor, @unchecked Sendable {
  package let queue: DispatchQueue
  private static let key = DispatchSpecificKey<ObjectIdentifier>()

  package init(label: String) {
    queue = DispatchQueue(label: label)
    queue.setSpecific(key: Self.key, value: ObjectIdentifier(self))
  }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    let executor = asUnownedSerialExecutor()
    queue.async { @Sendable in job.runSynchronously(on: executor) }
  }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  package func isIsolatingCurrentContext() -> Bool? {
    DispatchQueue.getSpecific(key: Self.key) == ObjectIdentifier(self)
  }

  package func checkIsolated() { dispatchPrecondition(condition: .onQueue(queue)) }
}
