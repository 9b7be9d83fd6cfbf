package import Faults
package import PostgresTools
import Quoting

/// What makes a database what it is before anything is in it: its locale, and the settings that it gives its sessions.
package struct DatabaseCreation: Sendable, Equatable {
  /// What follows the name in its `CREATE DATABASE`, but for a tablespace: `WITH TEMPLATE = template0 ENCODING = …`.
  package private(set) var options: String?
  /// `ALTER DATABASE … SET`, `ALTER ROLE … IN DATABASE … SET`: of the database's old name.
  private(set) var settings: [String] = []

  init() {}

  private init(encoding: String, _ words: String) {
    options = "WITH TEMPLATE = template0 ENCODING = \(SQLName.literal(encoding)) \(words)"
  }

  /// - Parameter locale: `de_DE.UTF-8` of the C library, `icu:de-AT`, or `builtin:C.UTF-8`.
  package init(encoding: String, locale: String) throws(Fault) {
    let colon = locale.utf8.firstIndex(of: UInt8(ascii: ":"))
    let name = String(locale[(colon.map(locale.utf8.index(after:)) ?? locale.startIndex)...])
    switch (colon.map { String(locale[..<$0]) }, name.isEmpty) {
    case ("icu", false):
      // What the C library still decides of such a database: the classes of characters.
      self.init(encoding: encoding, "LOCALE_PROVIDER = icu LOCALE = 'C.UTF-8' ICU_LOCALE = \(SQLName.literal(name))")
    case ("builtin", false):
      self.init(encoding: encoding, "LOCALE_PROVIDER = builtin LOCALE = 'C' BUILTIN_LOCALE = \(SQLName.literal(name))")
    case (nil, false):
      self.init(encoding: encoding, "LOCALE = \(SQLName.literal(name))")
    default:
      throw Fault(
        .usage, "'\(locale)' is no locale: write NAME, icu:NAME or builtin:NAME.", hint: "pgbackupctl adopt --help")
    }
  }

  /// As a backup's manifest has it.
  package init(ofManifest options: String) { self.options = Self.withoutTablespace(options) }

  /// Of a database that is there.
  package init(of connection: ConnectionSettings) async throws(Fault) {
    let row = try await PostgresSession.connect(connection, answeringWithin: .seconds(60)).use {
      session throws(Fault) in
      // As JSON, a column that this version does not have is NULL.
      try await session.query(
        """
        SELECT pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, f.facts ->> 'datlocprovider',
               COALESCE(f.facts ->> 'datlocale', f.facts ->> 'daticulocale'), f.facts ->> 'daticurules'
        FROM pg_catalog.pg_database d, LATERAL (SELECT pg_catalog.to_jsonb(d) AS facts) AS f
        WHERE d.datname = pg_catalog.current_database()
        """
      ).first
    }
    guard let row, let encoding = row[0], let collate = row[1], let ctype = row[2] else {
      throw Fault(.databaseQuery, "The server did not say what the database's locale is.")
    }
    var words = "LC_COLLATE = \(SQLName.literal(collate)) LC_CTYPE = \(SQLName.literal(ctype))"
    switch row[3] {
    case "i":
      words += " LOCALE_PROVIDER = icu ICU_LOCALE = \(SQLName.literal(row[4] ?? ""))"
      if let rules = row[5] { words += " ICU_RULES = \(SQLName.literal(rules))" }
    case "b": words += " LOCALE_PROVIDER = builtin BUILTIN_LOCALE = \(SQLName.literal(row[4] ?? ""))"
    default: break
    }
    self.init(encoding: encoding, words)
  }

  /// `TABLESPACE` is the last of the options that pg_dump writes (`dumpDatabase` of pg_dump.c).
  static func withoutTablespace(_ options: String) -> String {
    let tokens = SQLTokens(options)
    return tokens.text(before: tokens.firstWord("TABLESPACE"))
  }

  /// Takes in a statement of a dump, where it is one of these.
  mutating func add(_ statement: String) {
    let tokens = SQLTokens(statement)
    if options == nil, tokens.begins(with: "CREATE", "DATABASE"), tokens.isWord("WITH", at: 3) {
      let text = tokens.text(before: tokens.tokens.count - (tokens.isSymbol(";", at: tokens.tokens.count - 1) ? 1 : 0))
      options = Self.withoutTablespace(String(text[tokens.tokens[3].range.lowerBound...]))
    } else if tokens.begins(with: "ALTER", "DATABASE"), tokens.isWord("SET", at: 3) {
      settings.append(statement)
    } else if tokens.begins(with: "ALTER", "ROLE"), tokens.isWord("IN", at: 3), tokens.isWord("DATABASE", at: 4) {
      settings.append(statement)
    }
  }
}
