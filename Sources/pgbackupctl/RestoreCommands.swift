import ArgumentParser
import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Quoting
import Synchronization
import Units

struct RestoreCommandLine: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore", abstract: "Restores a backup: proved row for row, swapped in, and undone by 'rollback'.",
    discussion: """
      By default the backup is loaded into a new database beside the live one, compared with its fingerprints, and swapped in by \
      rename; the old one is kept. With --table or --schema only those tables come back, into a schema of their own. On a terminal it \
      asks for the database's name; off one it needs --force.
      """)

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @Option(name: .long, help: "Only this table: NAME or SCHEMA.NAME, with * and ?. May be repeated.")
  var table: [String] = []
  @Option(
    name: .long, help: "Only the tables of this schema, with * and ?; with --into all that is in it. May be repeated.")
  var schema: [String] = []
  @Option(name: .long, help: "Into a new database of this name; the live one is not touched.") var into: String?
  @Flag(name: .long, help: "Drop the live database first, after a safety backup: where there is no room for two.")
  var inPlace = false
  @Flag(name: .long, help: "With --table: replace the rows of the live tables; what they had is kept in a schema.")
  var replace = false
  @Option(name: .long, help: "With --table: into this schema of the live database.") var intoSchema: String?
  @Flag(name: .long, help: "Create roles and tablespaces that the server lacks.") var globals = false
  @Flag(name: .long, help: "Everything belongs to the role that restores.") var noOwner = false
  @Flag(name: .long, help: "Leave out GRANTs.") var noPrivileges = false
  @Flag(name: .long, help: "Everything into the default tablespace.") var noTablespaces = false
  @Flag(name: .long, help: "Make no planner statistics: run ANALYZE yourself.") var noAnalyze = false
  @Option(name: .long, help: "SET ROLE to this before anything is made.") var role: String?
  @Option(name: [.customShort("j"), .long], help: "Connections that load at once.") var jobs: Int?
  @Flag(name: .long, help: "Also a backup whose manifest is not signed by a trusted key.") var acceptUntrusted = false
  @Flag(
    name: .long,
    help: "Go on where the server does not take an object, and list each; the swap is asked for once more.")
  var keepGoing = false
  @Flag(name: .long, help: "Show what would be done, and end.") var preview = false
  @Flag(name: .long, help: "Don't ask.") var force = false
  @Flag(name: .long, help: "Don't wait for the end.") var noWait = false
  @OptionGroup var connection: ConnectionOptions
  @OptionGroup(title: "Without a daemon") var standalone: StandaloneOptions

  func run() async throws {
    var command = RestoreCommand(id: id)
    (command.tables, command.schemas, command.into) = (table, schema, into)
    (command.inPlace, command.replace, command.intoSchema) = (inPlace, replace, intoSchema)
    (command.owner, command.privileges, command.tablespaces) = (!noOwner, !noPrivileges, !noTablespaces)
    (command.role, command.globals, command.jobs) = (role, globals, jobs)
    command.analyze = !noAnalyze
    command.acceptUntrusted = acceptUntrusted
    command.keepGoing = keepGoing
    if standalone.standalone { return try await runStandalone(command) }
    let plan = try connection.client.post(RestorePreview.self, "/v1/restores/preview", command)
    if preview { return try connection.show(plan) { RestoreText.preview($0) } }
    try confirm(plan)
    // The very backup that was shown, also where a newer one has come meanwhile.
    command.id = plan.backup.description
    let run = try connection.client.post(RunReport.self, "/v1/restores", command)
    let ended = try RunFollower(connection: connection, noWait: noWait).follow([run])
    guard let outcome = ended.first?.restore, outcome.awaitsSwap != nil else { return }
    try SwapQuestion(force: force).ask(of: plan.backup.database, outcome)
    let swapped = try connection.client.post(
      RestoreOutcome.self, "/v1/swap", SwapCommand(database: plan.backup.database, name: outcome.database))
    try connection.show(swapped) { RestoreText.swapped($0, in: plan.backup.database) }
  }

  private func confirm(_ plan: RestorePreview) throws {
    guard into == nil && (table.isEmpty && schema.isEmpty || replace) else { return }
    if !force { Terminal.complain(RestoreText.preview(plan)) }
    try Terminal.confirm("This changes the live database", database: plan.backup.database, force: force)
  }

  private func runStandalone(_ command: RestoreCommand) async throws {
    let work = try standalone.open()
    let plan = try await work.restore(command) { _ in }.preview()
    if preview { return try connection.show(plan) { RestoreText.preview($0) } }
    try confirm(plan)
    var command = command
    command.id = plan.backup.description
    let progress = StandaloneProgress(plan.backup)
    var restore = try await work.restore(command) { progress.show($0) }
    let (question, json) = (SwapQuestion(force: force), connection.json)
    restore.acceptsIncomplete = { outcome in
      progress.finish()
      if !json { Terminal.complain(RestoreText.unmade(outcome).joined(separator: "\n")) }
      return (try? question.ask(of: plan.backup.database, outcome)) != nil
    }
    let report = try await Interruptible.run { [restore] in try await work.run(restore, progress) }
    guard let outcome = report.restore else { return }
    try connection.show(report) { RestoreText.outcome(outcome, $0) }
  }
}

