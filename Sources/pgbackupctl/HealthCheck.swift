import ArgumentParser
import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Quoting
import Units

struct CheckCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Tells whether all is well, one line for each aspect; for monitors.",
    discussion: """
      Ends with 10 where something is not. With --nagios it is one line with performance data, and the exit codes of a plugin: 0 OK, \
      1 WARNING, 2 CRITICAL, 3 UNKNOWN. The read-only monitor socket is enough for it.
      """)

  @Flag(name: .long, help: "One line and a monitoring plugin's exit codes.") var nagios = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let answer = Result { try connection.client.get(StatusReport.self, "/v1/status") }
    if case .failure(let error) = answer, nagios {
      // Whoever watches over backups is not told "unknown" when nobody makes any; who may not ask knows nothing.
      let fault = Fault(error)
      let isUnknown = [.notAllowed, .usage].contains(fault.code.exitCode)
      print("PGBACKUPD \(isUnknown ? "UNKNOWN" : "CRITICAL") - \(PluginText.sentence(fault.message))")
      throw ArgumentParser.ExitCode(isUnknown ? 3 : 2)
    }
    let aspects = HealthAspect.all(try answer.get())
    let worst = aspects.map(\.state).max { $0.severity < $1.severity }.map { $0 == .notRun ? .ok : $0 } ?? .ok
    guard nagios else {
      try connection.show(aspects) { aspects in aspects.map(\.line).joined(separator: "\n") }
      if worst != .ok { throw Ending(code: .problemsFound) }
      return
    }
    let wrong = aspects.filter { $0.state.severity > 0 }.sorted { $0.state.severity > $1.state.severity }
    let text =
      wrong.isEmpty
      ? "\(aspects.count { $0.state == .ok }) aspects are well"
        + (aspects.contains { $0.state == .notRun } ? ", \(aspects.count { $0.state == .notRun }) not run" : "")
      : wrong.prefix(5).map { "\($0.name): \($0.text)" }.joined(separator: "; ")
        + (wrong.count > 5 ? "; and \(wrong.count - 5) more: pgbackupctl check" : "")
    let figures = aspects.compactMap(\.figure)
    // The pipe begins the performance data (Monitoring Plugins' development guidelines).
    print(
      "PGBACKUPD \(worst.rawValue.uppercased()) - \(PluginText.sentence(text))"
        + (figures.isEmpty ? "" : " | " + figures.joined(separator: " ")))
    if worst != .ok { throw ArgumentParser.ExitCode(Int32(worst.severity)) }
  }
}

/// One thing that is well, or is not.
struct HealthAspect: Encodable {
  enum State: String, Encodable {
    case ok
    /// Nobody has looked, and nobody has asked for it: neither well nor wrong.
    case notRun = "not run"
    case warning, critical

    var severity: Int { self == .critical ? 2 : self == .warning ? 1 : 0 }
  }

  var name: String
  var state: State
  var text: String
  /// `'label'=value;warn;crit`.
  var figure: String?

  var line: String { "\(line: name): \(state == .critical ? "FAILED" : state.rawValue.uppercased()) (\(line: text))" }

  static func all(_ report: StatusReport) -> [HealthAspect] {
    var aspects = [
      HealthAspect(
        name: "daemon", state: .ok,
        text:
          "pgbackupd \(report.version), running for \(Duration.seconds(max(0, report.now.timeIntervalSince(report.started))).spoken)"
      )
    ]
    for database in report.databases { aspects += self.database(database) }
    for store in report.stores {
      aspects.append(
        HealthAspect(
          name: "store \(store.name)", state: store.fault == nil ? .ok : .critical,
          text: store.fault.map { "\($0.code.rawValue) \($0.message)" }
            ?? "\(store.backups) backups" + (store.freeBytes.map { ", \(ByteCount($0)) free" } ?? ""),
          figure: store.freeBytes.map { "\(PluginText.label("\(store.name)_free"))=\($0)B" }))
    }
    for channel in report.alerts {
      aspects.append(
        HealthAspect(
          name: "alerts \(channel.name)", state: channel.fault == nil ? .ok : .warning,
          text: (channel.fault == nil ? "" : channel.condition + ", ") + "\(channel.waiting) waiting"))
    }
    // What has no line of its own yet: each is told, by its code.
    let known: Set<FaultCode> = [.objectiveMissed, .alertUndelivered]
    let rest = report.problems.filter { problem in
      !known.contains(problem.code) && !report.stores.contains { $0.fault == problem }
    }
    for problem in rest {
      // A run that somebody has ended is no news to him.
      let mild: Set<FaultCode> = [.objectiveAtRisk, .backupDoubtful, .storeSpace, .clockDoubtful, .runAborted]
      let isMild = mild.contains(problem.code)
      aspects.append(
        HealthAspect(
          name: "problem \(problem.code.rawValue)", state: isMild ? .warning : .critical, text: problem.message))
    }
    return aspects
  }

  private static func database(_ database: StatusReport.Database) -> [HealthAspect] {
    func aspect(_ name: String, _ seconds: Double?, _ objective: Double?, _ missing: String) -> HealthAspect {
      let grace = database.graceUntil[name].map { "; the first has time until \($0.rfc3339)" } ?? ""
      let bound = (objective.map { ", objective \(Duration.seconds($0).spoken)" } ?? ", no objective") + grace
      let isMissed = grace.isEmpty && (objective.map { bound in seconds.map { $0 > bound } ?? true } ?? false)
      return HealthAspect(
        name: "\(database.name) \(name)", state: isMissed ? .critical : seconds == nil ? .notRun : .ok,
        text: (seconds.map { Duration.seconds($0).spoken } ?? missing) + bound,
        figure: seconds.map {
          "\(PluginText.label("\(database.name)_\(name)"))=\(Int($0))s" + (objective.map { ";;\(Int($0))" } ?? "")
        })
    }
    var rto = aspect("rto", database.slowestRecovery?.seconds, database.rtoSeconds, "not measured")
    // Nobody has measured it: that is no failure yet, and no success either.
    if database.rtoSeconds != nil, database.recovery.allSatisfy({ $0.seconds == nil }) { rto.state = .warning }
    if rto.state == .ok, let unmeasured = database.unmeasured {
      rto.state = .notRun
      rto.text += "; \(unmeasured): not measured"
    }
    var all = [
      aspect("rpo", database.ageSeconds, database.rpoSeconds, "no good backup"),
      aspect("proved", database.provedAgeSeconds, database.provedWithinSeconds, "not run"), rto,
    ]
    if database.newest?.proofFailed != nil {
      all[1].state = .critical
      all[1].text = "the last drill of the newest backup FAILED; newest proved: " + all[1].text
    }
    if database.ageSeconds == nil, all[0].state == .notRun {
      all[0].state = .warning
    }
    return all
  }
}
