package import Faults
import Quoting

/// What a backup must know of a server and a database before it begins.
package struct ServerFacts: Sendable, Equatable {
  /// A size as a server tells it, within what a database can be: sums of these never overflow.
  static func believable(_ bytes: Int64) -> Int64 { min(max(0, bytes), 1 << 50) }

  package let version: String
  /// `server_version_num`: 150018 is 15.18.
  package let versionNumber: Int
  package let systemIdentifier: String?
  package let database: String
  package let encoding: String
  package let databaseBytes: Int64
  package let isStandby: Bool
  /// Whether the role may read pg_authid, where the password hashes are.
  package let canReadRolePasswords: Bool
  /// `lc_monetary` of the session, by which the type money reads.
  package let monetaryLocale: String

  package var major: Int { versionNumber / 10000 }
}

extension PostgresSession {
  package func serverFacts() async throws(Fault) -> ServerFacts {
    let rows = try await query(
      """
      SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num'),
             pg_catalog.current_database(), pg_catalog.pg_encoding_to_char(encoding),
             pg_catalog.pg_database_size(oid), pg_catalog.pg_is_in_recovery(),
             pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT'),
             pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
             pg_catalog.current_setting('lc_monetary')
      FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
      """)
    guard let row = rows.first, let version = row[0], let number = row[1].flatMap({ Int($0) }), let database = row[2]
    else {
      throw Fault(.databaseQuery, "The server did not say what it is.")
    }
    var identifier: String?
    if row[7] == "t" {
      identifier = try await query("SELECT system_identifier FROM pg_catalog.pg_control_system()").first?[0]
    }
    return ServerFacts(
      version: version, versionNumber: number, systemIdentifier: identifier, database: database, encoding: row[3] ?? "",
      databaseBytes: row[4].flatMap { Int64($0) }.map(ServerFacts.believable) ?? 0, isStandby: row[5] == "t",
      canReadRolePasswords: row[6] == "t",
      monetaryLocale: row[8] ?? "C")
  }

  /// Refuses what pg_dump would stumble over half-way: tables and sequences that the role can't read, and tables that
  /// row-level security would hide rows of. Members of extensions are not dumped and don't count.
  package func checkReadability() async throws(Fault) {
    let unreadable = try await names(
      """
      c.relkind IN ('r', 'p', 'S') AND NOT (
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND
        CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                       ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END)
      """)
    guard unreadable.isEmpty else {
      let role = try await currentRole()
      throw Fault(
        .databasePrivilege, "The role '\(role)' may not read \(Self.list(unreadable)).",
        hint:
          "GRANT pg_read_all_data TO \(SQLName.quoted(role)); (PostgreSQL 14 and later), or SELECT on each; then run the job again"
      )
    }
    let hidden = try await names("c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid)")
    guard hidden.isEmpty else {
      let role = try await currentRole()
      throw Fault(
        .databaseRowSecurity, "Row-level security would hide rows of \(Self.list(hidden)) from the role '\(role)'.",
        hint:
          "ALTER ROLE \(SQLName.quoted(role)) BYPASSRLS; as a superuser, or back up as the tables' owner; then run the job again"
      )
    }
    try await checkLargeObjects()
  }

  /// Large objects have privileges of their own, which pg_read_all_data does not include. `has_largeobject_privilege` is only
  /// in PostgreSQL 18, so the access list is read as that function does.
  private func checkLargeObjects() async throws(Fault) {
    let hidden = try await query(
      """
      SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata l
      WHERE pg_catalog.current_setting('is_superuser') = 'off' AND pg_catalog.current_setting('lo_compat_privileges') = 'off'
        AND NOT pg_catalog.pg_has_role(l.lomowner, 'USAGE')
        AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(l.lomacl) a WHERE a.privilege_type = 'SELECT'
                        AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
      """
    ).first?[0]
    guard let hidden, hidden != "0" else { return }
    throw Fault(
      .databasePrivilege, "The role '\(try await currentRole())' may not read \(hidden) large objects.",
      hint: "GRANT SELECT ON LARGE OBJECT … TO the role, or back up as their owner; then run the job again")
  }

  private func currentRole() async throws(Fault) -> String { try await query("SELECT current_user").first?[0] ?? "" }

  /// Up to seven qualified names of user relations that meet a condition.
  private func names(_ condition: String) async throws(Fault) -> [String] {
    try await query(
      """
      SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND \(condition)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
      ORDER BY 1 LIMIT 7
      """
    ).compactMap { $0[0] }
  }

  private static func list(_ names: [String]) -> String {
    names.count > 6 ? names.prefix(6).joined(separator: ", ") + " and more" : names.joined(separator: ", ")
  }

  /// Who the session is, and whether that is a superuser.
  package func role() async throws(Fault) -> (name: String, isSuperuser: Bool) {
    let row = try await query("SELECT current_user, pg_catalog.current_setting('is_superuser')").first
    return (row?[0] ?? "", row?[1] == "on")
  }

  /// The databases of the server that one can connect to, templates aside.
  package func databaseNames() async throws(Fault) -> [(name: String, comment: String?)] {
    try await query(
      """
      SELECT datname, pg_catalog.left(pg_catalog.shobj_description(oid, 'pg_database'), 4096) FROM pg_catalog.pg_database
      WHERE datallowconn AND NOT datistemplate ORDER BY datname
      """
    ).map { ($0[0] ?? "", $0[1]) }
  }
}
