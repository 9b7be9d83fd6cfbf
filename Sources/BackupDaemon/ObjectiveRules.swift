import BackupCatalog
package import ControlAPI
package import Faults
package import Foundation
import Units

/// The objectives of one database at one moment: which are missed, and which will be, although all goes as scheduled.
package struct ObjectiveRules: Sendable {
  package struct Finding: Sendable {
    /// The objective: `rpo`, `proved` or `rto`.
    package let aspect: String
    package let fault: Fault
  }

  package let database: StatusReport.Database
  /// When a drill that takes it begins next by itself.
  package let nextDrill: Date?
  private let time: Date

  /// An `rto` is at risk from this share of it on: databases grow, and the next drill may be a week away.
  private static let nearRTO = 0.9

  package init(_ database: StatusReport.Database, nextDrill: Date?, at time: Date) {
    self.database = database
    self.nextDrill = nextDrill
    self.time = time
  }

  /// What is wrong, or will be, but for an `rpo` that is missed already (`overdue`).
  package var findings: [Finding] {
    [
      ("proved", unproved), ("rto", slow), ("proved", provedTooLate), ("rpo", backedUpTooLate),
    ].compactMap { aspect, fault in fault.map { Finding(aspect: aspect, fault: $0) } }
  }

  /// The newest backup is older than it may be.
  package static func overdue(_ database: StatusReport.Database) -> Fault? {
    guard database.meetsRPO == false, let objective = database.rpoSeconds else { return nil }
    return tooOld(
      "newest backup of '\(database.name)'", database.ageSeconds, objective,
      hint: "pgbackupctl backup \(shell: database.name)")
  }

  private static func tooOld(_ what: String, _ age: Double?, _ objective: Double, hint: String) -> Fault {
    let age = age.map { "is \(Duration.seconds($0).spoken) old" } ?? "does not exist"
    return Fault(
      .objectiveMissed, "The \(what) \(age); the objective is \(Duration.seconds(objective).spoken).", hint: hint)
  }

  /// Whether what renews something comes behind its end; where nothing is scheduled to, that is told in the last tenth of the time.
  package static func comesTooLate(_ next: Date?, _ end: Date, since start: Date, _ time: Date) -> Bool {
    if let next { return next > end }
    return time.timeIntervalSince(start) > 0.9 * end.timeIntervalSince(start)
  }

  private var unproved: Fault? {
    guard database.meetsProved == false, let objective = database.provedWithinSeconds else { return nil }
    return Self.tooOld(
      "newest proved backup of '\(database.name)'", database.provedAgeSeconds, objective,
      hint: "pgbackupctl drill \(shell: database.name)")
  }

  private var slow: Fault? {
    guard let objective = database.rtoSeconds, let slowest = database.slowestRecovery, let seconds = slowest.seconds,
      seconds > objective * Self.nearRTO
    else { return nil }
    return Fault(
      seconds > objective ? .objectiveMissed : .objectiveAtRisk,
      "A restore of '\(database.name)' would take \(Duration.seconds(seconds).spoken) (\(slowest.scenario)); the objective is \(Duration.seconds(objective).spoken).",
      cause: slowest.measure.map { "measured \($0.time.rfc3339) with \($0.backup), scaled to today's size" },
      hint: "raise 'restore: jobs:', keep a copy in a nearer store, or raise 'objectives: rto:'")
  }

  private var provedTooLate: Fault? {
    guard database.meetsProved == true, let objective = database.provedWithinSeconds, let proved = database.proved
    else { return nil }
    let end = proved.time.addingTimeInterval(objective)
    guard Self.comesTooLate(nextDrill, end, since: proved.time, time) else { return nil }
    return Fault(
      .objectiveAtRisk,
      "The newest proved backup of '\(database.name)' will be older than \(Duration.seconds(objective).spoken) from \(end.rfc3339) on, and "
        + (nextDrill.map { "the next drill is due at \($0.rfc3339)." } ?? "no drill is scheduled."),
      hint: "schedule a drill more often, or: pgbackupctl drill \(shell: database.name)")
  }

  /// Before it happens: the next backup comes too late even if all goes well.
  private var backedUpTooLate: Fault? {
    guard database.meetsRPO == true, let objective = database.rpoSeconds, let newest = database.newest else {
      return nil
    }
    let end = newest.id.time.addingTimeInterval(objective)
    let next = database.nextDue.map { $0.addingTimeInterval(newest.seconds) }
    guard Self.comesTooLate(next, end, since: newest.id.time, time) else { return nil }
    return Fault(
      .objectiveAtRisk,
      "The newest backup of '\(database.name)' will be older than \(Duration.seconds(objective).spoken) from \(end.rfc3339) on, and "
        + (database.nextDue.map { "the next one is due at \($0.rfc3339)." } ?? "none is scheduled."),
      hint: "schedule it more often, or: pgbackupctl backup \(shell: database.name)")
  }
}
