/// What a restore has to know of an archive's entries before it begins: whom and what they need on the server, and what of them
/// `pg_restore` does not do by itself.
package struct TableOfContents: Sendable {
  package let entries: [TocEntry]

  package init(_ entries: [TocEntry]) { self.entries = entries }

  /// The session settings under which the archive's text is read (`_doSetFixedOutputState` of pg_backup_archiver.c sends them first).
  package var sessionStatements: [String] {
    entries.filter { ["ENCODING", "STDSTRINGS", "SEARCHPATH"].contains($0.kind) }.compactMap(\.definition)
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
          && entry.tag?.hasPrefix("EVENT TRIGGER ") == true
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

  /// Who is granted something.
  package var grantees: Set<String> {
    let grants = entries.filter { $0.kind == "ACL" || $0.kind == "DEFAULT ACL" }.compactMap(\.definition)
      .flatMap { $0.split(separator: "\n") }
    return Set(grants.compactMap(Self.grantee) + grants.compactMap(Self.grantor))
  }

  /// Whose new objects the grant is on: `ALTER DEFAULT PRIVILEGES FOR ROLE name …`.
  private static func grantor(_ line: Substring) -> String? {
    var rest = line
    return rest.skip("ALTER DEFAULT PRIVILEGES FOR ROLE ") ? SQLName.read(&rest) : nil
  }

  /// The role behind the last `TO` of a GRANT; a REVOKE's needs no role that no grant needs.
  private static func grantee(_ line: Substring) -> String? {
    // A name in quotes may have the word in it: of an even number of quotes before it, none is open.
    let last = line.ranges(of: " TO ").last { line[..<$0.lowerBound].count { $0 == "\"" }.isMultiple(of: 2) }
    guard line.contains("GRANT "), let range = last else { return nil }
    var rest = line[range.upperBound...]
    if rest.hasPrefix("GROUP ") { rest = rest.dropFirst(6) }
    let isQuoted = rest.first == "\""
    guard let name = SQLName.read(&rest), isQuoted || name != "PUBLIC" else { return nil }
    return name
  }

  /// Whom row-level security policies and user mappings are for: they can't be made without these roles, whatever owners and grants are
  /// left out.
  package var beneficiaries: Set<String> {
    Set(
      entries.flatMap { entry -> [String] in
        switch entry.kind {
        case "POLICY": entry.definition.map(Self.policyRoles) ?? []
        case "USER MAPPING": entry.definition.map(Self.mappedRole) ?? []
        default: []
        }
      })
  }

  /// `CREATE POLICY name ON schema.table [AS RESTRICTIVE] [FOR command] TO role, … USING (…)` (`dumpPolicy` of pg_dump.c); an expression
  /// may have any text, but stands behind the roles.
  private static func policyRoles(_ definition: String) -> [String] {
    var rest = definition[...]
    guard rest.skip("CREATE POLICY "), SQLName.read(&rest) != nil, rest.skip(" ON "), SQLName.read(&rest) != nil else {
      return []
    }
    while rest.skip(".") { _ = SQLName.read(&rest) }
    _ = rest.skip(" AS RESTRICTIVE")
    if rest.skip(" FOR ") { _ = SQLName.read(&rest) }
    guard rest.skip(" TO ") else { return [] }
    var roles: [String] = []
    repeat {
      guard let role = SQLName.read(&rest) else { break }
      roles.append(role)
    } while rest.skip(", ")
    return roles
  }

  /// Who has settings of his own in the database.
  package var settingRoles: Set<String> {
    Set(
      entries.filter { $0.kind == "DATABASE PROPERTIES" }.compactMap(\.definition).flatMap(SQLText.statements)
        .compactMap { Self.settingsRole($0[...]) })
  }

  /// `ALTER ROLE name IN DATABASE …` (`dumpDatabaseConfig` of pg_dump.c).
  private static func settingsRole(_ line: Substring) -> String? {
    var rest = line
    guard rest.skip("ALTER ROLE "), let role = SQLName.read(&rest), rest.hasPrefix(" IN DATABASE ") else { return nil }
    return role
  }

  private static func mappedRole(_ definition: String) -> [String] {
    var rest = definition[...]
    guard rest.skip("CREATE USER MAPPING FOR ") else { return [] }
    let isQuoted = rest.first == "\""
    guard let role = SQLName.read(&rest), isQuoted || role.lowercased() != "public" else { return [] }
    return [role]
  }

  // MARK: - The database itself

  private var database: TocEntry? { entries.first { $0.kind == "DATABASE" } }

  package var databaseOwner: String? { database?.owner.flatMap { $0.isEmpty ? nil : $0 } }

  /// What follows the name in the database's CREATE DATABASE: template, encoding, locale, tablespace.
  package var databaseOptions: String? {
    guard let database, let name = database.tag, let definition = database.definition else { return nil }
    for text in [name, SQLName.quoted(name)] where definition.hasPrefix("CREATE DATABASE \(text) ") {
      let options = definition.dropFirst("CREATE DATABASE \(text) ".count)
      return String(options.prefix { $0 != ";" })
    }
    return nil
  }

  /// The comment on the database, as its COMMENT statement has it.
  package var databaseComment: String? {
    guard let old = database?.tag else { return nil }
    let tags = ["DATABASE \(old)", "DATABASE \(SQLName.quoted(old))"]
    let statement = entries.first { $0.kind == "COMMENT" && tags.contains($0.tag ?? "") }?.definition
    guard let text = statement, let start = text.ranges(of: " IS '").first,
      let end = text.ranges(of: "'").last, start.upperBound <= end.lowerBound
    else { return nil }
    return String(text[start.upperBound..<end.lowerBound]).replacing("''", with: "'")
  }

  /// The statements that give a database of another name what the archived one had: settings, connection limit, and the privileges
  /// on it. `pg_restore` runs them only with `--create`, under the old name.
  ///
  /// - Parameter roles: whose settings come along.
  package func databaseStatements(for name: String, withPrivileges: Bool, roles: Set<String>) -> [String] {
    guard let old = database?.tag else { return [] }
    let wanted = entries.filter { entry in
      switch entry.kind {
      case "DATABASE PROPERTIES": true
      case "SECURITY LABEL": entry.tag == "DATABASE \(old)" || entry.tag == "DATABASE \(SQLName.quoted(old))"
      case "ACL":
        withPrivileges && (entry.tag == "DATABASE \(old)" || entry.tag == "DATABASE \(SQLName.quoted(old))")
      default: false
      }
    }
    return wanted.compactMap(\.definition).flatMap(SQLText.statements).compactMap { statement in
      if let role = Self.settingsRole(statement[...]), !roles.contains(role) { return nil }
      return Self.renamed(statement, from: old, to: name)
    }
  }

  /// The statement about a database of another name: where it names the old one, and not where a setting's value or a role looks like that.
  private static func renamed(_ statement: String, from old: String, to name: String) -> String {
    var rest = statement[...]
    if rest.skip("ALTER ROLE ") { _ = SQLName.read(&rest) }
    for text in [SQLName.quoted(old), old] {
      if let range = rest.firstRange(of: "DATABASE \(text) ") {
        return statement[..<range.lowerBound] + "DATABASE \(SQLName.quoted(name)) " + statement[range.upperBound...]
      }
    }
    return statement
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

  /// Where each sequence stands, from its `setval`.
  package var sequences: [SequenceState] {
    entries.compactMap { entry in
      guard entry.kind == "SEQUENCE SET", let statement = entry.definition,
        let last = statement.lastIndex(of: ")")
      else { return nil }
      let parts = statement[..<last].split(separator: ",").suffix(2).map { $0.trimming(" ") }
      guard parts.count == 2, Int64(parts[0]) != nil else { return nil }
      return SequenceState(
        dumpID: entry.dumpID, schema: entry.schema ?? "", name: entry.tag ?? "", value: parts[0],
        isCalled: parts[1] == "true", statement: statement)
    }
  }
}

extension Substring {
  /// Whether the text begins so; then that is taken away.
  fileprivate mutating func skip(_ text: String) -> Bool {
    guard hasPrefix(text) else { return false }
    removeFirst(text.count)
    return true
  }

  fileprivate func trimming(_ character: Character) -> String {
    var rest = self
    while rest.first == character { rest.removeFirst() }
    while rest.last == character { rest.removeLast() }
    return String(rest)
  }
}
