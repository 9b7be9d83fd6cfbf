import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresTools
import Storage
import TestSupport
import Testing

@testable import BackupOperations

/// Whoever owns a database chooses its settings, functions and operators; none of them has a say in what we do there.
@Suite(.waits) struct HostileSettingsTests {
  private struct Place {
    let hostile: HostileDatabase
    let workshop = Workshop()
    var settings = Backup.Settings()

    init(major: Int?) throws {
      hostile = try HostileDatabase(major: major)
      settings.programs = [hostile.cluster.binaries]
    }

    func backUp(as user: String, at time: Double) async throws -> Manifest {
      try await workshop.backup(
        try connection(hostile.cluster, "shop", user: user), settings: settings,
        at: Date(timeIntervalSince1970: time)
      ).run().manifest
    }

    func restore(
      _ manifest: Manifest, as user: String, _ change: (inout RestoreRequest) -> Void = { _ in }
    ) async throws -> RestoreOutcome {
      var request = RestoreRequest(backup: manifest.id, database: "shop")
      change(&request)
      let (safety, settings) = (Workshop("safety"), settings)
      let restore = Restore(
        request, of: manifest, from: [workshop.store], identities: [],
        on: try connection(hostile.cluster, "shop", user: user), programs: settings.programs,
        context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
        logger: Logger(label: "test")
      ) { connection throws(Fault) in
        do {
          return (try await safety.backup(connection, settings: settings).run().manifest, [safety.store])
        } catch {
          throw Fault(error)
        }
      }
      return try await restore.run()
    }

    func hasCaughtNothing(_ what: String) throws {
      #expect(try hostile.caught.prefix(5) == [], "\(what)")
      #expect(try !hostile.isOwnerSuperuser, "\(what)")
    }
  }

  /// That the traps catch somebody at all.
  @Test func aSessionUnderPresetsIsCaught() async throws {
    let hostile = try HostileDatabase(major: nil)
    var settings = try connection(hostile.cluster, "shop", user: "boss")
    settings["options"] = "-c local_preload_libraries= -c role=none -c idle_session_timeout=0"
    let session = try await PostgresSession.connect(settings, keepingPresets: true)
    _ = try await session.query("SELECT current_setting('server_version'), count(*) FROM pg_catalog.pg_class")
    await session.close()
    #expect(try hostile.caught.contains { $0.contains("TRAP current_setting as boss") })
    #expect(try hostile.caught.contains { $0.contains("TRAP count as boss") })
    #expect(try hostile.isOwnerSuperuser)
  }

  /// A pooler between us and the server may leave out the options: the statements in their place do the same.
  @Test(arguments: [nil, 18]) func statementsDoWhatOptionsDo(_ major: Int?) async throws {
    let hostile = try HostileDatabase(major: major)
    let settings = try connection(hostile.cluster, "shop", user: "boss")
    var pooled = settings
    pooled["options"] = "-c local_preload_libraries= -c role=none -c idle_session_timeout=0"
    let list = "{\(SessionSettings.names.joined(separator: ","))}"
    func values(_ session: PostgresSession) async throws -> PostgresSession.Rows {
      try await session.query(
        """
        -- A list of one empty name is an empty list.
        SELECT name, pg_catalog.replace(setting, '""', '') FROM pg_catalog.pg_settings
        WHERE pg_catalog.lower(name) = ANY (pg_catalog.lower($1)::pg_catalog.text[]) ORDER BY 1
        """, [list])
    }
    let direct = try await PostgresSession.connect(settings).use { session in try await values(session) }
    #expect(direct.count == SessionSettings.names.count)
    let statements = SessionSettings.statements(major: hostile.cluster.majorVersion)
    let set = try await PostgresSession.connect(pooled, keepingPresets: true).use { session in
      try await session.execute(statements)
      return try await values(session)
    }
    #expect(set == direct)
    #expect(try hostile.caught == [])
  }

