package import CronSchedule
package import Foundation
import Quoting
import Units

/// What a start makes of the ledger's history: from when on each job's instants count, which runs are to be done again, and which
/// are given up. A pure value.
package struct RestartPlan: Sendable {
  package struct Skip: Sendable, Equatable {
    package let job: String
    package let due: Date
    /// All that are left where nil.
    package let databases: [String]?
    package let reason: String
  }

  /// The last instant that each job was told of. A job that is missing here has a new schedule, in force from now on.
  package private(set) var anchors: [String: Date] = [:]
  package private(set) var retries: [RetryTable.Retry] = []
  package private(set) var skips: [Skip] = []

  /// A run that was cut off more often than this is given up, unless its job retries more often: it may be what kills the daemon.
  private static let interruptionLimit = 3

  package init(_ history: RunHistory, _ timings: [String: JobTiming], at now: Date) {
    for (name, timing) in timings {
      anchors[name] = history.anchor(of: name, schedule: timing.schedule.text)
    }
    for (name, job) in history.jobs.sorted(by: { $0.key < $1.key }) {
      if let timing = timings[name], job.schedule == timing.schedule.text { add(name, job, timing, now) }
    }
  }

  /// What is left of a job's last due instant: runs that were cut off, aborted, or to be tried again.
  private mutating func add(_ name: String, _ job: RunHistory.Job, _ timing: JobTiming, _ now: Date) {
    guard let due = job.lastDue, !job.remaining.isEmpty else { return }
    // A later instant was missed as well: its run makes up for this one. (Instants count since the schedule is in force.)
    if let next = timing.schedule.next(after: max(due, job.since ?? due)), timing.start(of: next) <= now { return }
    guard now.timeIntervalSince(timing.start(of: due)) <= timing.catchUp?.inSeconds ?? ScheduleTable.grace else {
      skips.append(
        Skip(job: name, due: due, databases: nil, reason: "it was cut off, and 'catch_up' does not reach back so far"))
      return
    }
    for database in job.remaining.sortedTexts {
      let again = job.retries[ExactText(database)]
      let attempt = again?.attempt ?? 1
      guard attempt <= max(timing.retry?.count ?? 0, Self.interruptionLimit) + 1 else {
        skips.append(
          Skip(
            job: name, due: due, databases: [database],
            reason: "its run on '\(database)' was cut off \(attempt - 1) times"))
        continue
      }
      let start = max(now, again?.start ?? now)
      retries.append(
        RetryTable.Retry(
          job: name, database: database, due: due, attempt: attempt, start: timing.afterQuiet(start),
          reason: start > now ? "retry \(attempt - 1) for \(due.rfc3339)" : "catch-up of \(due.rfc3339)",
          order: timing.order))
    }
  }
}

extension RestartPlan {
  /// The last instant that a job missed by the schedule that it had before; nil where it missed none.
  package static func missed(_ job: RunHistory.Job, by former: ZonedSchedule, at now: Date) -> Date? {
    guard let covered = [job.lastDue, job.since].compactMap({ $0 }).max(),
      let last = former.previous(before: now.addingTimeInterval(1)), last > covered
    else { return nil }
    return last
  }
}

extension ZonedSchedule {
  /// Reads what `text` has written; nil where the machine has no such zone.
  package init?(ledgerText text: String, zone: (String) -> ZoneRules?) {
    guard let space = text.lastIndex(of: " "), let rules = zone(String(text[text.index(after: space)...])),
      let expression = try? CronExpression(parsing: String(text[..<space]))
    else { return nil }
    self.init(expression, in: rules)
  }

  /// As the ledger has it.
  package var text: String { "\(expression) \(zone.identifier)" }
}
