import BackupCatalog
import CronSchedule
package import Foundation
import Units

extension DaemonPlan {
  /// So many due instants of a drill are looked at: more than a year of a daily one. The longest pause of one that comes oftener lies
  /// among them too, but for what only a holiday's rule would make.
  private static let drillsAhead = 400

  /// The scheduled drills that take a database.
  func drills(of database: String) -> [Job] {
    jobs.filter { $0.action == .drill && $0.timing != nil && takes($0, database) }
  }

  /// Whether a job takes a database, by its own name or as a member of a pattern.
  func takes(_ job: Job, _ database: String) -> Bool {
    databases(of: job).contains { $0.covers(database) }
  }

  /// How old the newest proved backup of a database may be: as configured; else, where there are an `rpo` and drills that take the database,
  /// what those promise together: a drill proves a backup that is no older than the `rpo`, the next one begins after the longest pause of
  /// the schedule, and ends within its `timeout`. Nil where nothing is promised.
  ///
  /// - Parameter time: the pauses are looked for from here on.
  package func provedWithin(_ database: String, at time: Date) -> Duration? {
    switch proofObjective {
    case .off: return nil
    case .within(let duration): return duration
    case .fromDrills:
      guard let rpo else { return nil }
      let pauses = drills(of: database).compactMap { job -> Duration? in
        guard let timing = job.timing else { return nil }
        let due = sequence(first: time) { timing.schedule.next(after: $0) }.dropFirst().prefix(Self.drillsAhead)
        let starts = due.map(timing.start)
        let pause = zip(starts, starts.dropFirst()).map { $1.timeIntervalSince($0) }.max()
        return pause.map { .seconds($0) + job.timeout }
      }
      return pauses.min().map { rpo + $0 }
    }
  }
}
