package import Foundation
import Glibc

/// The one place where the clock is read, in either program. Everything else is given the time.
package enum SystemClock {
  @Sendable package static func now() -> Date { Date() }

  /// Seconds that have run since the machine's start, also while it was suspended (CLOCK_BOOTTIME): no setting of the clock moves them.
  package static func running() -> TimeInterval {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return TimeInterval(time.tv_sec) + TimeInterval(time.tv_nsec) / 1e9
  }

  /// Whether somebody has set it by others' clocks since the machine's start, for all that can be seen: the file is systemd-timesyncd's
  /// (systemd-timesyncd.service(8)). The kernel would know more, and no service that may not set the clock may ask it (adjtimex(2)).
  package static var isKept: Bool { access("/run/systemd/timesync/synchronized", F_OK) == 0 }
}
