package import Faults
package import Quoting

/// What a restore asks and does on a server besides loading: over a connection to a maintenance database.
extension PostgresSession {
  /// What the role may do, and what there is on the server.
  package struct ServerInventory: Sendable, Equatable {
    package var role = ""
    package var isSuperuser = false
    package var canCreateDatabases = false
    package var canCreateRoles = false
    /// Whether the role may end other people's connections.
    package var canSignal = false
    package var databases: [DatabaseFacts] = []
    package var roles: Set<ExactText> = []
    package var tablespaces: Set<String> = []
    package var extensions: Set<String> = []

    package init() {}
  }

  package struct DatabaseFacts: Sendable, Equatable {
    package var name: String
    package var owner: String
    /// Whether the role may rename it.
    package var isOurs: Bool
    package var comment: String?
    package var bytes: Int64?
    package var connections: Int
    /// Its OID, which stays through a renaming.
    package var identifier: UInt32 = 0
    /// Its owner's.
    package var ownerIdentifier: UInt32 = 0
    /// Transactions of two-phase commit that wait there for their second phase: as long as there is one, the database can be neither renamed
    /// nor dropped.
    package var preparedTransactions: [String] = []
    /// Logical replication slots, which belong to this database whatever its name becomes.
    package var replicationSlots: [String] = []
    /// As long as there is one, the database can't be dropped.
    package var subscriptions: [String] = []
    /// Those of them that are at work.
    package var enabledSubscriptions: [String] = []
  }

  /// - Parameters:
  ///   - name: a database whose size is wanted. PostgreSQL looks at each of its files for that, so no other's is asked.
  ///   - comment: the size of each whose comment begins so is wanted, too.
  package func inventory(
    measuring name: String? = nil, withComment comment: String? = nil
  ) async throws(Fault) -> ServerInventory {
    var inventory = ServerInventory()
    let role = try await query(
      """
      SELECT current_user, rolsuper, rolcreatedb, rolcreaterole, pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')
      FROM pg_catalog.pg_roles WHERE rolname = current_user
      """)
    guard let row = role.first else { throw Fault(.databaseQuery, "The server did not say who we are.") }
    inventory.role = row[0] ?? ""
    inventory.isSuperuser = row[1] == "t"
    inventory.canCreateDatabases = row[1] == "t" || row[2] == "t"
    inventory.canCreateRoles = row[1] == "t" || row[3] == "t"
    inventory.canSignal = row[1] == "t" || row[4] == "t"
    inventory.databases = try await query(
      """
      SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_has_role(d.datdba, 'USAGE'),
             pg_catalog.left(pg_catalog.shobj_description(d.oid, 'pg_database'), 1048576),
             CASE WHEN (d.datname::pg_catalog.text = $1
                        OR pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $2))
                       AND pg_catalog.has_database_privilege(d.oid, 'CONNECT') THEN pg_catalog.pg_database_size(d.oid) END,
             (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid), d.oid, d.datdba
      FROM pg_catalog.pg_database d ORDER BY 1
      """, [name, comment]
    ).map { row in
      DatabaseFacts(
        name: row[0] ?? "", owner: row[1] ?? "", isOurs: row[2] == "t", comment: row[3],
        bytes: row[4].flatMap { Int64($0) }.map(ServerFacts.believable),
        connections: row[5].flatMap { Int($0) } ?? 0, identifier: row[6].flatMap { UInt32($0) } ?? 0,
        ownerIdentifier: row[7].flatMap { UInt32($0) } ?? 0)
    }
    let prepared = try await names("SELECT database, gid FROM pg_catalog.pg_prepared_xacts ORDER BY 2")
    let slots = try await names(
      "SELECT database, slot_name FROM pg_catalog.pg_replication_slots WHERE database IS NOT NULL AND NOT temporary ORDER BY 2"
    )
    let subscriptions = try await names(
      "SELECT d.datname, s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid ORDER BY 2"
    )
    let enabled = try await names(
      "SELECT d.datname, s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE s.subenabled ORDER BY 2"
    )
    for position in inventory.databases.indices {
      let name = ExactText(inventory.databases[position].name)
      inventory.databases[position].preparedTransactions = prepared[name] ?? []
      inventory.databases[position].replicationSlots = slots[name] ?? []
      inventory.databases[position].subscriptions = subscriptions[name] ?? []
      inventory.databases[position].enabledSubscriptions = enabled[name] ?? []
    }
    inventory.roles = try await query("SELECT rolname FROM pg_catalog.pg_roles").compactMap { $0[0] }.exact
    inventory.tablespaces = Set(try await query("SELECT spcname FROM pg_catalog.pg_tablespace").compactMap { $0[0] })
    inventory.extensions = Set(
      try await query("SELECT name FROM pg_catalog.pg_available_extensions").compactMap { $0[0] })
    return inventory
  }

