import ArgumentParser
import BackupCatalog
import BackupConfiguration
import BackupOperations
import Confinement
import ControlAPI
import CronSchedule
import Faults
import Foundation
import PostgresTools
import Quoting
import Units

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "One screen: databases, stores, runs, problems. Ends with 10 where there are problems.")

  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let report = try connection.client.get(StatusReport.self, "/v1/status")
    try connection.show(report) { ReportText.status($0) }
    if !report.problems.isEmpty { throw Ending(code: .problemsFound) }
  }
}

struct JobsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jobs", abstract: "Lists the jobs, what their schedules mean and when they are due next.")

  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    try connection.show(try connection.client.get([JobReport].self, "/v1/jobs")) {
      ReportText.jobs($0, now: SystemClock.now())
    }
  }
}

struct ScheduleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schedule", abstract: "Tries a cron expression: what it means, and when it is due next.")

  @Argument(help: "Five fields, or @daily and friends.") var expression: String
  @Option(name: .long, help: "The time zone, such as Europe/Berlin (default: this machine's).") var zone: String?
  @Option(name: .long, help: "Begin after this time (RFC 3339; default: now).") var after: String?
  @Option(name: .long, help: "How many instants.") var count = 5
  @Flag(name: .long, help: "Only the instants, one a line.") var plain = false

  func run() throws {
    guard (1...1000).contains(count) else { throw Fault(.usage, "--count takes 1 to 1000.") }
    let parsed: CronExpression
    do throws(CronParseError) {
      parsed = try CronExpression(parsing: expression)
    } catch {
      let caret = String(repeating: " ", count: max(0, error.column - 1)) + "^"
      throw Fault(.usage, error.message + ".", cause: "\(expression)\n\(caret)", hint: "man 5 crontab")
    }
    let zone = try zone(named: zone)
    var instant = SystemClock.now()
    if let after {
      guard let date = Date(rfc3339: after) else {
        throw Fault(.usage, "'\(after)' is no time: write 2026-11-22T02:00:00Z.")
      }
      instant = date
    }
    let schedule = ZonedSchedule(parsed, in: zone)
    if !plain { print("\(parsed)  \(schedule.zone.identifier)\n\(parsed.sentence)\n") }
    for _ in 0..<count {
      guard let next = schedule.next(after: instant) else { break }
      print(LocalTime.rfc3339(next, schedule.zone))
      instant = next
    }
  }

  private func zone(named name: String?) throws(Fault) -> ZoneRules {
    guard let name else { return SystemZones.standard.local() }
    do throws(Fault) {
      return try SystemZones.standard.zone(name)
    } catch {
      throw Fault(.usage, error.message + ".", hint: error.hint)
    }
  }
}

struct LogCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "log", abstract: "Shows the ledger: runs, deletions, reloads, who asked and why.")

  @Option(name: .shortAndLong, help: "How many of the last records.") var lines = 20
  @Flag(name: .shortAndLong, help: "Go on showing new ones.") var follow = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let query = ["lines": "\(lines)", "follow": follow ? "1" : "0"]
    try connection.client.streamLines("/v1/log", query) { line in
      // As it is where it is for programs: a record may hold more than this version knows. Written at once, whatever standard
      // output is: who follows wants each line when it comes.
      let text = connection.json ? line : Data(try ControlJSON.decode(LedgerLine.self, from: line).text.utf8)
      FileHandle.standardOutput.write(Data((JSONText.shown(String(decoding: text, as: UTF8.self)) + "\n").utf8))
      return true
    }
  }
}

struct ReloadCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reload",
    abstract: "Makes the daemon read its configuration anew. A file with mistakes changes nothing.")

  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let report = try connection.client.post(ReloadReport.self, "/v1/reload", nil as String?)
    try connection.show(report) { report in
      report.changes.isEmpty
        ? "Reloaded; nothing changed." : "Reloaded:\n" + report.changes.map { "  \($0)" }.joined(separator: "\n")
    }
  }
}

struct ConfigCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config", abstract: "Works on configuration files.", subcommands: [ConfigCheckCommand.self])
}

struct ConfigCheckCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Tells every mistake in a configuration file, with its line and column.",
    discussion: """
      Asks the servers that answer at once whether a role is more than it needs to be; that, and connections whose server proves nothing, are \
      warnings, which change no exit code.
      """)

  @Argument(help: "The file.") var file = "/etc/pgbackupd/pgbackupd.yaml"

  func run() async throws {
    let configuration = try ConfigurationReader.load(file)
    Terminal.say("\(line: file) is valid.")
    for database in configuration.databases {
      let pattern = database.pattern.map { " (databases like \($0.include.joined(separator: ", ")))" } ?? ""
      Terminal.say(TerminalText.line("  database \(database.name): \(database.place)\(pattern)"))
    }
    for job in configuration.jobs {
      let when = job.timing.map { "\($0.schedule.expression.sentence) (\($0.schedule.zone.identifier))" } ?? "on demand"
      Terminal.say(TerminalText.line("  job \(job.name): \(when)"))
    }
    for warning in configuration.warnings + (await warnings(configuration)) + unconfinedDrills(configuration) {
      Terminal.say("warning: " + "\(warning)".lines.joined(separator: "\n  "))
    }
  }

  /// What this kernel can't refuse to code of a backup.
  private func unconfinedDrills(_ configuration: Configuration) -> [Fault] {
    guard configuration.drills.server == nil,
      configuration.jobs.contains(where: { $0.action == .drill && $0.timing != nil })
    else { return [] }
    return KernelWalls().gaps(nil).map { Fault(.confinementWeak, $0, hint: KernelWalls.hint) }
  }

  /// In the order of the file; all servers are asked at once, and for a moment only.
  private func warnings(_ configuration: Configuration) async -> [Fault] {
    var checks: [ConnectionCheck] = []
    for database in configuration.databases {
      checks.append(ConnectionCheck(database.connection.impatient, of: "'\(database.name)'", readsOnly: true))
      if let connection = database.restoreConnection {
        checks.append(ConnectionCheck(connection.impatient, of: "'\(database.name)' for restores", readsOnly: false))
      }
    }
    if let server = configuration.drills.server {
      checks.append(ConnectionCheck(server.impatient, of: "drills", readsOnly: false))
    }
    return await withTaskGroup(of: (Int, [Fault]).self) { group in
      for (position, check) in checks.enumerated() {
        group.addTask { (position, await check.warnings(within: .seconds(5))) }
      }
      var found: [(Int, [Fault])] = []
      for await one in group { found.append(one) }
      return found.sorted { $0.0 < $1.0 }.flatMap(\.1)
    }
  }
}

extension ConnectionSettings {
  fileprivate var impatient: ConnectionSettings {
    var settings = self
    settings.setDefault("connect_timeout", "3")
    return settings
  }
}