/// Asked when a database is loaded that lacks objects, before it takes the live one's place.
struct SwapQuestion: Sendable {
  let force: Bool

  /// Throws where the answer is not yes: the database stays beside the live one.
  func ask(of database: String, _ outcome: RestoreOutcome) throws(Fault) {
    let count = outcome.unmade?.count ?? 0
    do throws(Fault) {
      try Terminal.confirm(
        "\(count) object\(count == 1 ? "" : "s") of \(outcome.objects ?? count) could not be made; this puts '\(outcome.database)' in the place of the live database all the same",
        database: database, force: force)
    } catch {
      throw Fault(
        .confirmationNeeded, "Nothing was replaced: the restored database stays beside the live one.",
        hint: "pgbackupctl swap \(shell: database) \(shell: outcome.database); or drop it")
    }
  }
}

struct SwapCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "swap",
    abstract: "Puts a database that 'restore --keep-going' has left beside the live one into its place.",
    discussion: "What is replaced is kept, and 'rollback' undoes it. 'status' names the databases that wait.")

  @Argument(help: "The database's name in the configuration.") var database: String
  @Argument(help: "The one that takes its place, by its name on the server.") var name: String
  @Flag(name: .long, help: "Don't ask.") var force = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    try Terminal.confirm(
      "'\(name)' lacks objects and takes the place of the live database", database: database, force: force)
    let outcome = try connection.client.post(
      RestoreOutcome.self, "/v1/swap", SwapCommand(database: database, name: name))
    try connection.show(outcome) { RestoreText.swapped($0, in: database) }
  }
}

/// Shows the progress of work in this process, as that of a run of the daemon is shown.
final class StandaloneProgress: Sendable {
  let report: RunReport
  private let line = Mutex(ProgressLine())

  init(_ backup: BackupID) {
    var report = RunReport(
      id: "standalone", job: "restore", database: backup.database, reason: "on demand", by: nil,
      asked: SystemClock.now())
    (report.state, report.started, report.backup) = (.running, SystemClock.now(), backup)
    self.report = report
  }

  func show(_ progress: RunProgress) {
    var run = report
    run.progress = RunReport.Progress(progress)
    line.withLock { [run] in $0.show(run, at: SystemClock.now()) }
  }

  func finish() { line.withLock { $0.finish() } }
}

struct RollbackCommandLine: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rollback",
    abstract: "Undoes the last restore of a database: the one it replaced comes back, at once.",
    discussion: """
      What is replaced by this is kept too, so a second rollback undoes the first. Only a database is put back that the daemon has put \
      aside, as a signature or the ledger says; --kept names another one that bears the mark, after a look at it.
      """)

  @Argument(help: "The database's name in the configuration; standalone without one: its name on the server.")
  var database: String
  @Flag(name: .long, help: "Don't ask.") var force = false
  @Option(name: .long, help: "The database to put back, by its name on the server, whatever there is against it.")
  var kept: String?
  @OptionGroup var connection: ConnectionOptions
  @Flag(name: .long, help: "Work in this process: no daemon.") var standalone = false
  @Option(name: .long, help: "Standalone: the signing.pub of the daemon that put it aside.") var trust: [String] = []
  @Option(name: .long, help: "Standalone: the server, as a libpq URI or key=value (default: libpq's own).")
  var connect: String?
  @Option(name: .long, help: "Standalone: a configuration file that names the server, as the daemon has it.")
  var config: String?

  func run() async throws {
    try Terminal.confirm("All connections to the database are ended", database: database, force: force)
    let outcome =
      standalone
      ? try await Standalone.rollback(database, kept: kept, connect: connect, config: config, trust: trust)
      : try connection.client.post(
        RestoreOutcome.self, "/v1/rollback", RollbackCommand(database: database, kept: kept))
    try connection.show(outcome) { outcome in
      let kept = outcome.kept.map { "; what it was is kept as '\(line: $0)'" } ?? ""
      let until = outcome.replaced.map { " of \($0.rfc3339)" } ?? ""
      return "'\(line: outcome.database)' is back as it was before the restore\(until)\(kept).\n"
        + "It was away for \(RestoreText.seconds(outcome.downtimeSeconds ?? 0))."
    }
  }
}

