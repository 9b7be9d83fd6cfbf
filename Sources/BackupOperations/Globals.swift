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
    lines = SQLText.statements(text)
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
  ///
  /// - Parameter withGrantors: whether they name who has granted a membership. Up to PostgreSQL 15 that was anybody, and nothing hung on it;
  ///   from 16 on it has to be somebody who has the group with ADMIN OPTION (`check_role_grantor` of user.c).
  func missing(
    from inventory: PostgresSession.ServerInventory, withTablespaces: Bool, withGrantors: Bool = true
  ) -> [Statement] {
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
      // GRANT a TO b …: memberships of new roles, and in them.
      if line.hasPrefix("GRANT ") {
        var granted = line.dropFirst("GRANT ".count)
        let group = SQLName.read(&granted)
        // Of a membership the group's name stands before it, whatever words that has in it.
        let isMembership = granted.hasPrefix(" TO ")
        guard let to = isMembership ? granted.firstRange(of: " TO ") : line.firstRange(of: " TO ") else { return false }
        var member = isMembership ? granted[to.upperBound...] : line[to.upperBound...]
        guard let name = SQLName.read(&member) else { return false }
        let isNewGroup = isMembership && group.map(newRoles.contains) == true
        return newRoles.contains(name) || isNewGroup && inventory.roles.contains(name)
      }
      return false
    }
    return wanted.map { withGrantors ? $0 : Self.withoutGrantor($0) }.map { line in
      guard let range = line.firstRange(of: " PASSWORD '") else { return Statement(statement: line, shown: line) }
      return Statement(statement: line, shown: line[..<range.lowerBound] + " PASSWORD '…';")
    }
  }

  private static func withoutGrantor(_ line: String) -> String {
    // A name in quotes may have the words in it: of an even number of quotes before them, none is open.
    let last = line.ranges(of: " GRANTED BY ").last { line[..<$0.lowerBound].count { $0 == "\"" }.isMultiple(of: 2) }
    guard line.hasPrefix("GRANT "), let last else { return line }
    return line[..<last.lowerBound] + ";"
  }

  private static func name(_ line: String, after word: String) -> String? {
    guard line.hasPrefix(word) else { return nil }
    var rest = line.dropFirst(word.count)
    return SQLName.read(&rest)
  }
}
