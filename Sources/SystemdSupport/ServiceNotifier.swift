import CSystemd
import Dispatch

/// Tells systemd what the service is doing (sd_notify(3)). Outside systemd every call does nothing.
package struct ServiceNotifier: Sendable {
  package init() {}

  package func ready() { send("READY=1") }
  package func stopping() { send("STOPPING=1") }
  package func status(_ text: String) { send("STATUS=\(text.replacing("\n", with: " "))") }
  package func alive() { send("WATCHDOG=1") }

  /// Asks for so much more time before a start or stop counts as hanging.
  package func extendTimeout(by duration: Duration) {
    send("EXTEND_TIMEOUT_USEC=\(duration.components.seconds * 1_000_000)")
  }

  /// A reload begins; `ready()` ends it. CLOCK_MONOTONIC goes along, as `Type=notify-reload` wants to see it.
  package func reloading() {
    send("RELOADING=1\nMONOTONIC_USEC=\(DispatchTime.now().uptimeNanoseconds / 1000)")
  }

  /// The longest silence that systemd tolerates, where it watches at all (sd_watchdog_enabled(3)).
  package func watchdogInterval() -> Duration? {
    var microseconds: UInt64 = 0
    return sd_watchdog_enabled(0, &microseconds) > 0 ? .microseconds(Int64(microseconds)) : nil
  }

  private func send(_ state: String) { _ = sd_notify(0, state) }
}
