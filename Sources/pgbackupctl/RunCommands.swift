import ArgumentParser
import BackupCatalog
import ControlAPI
import Dispatch
import Faults
import Foundation
import Glibc
import Quoting
import Units

struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "run", abstract: "Runs a job now, on all its databases.")

  @Argument(help: "The job's name.") var job: String
  @Flag(name: .long, help: "Don't wait for the end.") var noWait = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let path = "/v1/jobs/\(job.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? job)/run"
    let runs = try connection.client.post([RunReport].self, path, nil as String?)
    try RunFollower(connection: connection, noWait: noWait).follow(runs)
  }
}

struct BackupCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Backs up one database now.",
    discussion: "The type decides where the backup is kept and how long; it is the name of a job.")

  @Argument(help: "The database's name in the configuration.") var database: String
  @Option(name: .long, help: "The type of the backup (default: manual).") var type: String?
  @Option(name: .long, help: "A note that stays with it, such as a release.") var label: String?
  @Option(name: .long, help: "Keep it for so long instead of as its type says: 36h, 7d.") var keep: String?
  @Flag(name: .long, help: "Don't wait for the end.") var noWait = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let command = ControlAPI.BackupCommand(database: database, type: type, label: label, keep: keep)
    let run = try connection.client.post(RunReport.self, "/v1/backups", command)
    try RunFollower(connection: connection, noWait: noWait).follow([run])
  }
}

/// Follows runs to their ends, one after the other, and ends as the worst of them did.
struct RunFollower {
  let connection: ConnectionOptions
  let noWait: Bool

  /// Returns the runs as they ended, where none of them failed.
  @discardableResult
  func follow(_ runs: [RunReport]) throws -> [RunReport] {
    if noWait {
      try connection.show(runs) { runs in
        runs.map { "run \($0.id): \(line: $0.job) of \(line: $0.database) is \($0.state.rawValue)" }.joined(
          separator: "\n")
      }
      return runs
    }
    var ended: [RunReport] = []
    for run in runs { ended.append(try toItsEnd(run)) }
    if connection.json {
      try connection.show(ended) { _ in "" }
    } else {
      for run in ended where run.fault == nil {
        Terminal.say(RunText.success(run))
      }
    }
    for run in ended {
      if run.fault != nil, let verified = run.verified, !connection.json {
        Terminal.say(CheckText.verified(verified, run))
      }
      if run.fault != nil, let drill = run.drill, !connection.json { Terminal.say(CheckText.drill(drill, run)) }
      if let fault = run.fault {
        Terminal.complain("\(line: run.job) of \(line: run.database) \(run.state.rawValue).\n\(fault)")
      }
    }
    let codes = ended.compactMap { $0.fault?.code.exitCode }
    if let worst = codes.first { throw Ending(code: worst) }
    return ended
  }

  /// Shows one run's progress, and returns it as it ended.
  func toItsEnd(_ run: RunReport) throws -> RunReport {
    // One that could not even begin.
    if run.state.isFinal { return run }
    let watch = LeavingNotice(run)
    defer { watch.end() }
    var last = run
    var line = ProgressLine()
    try connection.client.stream(RunReport.self, "/v1/runs/\(run.id)/events") { report in
      last = report
      line.show(report, at: SystemClock.now())
      return !report.state.isFinal
    }
    line.finish()
    guard last.state.isFinal else {
      throw Fault(
        .daemonUnreachable, "The daemon went away before run \(run.id) ended.",
        hint: "systemctl status pgbackupd; pgbackupctl log")
    }
    return last
  }
}

/// Who ends the client has not ended the run, and is told so.
///
/// - Safety: `@unchecked` because Dispatch's sources are not declared Sendable; they are made here, and cancelled by the one owner.
private final class LeavingNotice: @unchecked Sendable {
  private let sources: [any DispatchSourceSignal]

  init(_ run: RunReport) {
    let words =
      "\nThe run goes on: \(line: run.job) of \(line: run.database).\nnext: pgbackupctl cancel \(shell: run.id), to end it"
    sources = [SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { @Sendable in
        Terminal.complain(words)
        _exit(130)
      }
      source.resume()
      return source
    }
  }

  func end() { for source in sources { source.cancel() } }
}

enum RunText {
  static func success(_ run: RunReport) -> String {
    if let restore = run.restore { return RestoreText.outcome(restore, run) }
    if let verified = run.verified { return CheckText.verified(verified, run) }
    if let drill = run.drill { return CheckText.drill(drill, run) }
    var text = "\(line: run.backup.map { "\($0)" } ?? run.id): "
    text += "\(run.rows ?? 0) rows, \(ByteCount(run.storedBytes ?? 0)) stored"
    if let started = run.started, let finished = run.finished {
      text += " in \(Duration.seconds(finished.timeIntervalSince(started)).spoken)"
    }
    if let later = run.later {
      text += "\ncopies follow: \(line: later.joined(separator: ", ")) (pgbackupctl status shows them)"
    }
    for warning in run.warnings { text += "\nbut: \(warning)" }
    for anomaly in run.anomalies ?? [] {
      text += "\n\(anomaly.kind.isAlarming ? "IN DOUBT" : "note"): \(line: anomaly.text)"
    }
    if run.anomalies?.contains(where: \.kind.isAlarming) == true {
      text +=
        "\nnext: pgbackupctl history \(shell: run.database) TABLE; where it is right: pgbackupctl accept \(shell: run.backup.map { "\($0)" } ?? "ID")"
    }
    return text
  }
}