  @Test(arguments: [nil, 18]) func backupsAndDrillsRunNothingOfTheOwners(_ major: Int?) async throws {
    let place = try Place(major: major)
    let cluster = place.hostile.cluster
    var manifests: [Manifest] = []
    for (number, user) in ["boss", "backup"].enumerated() {
      manifests.append(try await place.backUp(as: user, at: 1_800_000_000 + Double(number)))
      try place.hasCaughtNothing("backup as \(user)")
      let found = try await PostgresSession.connect(try connection(cluster, "shop", user: user)).use {
        session in (try await session.databaseNames(), try await session.inventory(), try await session.role())
      }
      #expect(found.0.map(\.name) == ["postgres", "shop"] && found.2.name == user)
      try place.hasCaughtNothing("discovery as \(user)")
      try await loadIsWatched(try connection(cluster, "shop", user: user))
      try place.hasCaughtNothing("guard as \(user)")
    }
    // The rows of all settings read alike.
    let contents = try await manifests.asyncMap {
      try await ContentsReader(store: place.workshop.store, identities: []).read($0)
    }
    #expect(contents[0].tables.map(\.fingerprint) == contents[1].tables.map(\.fingerprint))

    let folder = TemporaryFolder()
    var drill = Drill.Settings(folder: folder.file("drills"))
    drill.jobs = 2
    let report = try await Drill(
      manifests[0], from: [place.workshop.store], identities: [], settings: drill, programs: [cluster.binaries],
      // As users write them: without the schema, for their database's own path. The last one asks whether somebody has
      // become a superuser.
      assertions: [
        "SELECT count(*) = 100 FROM orders", "SELECT pg_catalog.current_setting('TimeZone') = 'Asia/Kathmandu'",
        "SELECT NOT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) 'mallory'",
      ],
      run: "run1",
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: Logger(label: "test"))()
    #expect(report.proof.isWhole && report.unproved == [] && report.proof.assertions == 3)
    try place.hasCaughtNothing("drill")
  }

  @Test(arguments: [nil, 18]) func restoresRunNothingOfTheOwners(_ major: Int?) async throws {
    let place = try Place(major: major)
    let manifest = try await place.backUp(as: "boss", at: 1_800_000_000)
    for user in ["boss", "mover"] {
      _ = try place.hostile.sql("DELETE FROM public.orders WHERE id OPERATOR(pg_catalog.>) 10")
      let swapped = try await place.restore(manifest, as: user)
      #expect(swapped.unproved == [] && swapped.kept != nil)
      try place.hasCaughtNothing("restore as \(user)")
      let undone = try await Rollback(
        on: try connection(place.hostile.cluster, "shop", user: user),
        context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_200_000) }, report: { _ in })
      ).run("shop", choosing: swapped.kept)
      #expect(try place.hostile.sql("SELECT pg_catalog.count(*) FROM public.orders") == "10\n")
      try place.hasCaughtNothing("rollback as \(user)")
      try place.hostile.cluster.sql("postgres", "DROP DATABASE \(try #require(undone.kept))")

      let beside = try await place.restore(manifest, as: user) { $0.tables = ["orders"] }
      #expect(beside.rows == 100)
      let replaced = try await place.restore(manifest, as: user) {
        ($0.tables, $0.tableTarget) = (["orders"], .replaceRows)
      }
      #expect(replaced.rows == 100)
      try place.hasCaughtNothing("tables as \(user)")
      let inPlace = try await place.restore(manifest, as: user) { $0.target = .inPlace }
      #expect(inPlace.rows == 100 && inPlace.unproved == [])
      try place.hasCaughtNothing("in place as \(user)")
    }
  }

  private func loadIsWatched(_ connection: ConnectionSettings) async throws {
    let dump = try await PostgresSession.connect(connection)
    try await dump.execute("BEGIN; SELECT 1")
    let watching = LoadGuard(
      connection, LoadPolicy(), gate: PauseGate(), logger: Logger(label: "test"), resting: { _ in })
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await watching.watch() }
      try eventually("the guard has looked") { watching.cost != nil }
      group.cancelAll()
    }
    await dump.close()
  }
}

extension Sequence where Element: Sendable {
  fileprivate func asyncMap<Value>(_ transform: (Element) async throws -> Value) async rethrows -> [Value] {
    var values: [Value] = []
    for element in self { values.append(try await transform(element)) }
    return values
  }
}
