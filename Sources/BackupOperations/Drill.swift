package import BackupCatalog
package import Faults
import Foundation
package import Logging
import PostgresArchive
package import PostgresTools
package import Storage
import Units

/// Restores a backup into a private throw-away server and proves it there: rows, sequences, large objects, the user's own statements,
/// and amcheck where that is installed. Code that lies in the backup (functions, views over foreign servers) runs there
/// as a superuser, and reaches nothing but the server's own folder (`ThrowawayServer`).
///
/// Where a server is named in the configuration, the drill restores into a database of its own there, and drops it again. A server whose
/// system identifier is that of a backed-up one, a standby of one among them, is refused. That server is not ours to confine:
/// materialized views are left empty there, since filling them runs code of the backup; checks and index expressions run all the same.
package struct Drill: Sendable {
  package struct Settings: Sendable, Hashable {
    /// The folder of the servers.
    package var folder: String
    /// A server that drills may use; a throw-away one is made where nil.
    package var server: ConnectionSettings?
    /// Connections that load at once.
    package var jobs = 4
    /// Libraries that the throw-away server loads at its start, besides those that the backup's extensions are known to
    /// need.
    package var libraries: [String] = []

    package init(folder: String) { self.folder = folder }
  }

  private let manifest: Manifest
  private let stores: [any ObjectStore]
  private let identities: Keyring
  private let settings: Settings
  private let programs: [String]
  private let assertions: [String]
  private let run: String
  private let production: Set<String>?
  private let context: OperationContext
  private let logger: Logger

  /// - Parameters:
  ///   - stores: those that hold the backup whole, the nearest first.
  ///   - assertions: SQL that has to give true, each one row and one column.
  ///   - run: names the server's folder, or the database.
  ///   - production: system identifiers of the servers that are backed up; nil where not all of them are known.
  package init(
    _ manifest: Manifest, from stores: [any ObjectStore], identities: Keyring, settings: Settings,
    programs: [String], assertions: [String], run: String, production: Set<String>? = nil, context: OperationContext,
    logger: Logger
  ) {
    self.production = production
    self.manifest = manifest
    self.stores = stores
    self.identities = identities
    self.settings = settings
    self.programs = programs
    self.assertions = assertions
    self.run = run
    self.context = context
    self.logger = logger
  }

  package func callAsFunction() async throws(Fault) -> DrillReport {
    if let server = settings.server { return try await onServer(server) }
    let phases = PhaseClock(context)
    phases.begin(.server)
    let globals = try await Globals.read(manifest, from: stores, identities: identities)
    let server = try await ThrowawayServer.start(
      major: manifest.server.versionNumber / 10000, superuser: globals?.firstRole ?? "postgres",
      programs: ClientPrograms(configured: programs),
      root: settings.folder, name: run, connections: settings.jobs * 2, libraries: try await libraries(),
      database: manifest.server.database)
    for gap in server.gaps { logger.warning("a drill is not confined as it should be", metadata: ["gap": "\(gap)"]) }
    do {
      var report = try await prove(on: server.connection, server.versionText, phases)
      report.gaps = server.gaps.isEmpty ? nil : server.gaps
      tell(await server.remove())
      return report
    } catch {
      let fault = await judged(Fault(error), on: server.connection)
      // Also where the drill was cancelled: nothing of it stays.
      let trouble = await uncancelled { await server.remove() }
      tell(trouble)
      guard fault.code == .drillFailed, let trouble, trouble.code == .drillFailed else { throw fault }
      // Why the server went away.
      throw Fault(trouble.code, trouble.message, cause: fault.cause, hint: trouble.hint)
    }
  }

  /// What the server has to load at its start.
  private func libraries() async throws(Fault) -> [String] {
    let own = settings.libraries
    for store in stores {
      // One of the earlier format would be read whole for it.
      guard let contents = try? await ContentsReader(store: store, identities: identities).read(manifest),
        contents.frames.digests != nil
      else { continue }
      let head = try await ArchiveSource(manifest, in: stores, identities: identities).head()
      guard let entries = try? ArchiveHead(head).entries else { return own }
      let needed = PreloadedLibraries.needed(by: TableOfContents(entries).extensions)
      return own + needed.filter { !own.contains($0) }
    }
    return own
  }

  private func tell(_ trouble: Fault?) {
    guard let trouble else { return }
    logger.warning(
      "a drill's server did not end as it should",
      metadata: ["reason": "\(trouble.message)", "hint": "\(trouble.hint ?? "")"])
  }

  /// What a server says that is not there any more is no word about the backup.
  private func judged(_ fault: Fault, on connection: ConnectionSettings) async -> Fault {
    let words: Set<FaultCode> = [
      .proofFailed, .assertionFailed, .restoreFailed, .databaseQuery, .databaseUnreachable, .databaseServer,
    ]
    guard words.contains(fault.code), !Task.isCancelled else { return fault }
    do throws(Fault) {
      _ = try await PostgresSession.connect(connection).use { session throws(Fault) in
        try await session.query("SELECT 1")
      }
      return fault
    } catch {
      return Fault(
        .drillFailed, "The drill's server is not there any more: nothing is said about \(manifest.id).",
        cause: "\(fault.message)\n\(fault.cause ?? "")",
        hint: "look at the memory and the disk of its machine, then run the drill again")
    }
  }

  // MARK: - On a server that is there

  /// Databases of drills of this host; nobody else's are touched.
  private static var prefix: String {
    "pgbackupd_drill_\(HostName.current.utf8.reduce(UInt32(5381)) { $0 &* 33 &+ UInt32($1) })_"
  }

  private func onServer(_ connection: ConnectionSettings) async throws(Fault) -> DrillReport {
    let phases = PhaseClock(context)
    phases.begin(.server)
    let name = Self.prefix + run.lowercased()
    do {
      let facts = try await PostgresSession.connect(connection.maintenance).use { session in
        let facts = try await session.serverFacts()
        try refuseProduction(facts)
        for (left, fault) in try await Self.drop(databasesLike: Self.prefix, session) {
          // One that nobody can drop now is no reason to prove nothing.
          logger.warning(
            "a database that a drill has left can't be dropped; the next drill tries again",
            metadata: ["database": "\(left)", "cause": "\(fault.cause ?? fault.message)"])
        }
        return facts
      }
      do {
        let report = try await prove(
          on: connection.maintenance, "PostgreSQL \(facts.version)", phases, into: name)
        await drop(name, connection)
        return report
      } catch {
        let fault = await judged(Fault(error), on: connection.maintenance)
        await uncancelled { await drop(name, connection) }
        throw fault
      }
    } catch {
      throw Fault(error)
    }
  }

  /// What can't be told from production is taken for it.
  private func refuseProduction(_ facts: ServerFacts) throws(Fault) {
    guard let own = facts.systemIdentifier, let production, let source = manifest.server.systemIdentifier else {
      throw Fault(
        .drillFailed, "Nobody can say whether the drill's server is one that is backed up; nothing was done there.",
        cause: "pg_control_system() has to tell the system identifiers of all of them",
        hint: "GRANT EXECUTE ON FUNCTION pg_control_system() TO the roles; make a backup; then run the drill again")
    }
    guard own != source, !production.contains(own) else {
      throw Fault(
        .drillFailed, "The drill's server is one that is backed up, or a copy of it; nothing was done there.",
        cause: "system identifier \(own)", hint: "name another server in 'drill: connect:', or leave it out")
    }
  }

  private func drop(_ name: String, _ connection: ConnectionSettings) async {
    do throws(Fault) {
      let failed = try await PostgresSession.connect(connection.maintenance).use { session throws(Fault) in
        try await Self.drop(databasesLike: name, session)
      }
      if let fault = failed.values.first { throw fault }
    } catch {
      logger.warning(
        "a drill's database could not be dropped; the next drill does it",
        metadata: ["database": "\(name)", "cause": "\(error.cause ?? error.message)"])
    }
  }

  /// Returns those that could not be dropped, with the reasons.
  private static func drop(
    databasesLike prefix: String, _ session: PostgresSession
  ) async throws(Fault) -> [String: Fault] {
    let names = try await session.query(
      "SELECT datname FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname, $1)", [prefix]
    ).compactMap { $0[0] }
    var failed: [String: Fault] = [:]
    for name in names {
      do throws(Fault) { try await session.drop(name) } catch { failed[name] = error }
    }
    return failed
  }

  // MARK: - The proof

  private func prove(
    on connection: ConnectionSettings, _ versionText: String, _ phases: PhaseClock, into name: String? = nil
  ) async throws -> DrillReport {
    var request = RestoreRequest(backup: manifest.id, database: manifest.id.database)
    if let name { request.target = .beside(name) }
    request.isConfined = name == nil
    request.fillsViews = name == nil
    request.withGlobals = true
    request.withPasswords = false
    // One object that can't be made says nothing of the rows, and of the others.
    request.keepsGoing = true
    // A tablespace is a place on the disk of the server that was backed up, which may be this very machine.
    request.options.withTablespaces = false
    request.jobs = settings.jobs
    let restore = Restore(
      request, of: manifest, from: stores, identities: identities, on: connection, programs: programs,
      context: context, logger: logger, liveName: manifest.server.database)
    let began = phases.end()
    var outcome = try await restore.run()
    outcome.phases.insert(contentsOf: began, at: 0)
    let restored = Self.unsettled(connection.database(outcome.database))
    let watch = ServerWatch(restored, alive: context.alive)
    if !assertions.isEmpty {
      phases.begin(.assertions)
      try await watch.during {
        // An assertion is the user's SQL, written for the database's own settings, its search_path among them.
        try await PostgresSession.connect(restored, keepingPresets: true).use { session in
          for assertion in assertions { try await check(assertion, session) }
        }
      }
    }
    phases.begin(.amcheck)
    let relations = try await watch.during {
      try await PostgresSession.connect(restored).use { session in try await amcheck(session) }
    }
    let later = phases.end().dropFirst(began.count)
    outcome.phases += relations == nil ? later.filter { $0.name != RunProgress.Phase.amcheck.rawValue } : Array(later)
    let proof = Proof(
      backup: manifest.id, finished: context.now().wholeSecond, host: HostName.current, software: Backup.software,
      server: versionText, stores: outcome.stores, outcome: outcome, assertions: assertions.count,
      checkedRelations: relations)
    var report = DrillReport(proof: proof, unproved: outcome.unproved, derived: outcome.derived)
    (report.unmade, report.objects) = (outcome.unmade, outcome.objects)
    report.incompleteness = outcome.incompleteness
    return report
  }

  /// The database's own settings have no say in this: a library that this machine lacks, a role that may not.
  private static func unsettled(_ connection: ConnectionSettings) -> ConnectionSettings {
    var connection = connection
    connection["options"] = [
      connection["options"], "-c session_preload_libraries= -c local_preload_libraries= -c role=none",
    ].compactMap { $0 }.joined(separator: " ")
    return connection
  }

  private func check(_ assertion: String, _ session: PostgresSession) async throws {
    try Task.checkCancellation()
    let answer: PostgresSession.Rows
    do throws(Fault) {
      try await session.execute("BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '30min'")
      answer = try await session.query(assertion)
      try await session.execute("ROLLBACK")
    } catch {
      try Task.checkCancellation()
      // That it can't be asked says nothing about the backup, whether it is the server's fault or that of who has written it.
      let isOurs = ![.databaseUnreachable, .databaseServer].contains(error.code)
      throw Fault(
        isOurs ? .assertionInvalid : error.code, "An assertion could not be run on the restored database.",
        cause: "\(assertion)\n\(error.cause ?? error.message)",
        hint: isOurs ? "mend 'assert' of '\(manifest.id.database)'" : error.hint)
    }
    guard answer.count == 1, let only = answer.first, only.values.count == 1, only[0] == "t" else {
      let found = answer.first?.values.map { $0 ?? "null" }.joined(separator: ", ") ?? "no row"
      throw Fault(
        .assertionFailed, "The restored database is not what an assertion says.",
        cause: "\(assertion)\nanswered \(found), not true",
        hint: "look into it: pgbackupctl restore \(shell: manifest.id) --into NAME")
    }
  }

  /// B-tree indexes against their order, and tables against their format (PostgreSQL's amcheck); nil where it is not installed.
  private func amcheck(_ session: PostgresSession) async throws -> Int? {
    // The database's own event triggers have no say in this.
    try await session.execute("SET session_replication_role = replica")
    let isThere = try await session.query("SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'")
    guard !isThere.isEmpty else { return nil }
    try await session.execute(
      """
      CREATE SCHEMA IF NOT EXISTS pgbackupd_amcheck;
      CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pgbackupd_amcheck
      """)
    let schema = try await session.query(
      """
      SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
      JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'
      """
    ).first?[0]
    guard let schema else { return nil }
    let relations = try await session.query(
      """
      SELECT c.oid, c.relkind, c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c
      LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
      WHERE c.oid >= 16384 AND c.relpersistence = 'p' AND (c.relkind IN ('r', 'm', 't') AND a.amname = 'heap'
        OR c.relkind = 'i' AND a.amname = 'btree' AND i.indisready AND i.indisvalid)
      ORDER BY c.oid
      """)
    for relation in relations {
      try Task.checkCancellation()
      guard let oid = relation[0], let name = relation[2] else { continue }
      let one = "\(oid)::pg_catalog.oid::pg_catalog.regclass"
      let complaint: String?
      do throws(Fault) {
        // An index that is unsound is an error; of a table every flaw is a row. A void is an empty text.
        complaint = try await session.query(
          relation[1] == "i"
            ? "SELECT nullif(\(schema).bt_index_check(\(one))::pg_catalog.text, '')"
            : "SELECT msg FROM \(schema).verify_heapam(\(one)) LIMIT 1"
        ).first?[0]
      } catch {
        guard error.code == .databaseQuery else { throw error }
        throw unsound(name, error.cause ?? error.message)
      }
      if let complaint { throw unsound(name, complaint) }
    }
    return relations.count
  }

  private func unsound(_ relation: String, _ words: String) -> Fault {
    Fault(
      .proofFailed, "amcheck finds \(relation) unsound in the restored database.", cause: words,
      hint: "look at the memory and the disk of this machine, then run the drill again")
  }
}
