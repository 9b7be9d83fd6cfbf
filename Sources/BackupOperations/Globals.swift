import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Storage

/// Roles and tablespaces of a backup's server, as `pg_dumpall --globals-only` wrote them: a statement to a line.
struct Globals: Sendable {
  struct Statement: Sendable {
    let statement: String
    /// Without passwords.
    let shown: String
  }

  private let lines: [String]

  init(_ text: String) {
    lines = text.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("--") && $0.hasSuffix(";") }
  }

  static func read(
    _ manifest: Manifest, from stores: [any ObjectStore], identities: [AgeIdentity]
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

  /// The statements that make what a server lacks, and nothing that changes what it has.
  func missing(from inventory: PostgresSession.ServerInventory) -> [Statement] {
    let newRoles = roles.subtracting(inventory.roles)
    let newSpaces = tablespaces.subtracting(inventory.tablespaces)
    let wanted = lines.filter { line in
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
