import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Storage

/// Roles and tablespaces of a backup's server, as `pg_dumpall --globals-only` wrote them.
struct Globals: Sendable {
  struct Statement: Sendable {
    let statement: String
    /// Without passwords.
    let shown: String
  }

  private let lines: [String]

  init(_ text: String) {
    lines = Self.split(text)
  }

  /// The statements, each with its semicolon. A line inside a constant is no statement, whatever it says: anybody may set his own
  /// role's settings to any text.
  static func split(_ text: String) -> [String] {
    var statements: [String] = []
    var current = ""
    var quote: Character?
    var isEscaping = false
    var rest = text[...]
    while let character = rest.popFirst() {
      if let open = quote {
        current.append(character)
        if isEscaping, character == "\\", let next = rest.popFirst() {
          current.append(next)
        } else if character == open {
          // A doubled quote stands for itself.
          if rest.first == open { current.append(rest.removeFirst()) } else { quote = nil }
        }
      } else if character == "-", rest.first == "-", current.allSatisfy(\.isWhitespace) {
        rest = rest.drop { !$0.isNewline }
        current = ""
      } else if character == "'" || character == "\"" {
        quote = character
        isEscaping = character == "'" && current.last.map { $0 == "E" || $0 == "e" } == true
        current.append(character)
      } else if character == ";" {
        statements.append(String(current.drop(while: \.isWhitespace)) + ";")
        current = ""
      } else {
        current.append(character)
      }
    }
    return statements
  }

  static func read(
    _ manifest: Manifest, from stores: [any ObjectStore], identities: Keyring
  ) async throws(Fault) -> Globals? {
    guard let globals = manifest.globals else { return nil }
    var last: Fault?
    for store in stores {
      do throws(Fault) {
        let plain = try await ContentsReader(store: store, identities: identities).plain(
          globals.file, compression: globals.compression, of: manifest)
        return Globals(String(decoding: plain, as: UTF8.self))
      } catch {
        last = error
      }
    }
    throw last ?? Fault(.objectMissing, "No store has the globals of \(manifest.id).")
  }

  var roles: Set<String> { Set(lines.compactMap { Self.name($0, after: "CREATE ROLE ") }) }
  var tablespaces: Set<String> { Set(lines.compactMap { Self.name($0, after: "CREATE TABLESPACE ") }) }

  /// The role that the server was made with, as far as it shows: PostgreSQL 16 and later name it as who has granted memberships.
  var firstRole: String {
    let grantors = lines.compactMap { line in
      line.ranges(of: " GRANTED BY ").last.flatMap { range -> String? in
        var rest = line[range.upperBound...]
        return SQLName.read(&rest)
      }
    }
    return Dictionary(grantors.map { ($0, 1) }, uniquingKeysWith: +).max { ($0.value, $1.key) < ($1.value, $0.key) }?
      .key
      ?? "postgres"
  }

  /// The statements that make what a server lacks, and nothing that changes what it has.
  func missing(from inventory: PostgresSession.ServerInventory, withTablespaces: Bool) -> [Statement] {
    let newRoles = roles.subtracting(inventory.roles)
    let newSpaces = withTablespaces ? tablespaces.subtracting(inventory.tablespaces) : []
    let wanted = lines.filter { line in
      if !withTablespaces, line.contains(" ON TABLESPACE ") { return false }
      for word in ["CREATE ROLE ", "ALTER ROLE "] {
        if let name = Self.name(line, after: word) { return newRoles.contains(name) && !line.contains(" IN DATABASE ") }
      }
      for word in ["CREATE TABLESPACE ", "ALTER TABLESPACE "] {
        if let name = Self.name(line, after: word) { return newSpaces.contains(name) }
      }
      // GRANT a TO b …: memberships of new roles.
      if line.hasPrefix("GRANT "), let to = line.firstRange(of: " TO ") {
        var member = line[to.upperBound...]
        return SQLName.read(&member).map(newRoles.contains) ?? false
      }
      return false
    }
    return wanted.map { line in
      guard let range = line.firstRange(of: " PASSWORD '") else { return Statement(statement: line, shown: line) }
      return Statement(statement: line, shown: line[..<range.lowerBound] + " PASSWORD '…';")
    }
  }

  private static func name(_ line: String, after word: String) -> String? {
    guard line.hasPrefix(word) else { return nil }
    var rest = line.dropFirst(word.count)
    return SQLName.read(&rest)
  }
}
