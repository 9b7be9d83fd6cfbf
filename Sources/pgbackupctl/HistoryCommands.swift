import ArgumentParser
import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Quoting
import Units

struct ExtractCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "extract", abstract: "Writes one table's rows out of a backup; no PostgreSQL is involved.",
    discussion: """
      Only the table's own bytes are read. JSON has every value as a string, as PostgreSQL writes it: a backup tells names of columns, \
      not types. Where the data turns out damaged, the exit status is not 0, and what was written is not whole.
      """)

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var id: String
  @Option(name: .long, help: "The table: NAME or SCHEMA.NAME.") var table: String
  @Option(name: .long, help: "Only these columns, in this order: a,b,c.") var columns: String?
  @Option(name: .long, help: "copy (COPY's text format), csv or json (JSON lines).") var format = "copy"
  @Flag(name: .long, help: "Also a backup whose manifest is not signed by a trusted key.") var acceptUntrusted = false
  @OptionGroup var connection: ConnectionOptions
  @OptionGroup(title: "Without a daemon") var standalone: StandaloneOptions

  func run() async throws {
    let names = columns.map { $0.split(atByte: UInt8(ascii: ",")).map(String.init) } ?? []
    if standalone.standalone {
      guard let format = Extract.Format(rawValue: format) else {
        throw Fault(.usage, "'\(format)' is no format: write copy, csv or json.")
      }
      let source = try await standalone.open().source(id, acceptUntrusted: acceptUntrusted)
      var extract = try Extract(table, columns: names, format: format, from: source)
      var output = RowOutput()
      while let bytes = try await extract.next() { try output.write(Data(bytes)) }
      try output.end()
      return
    }
    var query = ["id": id, "table": table, "format": format]
    query["columns"] = columns
    if acceptUntrusted { query["accept_untrusted"] = "true" }
    var output = RowOutput()
    try connection.client.pour("/v1/extract", query) { try output.write($0) }
    try output.end()
  }
}

struct HistoryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "history", abstract: "Shows a table's rows across the backups, and where rows vanished.")

  @Argument(help: "The database's name in the configuration.") var database: String
  @Argument(help: "The table: NAME or SCHEMA.NAME.") var table: String
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let history = try connection.client.get(
      TableHistory.self, "/v1/history", ["database": database, "table": table])
    try connection.show(history) { HistoryText.history($0) }
  }
}

struct DiffCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "diff", abstract: "Shows which tables differ between two backups.")

  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var old: String
  @Argument(help: ArgumentHelp(BackupArgument.help), transform: BackupArgument.absolute) var new: String
  @Flag(name: .long, help: "Also the tables that are the same.") var all = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let before = try connection.client.get(Contents.self, "/v1/contents", ["id": old])
    let after = try connection.client.get(Contents.self, "/v1/contents", ["id": new])
    try connection.show(BackupDifference(before, after)) { HistoryText.difference($0, all: all) }
  }
}

enum HistoryText {
  static func history(_ history: TableHistory) -> String {
    var table = TextTable(["BACKUP", "TYPE", .number("ROWS"), .number("CHANGE"), .number("BYTES"), ""])
    var before: Int64?
    for entry in history.entries {
      let difference = entry.rows.flatMap { rows in before.map { rows - $0 } }
      table.add([
        "\(entry.backup)", entry.type, entry.rows.map { "\($0)" } ?? "-",
        difference.map { $0 == 0 ? "" : ($0 > 0 ? "+\($0)" : "\($0)") } ?? "",
        entry.bytes.map { "\(ByteCount($0))" } ?? "-", word(entry.change),
      ])
      before = entry.rows ?? before
    }
    return "\(line: history.table)\n\n\(table.text)"
  }

  static func difference(_ difference: BackupDifference, all: Bool) -> String {
    let changed = difference.tables.filter { $0.change != .same }
    var table = TextTable(["TABLE", .number("ROWS BEFORE"), .number("ROWS AFTER"), .number("BYTES AFTER"), ""])
    for entry in all ? difference.tables : changed {
      table.add([
        entry.name, entry.oldRows.map { "\($0)" } ?? "-", entry.newRows.map { "\($0)" } ?? "-",
        entry.newBytes.map { "\(ByteCount($0))" } ?? "-", word(entry.change),
      ])
    }
    let summary =
      "\(changed.count) of \(difference.tables.count) tables differ between \(line: difference.old) and \(line: difference.new)."
    return changed.isEmpty && !all ? summary : "\(table.text)\n\n\(summary)"
  }

  private static func word(_ change: TableHistory.Entry.Change) -> String {
    switch change {
    case .first: ""
    case .same: "same rows"
    case .changed: "changed"
    case .vanished: "ROWS VANISHED"
    case .appeared: "new"
    case .gone: "GONE"
    case .absent: "not there"
    case .unreadable: "can't be read: pgbackupctl contents tells why"
    }
  }
}

/// Rows on standard output: as they are into a pipe or a file. On a terminal no value of theirs acts on it.
private struct RowOutput {
  private let isTerminal = isatty(1) == 1
  private var rest = Data()

  mutating func write(_ bytes: Data) throws {
    guard isTerminal else { return try FileHandle.standardOutput.write(contentsOf: bytes) }
    rest.append(bytes)
    guard let end = rest.lastIndex(of: 10) else { return }
    try show(rest[...end])
    rest = Data(rest[rest.index(after: end)...])
  }

  mutating func end() throws {
    try show(rest)
    rest = Data()
  }

  private func show(_ bytes: Data) throws {
    let text = TerminalText.lines(String(decoding: bytes, as: UTF8.self))
    try FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
  }
}
