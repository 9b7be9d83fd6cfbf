import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting
import Storage

/// Roles and tablespaces of a backup's server, as `pg_dumpall --globals-only` wrote them.
struct Globals: Sendable {
  struct Statement: Sendable {
    let statement: String
    /// Without what may be a secret: passwords, and the values of roles' settings.
    let shown: String
    /// The statement without a password.
    let withoutPassword: String
  }

  /// Independent of `standard_conforming_strings`, whatever the text itself sets: they run in sessions of ours.
  private let statements: [SQLTokens]

  init(_ text: String) {
    statements = SQLText.statements(text)
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

  var roles: Set<ExactText> { statements.compactMap { Self.name($0, after: "CREATE", "ROLE") }.exact }
  var tablespaces: Set<String> { Set(statements.compactMap { Self.name($0, after: "CREATE", "TABLESPACE") }) }

  /// The role that the server was made with, as far as it shows: PostgreSQL 16 and later name it as who has granted memberships.
  var firstRole: String {
    let grantors = statements.compactMap { grant in
      grant.lastWord("GRANTED").flatMap { grant.isWord("BY", at: $0 + 1) ? grant.name(at: $0 + 2) : nil }
    }
    return Dictionary(grantors.map { ($0, 1) }, uniquingKeysWith: +).max { ($0.value, $1.key) < ($1.value, $0.key) }?
      .key
      ?? "postgres"
  }

  /// The statements that make what a server lacks, and nothing that changes what it has.
  ///
  /// - Parameter withGrantors: whether they name who has granted a membership. Up to PostgreSQL 15 that was anybody, and nothing hung on it;
  ///   from 16 on it has to be a role that has the group with ADMIN OPTION (`check_role_grantor` of user.c).
  func missing(
    from inventory: PostgresSession.ServerInventory, withTablespaces: Bool, withGrantors: Bool = true
  ) -> [Statement] {
    let newRoles = roles.subtracting(inventory.roles)
    let newSpaces = withTablespaces ? tablespaces.subtracting(inventory.tablespaces) : []
    let wanted = statements.filter { statement in
      for word in ["CREATE", "ALTER"] {
        if let name = Self.name(statement, after: word, "ROLE") {
          let isOfDatabase = statement.isWord("IN", at: 3) && statement.isWord("DATABASE", at: 4)
          return newRoles.contains(ExactText(name)) && !isOfDatabase
        }
        if let name = Self.name(statement, after: word, "TABLESPACE") { return newSpaces.contains(name) }
      }
      return statement.isWord("GRANT", at: 0)
        && isWanted(grant: statement, newRoles, inventory.roles, withTablespaces: withTablespaces)
    }
    return wanted.map { statement in
      let text = withGrantors ? statement.text : Self.withoutGrantor(statement)
      if Self.isSetting(statement), let value = statement.firstWord("TO", from: 4) {
        return Statement(statement: text, shown: statement.text(before: value) + " TO '…';", withoutPassword: text)
      }
      guard let secret = statement.firstWord("PASSWORD", from: 3) else {
        return Statement(statement: text, shown: text, withoutPassword: text)
      }
      let open = statement.text(before: secret)
      return Statement(statement: text, shown: open + " PASSWORD '…';", withoutPassword: open + ";")
    }
  }

  /// `ALTER ROLE name SET setting TO value`.
  private static func isSetting(_ statement: SQLTokens) -> Bool {
    statement.begins(with: "ALTER", "ROLE") && statement.isWord("SET", at: 3)
  }

  /// `GRANT a TO b …`: memberships of new roles, and in them. `GRANT … ON … TO b`: privileges of new roles.
  private func isWanted(
    grant: SQLTokens, _ newRoles: Set<ExactText>, _ oldRoles: Set<ExactText>, withTablespaces: Bool
  ) -> Bool {
    let isMembership = grant.isWord("TO", at: 2)
    let object = grant.firstWord("ON").map { $0 + 1 }
    if !withTablespaces, let object, grant.isWord("TABLESPACE", at: object) { return false }
    guard let position = isMembership ? 2 : grant.firstWord("TO"), let member = grant.name(at: position + 1)
    else { return false }
    let isNewGroup = isMembership && grant.name(at: 1).map { newRoles.contains(ExactText($0)) } == true
    return newRoles.contains(ExactText(member)) || isNewGroup && oldRoles.contains(ExactText(member))
  }

  private static func withoutGrantor(_ grant: SQLTokens) -> String {
    guard grant.isWord("GRANT", at: 0), let position = grant.lastWord("GRANTED"), grant.isWord("BY", at: position + 1)
    else { return grant.text }
    return grant.text(before: position) + ";"
  }

  private static func name(_ statement: SQLTokens, after first: String, _ second: String) -> String? {
    statement.begins(with: first, second) ? statement.name(at: 2) : nil
  }
}
