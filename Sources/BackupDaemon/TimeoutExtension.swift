import Dispatch
import SystemdSupport

/// Asks systemd for patience while the daemon winds down (EXTEND_TIMEOUT_USEC, sd_notify(3)): again and again, but not for ever, so
/// that a run that can't be ended is ended by systemd.
final class TimeoutExtension: Sendable {
  private let queue = DispatchQueue(label: "pgbackupd.stop")
  private let timer: DispatchTimer

  private static let step = Duration.seconds(10)
  private static let limit = 30

  init(_ notifier: ServiceNotifier) {
    let box = Box()
    let timer = DispatchTimer(queue: queue) { @Sendable in
      guard let timer = box.timer, box.left > 0 else { return }
      box.left -= 1
      notifier.extendTimeout(by: Self.step * 3)
      timer.arm(after: Self.step)
    }
    self.timer = timer
    queue.sync { box.timer = timer }
    timer.arm(after: .zero)
  }

  func end() { timer.arm(at: nil) }

  /// - Safety: `@unchecked` because it is touched on the queue only.
  private final class Box: @unchecked Sendable {
    weak var timer: DispatchTimer?
    var left = limit
  }
}
