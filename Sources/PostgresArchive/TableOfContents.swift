package import Quoting

/// What a restore has to know of an archive's entries before it begins: whom and what they need on the server, and what of them
/// `pg_restore` does not do by itself.
package struct TableOfContents: Sendable {
  package let entries: [TocEntry]

  package init(_ entries: [TocEntry]) { self.entries = entries }

  /// The session settings under which the archive's text is read (`_doSetFixedOutputState` of pg_backup_archiver.c sends them first).
  package var sessionStatements: [String] {
    entries.filter { ["ENCODING", "STDSTRINGS", "SEARCHPATH"].contains($0.kind) }.compactMap(\.definition)
  }

  /// What pg_dump has to say of definitions, in the order of names: entries' numbers change from dump to dump.
  package var definitions: [String] {
    entries.filter { $0.section == .preData || $0.section == .postData }
      .map { "\($0.kind ?? "") \($0.schema ?? "") \($0.tag ?? "")\n\($0.definition ?? "")" }.sorted()
  }

  /// Entries of the data section that are statements and have no block: from PostgreSQL 17 on, large objects are made there, with their
  /// privileges and comments behind them. (An entry without a section is of the one before it: `ProcessArchiveRestoreOptions` of
  /// pg_backup_archiver.c.)
  package var dataStatements: [Int] {
    var section = TocEntry.Section.preData
    return entries.compactMap { entry in
      if entry.section != .none { section = entry.section }
      return section == .data && !entry.hasData && entry.kind != "SEQUENCE SET" ? entry.dumpID : nil
    }
  }

  /// Materialized views' rows: `REFRESH MATERIALIZED VIEW`, which runs whatever functions their queries name.
  package var refreshes: [TocEntry] { entries.filter { $0.kind == "MATERIALIZED VIEW DATA" } }

  /// Event triggers with what is said of them. They fire at what comes behind them, and `pg_restore` makes them side by side with the
  /// refreshes (`RESTORE_PASS_POST_ACL` of pg_backup_archiver.c).
  package var eventTriggers: [TocEntry] {
    entries.filter { entry in
      entry.kind == "EVENT TRIGGER"
        || (entry.kind == "COMMENT" || entry.kind == "SECURITY LABEL")
          && entry.tag?.starts(withBytes: "EVENT TRIGGER ") == true
    }
  }

  /// Tables and sequences whose names can't be told as text (of a database whose encoding is SQL_ASCII, which is none): only `pg_restore`
  /// itself, which takes bytes as they are, can load them.
  package var unreadable: [TocEntry] {
    entries.filter { $0.isRepaired && ["TABLE", "TABLE DATA", "SEQUENCE", "SEQUENCE SET"].contains($0.kind) }
  }

  package var extensions: [String] { entries.filter { $0.kind == "EXTENSION" }.compactMap(\.tag) }

  package var tablespaces: Set<String> { Set(entries.compactMap(\.tablespace).filter { !$0.isEmpty }) }

  /// Who owns something, without the database itself.
  package var owners: Set<String> {
    Set(entries.filter { $0.kind != "DATABASE" }.compactMap(\.owner).filter { !$0.isEmpty })
  }

  /// What `standard_conforming_strings` was when the archive's text was written (the entry STDSTRINGS); its constants
  /// are read so.
  var standardStrings: Bool {
    guard let statement = entries.first(where: { $0.kind == "STDSTRINGS" })?.definition else { return true }
    return SQLTokens(statement).tokens.last { $0.kind == .string || $0.kind == .word }?.text != "off"
  }

  /// The statements of some entries, which mean the same in any session.
  private func statements(of entries: [TocEntry]) -> [SQLTokens] {
    entries.compactMap(\.definition).flatMap { SQLText.statements($0, standardStrings: standardStrings) }
  }

  /// Who is granted something.
  package var grantees: Set<String> {
    let grants = statements(of: entries.filter { $0.kind == "ACL" || $0.kind == "DEFAULT ACL" })
    return Set(grants.compactMap(Self.grantee) + grants.compactMap(Self.grantor))
  }

  /// Whose new objects the grant is on: `ALTER DEFAULT PRIVILEGES FOR ROLE name …`.
  private static func grantor(_ grant: SQLTokens) -> String? {
    grant.begins(with: "ALTER", "DEFAULT", "PRIVILEGES", "FOR", "ROLE") ? grant.name(at: 5) : nil
  }

  /// The role behind the last `TO` of a GRANT; a REVOKE's needs no role that no grant needs.
  private static func grantee(_ grant: SQLTokens) -> String? {
    guard grant.firstWord("GRANT") != nil, let position = grant.lastWord("TO") else { return nil }
    return role(grant, at: grant.isWord("GROUP", at: position + 1) ? position + 2 : position + 1)
  }

  /// A role's name; nil where the key word PUBLIC stands there, which no role has.
  private static func role(_ statement: SQLTokens, at position: Int) -> String? {
    statement.isWord("PUBLIC", at: position) ? nil : statement.name(at: position)
  }

  /// Whom row-level security policies and user mappings are for: they can't be made without these roles, whatever owners and grants are
  /// left out.
  package var beneficiaries: Set<String> {
    let policies = statements(of: entries.filter { $0.kind == "POLICY" })
    let mappings = statements(of: entries.filter { $0.kind == "USER MAPPING" })
    return Set(policies.flatMap(Self.policyRoles) + mappings.compactMap(Self.mappedRole))
  }

  /// `CREATE POLICY name ON schema.table [AS RESTRICTIVE] [FOR command] TO role, … USING (…)` (`dumpPolicy` of pg_dump.c); an expression
  /// may have any text, but stands behind the roles.
  private static func policyRoles(_ policy: SQLTokens) -> [String] {
    guard policy.begins(with: "CREATE", "POLICY"), policy.isWord("ON", at: 3) else { return [] }
    var position = 5
    while policy.isSymbol(".", at: position) { position += 2 }
    if policy.isWord("AS", at: position) { position += 2 }
    if policy.isWord("FOR", at: position) { position += 2 }
    guard policy.isWord("TO", at: position) else { return [] }
    var roles: [String] = []
    repeat {
      guard let name = policy.name(at: position + 1) else { break }
      roles.append(name)
      position += 2
    } while policy.isSymbol(",", at: position)
    return roles
  }

  /// Who has settings of its own in the database.
  package var settingRoles: Set<String> {
    Set(statements(of: entries.filter { $0.kind == "DATABASE PROPERTIES" }).compactMap(Self.settingsRole))
  }

  /// `ALTER ROLE name IN DATABASE …` (`dumpDatabaseConfig` of pg_dump.c).
  private static func settingsRole(_ statement: SQLTokens) -> String? {
    guard statement.begins(with: "ALTER", "ROLE"), statement.isWord("IN", at: 3) else { return nil }
    return statement.name(at: 2)
  }

  private static func mappedRole(_ mapping: SQLTokens) -> String? {
    mapping.begins(with: "CREATE", "USER", "MAPPING", "FOR") ? role(mapping, at: 4) : nil
  }

  // MARK: - The database itself

  private var database: TocEntry? { entries.first { $0.kind == "DATABASE" } }

  package var databaseOwner: String? { database?.owner.flatMap { $0.isEmpty ? nil : $0 } }

  /// What follows the name in the database's CREATE DATABASE: template, encoding, locale, tablespace.
  package var databaseOptions: String? {
    guard let database,
      let statement = statements(of: [database]).first(where: { $0.begins(with: "CREATE", "DATABASE") }),
      statement.tokens.count > 4
    else { return nil }
    let end = statement.text(before: statement.tokens.count - 1)
    return String(end[statement.tokens[3].range.lowerBound...])
  }

  /// The comment on the database, as its COMMENT statement has it.
  package var databaseComment: String? {
    let comments = statements(of: entries.filter { $0.kind == "COMMENT" })
    guard let comment = comments.first(where: { $0.begins(with: "COMMENT", "ON", "DATABASE") }),
      let name = comment.name(at: 3), name.isExactly(database?.tag)
    else { return nil }
    return comment.tokens.last { $0.kind == .string }?.text
  }

  /// The statements that give a database of another name what the archived one had: settings, connection limit, and the privileges
  /// on it. `pg_restore` runs them only with `--create`, under the old name.
  ///
  /// - Parameter roles: whose settings come along.
  /// - Throws: where one of them is about something else: run as it is, it would change the live database.
  package func databaseStatements(
    for name: String, withPrivileges: Bool, roles: Set<ExactText>
  ) throws(ArchiveError) -> [String] {
    guard let old = database?.tag else { return [] }
    func isOfDatabase(_ entry: TocEntry) -> Bool {
      ["DATABASE \(old)", "DATABASE \(SQLName.quoted(old))"].contains { $0.isExactly(entry.tag) }
    }
    let wanted = entries.filter { entry in
      switch entry.kind {
      case "DATABASE PROPERTIES": true
      case "SECURITY LABEL": isOfDatabase(entry)
      case "ACL": withPrivileges && isOfDatabase(entry)
      default: false
      }
    }
    var renamed: [String] = []
    for statement in statements(of: wanted) {
      if let role = Self.settingsRole(statement), !roles.contains(ExactText(role)) { continue }
      if statement.begins(with: "SET", "SESSION", "AUTHORIZATION")
        || statement.begins(with: "RESET", "SESSION", "AUTHORIZATION")
      {
        renamed.append(statement.text)
        continue
      }
      guard let position = Self.databaseName(statement), old.isExactly(statement.name(at: position)) else {
        throw ArchiveError(.malformed("a statement about the database names another object"), at: 0)
      }
      renamed.append(statement.text(with: [position: SQLName.quoted(name)]))
    }
    return renamed
  }

  /// Where a statement names the database that it is about: in its head, and not where a setting's value or a role
  /// looks like that.
  private static func databaseName(_ statement: SQLTokens) -> Int? {
    if statement.begins(with: "ALTER", "DATABASE") { return 2 }
    if statement.begins(with: "ALTER", "ROLE"), statement.isWord("IN", at: 3), statement.isWord("DATABASE", at: 4) {
      return 5
    }
    guard ["GRANT", "REVOKE", "SECURITY"].contains(where: { statement.isWord($0, at: 0) }),
      let position = statement.firstWord("ON"), statement.isWord("DATABASE", at: position + 1)
    else { return nil }
    return position + 2
  }

  // MARK: - Sequences

  package struct SequenceState: Sendable, Hashable {
    package let dumpID: Int
    package let schema: String
    package let name: String
    package let value: String
    package let isCalled: Bool
    package let statement: String
  }

  /// Where each sequence stands, from its `SELECT pg_catalog.setval('name', value, is_called);`.
  package var sequences: [SequenceState] {
    entries.filter { $0.kind == "SEQUENCE SET" }.compactMap { entry in
      guard let statement = statements(of: [entry]).first,
        let call = statement.tokens.lastIndex(where: { $0.kind == .string }),
        statement.isSymbol(",", at: call + 1)
      else { return nil }
      let isNegative = statement.isSymbol("-", at: call + 2)
      let position = isNegative ? call + 3 : call + 2
      guard let number = statement.name(at: position), Int64(number) != nil, statement.isSymbol(",", at: position + 1)
      else { return nil }
      return SequenceState(
        dumpID: entry.dumpID, schema: entry.schema ?? "", name: entry.tag ?? "",
        value: (isNegative ? "-" : "") + number,
        isCalled: statement.isWord("true", at: position + 2), statement: statement.text)
    }
  }
}
