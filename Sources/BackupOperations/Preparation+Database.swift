import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting

/// The database that a restore loads: how it is made, who may look into it, and what it gets of the archived one's own.
extension Preparation {
  /// Makes an empty database with the archive's encoding and locale. The session that it returns holds the database: as long as somebody
  /// is connected, no daemon takes it for what a dead restore has left.
  func create(_ name: String) async throws(Fault) -> PostgresSession {
    var options =
      toc.databaseOptions ?? "WITH TEMPLATE = template0 ENCODING = \(SQLName.literal(source.manifest.server.encoding))"
    if !request.options.withTablespaces { options = DatabaseCreation.withoutTablespace(options) }
    do throws(Fault) {
      try await makeDatabase(name, options)
    } catch {
      // It was not there before, and one that is made just as we are asked to end is made all the same.
      if Task.isCancelled { await takeAway(name) }
      throw error
    }
    let hold: PostgresSession
    do throws(Fault) {
      hold = try await PostgresSession.connect(restore.maintenance.database(name))
    } catch {
      await takeAway(name)
      throw error
    }
    do throws(Fault) {
      let mark = SQLName.literal("\(Self.unfinishedMark)\(source.manifest.id)")
      try await hold.execute("COMMENT ON DATABASE \(SQLName.quoted(name)) IS \(mark)")
      // Its rows come before the rules for who sees them (row-level security), and before the database's own privileges.
      let database = SQLName.quoted(name)
      try await hold.execute("GRANT CONNECT ON DATABASE \(database) TO SESSION_USER")
      try await hold.execute("REVOKE CONNECT, TEMPORARY ON DATABASE \(database) FROM PUBLIC")
    } catch {
      await hold.close()
      await takeAway(name)
      throw error
    }
    return hold
  }

  /// The database belongs to its owner from the start: from PostgreSQL 15 on, only who owns a database can let an owner of its tables
  /// create in the schema `public`. A restorer who may not give it away learns that from `rehearse`, in plain words.
  private func makeDatabase(_ name: String, _ options: String) async throws(Fault) {
    let statement = "CREATE DATABASE \(SQLName.quoted(name)) \(options)"
    if let role = request.options.role {
      return try await run(["\(statement) OWNER \(SQLName.quoted(role))"])
    }
    guard selection == nil, request.options.withOwners, let owner = toc.databaseOwner,
      inventory.roles.contains(ExactText(owner))
    else { return try await run([statement]) }
    do throws(Fault) {
      try await run(["\(statement) OWNER \(SQLName.quoted(owner))"])
    } catch {
      guard error.code == .databaseQuery, !Task.isCancelled else { throw error }
      try await run([statement])
    }
  }

  /// Drops what was begun, also where the restore is being ended.
  func takeAway(_ name: String) async {
    _ = try? await uncancelled { () async throws(Fault) in try await drop(name) }
  }

  func drop(_ name: String) async throws(Fault) {
    try await withMaintenance { session throws(Fault) in try await session.drop(name) }
  }

  /// What the database itself had: owner, settings, comment, privileges. Returns what a drill's server, or one that
  /// errors don't stop, did not take.
  func dress(_ name: String) async throws(Fault) -> [String] {
    try await open(name)
    let (settings, statements) = apart(try clothes(of: name))
    try await run(statements)
    return try await runLeniently(settings)
  }

  /// Gives it the privileges of every new database (`acldefault` of acl.c); the archive's own come on top of them.
  private func open(_ name: String) async throws(Fault) {
    let database = SQLName.quoted(name)
    let owner = try await withMaintenance { session throws(Fault) in
      try await session.query(
        """
        SELECT r.rolname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
        WHERE d.datname = $1 AND r.rolname <> session_user
        """, [name]
      ).first?[0]
    }
    var statements = ["GRANT CONNECT, TEMPORARY ON DATABASE \(database) TO PUBLIC"]
    // An owner keeps the right as an owner.
    if owner != nil { statements.append("REVOKE CONNECT ON DATABASE \(database) FROM SESSION_USER") }
    try await run(statements)
  }

