import CSystemd
import Dispatch
import Quoting
import Synchronization

/// Tells systemd what the service is doing (sd_notify(3)). Outside systemd every call does nothing.
///
/// Nothing here waits: sd_notify blocks while the manager does not read its socket, and a backup must not stand still for that.
/// Messages go out in order on a queue of their own; of a status and a sign of life only the latest is kept.
package final class ServiceNotifier: Sendable {
  private struct Pending {
    var status: String?
    var isAlive = false
  }

  private let queue = DispatchQueue(label: "pgbackupd.notify")
  private let pending = Mutex(Pending())

  package init() {}

  package func ready() { send("READY=1") }
  package func stopping() { send("STOPPING=1") }

  package func status(_ text: String) {
    let isFirst = pending.withLock { pending in
      defer { pending.status = TerminalText.line(text) }
      return pending.status == nil
    }
    guard isFirst else { return }
    queue.async { [self] in
      let text = pending.withLock { pending in
        defer { pending.status = nil }
        return pending.status
      }
      if let text { _ = sd_notify(0, "STATUS=\(text)") }
    }
  }

  package func alive() {
    let isFirst = pending.withLock { pending in
      defer { pending.isAlive = true }
      return !pending.isAlive
    }
    guard isFirst else { return }
    queue.async { [self] in
      pending.withLock { $0.isAlive = false }
      _ = sd_notify(0, "WATCHDOG=1")
    }
  }

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

  private func send(_ state: String) { queue.async { _ = sd_notify(0, state) } }
}
