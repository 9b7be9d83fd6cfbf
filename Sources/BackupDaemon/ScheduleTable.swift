package import CronSchedule
package import Foundation
import HeapModule

/// When each job is due next: a pure value, asked with the time. The earliest is at hand at once, however many jobs there
/// are.
package struct ScheduleTable: Sendable {
  package struct Due: Sendable, Hashable {
    package let job: String
    /// The instant that the schedule named; the job may be told of it later.
    package let instant: Date

    package init(job: String, instant: Date) {
      self.job = job
      self.instant = instant
    }
  }

  private struct Entry: Comparable, Sendable {
    let instant: Date
    let job: String

    static func < (left: Entry, right: Entry) -> Bool { (left.instant, left.job) < (right.instant, right.job) }
  }

  private var schedules: [String: ZonedSchedule] = [:]
  private var instants: [String: Date] = [:]
  private var heap = Heap<Entry>()

  package init() {}

  /// Takes over a new set of schedules. A job whose schedule did not change keeps its due instant, so that a reload neither
  /// skips nor repeats a run; the others are due from `now` on.
  package mutating func replace(_ schedules: [String: ZonedSchedule], at now: Date) {
    let unchanged = schedules.filter { self.schedules[$0.key] == $0.value }
    instants = instants.filter { unchanged[$0.key] != nil }
    self.schedules = schedules
    for (job, schedule) in schedules where instants[job] == nil { instants[job] = schedule.next(after: now) }
    heap = Heap(instants.map { Entry(instant: $0.value, job: $0.key) })
  }

  package func nextDue(of job: String) -> Date? { instants[job] }

  /// The earliest due instant and its job.
  package var next: Due? { heap.min.map { Due(job: $0.job, instant: $0.instant) } }

  /// The jobs that are due by `now`, in the order of their instants; each is then due again after `now`. A job that missed
  /// several instants (the machine slept) is told of the first one only: one run makes up for all.
  package mutating func takeDue(at now: Date) -> [Due] {
    var due: [Due] = []
    while let entry = heap.min, entry.instant <= now {
      heap.removeMin()
      due.append(Due(job: entry.job, instant: entry.instant))
      let next = schedules[entry.job]?.next(after: max(now, entry.instant))
      instants[entry.job] = next
      if let next { heap.insert(Entry(instant: next, job: entry.job)) }
    }
    return due
  }
}