  /// Whether that will go well, which nobody wants to learn when all is loaded. Settings must not be in force before: they may be of a kind
  /// that a load does not bear.
  func rehearse(_ name: String) async throws(Fault) {
    // A server of our own takes it from us, or nobody misses it; what is not taken is told where others are too.
    guard !request.isConfined, !request.keepsGoing else { return }
    let statements = try clothes(of: name)
    do throws(Fault) {
      try await run(["BEGIN"] + statements + ["ROLLBACK"])
    } catch {
      throw Fault(
        error.code,
        "'\(inventory.role)' may not give the new database what the old one had: owner, settings, privileges.",
        cause: error.cause ?? error.message,
        hint: "--no-owner and --no-privileges leave them out, or set 'restore_connect' of the database to a superuser")
    }
  }

  private func clothes(of name: String) throws(Fault) -> [String] {
    guard selection == nil else { return [] }
    var statements: [String]
    do throws(ArchiveError) {
      statements = try toc.databaseStatements(
        for: name, withPrivileges: request.options.withPrivileges, roles: knownRoles)
    } catch {
      throw Fault(
        .restoreRefused, "What the archive of \(restore.manifest.id) says of its database is not understood.",
        cause: error.description, hint: "pgbackupctl show \(shell: restore.manifest.id)")
    }
    if request.options.withOwners, let owner = toc.databaseOwner, inventory.roles.contains(ExactText(owner)) {
      statements.append("ALTER DATABASE \(SQLName.quoted(name)) OWNER TO \(SQLName.quoted(owner))")
    }
    return statements
  }

  private var knownRoles: Set<ExactText> { inventory.roles.union(request.withGlobals ? globals?.roles ?? [] : []) }

  /// Those whose settings in the database are left out: they are not there, and somebody wanted it without them.
  var leftOutSettings: [Fault] {
    guard selection == nil else { return [] }
    let strangers = toc.settingRoles.exact.subtracting(knownRoles).sortedTexts
    guard !strangers.isEmpty else { return [] }
    return [
      Fault(
        .roleMissing, "The settings of \(strangers.joined(separator: ", ")) in this database are left out.",
        hint: "create the role, then ALTER ROLE … IN DATABASE … SET …; --globals creates it beforehand")
    ]
  }

  func run(_ statements: [String]) async throws(Fault) {
    try await withMaintenance { session throws(Fault) in
      for statement in statements { try await session.execute(statement) }
    }
  }

  /// Of a database or a role (`ALTER … SET`).
  private static func isSetting(_ statement: String) -> Bool {
    let tokens = SQLTokens(statement)
    let isOfDatabase = tokens.isWord("IN", at: 3) && tokens.isWord("DATABASE", at: 4)
    return (tokens.begins(with: "ALTER", "DATABASE") || tokens.begins(with: "ALTER", "ROLE"))
      && tokens.isWord("SET", at: isOfDatabase ? 6 : 3)
  }

  /// What a drill's server may refuse, and what it must take.
  func apart(_ statements: [String]) -> (settings: [String], others: [String]) {
    guard request.isConfined else { return request.keepsGoing ? (statements, []) : ([], statements) }
    return (statements.filter(Self.isSetting), statements.filter { !Self.isSetting($0) })
  }

  /// Settings that this machine lacks something for: a locale, a library. They say nothing of the rows, and a drill names them.
  func runLeniently(_ settings: [String]) async throws(Fault) -> [String] {
    guard !settings.isEmpty else { return [] }
    return try await withMaintenance { session throws(Fault) in
      var refused: [String] = []
      for setting in settings {
        do throws(Fault) {
          try await session.execute(setting)
        } catch {
          if error.code == .runAborted || Task.isCancelled { throw error }
          let words = (error.cause ?? error.message).lines.first { !$0.isEmpty } ?? ""
          // Without its value, which may be a secret.
          let tokens = SQLTokens(setting)
          let name = tokens.text(before: tokens.firstWord("TO"))
          refused.append("\(name) (not taken here: \(words))")
        }
      }
      return refused
    }
  }
}
