package import AgeEncryption
package import BackupCatalog
package import Faults
import Foundation
package import Logging
import PostgresArchive
import PostgresTools
package import Storage
import Units

/// Restores a backup into a private throw-away server and proves it there: rows, sequences, large objects, the user's own statements,
/// and amcheck where that is installed. Production is neither read nor written.
package struct Drill: Sendable {
  package struct Settings: Sendable, Hashable {
    /// The folder of the servers.
    package var folder: String
    /// Connections that load at once.
    package var jobs = 4

    package init(folder: String) { self.folder = folder }
  }

  private let manifest: Manifest
  private let stores: [any ObjectStore]
  private let identities: [AgeIdentity]
  private let settings: Settings
  private let programs: [String]
  private let assertions: [String]
  private let run: String
  private let context: OperationContext
  private let logger: Logger

  /// - Parameters:
  ///   - stores: those that hold the backup whole, the nearest first.
  ///   - assertions: SQL that has to give true, each one row and one column.
  ///   - run: names the server's folder.
  package init(
    _ manifest: Manifest, from stores: [any ObjectStore], identities: [AgeIdentity], settings: Settings,
    programs: [String], assertions: [String], run: String, context: OperationContext, logger: Logger
  ) {
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
    let phases = PhaseClock(context)
    phases.begin(.server)
    let globals = try await Globals.read(manifest, from: stores, identities: identities)
    let server = try await ThrowawayServer.start(
      major: manifest.server.versionNumber / 10000, superuser: globals?.firstRole ?? "postgres",
      programs: ClientPrograms(configured: programs),
      root: settings.folder, name: run, connections: settings.jobs * 2)
    do {
      let report = try await prove(on: server, phases)
      await server.remove()
      return report
    } catch {
      // Also where the drill was cancelled: nothing of it stays.
      await uncancelled { await server.remove() }
      throw Fault(error)
    }
  }

  private func prove(on server: ThrowawayServer, _ phases: PhaseClock) async throws -> DrillReport {
    var request = RestoreRequest(backup: manifest.id, database: manifest.id.database)
    request.withGlobals = true
    // A tablespace is a place on the disk of the server that was backed up, which may be this very machine.
    request.options.withTablespaces = false
    request.jobs = settings.jobs
    let restore = Restore(
      request, of: manifest, from: stores, identities: identities, on: server.connection, programs: programs,
      context: context, logger: logger, liveName: manifest.server.database)
    let began = phases.end()
    var outcome = try await restore.run()
    outcome.phases.insert(contentsOf: began, at: 0)
    let connection = server.connection.database(outcome.database)
    if !assertions.isEmpty {
      phases.begin(.assertions)
      try await PostgresSession.connect(connection).use { session in
        for assertion in assertions { try await check(assertion, session) }
      }
    }
    phases.begin(.amcheck)
    let relations = try await PostgresSession.connect(connection).use { session in try await amcheck(session) }
    let later = phases.end().dropFirst(began.count)
    outcome.phases += relations == nil ? later.filter { $0.name != RunProgress.Phase.amcheck.rawValue } : Array(later)
    let proof = Proof(
      backup: manifest.id, finished: context.now().wholeSecond, host: HostName.current, software: Backup.software,
      server: server.versionText, stores: outcome.stores, outcome: outcome, assertions: assertions.count,
      checkedRelations: relations)
    return DrillReport(proof: proof, unproved: outcome.unproved)
  }

  private func check(_ assertion: String, _ session: PostgresSession) async throws {
    try Task.checkCancellation()
    let answer: PostgresSession.Rows
    do throws(Fault) {
      try await session.execute("BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '30min'")
      answer = try await session.query(assertion)
      try await session.execute("ROLLBACK")
    } catch {
      throw Fault(
        .assertionFailed, "An assertion could not be run on the restored database.",
        cause: "\(assertion)\n\(error.cause ?? error.message)", hint: "mend 'assert' of '\(manifest.id.database)'")
    }
    guard answer.count == 1, answer[0].count == 1, answer[0][0] == "t" else {
      let found = answer.first?.map { $0 ?? "null" }.joined(separator: ", ") ?? "no row"
      throw Fault(
        .assertionFailed, "The restored database is not what an assertion says.",
        cause: "\(assertion)\nanswered \(found), not true",
        hint: "look into it: pgbackupctl restore \(manifest.id) --into NAME")
    }
  }

  /// B-tree indexes against their order, and tables against their format (PostgreSQL's amcheck); nil where it is not installed.
  private func amcheck(_ session: PostgresSession) async throws -> Int? {
    let isThere = try await session.query("SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'")
    guard !isThere.isEmpty else { return nil }
    try await session.execute(
      """
      SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS pgbackupd_amcheck;
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
            ? "SELECT nullif(\(schema).bt_index_check(\(one))::text, '')"
            : "SELECT msg FROM \(schema).verify_heapam(\(one)) LIMIT 1"
        ).first?[0]
      } catch {
        if error.code == .runAborted { throw error }
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
