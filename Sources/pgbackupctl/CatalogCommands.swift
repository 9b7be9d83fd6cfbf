import ArgumentParser
import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Quoting
import Units

struct ListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "Lists the backups, the oldest first.")

  @Argument(help: "Only of this database.") var database: String?
  @OptionGroup var connection: ConnectionOptions
  @OptionGroup(title: "Without a daemon") var standalone: StandaloneOptions

  func run() async throws {
    if standalone.standalone {
      let backups = try await standalone.open().catalog().backups.filter {
        database.map($0.id.database.isExactly) ?? true
      }
      return try connection.show(backups.map { BackupSummary($0, retention: "-") }) { ReportText.list($0) }
    }
    let query = database.map { ["database": $0] } ?? [:]
    try connection.show(try connection.client.get([BackupSummary].self, "/v1/backups", query)) { ReportText.list($0) }
    // A daemon of an earlier version knows no such question.
    let unread = (try? connection.client.get([Fault].self, "/v1/unread")) ?? []
    for fault in unread { Terminal.complain("note: not all is shown. \(fault)") }
  }
}

struct ShowCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "Shows one backup.")

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    try connection.show(try connection.client.get(BackupDetail.self, "/v1/backup", ["id": id])) {
      ReportText.detail($0)
    }
  }
}

struct ContentsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "contents", abstract: "Lists a backup's tables with their rows, bytes and fingerprints.")

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    try connection.show(try connection.client.get(Contents.self, "/v1/contents", ["id": id])) {
      ReportText.contents($0)
    }
  }
}

struct PinCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pin", abstract: "Keeps a backup until it is unpinned, whatever its age.")

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @Option(name: .long, help: "Why.") var note: String?
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let detail = try connection.client.post(BackupDetail.self, "/v1/pin", BackupReference(id: id, note: note))
    try connection.show(detail) { "\($0.backup.id) is pinned." }
  }
}

struct UnpinCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "unpin", abstract: "Lets a pinned backup age again.")

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let detail = try connection.client.post(BackupDetail.self, "/v1/unpin", BackupReference(id: id))
    try connection.show(detail) { "\($0.backup.id) is not pinned; it is kept because: \(line: $0.retention)." }
  }
}

struct AcceptCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "accept", abstract: "Says that what a backup was flagged for is right.",
    discussion: "From then on the next backups are compared with this one, and the ones before it may expire again.")

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @Option(name: .long, help: "Why.") var note: String?
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let detail = try connection.client.post(BackupDetail.self, "/v1/accept", BackupReference(id: id, note: note))
    try connection.show(detail) { "\($0.backup.id) is accepted: what comes next is compared with it." }
  }
}

struct DeleteCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes one backup from every store.",
    discussion: """
      Asks for the database's name on a terminal; off one it needs --force. A pinned backup is refused. A damaged one, whose \
      manifest can't be read, goes by its whole name.
      """)

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @Flag(name: .long, help: "Don't ask, and delete also the only good backup of its database.") var force = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let damaged = try connection.client.get([DamagedBackup].self, "/v1/damaged", ["id": id])
    if let first = damaged.first { return try delete(first, damaged) }
    let found = try connection.client.get(BackupDetail.self, "/v1/backup", ["id": id]).backup
    try Terminal.confirm(
      "Deleting \(found.id) (\(found.manifest.type), \(ByteCount(found.manifest.storedBytes))) can't be undone",
      database: found.id.database, force: force)
    let reference = BackupReference(id: found.id.description, force: force)
    let gone = try connection.client.post(BackupDetail.self, "/v1/delete", reference)
    try connection.show(gone) {
      "\($0.backup.id) is deleted; \(ByteCount($0.backup.manifest.storedBytes)) are free again."
    }
  }

  private func delete(_ first: DamagedBackup, _ damaged: [DamagedBackup]) throws {
    try Terminal.confirm(
      "Deleting what is left of \(first.id) (\(first.type), \(first.fault.code.rawValue)) can't be undone",
      database: first.id.database, force: force)
    let gone = try connection.client.post(
      [DamagedBackup].self, "/v1/damaged/delete", BackupReference(id: first.id.description, force: force))
    try connection.show(gone) { gone in
      gone.map { "\($0.id) was damaged in '\($0.store)' and is deleted there." }.joined(separator: "\n")
    }
  }
}

struct ReconcileCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reconcile",
    abstract:
      "Shows what would be deleted and copied between stores, and why everything else stays; with --apply, does it.")

  @Flag(name: .long, help: "Do it.") var apply = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let report = try connection.client.post(ReconcileReport.self, "/v1/reconcile", ReconcileCommand(apply: apply))
    try connection.show(report) { ReportText.reconcile($0) }
    if report.steps.contains(where: { $0.fault != nil }) { throw Ending(code: .failed) }
    if !report.unread.isEmpty { throw Ending(code: .problemsFound) }
  }
}

enum BackupArgument {
  static let help =
    "DATABASE/YYYYMMDDTHHMMSSZ, DATABASE/latest, /oldest, /latest:TYPE or /at:TIME (such as \"2026-11-20 14:00\", by this machine's clock)."

  /// Times go to the daemon with their zone: it may run in another one.
  static func absolute(_ text: String) -> String { BackupSelector.absolute(text, in: .current) }
}