struct CancelCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cancel", abstract: "Ends a run; nothing of it is kept, and a restore leaves all as it was.")

  @Argument(help: "The run, as 'status' shows it.") var id: String
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let path = "/v1/runs/\(id.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? id)/cancel"
    let report = try connection.client.post(RunReport.self, path, nil as String?)
    try connection.show(report) { "Run \($0.id), \(line: $0.job) of \(line: $0.database), is asked to end." }
  }
}

enum RestoreText {
  static func preview(_ plan: RestorePreview) -> String {
    var lines = [
      "Restore of \(line: plan.backup) (\(line: plan.type), taken \(plan.taken.rfc3339)) on \(line: plan.server):"
    ]
    lines += plan.steps.enumerated().map { "  \($0 + 1). \(line: $1)" }
    lines.append(
      "\(plan.rows) rows in \(plan.tables.count) tables, \(ByteCount(plan.bytes)) to load, "
        + "about \(ByteCount(plan.readBytes)) of \(ByteCount(plan.storedBytes)) to read.")
    // All of them: some may be replaced.
    if plan.readBytes < plan.storedBytes {
      lines.append("Tables: " + plan.tables.map { TerminalText.line($0) }.joined(separator: ", "))
    }
    lines.append(
      plan.seconds.map { "About \(Duration.seconds($0).spoken), by the last restore of this database." }
        ?? "How long it takes is not known yet: nothing of this database has been restored here.")
    if !plan.globals.isEmpty { lines += ["Roles and tablespaces:"] + plan.globals.map { "  \(line: $0)" } }
    lines += plan.warnings.map { "but: \($0)" }
    return lines.joined(separator: "\n")
  }

  static func outcome(_ outcome: RestoreOutcome, _ run: RunReport) -> String {
    let place =
      outcome.schema.map { "the schema '\(line: $0)' of '\(line: outcome.database)'" } ?? "'\(line: outcome.database)'"
    var lines = [
      "\(line: run.backup.map { "\($0)" } ?? run.id) is restored into \(place): "
        + "\(outcome.rows) rows in \(outcome.tables) table\(outcome.tables == 1 ? "" : "s"), \(outcome.provedTables) of them proved row for row."
    ]
    lines += outcome.unproved.map { "not proved: \(line: $0)" }
    lines += unmade(outcome)
    if let sentence = RestoreOutcome.sentence(derived: outcome.derived) { lines.append(TerminalText.line(sentence)) }
    if let kept = outcome.kept {
      lines.append(
        "What was there is kept as '\(line: kept)'."
          + (outcome.isWhole && outcome.schema == nil && !kept.contains(byte: UInt8(ascii: "/"))
            && run.id != "standalone"
            ? " Undo: pgbackupctl rollback \(shell: run.database)" : ""))
    }
    if let downtime = outcome.downtimeSeconds { lines.append("The database was away for \(seconds(downtime)).") }
    lines.append(
      "Read \(ByteCount(outcome.storedBytesRead)) of the artifact's \(ByteCount(outcome.storedBytes)). "
        + outcome.phases.map { "\($0.name) \(seconds($0.seconds))" }.joined(separator: ", "))
    // Told above, object by object.
    lines += outcome.warnings.filter { outcome.unmade == nil || $0 != outcome.incompleteness }.map { "but: \($0)" }
    return lines.joined(separator: "\n")
  }

  static func swapped(_ outcome: RestoreOutcome, in database: String) -> String {
    let undo = outcome.kept.map { kept in
      "; what was there is kept as '\(line: kept)'. Undo: pgbackupctl rollback \(shell: database)"
    }
    return "The restored database is '\(line: outcome.database)' now\(undo ?? "").\n"
      + "It was away for \(seconds(outcome.downtimeSeconds ?? 0))."
  }

  /// Each object that could not be made, with the server's words and the SQL that makes it.
  static func unmade(_ outcome: RestoreOutcome) -> [String] { unmade(outcome.unmade, of: outcome.objects) }

  static func unmade(_ unmade: [UnmadeObject]?, of count: Int?) -> [String] {
    guard let unmade, !unmade.isEmpty else { return [] }
    return ["\(unmade.count) of \(count ?? unmade.count) objects could not be made:"]
      + unmade.flatMap { object in
        ["  \(line: object.label)"] + object.reason.lines.map { "    \(line: $0)" }
          + (object.sql.map { sql in ["    when that is mended, run:"] + sql.lines.map { "      \(line: $0)" } } ?? [])
      }
  }

  /// With milliseconds: a swap is over in less than a second.
  static func seconds(_ value: Double) -> String {
    value < 10 ? "\(Int((value * 1000).rounded())) ms" : Duration.seconds(value).spoken
  }
}
