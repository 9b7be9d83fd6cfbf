package import BackupCatalog
package import Faults
package import Foundation
package import Logging
import PostgresArchive
import PostgresTools
import Quoting
package import Storage
import Units

/// A dump that something else made becomes a backup like any other: it is loaded into a private throw-away server and backed up from
/// there, under the time that it was made. So it has contents and fingerprints, is encrypted, signed and spread, and its tables come back
/// one by one. That it loads is seen at once. The file itself stays as it is.
package struct Adoption: Sendable {
  package struct Settings: Sendable {
    /// Of the throw-away server, as drills have it.
    package var folder: String
    package var backup: Backup.Settings
    /// What the database is made with.
    package var creation: DatabaseCreation
    package var jobs = 4

    package init(folder: String, backup: Backup.Settings, creation: DatabaseCreation) {
      self.folder = folder
      self.backup = backup
      self.creation = creation
    }
  }

  private let dump: DumpFile
  private let database: String
  private let type: String
  private let stores: [any ObjectStore]
  private let settings: Settings
  private let time: Date
  private let history: Backup.History
  private let retention: RetentionPolicy
  private let run: String
  private let report: @Sendable (RunProgress) -> Void
  private let logger: Logger

  /// - Parameters:
  ///   - database: the name that it gets in the catalog.
  ///   - time: of the backup.
  ///   - history: what the catalog has of the same database, and what its backups before that time were like.
  ///   - run: names the server's folder.
  package init(
    _ dump: DumpFile, as database: String, type: String, into stores: [any ObjectStore], settings: Settings,
    time: Date, history: Backup.History, retention: RetentionPolicy, run: String, logger: Logger,
    report: @escaping @Sendable (RunProgress) -> Void
  ) {
    self.dump = dump
    self.database = database
    self.type = type
    self.stores = stores
    self.settings = settings
    (self.time, self.history) = (time, history)
    self.retention = retention
    self.run = run
    self.report = report
    self.logger = logger
  }

  /// What the backup of a dump is labelled with: by it the file is known again.
  package static func label(_ path: String) -> String { "adopted from \(path)" }

  package func callAsFunction() async throws(Fault) -> Backup.Outcome {
    report(RunProgress(phase: .server))
    let programs = ClientPrograms(configured: settings.backup.programs)
    // Its own major or the next one that is here: what pg_dump writes loads into newer servers.
    let major: Int
    do throws(Fault) {
      major = try await programs.program("initdb", forServer: dump.serverMajor).major
    } catch {
      throw Fault(
        .toolMissing,
        "To adopt a dump of PostgreSQL \(dump.serverMajor) a server of that major or a newer one has to be here.",
        cause: error.message, hint: "apt install postgresql-\(max(14, dump.serverMajor))")
    }
    let server = try await ThrowawayServer.start(
      major: major, superuser: "postgres", programs: programs, root: settings.folder, name: run,
      connections: settings.jobs * 2)
    for gap in server.gaps { logger.warning("a dump loads less confined than it should", metadata: ["gap": "\(gap)"]) }
    do {
      let connection = try await load(on: server.connection, programs, major)
      try await requireRows(connection)
      let outcome = try await backUp(connection)
      await server.remove()
      return outcome
    } catch {
      _ = await uncancelled { await server.remove() }
      throw Fault(error)
    }
  }

  /// A dump of definitions alone loads well, and would be the newest good backup, with nothing in it.
  private func requireRows(_ connection: ConnectionSettings) async throws(Fault) {
    let tables = try await PostgresSession.connect(connection).use { session throws(Fault) -> Int in
      let tables = try await session.query(
        """
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        """
      ).compactMap { $0[0] }
      for table in tables where try await session.query("SELECT FROM \(table) LIMIT 1").count == 1 { return 0 }
      return tables.count
    }
    guard tables == 0 else {
      throw DumpFile.refused(
        dump.path, "has \(tables) table\(tables == 1 ? "" : "s") and not one row",
        "it was made with --schema-only, perhaps")
    }
  }

  // MARK: - Loading

  private func load(
    on maintenance: ConnectionSettings, _ programs: ClientPrograms, _ major: Int
  ) async throws -> ConnectionSettings {
    var progress = RunProgress(phase: .load)
    progress.table = dump.path.split(atByte: UInt8(ascii: "/")).last.map(String.init)
    report(progress)
    let name = dump.database ?? database
    // From beside: the name may be that of a database which every server has.
    try await PostgresSession.connect(maintenance.database("template1")).use { session throws(Fault) in
      // What is no role's name was none: it stood in a row. Whether one is lacking the load tells.
      for role in dump.roles { try? await session.execute("CREATE ROLE \(SQLName.quoted(role))") }
      try await make(name, by: session)
    }
    var connection = maintenance.database(name)
    connection["options"] = SessionSettings.options(after: nil, major: major)
    let complaint: String?
    if dump.kind == .plain {
      complaint = try await loadText(into: connection, try await programs.program("psql", forServer: major))
    } else {
      let program = try await programs.program("pg_restore", forServer: major)
      let jobs = dump.unpacker == nil && dump.kind != .tar ? settings.jobs : 1
      var first = try await loadArchive(into: connection, program, jobs: jobs)
      if first != nil, jobs > 1 {
        // Some extensions' tables go in only in the order of the archive, which several connections don't keep.
        try await PostgresSession.connect(maintenance.database("template1")).use { session throws(Fault) in
          try await make(name, by: session)
        }
        first = try await loadArchive(into: connection, program, jobs: 1)
      }
      complaint = first
    }
    guard complaint == nil else {
      throw Fault(
        .adoptRefused, "'\(dump.path)' does not load.",
        cause: complaint,
        hint: "an extension that is missing here has to be installed; else look into the file")
    }
    return connection
  }

  private func make(_ name: String, by session: PostgresSession) async throws(Fault) {
    guard name != "template1" else { return }
    try await session.execute("DROP DATABASE IF EXISTS \(SQLName.quoted(name))")
    do throws(Fault) {
      try await session.execute("CREATE DATABASE \(SQLName.quoted(name)) \(settings.creation.options ?? "")")
    } catch {
      throw Fault(
        .adoptRefused, "The database of '\(dump.path)' can't be made here as it was.",
        cause: error.cause ?? error.message,
        hint: "install its locale (locale -a, dpkg-reconfigure locales), or choose one that is here: --locale NAME")
    }
    // In a text they stand in front of everything else, and psql runs them.
    guard dump.kind != .plain else { return }
    for statement in dump.creation.settings { try await session.execute(statement) }
  }

  /// Returns what pg_restore complains of.
  private func loadArchive(
    into connection: ConnectionSettings, _ program: ClientProgram, jobs: Int
  ) async throws -> String? {
    let script = dump.restoring(
      program.path,
      "--exit-on-error --no-password --no-tablespaces\(jobs > 1 ? " --jobs=\(jobs)" : "") --dbname=\"$2\"")
    let output = try await ClientProcess(
      path: "/bin/bash",
      arguments: ["-o", "pipefail", "-c", script, "adopt", DumpSource.place, connection.programConninfo],
      files: [dump.source], login: connection, rules: dump.source.rules(for: program.path)
    ).capture(limit: 16 << 20)
    return output.status.isSuccess ? nil : DumpFile.words(output, of: dump.path)
  }

  /// psql with its own commands shut off: a dump is data, and no script. Its own `\restrict` gives way to ours. Returns what psql complains
  /// of.
  private func loadText(into connection: ConnectionSettings, _ psql: ClientProgram) async throws -> String? {
    let text = PlainDump(path: dump.path, source: dump.source, reading: dump.reading, isOfOurName: dump.database != nil)
    var connection = connection
    // A dump that was written or changed by hand may name no schema.
    connection["options"] = [connection["options"], "-c search_path=public"].compactMap { $0 }.joined(separator: " ")
    let restrict = Array("\\restrict \(key)\n".utf8)
    let outcome = try await ClientProcess(
      path: psql.path,
      arguments: [
        "-X", "-q", "--no-password", "-v", "ON_ERROR_STOP=1", "-d", connection.programConninfo, "-f", "-", "-o",
        "/dev/null",
      ], login: connection
    ).feed { input in
      try await input.write(restrict)
      try await text.read { bytes in try await input.write(bytes) }
    }
    return outcome.status.isSuccess ? nil : outcome.complaint.isEmpty ? outcome.status.text : outcome.complaint
  }

  private var key: String {
    (0..<32).map { _ in String("abcdefghijklmnopqrstuvwxyz0123456789".randomElement() ?? "x") }.joined()
  }

  // MARK: - The backup

  private func backUp(_ connection: ConnectionSettings) async throws(Fault) -> Backup.Outcome {
    var request = Backup.Request(
      database: database, connection: connection, type: type, label: Self.label(dump.path), job: nil, run: run,
      keep: nil)
    request.retention = retention
    let time = time
    return try await Backup(
      request, settings: settings.backup, stores: stores, history: history,
      context: OperationContext(now: { time }, report: report), logger: logger
    ).run()
  }
}
