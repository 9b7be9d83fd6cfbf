import Dispatch
package import Foundation

/// The one place where the clock is read. Everything else is given the time.
package enum SystemClock {
  @Sendable package static func now() -> Date { Date() }

  /// An instant as Dispatch's absolute wall time. (`DispatchWallTime(timespec:)` would say it directly, but two modules of this
  /// SDK claim `timespec`.)
  static func wallTime(_ date: Date) -> DispatchWallTime {
    // A century is as good as never, and does not overflow.
    let seconds = min(date.timeIntervalSince(now()), 100 * 365 * 86400)
    return .now() + .nanoseconds(Int(seconds * 1e9))
  }

  /// CLOCK_MONOTONIC in microseconds, as sd_notify(3) wants it with RELOADING=1.
  static func monotonicMicroseconds() -> UInt64 {
    DispatchTime.now().uptimeNanoseconds / 1000
  }
}
