import CronSchedule
import Foundation
import QueueExecution

/// Fires jobs when they are due: one actor on its own queue, a shell around the pure `ScheduleTable`, and one timer, armed
/// for the earliest instant of all.
actor Scheduler {
  private let executor = QueueExecutor(label: "pgbackupd.scheduler")
  private var table = ScheduleTable()
  private let now: @Sendable () -> Date
  private let onDue: @Sendable (ScheduleTable.Due) -> Void
  private var timer: DispatchTimer?

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// `onDue` is called on the scheduler's queue and must return at once.
  init(now: @escaping @Sendable () -> Date, onDue: @escaping @Sendable (ScheduleTable.Due) -> Void) {
    self.now = now
    self.onDue = onDue
  }

  /// Puts a set of schedules into force, and the timer with it.
  func replace(_ schedules: [String: ZonedSchedule]) {
    table.replace(schedules, at: now())
    if timer == nil {
      timer = DispatchTimer(queue: executor.queue) { @Sendable [weak self] in
        self?.assumeIsolated { $0.fire() }
      }
    }
    timer?.arm(at: table.next?.instant)
  }

  func stop() {
    timer = nil
    table = ScheduleTable()
  }

  func nextDue(of job: String) -> Date? { table.nextDue(of: job) }
  var next: ScheduleTable.Due? { table.next }

  private func fire() {
    for due in table.takeDue(at: now()) { onDue(due) }
    timer?.arm(at: table.next?.instant)
  }
}
