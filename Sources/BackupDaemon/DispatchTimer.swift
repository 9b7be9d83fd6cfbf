import ControlAPI
import Dispatch
import Foundation
import Units

/// A one-shot timer on a queue, armed again for each instant. Never repeating: what comes next is computed, not assumed.
///
/// - Safety: `@unchecked` because `DispatchSourceTimer` is not marked `Sendable` in this SDK; its methods are thread-safe.
final class DispatchTimer: @unchecked Sendable {
  private let source: any DispatchSourceTimer

  /// `fire` is called on `queue`. It must be written `{ @Sendable in … }`: a closure that inherits an actor's isolation
  /// compiles, and aborts when Dispatch calls it.
  init(queue: DispatchQueue, fire: @escaping @Sendable () -> Void) {
    source = DispatchSource.makeTimerSource(queue: queue)
    source.setEventHandler(handler: fire)
    source.schedule(wallDeadline: .distantFuture)
    source.activate()
  }

  deinit { source.cancel() }

  /// Fires when the wall clock shows `date`, also after a step of the clock or a suspend (timerfd, CLOCK_REALTIME). Nil
  /// disarms.
  func arm(at date: Date?) {
    guard let date else {
      source.schedule(wallDeadline: .distantFuture)
      return
    }
    // `DispatchWallTime(timespec:)` would say it directly, but two modules of this SDK claim `timespec`. A century is as good
    // as never, and does not overflow.
    let seconds = min(date.timeIntervalSince(SystemClock.now()), 100 * 365 * 86400)
    source.schedule(wallDeadline: .now() + .nanoseconds(Int(seconds * 1e9)), leeway: .nanoseconds(0))
  }

  /// Fires once after a span of running time, whatever the wall clock does.
  func arm(after duration: Duration) {
    source.schedule(deadline: .now() + .milliseconds(Int(min(duration.inSeconds, 100 * 365 * 86400) * 1000)))
  }
}
