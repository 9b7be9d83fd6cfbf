import ArgumentParser
import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Quoting
import Units

struct AdoptCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "adopt",
    abstract: "Makes backups of dumps that pg_dump has made before: *.sql, *.dump, *.tar, packed or not.",
    discussion: """
      PATH is a dump, or a folder with dumps, where the daemon can read it. Each is loaded into a private throw-away server and backed up \
      from there under the time that it was made: then it is listed, verified, drilled and restored, whole or by table, like any other. \
      The file itself stays as it is. A server of its major version, or a newer one, has to be installed here (postgresql-NN), and the \
      extensions that it uses.

      The database's locale decides how text is sorted and compared. Archives have it, and text that was made with --create. Else it is \
      that of the newest backup of the same database, or of the configured database itself; where neither is there, --locale says it.

      An adopted backup stays until it is deleted, or goes by the 'keep' of the job whose name is its type.
      """)

  @Argument(help: "Dumps, or folders with dumps.") var path: [String]
  @Option(name: .long, help: "The database's name in the catalog (default: the dump's own).") var database: String?
  @Option(name: .long, help: "The backups' type.") var type = "adopted"
  @Option(name: .long, help: "The database's locale: de_DE.UTF-8, icu:de-AT or builtin:C.UTF-8 (default: as it was).")
  var locale: String?
  @Flag(name: .long, help: "Tell what is there, and end.") var list = false
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    guard !path.isEmpty else { throw Fault(.usage, "Which dumps?", hint: "pgbackupctl adopt /var/backups/pg") }
    var found: [AdoptableDump] = []
    for path in path {
      var command = AdoptCommand(path: URL(filePath: path).standardizedFileURL.path)
      command.database = database
      found += try connection.client.post([AdoptableDump].self, "/v1/adoptions/preview", command)
    }
    if list { return try connection.show(found) { Self.table($0) } }
    let wanted = found.filter { $0.fault == nil && $0.backup == nil }
    var ended: [RunReport] = []
    for dump in wanted {
      if let doubt = Self.doubt(dump) { Terminal.complain("\(line: dump.path)\n  \(line: doubt)") }
      var command = AdoptCommand(path: dump.path)
      (command.database, command.type, command.locale) = (database, type, locale)
      let run = try connection.client.post(RunReport.self, "/v1/adoptions", command)
      ended.append(try RunFollower(connection: connection, noWait: false).toItsEnd(run))
      if !connection.json, let last = ended.last, last.fault == nil {
        Terminal.say("\(line: dump.path)\n  \(RunText.success(last))")
      }
    }
    if connection.json { try connection.show(ended) { _ in "" } }
    for dump in found {
      if let backup = dump.backup, !connection.json {
        Terminal.say("\(line: dump.path)\n  adopted before, as \(line: backup)")
      }
      if let fault = dump.fault { Terminal.complain("\(fault)") }
    }
    for run in ended { if let fault = run.fault { Terminal.complain("\(fault)") } }
    let failed = ended.compactMap(\.fault) + found.compactMap(\.fault)
    if let worst = failed.first { throw Ending(code: worst.code.exitCode) }
  }

  /// A dump among those of another database.
  private static func doubt(_ dump: AdoptableDump) -> String? {
    dump.ownDatabase.map { "is of '\($0)', by its own words" }
  }

  private static func table(_ found: [AdoptableDump]) -> String {
    var table = TextTable(["DUMP", "FORMAT", "DATABASE", "MADE", "POSTGRESQL", "SIZE", "STATE"])
    for dump in found {
      table.add([
        dump.path.split(atByte: UInt8(ascii: "/")).last.map(String.init) ?? dump.path, dump.kind ?? "-",
        dump.database ?? "-",
        dump.taken?.rfc3339 ?? "-", dump.serverVersion.map { String($0.prefix { $0 != " " }) } ?? "-",
        dump.bytes.map { "\(ByteCount($0))" } ?? "-",
        dump.backup.map { "adopted: \($0)" } ?? dump.fault?.message
          ?? "can be adopted" + (Self.doubt(dump).map { ", but \($0)" } ?? ""),
      ])
    }
    return found.isEmpty ? "There is nothing there." : table.text
  }
}
