package import Foundation
import Quoting

/// Runs that are to be tried again: those that failed, and those that a crash cut off. A pure value.
package struct RetryTable: Sendable {
  package struct Retry: Sendable, Hashable {
    package var job: String
    package var database: String
    /// The due instant that the run is for.
    package var due: Date
    /// Which try it will be; the first is 1.
    package var attempt: Int
    package var start: Date
    /// Why there is something to try again, for the ledger.
    package var reason: String
    /// The job's place in the configuration.
    package var order: Int

    package init(
      job: String, database: String, due: Date, attempt: Int, start: Date, reason: String, order: Int = 0
    ) {
      self.order = order
      self.job = job
      self.database = database
      self.due = due
      self.attempt = attempt
      self.start = start
      self.reason = reason
    }
  }

  /// In the order of their starts. A handful: one per job and database at most.
  private var retries: [Retry] = []

  package init() {}

  package var next: Date? { retries.first?.start }
  package var all: [Retry] { retries }

  package mutating func add(_ retry: Retry) {
    retries.removeAll { $0.job == retry.job && $0.database.isExactly(retry.database) }
    retries.append(retry)
    retries.sort { $0.start != $1.start ? $0.start < $1.start : $0.place < $1.place }
  }

  /// A new run of the job makes up for what was to be tried again.
  package mutating func drop(job: String) { retries.removeAll { $0.job == job } }

  /// Keeps only the jobs that are still configured. Returns the retries of the others, which are given up.
  package mutating func keep(jobs: Set<String>) -> [Retry] {
    let dropped = retries.filter { !jobs.contains($0.job) }
    retries.removeAll { !jobs.contains($0.job) }
    return dropped
  }

  /// The clock was set back to `now`, by a step that is a correction: waits stay as long as they were, and what will be due again
  /// by the schedule is not tried again besides.
  package mutating func correct(by step: TimeInterval, at now: Date) {
    retries.removeAll { $0.due > now }
    for position in retries.indices { retries[position].start -= step }
  }

  package mutating func takeDue(at now: Date) -> [Retry] {
    let due = retries.prefix { $0.start <= now }
    retries.removeFirst(due.count)
    return due.sorted { $0.place < $1.place }
  }
}

extension RetryTable.Retry {
  /// In the order of the due instants, then of the configuration.
  fileprivate var place: (Date, Int, String, String) { (due, order, job, database) }
}
