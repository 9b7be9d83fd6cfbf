package import Faults
package import Foundation
import Glibc
import PostgresArchive
package import PostgresTools
import Quoting

/// A dump that something else made with pg_dump: one file, or a directory-format archive, packed or not. What can be told of it without
/// loading it.
package struct DumpFile: Sendable, Equatable {
  package enum Kind: String, Sendable, Codable {
    case plain
    case custom
    case tar
    case directory
  }

  package let path: String
  let source: DumpSource
  package let kind: Kind
  /// Of a packed file, what unpacks it to standard output; nil where it is not packed.
  let unpacker: String?
  package let bytes: Int64
  /// The database's name, where the dump has it.
  package let database: String?
  /// When it was made: by the dump's own words (the hour of the machine that made it), else by the file's name or time.
  package let taken: Date
  /// The file's time.
  let changed: Date
  /// The server's version that the dump names.
  package let serverVersion: String?
  /// `SET client_encoding`, in which the text is.
  package let encoding: String
  /// Roles that it gives things to.
  let roles: [String]
  /// What the dump has of its database itself: nothing, where it is text without `--create`.
  package let creation: DatabaseCreation

  /// Where it was made by a clock that was ahead: a backup of the future would count for nothing.
  package func taken(notAfter now: Date) -> Date { taken <= now ? taken : min(changed, now) }

  package var serverMajor: Int { serverVersion.flatMap { Int($0.prefix { $0.isNumber }) } ?? 0 }

  /// What unpacks a file that begins so, by its magic number.
  private static let packers: [(magic: [UInt8], program: String)] = [
    ([0x1F, 0x8B], "gzip"), ([0x28, 0xB5, 0x2F, 0xFD], "zstd"), ([0x42, 0x5A, 0x68], "bzip2"),
    ([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00], "xz"),
  ]

  /// Looks into a file.
  ///
  /// - Parameter isQuick: reads no packed file to its end: whether that is whole, and whose its things are, is then not known.
  /// - Throws: `E-ADOPT-REFUSED` where it is no dump of one database, or one that was cut off.
  package init(_ path: String, programs: ClientPrograms, isQuick: Bool = false) async throws(Fault) {
    self.path = path
    source = try await DumpSource.open(path)
    let (isFolder, magic) = (source.isFolder, source.magic)
    guard !magic.starts(with: [0xFF, 0xFE]), !magic.starts(with: [0xFE, 0xFF]) else {
      throw Self.refused(
        path, "is UTF-16 text, as PowerShell's '>' writes it", "what psql reads is UTF-8: iconv -f UTF-16 -t UTF-8")
    }
    unpacker = Self.packers.first { magic.starts(with: $0.magic) }?.program
    let head = isFolder ? "" : try await Self.shell("\(Self.reading(unpacker)) | head -c 65536", path, source)
    if isFolder {
      guard faccessat(source.descriptor, "toc.dat", R_OK, 0) == 0 else {
        throw Self.refused(path, "is a folder without toc.dat: no archive of pg_dump's directory format", nil)
      }
      kind = .directory
    } else if head.starts(withBytes: "PGDMP") {
      kind = .custom
    } else if head.starts(withBytes: "toc.dat\0") {
      kind = .tar
    } else if Self.title(of: head) == "-- PostgreSQL database dump" {
      kind = .plain
    } else if Self.title(of: head) == "-- PostgreSQL database cluster dump" {
      throw Self.refused(path, "is pg_dumpall's text of a whole server", "load it into a server, and back that up")
    } else {
      throw Self.refused(path, "is no dump that pg_dump makes", nil)
    }
    bytes = source.bytes
    let fileTime = source.changed
    changed = fileTime
    let outerTime = DumpName(path).taken(changed: fileTime)
    if kind == .plain {
      // psql takes the end of a file for the end of a COPY: half a dump would load well.
      if !isQuick || unpacker == nil {
        let end = try await Self.shell("\(Self.reading(unpacker, seeking: true)) tail -c 4096", path, source)
        guard end.lines.contains("-- PostgreSQL database dump complete") else {
          throw Self.refused(path, "is not whole", "its last line, 'PostgreSQL database dump complete', is missing")
        }
      }
      serverVersion = Self.value(after: "-- Dumped from database version ", in: head)
      taken = Self.value(after: "-- Started on ", in: head).flatMap(Self.time) ?? outerTime
      var scanner = PlainDumpScanner()
      _ = scanner.pass(Array(head.utf8))
      database = scanner.commands.first { $0.starts(withBytes: "\\connect ") }.flatMap(Self.connected)
      var findings = PlainDump.Findings()
      if !isQuick {
        let text = PlainDump(path: path, source: source, reading: Self.reading(unpacker), isOfOurName: true)
        do {
          findings = try await text.read()
        } catch {
          throw Fault(error)
        }
      }
      (encoding, roles, creation) = (findings.encoding ?? "UTF8", findings.roles.sorted(), findings.creation)
    } else {
      // The newest: it reads the archives of all before it, and those of nobody behind it.
      let program = try await programs.newest("pg_restore")
      let list = try await Self.shell(
        Self.restoring(program.path, "--list", unpacker), path, source, running: program.path)
      serverVersion = Self.value(after: ";     Dumped from database version: ", in: list)
      database = Self.value(after: ";     dbname: ", in: list)
      taken = Self.value(after: "; Archive created at ", in: list).flatMap(Self.time) ?? outerTime
      var findings = PlainDump.Findings()
      if !isQuick {
        let script = "set -o pipefail; " + Self.restoring(program.path, "--schema-only --create --file=-", unpacker)
        do {
          let rules = try source.rules(for: program.path)
          findings = try await PlainDump(
            path: path, source: source, reading: script, isOfOurName: true, mayStopEarly: true, rules: rules
          ).read()
        } catch {
          throw Fault(error)
        }
      }
      (encoding, roles, creation) = (findings.encoding ?? "UTF8", findings.roles.sorted(), findings.creation)
    }
  }

  /// The shell words that put the plain dump on standard output. The path is `$1`, so that no shell reads it.
  static func reading(_ unpacker: String?) -> String { unpacker.map { "\($0) -dc <\"$1\"" } ?? "cat <\"$1\"" }

  /// The same before a program that may seek, where there is something to seek in.
  private static func reading(_ unpacker: String?, seeking: Bool) -> String {
    unpacker == nil ? "<\"$1\"" : "\(reading(unpacker)) |"
  }

  /// A script that runs pg_restore on the dump.
  func restoring(_ program: String, _ arguments: String) -> String {
    Self.restoring(program, arguments, unpacker)
  }

  private static func restoring(_ program: String, _ arguments: String, _ unpacker: String?) -> String {
    unpacker == nil ? "\(shell: program) \(arguments) \"$1\"" : "\(reading(unpacker)) | \(shell: program) \(arguments)"
  }

  var reading: String { Self.reading(unpacker) }

  // MARK: - Reading text

  private static func value(after prefix: String, in text: String) -> String? {
    guard var line = text.lines.first(where: { $0.starts(withBytes: prefix) }), line.skip(prefix) else { return nil }
    let value = line.withoutBlanks
    return value.isEmpty ? nil : String(value.unicodeScalars.prefix(200))
  }

  /// `\connect name`, of a dump with `--create`.
  private static func connected(_ command: String) -> String? {
    var rest = command[...]
    guard rest.skip("\\connect ") else { return nil }
    // `-reuse-previous=on "dbname='name'"` (`appendPsqlMetaConnect` of string_utils.c).
    guard rest.skip("-reuse-previous=on ") else { return SQLName.read(&rest) }
    guard let words = SQLName.read(&rest) else { return nil }
    return try? ConnectionSettings(parsing: words)["dbname"]
  }

  /// `2026-11-20 02:00:01 UTC`: what stands for the zone is that of the machine which prints, and not of the one which dumped.
  private static func time(_ text: String) -> Date? {
    let numbers = text.split { !$0.isASCII || !$0.isNumber }.prefix(6).compactMap { Int32($0) }
    guard numbers.count == 6, (1990...2200).contains(numbers[0]) else { return nil }
    var broken = tm()
    (broken.tm_year, broken.tm_mon, broken.tm_mday) = (numbers[0] - 1900, numbers[1] - 1, numbers[2])
    (broken.tm_hour, broken.tm_min, broken.tm_sec) = (numbers[3], numbers[4], numbers[5])
    broken.tm_isdst = -1
    let seconds = mktime(&broken)
    return seconds < 0 ? nil : Date(timeIntervalSince1970: Double(seconds))
  }

  /// The first comment of a plain dump that says something.
  private static func title(of head: String) -> Substring? {
    head.lines.prefix(10).first { $0.starts(withBytes: "-- PostgreSQL database ") }
  }

  /// The roles that statements give things to, or take them from.
  static func roles(in statements: [String]) -> Set<String> {
    var found: Set<String> = []
    for statement in statements.map({ SQLTokens($0) }) {
      for position in positions(in: statement) {
        var next = position
        repeat {
          // PUBLIC, CURRENT_USER and the like are no names where they stand without quotes.
          guard let name = statement.name(at: next) else { break }
          if !keywords.contains(where: { statement.isWord($0, at: next) }) { found.insert(name) }
          next += 2
        } while statement.isSymbol(",", at: next - 1)
      }
    }
    return found.subtracting(["postgres"]).filter { !$0.starts(withBytes: "pg_") }
  }

  private static let keywords = ["PUBLIC", "CURRENT_USER", "SESSION_USER", "DEFAULT"]

  /// Where lists of roles begin.
  private static func positions(in statement: SQLTokens) -> [Int] {
    func behind(_ position: Int?) -> [Int] { position.map { [$0 + 1] } ?? [] }
    if statement.begins(with: "ALTER", "DEFAULT", "PRIVILEGES") {
      return (statement.isWord("FOR", at: 3) ? [5] : []) + behind(statement.lastWord("TO"))
        + behind(statement.lastWord("FROM"))
    }
    if statement.begins(with: "ALTER", "ROLE") { return statement.isWord("IN", at: 3) ? [2] : [] }
    if statement.isWord("ALTER", at: 0) {
      return behind(
        statement.tokens.indices.last { statement.isWord("TO", at: $0) && statement.isWord("OWNER", at: $0 - 1) })
    }
    if statement.isWord("GRANT", at: 0) { return behind(statement.lastWord("TO")) }
    // An expression may stand behind a policy's roles, and can't have this key word before them.
    if statement.begins(with: "CREATE", "POLICY") { return behind(statement.firstWord("TO")) }
    if statement.isWord("REVOKE", at: 0) { return behind(statement.lastWord("FROM")) }
    return statement.begins(with: "SET", "SESSION", "AUTHORIZATION") ? [3] : []
  }

  // MARK: - Files and programs

  /// Runs a script with the dump as `$1`, and gives what it prints, up to 16 MiB of it.
  private static func shell(
    _ script: String, _ path: String, _ source: DumpSource, running program: String? = nil
  ) async throws(Fault) -> String {
    do {
      let output = try await ClientProcess(
        path: "/bin/bash", arguments: ["-o", "pipefail", "-c", script, "adopt", DumpSource.place], files: [source],
        rules: source.rules(for: program)
      ).capture(limit: 16 << 20)
      // 141: `head` has read enough, and the unpacker was told by a signal.
      guard output.status.isSuccess || output.status == .exited(141) else {
        throw refused(
          path, "can't be read to its end", words(output, of: path))
      }
      return String(decoding: output.standardOutput, as: UTF8.self)
    } catch {
      throw Fault(error)
    }
  }

  /// What a program complains of, with the dump's own path.
  static func words(_ output: ClientProcess.Captured, of path: String) -> String {
    output.complaint.isEmpty
      ? output.status.text : output.complaint.replacingBytes(of: DumpSource.place, with: path)
  }

  static func refused(_ path: String, _ what: String, _ cause: String?) -> Fault {
    Fault(
      .adoptRefused, "'\(path)' \(what).", cause: cause,
      hint: "it stays as it is; pgbackupctl adopt --help tells what can be adopted")
  }
}
