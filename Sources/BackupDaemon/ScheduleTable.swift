package import CronSchedule
package import Foundation
import HeapModule
import Units

/// When each job is due next: a pure value, asked with the time. The earliest is at hand at once, however many jobs there
/// are.
///
/// A job has one due instant ahead of it. What was due while nobody asked (the machine slept, the daemon was down, the clock was
/// set forward) becomes one run for all of it, or is told as skipped. Nothing that was due is due again, unless the clock is set
/// back by three hours or more: then the wall clock counts anew, as Debian's cron has it (cron.c, `clockShift` against three
/// hours: a correction, not daylight saving).
package struct ScheduleTable: Sendable {
  package struct Due: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
      /// Not late, or by so little that it is no matter; `earlier` ones fell due in the same moment and have no run of their own.
      case onTime(earlier: Int)
      /// Late; one run for this instant and for `earlier` ones that were missed too.
      case late(earlier: Int)
      /// Too late for the job's `catchUp`: it does not run.
      case skipped(earlier: Int)
    }
    package let job: String
    /// The instant that the schedule named; the job may be told of it later.
    package let instant: Date
    package let kind: Kind

    package init(job: String, instant: Date, kind: Kind = .onTime(earlier: 0)) {
      self.job = job
      self.instant = instant
      self.kind = kind
    }
  }

  private struct Entry: Comparable, Sendable {
    let start: Date
    let order: Int
    let job: String

    static func < (left: Entry, right: Entry) -> Bool {
      (left.start, left.order, left.job) < (right.start, right.order, right.job)
    }
  }

  private struct Job: Sendable {
    var timing: JobTiming
    /// The last instant that was taken, or from when on the job is in force.
    var covered: Date
    /// The last instant that it was told of, by whatever schedule; nil where it was told of none since the start.
    var told: Date?
    var due: Date?
    var start: Date?
  }

  /// A timer may come a little late, and a run is not late for that.
  package static let grace: TimeInterval = 300
  /// From this size on a step back of the clock is a correction.
  package static let correction: TimeInterval = 3 * 3600
  /// Instants are counted no further: a year of a job that is due each minute must not take a second.
  private static let countLimit = 1000

  private var jobs: [String: Job] = [:]
  private var heap = Heap<Entry>()
  private var latestTime: Date?

  package init() {}

  /// Takes over a new set of jobs. One whose schedule did not change keeps its due instant, so that a reload neither skips nor
  /// repeats a run; the others are due from their anchor on (the last instant that was run before a restart), or from `now`.
  ///
  /// Returns what was due already, held back by a delay or quiet hours, and is so no more: its schedule is another one now.
  @discardableResult
  package mutating func replace(_ timings: [String: JobTiming], anchors: [String: Date] = [:], at now: Date) -> [Due] {
    latestTime = latestTime ?? now
    let dropped = jobs.compactMap { name, old -> Due? in
      guard let due = old.due, due <= now else { return nil }
      if let new = timings[name]?.schedule, new.expression == old.timing.schedule.expression,
        new.zone.identifier == old.timing.schedule.zone.identifier
      {
        return nil
      }
      return Due(job: name, instant: due, kind: .skipped(earlier: 0))
    }
    jobs = Dictionary(
      uniqueKeysWithValues: timings.map { name, timing in
        var job = Job(timing: timing, covered: anchors[name] ?? now, told: jobs[name]?.told ?? anchors[name])
        if let old = jobs[name], old.timing.schedule.expression == timing.schedule.expression {
          job.covered = old.covered
          if old.timing.schedule == timing.schedule {
            job.due = old.due
          } else if old.timing.schedule.zone.identifier == timing.schedule.zone.identifier {
            // New rules for the zone: what the wall clock showed at the last run does not come again.
            job.covered = max(old.covered, Self.sameWallClock(old.covered, old.timing.schedule, timing.schedule))
            // What is held back stays due.
            if let due = old.due, due <= now { job.due = due }
          } else {
            job.covered = now
          }
        }
        job.due = job.due ?? timing.schedule.next(after: job.covered)
        job.start = job.due.map(timing.start)
        return (name, job)
      })
    rebuild()
    return dropped.sorted { ($0.instant, $0.job) < ($1.instant, $1.job) }
  }

  private static func sameWallClock(_ instant: Date, _ old: ZonedSchedule, _ new: ZonedSchedule) -> Date {
    let seconds = Int(instant.timeIntervalSince1970)
    let wall = seconds + old.zone.offset(at: seconds)
    let guess = wall - new.zone.offset(at: seconds)
    return Date(timeIntervalSince1970: Double(wall - new.zone.offset(at: guess)))
  }

  private mutating func rebuild() {
    heap = Heap(
      jobs.compactMap { name, job in job.start.map { Entry(start: $0, order: job.timing.order, job: name) } })
  }

  /// When the job begins next: its due instant with the delay, and after its quiet hours.
  package func nextStart(of job: String) -> Date? { jobs[job]?.start }

  /// The due instant of the job's next run.
  package func nextDue(of job: String) -> Date? { jobs[job]?.due }

  /// The last due instant that the job was told of.
  package func covered(of job: String) -> Date? { jobs[job]?.covered }

  /// The same, whatever was reloaded since: a new schedule is no instant that it was told of.
  package func told(of job: String) -> Date? { jobs[job]?.told }

  package func timing(of job: String) -> JobTiming? { jobs[job]?.timing }

  /// The earliest start and its job.
  package var next: (job: String, start: Date)? { heap.min.map { ($0.job, $0.start) } }

  /// The jobs that begin by `now`, in the order of their due instants and then of the configuration; each is then due again
  /// after `now`.
  package mutating func takeDue(at now: Date) -> [Due] {
    observe(now)
    var taken: [Due] = []
    while let entry = heap.min, entry.start <= now {
      heap.removeMin()
      guard var job = jobs[entry.job], let first = job.due else { continue }
      // Late, and now in quiet hours: it waits for their end, as a run does that is due in them.
      let quiet = job.timing.afterQuiet(now)
      if quiet > now {
        job.start = quiet
        jobs[entry.job] = job
        heap.insert(Entry(start: quiet, order: job.timing.order, job: entry.job))
        continue
      }
      let (last, earlier) = Self.lastDue(from: first, job.timing, at: now)
      let isLate = now.timeIntervalSince(job.timing.start(of: first)) > Self.grace
      let lateness = now.timeIntervalSince(job.timing.start(of: last))
      var kind = Due.Kind.onTime(earlier: earlier)
      if isLate {
        let limit = job.timing.catchUp?.inSeconds ?? Self.grace
        kind = lateness <= limit ? .late(earlier: earlier) : .skipped(earlier: earlier)
      }
      taken.append(Due(job: entry.job, instant: last, kind: kind))
      (job.covered, job.told) = (last, last)
      job.due = job.timing.schedule.next(after: last)
      job.start = job.due.map(job.timing.start)
      jobs[entry.job] = job
      if let start = job.start { heap.insert(Entry(start: start, order: job.timing.order, job: entry.job)) }
    }
    return taken.sorted {
      ($0.instant, jobs[$0.job]?.timing.order ?? 0, $0.job) < ($1.instant, jobs[$1.job]?.timing.order ?? 0, $1.job)
    }
  }

  /// The last instant from `first` on that begins by `now`, and how many come before it.
  private static func lastDue(from first: Date, _ timing: JobTiming, at now: Date) -> (Date, Int) {
    var (last, earlier) = (first, 0)
    while earlier < countLimit, let next = timing.schedule.next(after: last), timing.start(of: next) <= now {
      (last, earlier) = (next, earlier + 1)
    }
    guard earlier == countLimit else { return (last, earlier) }
    var newest = timing.schedule.previous(before: now.addingTimeInterval(1 - timing.delay)) ?? last
    // Quiet hours may hold the newest ones back.
    while newest > last, timing.start(of: newest) > now { newest = timing.schedule.previous(before: newest) ?? last }
    return (max(last, newest), earlier)
  }

  /// Looks at the clock. After a step back that is a correction, all is due anew from `now` on, and the step's size is returned.
  /// `takeDue` looks too, but a clock that was a year ahead would be noticed a year late.
  @discardableResult package mutating func observe(_ now: Date) -> TimeInterval? {
    guard let latest = latestTime, now < latest.addingTimeInterval(-Self.correction) else {
      latestTime = max(latestTime ?? now, now)
      return nil
    }
    for name in jobs.keys {
      guard var job = jobs[name] else { continue }
      job.covered = now
      job.due = job.timing.schedule.next(after: now)
      job.start = job.due.map(job.timing.start)
      jobs[name] = job
    }
    rebuild()
    latestTime = now
    return latest.timeIntervalSince(now)
  }
}
