import ControlAPI
import CronSchedule
import Foundation
import QueueExecution

/// Fires jobs when they are due: one actor on its own queue, a shell around the pure `ScheduleTable` and `RetryTable`, and one
/// timer, armed for the earliest start of all.
///
/// A second timer beats once a minute, or as often as systemd's watchdog wants: then the clock is looked at, too, so that a step
/// of it is noticed before the next run is due.
actor Scheduler {
  /// What begins now, in this order.
  struct Batch: Sendable {
    /// By how much the clock was set back, where that was noticed now.
    var correction: TimeInterval?
    var due: [ScheduleTable.Due]
    var retries: [RetryTable.Retry]
  }

  private let executor = QueueExecutor(label: "pgbackupd.scheduler")
  private var table = ScheduleTable()
  private var retries = RetryTable()
  private let now: @Sendable () -> Date
  private let onDue: @Sendable (Batch) -> Void
  private let onBeat: @Sendable () -> Void
  private let beat: Duration
  private var timer: DispatchTimer?
  private var beatTimer: DispatchTimer?
  private var isStopped = false

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// Both closures are called on the scheduler's queue and must return at once. `onBeat` is called at each `beat`: who hears it
  /// knows that the scheduler lives.
  init(
    now: @escaping @Sendable () -> Date, beat: Duration, onDue: @escaping @Sendable (Batch) -> Void,
    onBeat: @escaping @Sendable () -> Void
  ) {
    self.now = now
    self.beat = beat
    self.onDue = onDue
    self.onBeat = onBeat
  }

  /// Puts a set of jobs into force, and the timers with it.
  /// Returns what was due and is dropped, because its job has another schedule now, and what was to be tried again of jobs that have none.
  @discardableResult
  func replace(
    _ timings: [String: JobTiming], anchors: [String: Date] = [:], retries added: [RetryTable.Retry] = []
  ) -> (dropped: [ScheduleTable.Due], givenUp: [RetryTable.Retry]) {
    guard !isStopped else { return ([], []) }
    let dropped = table.replace(timings, anchors: anchors, at: now())
    let givenUp = retries.keep(jobs: Set(timings.keys))
    for retry in added { retries.add(retry) }
    if timer == nil {
      timer = DispatchTimer(queue: executor.queue) { @Sendable [weak self] in
        self?.assumeIsolated { $0.fire() }
      }
      beatTimer = DispatchTimer(queue: executor.queue) { @Sendable [weak self] in
        self?.assumeIsolated { $0.takeBeat() }
      }
      takeBeat()
    } else {
      fire()
    }
    return (dropped, givenUp)
  }

  /// Tries a failed run again later, unless its job is due by then anyway. Returns when.
  func retry(_ retry: RetryTable.Retry) -> Date? {
    // After a correction of the clock it lies ahead, and will be due again by the schedule.
    guard timer != nil, let timing = table.timing(of: retry.job), retry.due <= now() else { return nil }
    // The job was told of a later instant meanwhile: its runs make up for this one.
    if let told = table.told(of: retry.job), told > retry.due { return nil }
    var retry = retry
    retry.start = timing.afterQuiet(retry.start)
    if let next = table.nextStart(of: retry.job), retry.start >= next { return nil }
    retries.add(retry)
    arm()
    return retry.start
  }

  /// Runs of a due instant that begin later than now: quiet hours hold them back.
  func add(_ more: [RetryTable.Retry]) {
    guard timer != nil else { return }
    for retry in more { retries.add(retry) }
    arm()
  }

  func stop() {
    isStopped = true
    (timer, beatTimer) = (nil, nil)
    (table, retries) = (ScheduleTable(), RetryTable())
  }

  func nextStart(of job: String) -> Date? { table.nextStart(of: job) }
  var next: (job: String, start: Date)? { table.next }
  var pendingRetries: [RetryTable.Retry] { retries.all }

  /// Blocks the scheduler's queue for good, as a bug would: what the watchdog is for is tested with it.
  func wedge() {
    let never = DispatchSemaphore(value: 0)
    never.wait()
  }

  private func takeBeat() {
    fire()
    beatTimer?.arm(after: beat)
    onBeat()
  }

  private func fire() {
    let time = now()
    let step = table.observe(time)
    if let step { retries.correct(by: step, at: time) }
    let due = table.takeDue(at: time)
    for due in due { retries.drop(job: due.job) }
    let again = retries.takeDue(at: time)
    if step != nil || !due.isEmpty || !again.isEmpty { onDue(Batch(correction: step, due: due, retries: again)) }
    arm()
  }

  private func arm() { timer?.arm(at: [table.next?.start, retries.next].compactMap { $0 }.min()) }
}
