import ArgumentParser
import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Quoting
import Units

struct VerifyCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Reads stored backups back, whole, and compares them with what was written.",
    discussion: """
      At the level 'checksum' every stored byte is read, and sums and signature are compared; that needs no key. At the level \
      'archive' the backups are also decrypted, decompressed and parsed, and every table's rows and fingerprint compared. What is \
      damaged in one store is mended from another. Ends with 9 where anything is damaged.
      """)

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var ids: [String] = []
  @Flag(name: .long, help: "All backups.") var all = false
  @Option(name: .long, help: "Only in this store.") var store: [String] = []
  @Option(name: .long, help: "checksum or archive (default: as the job 'verify' has it).") var level: String?
  @Flag(name: .long, help: "Don't wait for the end.") var noWait = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    guard all != !ids.isEmpty || !store.isEmpty && !all else {
      throw Fault(
        .usage, all ? "--all and the names of backups exclude each other." : "Which backups? Name them, or add --all.",
        hint: "pgbackupctl list; pgbackupctl verify --all")
    }
    var command = VerifyCommand()
    (command.backups, command.stores, command.level) = (ids, store, level)
    let runs = try connection.client.post([RunReport].self, "/v1/verify", command)
    try RunFollower(connection: connection, noWait: noWait).follow(runs)
  }
}

struct DrillCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "drill", abstract: "Restores a backup into a private throw-away server and proves it there.",
    discussion: """
      Every table, sequence and large object is compared with the backup, then the database's own assertions are asked, and amcheck \
      where it is installed. The server listens on no TCP port and is gone afterwards. Code that lies in the backup (functions in checks, \
      views over foreign servers) runs there, with the rights of the account that drills run under. The proof is kept beside the \
      backup, signed.
      """)

  @Argument(
    help: ArgumentHelp(BackupArgument.help + " (default: the newest; a database's name is its newest)."),
    transform: BackupArgument.absolute)
  var id: String?
  @Option(name: .long, help: "The store to read it from. (default: the nearest)") var from: String?
  @Flag(name: .long, help: "Don't wait for the end.") var noWait = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let id = id.map {
      $0.utf8.contains(UInt8(ascii: "/")) || $0.utf8.contains(UInt8(ascii: ":")) || $0.starts(withBytes: "latest")
        ? $0 : "\($0)/latest"
    }
    let runs = try connection.client.post([RunReport].self, "/v1/drill", DrillCommand(backup: id, store: from))
    try RunFollower(connection: connection, noWait: noWait).follow(runs)
  }
}

/// What checks have found, as text for a terminal.
enum CheckText {
  static func verified(_ results: [Verification], _ run: RunReport) -> String {
    if results.isEmpty { return "\(line: run.database): nothing to verify." }
    var table = TextTable([
      "BACKUP", "TYPE", "STORE", "LEVEL", .number("STORED"), .number("ROWS"), .number("TOOK"), "RESULT",
    ])
    for result in results {
      table.add([
        "\(result.backup)", result.type, result.store, result.level.rawValue, "\(ByteCount(result.storedBytes))",
        result.level == .archive ? "\(result.rows)" : "-", took(result.seconds),
        result.fault.map { result.isDamaged ? "DAMAGED: \($0.message)" : "NOT READ: \($0.message)" }
          ?? "ok" + (result.note.map { " (\($0))" } ?? ""),
      ])
    }
    return table.text
  }

  static func drill(_ report: DrillReport, _ run: RunReport) -> String {
    let proof = report.proof
    var lines = [
      "\(line: proof.backup) is \(proof.isWhole ? "PROVED" : proof.isOfRows ? "PROVED in its rows, not in its schema" : "proved in part"): \(proof.provedTables) of \(proof.tables) tables, \(proof.rows) rows, "
        + "restored into \(line: proof.server) from \(line: proof.stores.joined(separator: ", ")) in \(took(proof.seconds))"
    ]
    lines.append(
      "  " + proof.phases.map { "\($0.name) \(took($0.seconds))" }.joined(separator: ", "))
    if proof.assertions > 0 {
      lines.append(proof.assertions == 1 ? "  1 assertion holds" : "  \(proof.assertions) assertions hold")
    }
    lines.append(
      "  amcheck: "
        + (proof.checkedRelations.map { "\($0) tables and indexes are sound" } ?? "not run, it is not installed"))
    lines += report.unproved.map { "  NOT PROVED \(line: $0)" }
    lines += RestoreText.unmade(report.unmade, of: report.objects).map { "  \($0)" }
    if let sentence = RestoreOutcome.sentence(derived: report.derived) { lines.append("  \(line: sentence)") }
    for warning in run.warnings { lines.append("but: \(warning)") }
    return lines.joined(separator: "\n")
  }

  private static func took(_ seconds: Double) -> String {
    if seconds >= 60 { return Duration.seconds(seconds).spoken }
    return String(format: seconds < 10 ? "%.2f s" : "%.1f s", seconds)
  }
}