  /// Second columns by the first.
  private func names(_ query: String) async throws(Fault) -> [ExactText: [String]] {
    Dictionary(grouping: try await self.query(query)) { ExactText($0[0] ?? "") }.mapValues { $0.compactMap { $0[1] } }
  }

  /// Drops a database that is there for our sake. Its subscriptions go first, without a word to their publishers: a restored one bears the
  /// slot's name of the one that is at work.
  ///
  /// - Parameters:
  ///   - endingOthers: ends whoever is connected to it.
  ///   - withSubscriptions: else one that subscribes to something stays, and that is thrown.
  package func drop(
    _ database: String, endingOthers: Bool = true, withSubscriptions: Bool = true
  ) async throws(Fault) {
    let facts = try await query(
      """
      SELECT pg_catalog.quote_ident(d.datname), d.datistemplate,
             EXISTS (SELECT FROM pg_catalog.pg_subscription s WHERE s.subdbid = d.oid)
      FROM pg_catalog.pg_database d WHERE d.datname = $1
      """, [database])
    guard let row = facts.first, let name = row[0] else { return }
    if row[2] == "t", withSubscriptions {
      var there = settings
      there["dbname"] = database
      try await PostgresSession.connect(there).use { session throws(Fault) in try await session.dropSubscriptions() }
    }
    let isTemplate = row[1] == "t"
    // A template can't be dropped.
    if isTemplate { try await execute("ALTER DATABASE \(name) IS_TEMPLATE false") }
    // FORCE waits for five seconds until those are gone that it ends (`CountOtherDBBackends` of procarray.c): on a busy
    // machine they take longer.
    for attempt in 1...3 {
      do throws(Fault) {
        return try await execute("DROP DATABASE IF EXISTS \(name)\(endingOthers ? " WITH (FORCE)" : "")")
      } catch {
        if endingOthers, error.code == .databaseQuery, attempt < 3 { continue }
        if isTemplate { try? await execute("ALTER DATABASE \(name) IS_TEMPLATE true") }
        throw error
      }
    }
  }

  /// Of the database that it is connected to. Their slots stay where they are.
  private func dropSubscriptions() async throws(Fault) {
    // Event triggers that came with the data are not asked, where we may say so.
    _ = try await query(
      """
      SELECT pg_catalog.set_config('session_replication_role', 'replica', false) FROM pg_catalog.pg_roles
      WHERE rolname = current_user AND rolsuper
      """)
    let names = try await query(
      """
      SELECT pg_catalog.quote_ident(s.subname) FROM pg_catalog.pg_subscription s
      JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database()
      """
    ).compactMap { $0[0] }
    for name in names {
      try await execute("ALTER SUBSCRIPTION \(name) DISABLE")
      try await execute("ALTER SUBSCRIPTION \(name) SET (slot_name = NONE)")
      try await execute("DROP SUBSCRIPTION \(name)")
    }
  }

  /// Ends every other connection to a database; returns how many there were. Those of superusers only where we are one: nobody else may
  /// (`pg_signal_backend` of signalfuncs.c).
  package func terminateConnections(to database: String) async throws(Fault) -> Int {
    try await query(
      """
      SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
      LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid, pg_catalog.pg_roles me
      WHERE a.datname = $1 AND a.pid <> pg_catalog.pg_backend_pid() AND me.rolname = current_user
        AND (me.rolsuper OR a.usesysid IS NOT NULL AND NOT coalesce(r.rolsuper, false))
      """, [database]
    ).count
  }

  /// Who is connected to a database and can be ended by superusers alone, as `role (pid, application)`; none where we are one.
  package func untouchableConnections(to database: String) async throws(Fault) -> [String] {
    try await query(
      """
      SELECT r.rolname || ' (pid ' || a.pid || CASE WHEN a.application_name = '' THEN '' ELSE ', ' || a.application_name END || ')'
      FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid, pg_catalog.pg_roles me
      WHERE a.datname = $1 AND a.pid <> pg_catalog.pg_backend_pid() AND me.rolname = current_user
        AND r.rolsuper AND NOT me.rolsuper
      ORDER BY a.pid
      """, [database]
    ).compactMap { $0[0] }
  }
}
