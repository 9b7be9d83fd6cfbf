import AgeEncryption
import ArtifactFormat
import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import Storage
import TestSupport
import Testing

/// A restore without room for two: whatever goes wrong, and whenever, the database is afterwards what it was before.
@Suite(.waits) struct RestoreInPlaceTests {
  /// A database of two tables, changed since its backup, and where its safety backups go.
  private struct InPlace {
    let fixture: RestoreFixture
    let safety = Workshop("safety")
    let before: [String]

    /// - Parameter later: what is changed since the backup besides.
    init(
      _ cluster: PrivateCluster? = nil, isEncrypted: Bool = false, compression: Compression = .standard,
      rows: Int = 1000, sql: String = "", later: String = ""
    ) async throws {
      var settings = Backup.Settings()
      settings.compression = compression
      fixture = try await RestoreFixture(
        cluster: cluster, sample: nil,
        sql: """
          CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, \(rows)) i;
          CREATE TABLE small (id serial PRIMARY KEY, t text); INSERT INTO small (t) VALUES ('old'); \(sql)
          """, isEncrypted: isEncrypted, settings: settings)
      try fixture.cluster.sql(
        fixture.database,
        """
        UPDATE small SET t = 'new'; CREATE VIEW later AS TABLE small;
        COMMENT ON DATABASE \(fixture.database) IS 'ours'; ALTER DATABASE \(fixture.database) SET work_mem = '9MB';
        \(later)
        """)
      before = try fixture.text(fixture.database)
    }

    func run(
      from stores: [any ObjectStore]? = nil, user: String = "postgres", identities: [AgeIdentity]? = nil,
      report: @escaping @Sendable (RunProgress) -> Void = { _ in }
    ) async throws -> RestoreOutcome {
      var request = fixture.request
      request.target = .inPlace
      let (safety, database, binaries) = (safety, fixture.database, fixture.cluster.binaries)
      let restore = Restore(
        request, of: fixture.manifest, from: stores ?? [fixture.workshop.store],
        identities: .init(identities ?? [fixture.identity]),
        on: try connection(fixture.cluster, database, user: user), programs: [binaries],
        context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: report),
        logger: Logger(label: "test")
      ) { connection throws(Fault) in
        var settings = Backup.Settings()
        settings.programs = [binaries]
        do {
          return (
            try await safety.backup(connection, database: database, settings: settings).run().manifest, [safety.store]
          )
        } catch {
          throw Fault(error)
        }
      }
      return try await restore.run()
    }

    /// Somebody changes a row before it is compared.
    @discardableResult func mustFailTheProof(sourceLocation: SourceLocation = #_sourceLocation) async throws -> Fault? {
      let (changed, cluster, database) = (Once(), fixture.cluster, fixture.database)
      return try await mustFail(.proofFailed, sourceLocation: sourceLocation) { progress in
        guard progress.phase == .proof, changed.first else { return }
        let work = try? cluster.sql(
          "postgres", "SELECT datname FROM pg_database WHERE datname LIKE '\(database)\\_restore%'")
        _ = try? cluster.sql(
          work?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "", "UPDATE small SET t = 'somebody''s'")
      }
    }

    /// Runs it, which must fail with one of these, and sees that nothing has changed.
    @discardableResult func mustFail(
      _ codes: FaultCode..., from stores: [any ObjectStore]? = nil, user: String = "postgres",
      identities: [AgeIdentity]? = nil, sourceLocation: SourceLocation = #_sourceLocation,
      report: @escaping @Sendable (RunProgress) -> Void = { _ in }
    ) async throws -> Fault? {
      let fault = await #expect(throws: Fault.self, sourceLocation: sourceLocation) {
        try await run(from: stores, user: user, identities: identities, report: report)
      }
      let words = Comment(rawValue: fault.map { "\($0)" } ?? "")
      #expect(fault.map { codes.contains($0.code) } == true, words, sourceLocation: sourceLocation)
      try isAsBefore(words, sourceLocation)
      return fault
    }

    func isAsBefore(_ words: Comment?, _ sourceLocation: SourceLocation = #_sourceLocation) throws {
      #expect(try fixture.databases == [fixture.database], words, sourceLocation: sourceLocation)
      #expect(try fixture.text(fixture.database) == before, words, sourceLocation: sourceLocation)
      let facts = try fixture.cluster.sql(
        "postgres",
        "SELECT shobj_description(d.oid, 'pg_database'), setconfig FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid WHERE datname = '\(fixture.database)'"
      )
      #expect(facts == "ours|{work_mem=9MB}\n", words, sourceLocation: sourceLocation)
    }
  }

  /// It works at all, and the backup of before is a whole one.
  @Test func replaces() async throws {
    let place = try await InPlace()
    let outcome = try await place.run()
    #expect(outcome.isProved && outcome.kept != nil)
    #expect(try place.fixture.databases == [place.fixture.database])
    #expect(try place.fixture.cluster.sql(place.fixture.database, "SELECT t FROM small") == "old\n")
  }

  /// What shows before anything is taken away.
  @Test func refusedBefore() async throws {
    let place = try await InPlace(isEncrypted: true)
    try await place.mustFail(.keyMissing, identities: [AgeIdentity.generate()])
    let cluster = place.fixture.cluster
    let role = "owner_\(UUID().uuidString.prefix(6).lowercased())"
    try cluster.sql("postgres", "CREATE ROLE \(role) LOGIN CREATEDB")
    try await place.mustFail(.restoreRefused, user: role)
    let name = try #require(place.fixture.workshop.files.first { $0.contains(".dump") })
    let path = place.fixture.workshop.folder.file("store/\(name)")
    let whole = try Data(contentsOf: URL(filePath: path))
    var changed = whole
    changed[whole.count / 2] ^= 1
    for damaged in [changed, whole.prefix(whole.count / 2)] {
      try damaged.write(to: URL(filePath: path))
      try await place.mustFail(.artifactDamaged, .storeFailed)
    }
    #expect(place.safety.files == [], "and no safety backup was made for it")
  }

  /// A role that the server does not have any more.
  @Test func whatTheServerLacks() async throws {
    let role = "gone \(UUID().uuidString.prefix(6))"
    let cluster = try PrivateCluster.shared()
    try cluster.sql("postgres", "CREATE ROLE \"\(role)\"")
    let place = try await InPlace(sql: "CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO \"\(role)\"")
    try cluster.sql(place.fixture.database, "DROP OWNED BY \"\(role)\"; DROP ROLE \"\(role)\"")
    await #expect(throws: Fault.self) { try await place.run() }
    #expect(try place.fixture.databases == [place.fixture.database])
    #expect(place.safety.files == [])
  }

  /// The store dies at each of its calls in turn, before and after the live database has made room.
  @Test func theStoreIsLost() async throws {
    // Three frames, each a read of its own.
    let counting = try await InPlace(compression: Compression(algorithm: .none), rows: 14_000)
    let store = FaultyStore(counting.fixture.workshop.store, .none)
    _ = try await counting.run(from: [store])
    #expect(store.allCalls > 4)
    let place = try await InPlace(compression: Compression(algorithm: .none), rows: 14_000)
    var codes: Set<String> = []
    for call in 0..<store.allCalls {
      for fault in [FaultyStore.Fault.diesAt(call: call), .liesAt(call: call)] {
        let store = FaultyStore(place.fixture.workshop.store, fault)
        do {
          // A single lie may be read again, and then it is one restore that went well.
          _ = try await place.run(from: [store])
          try place.fixture.cluster.sql(
            place.fixture.database,
            """
            UPDATE small SET t = 'new'; CREATE VIEW later AS TABLE small;
            COMMENT ON DATABASE \(place.fixture.database) IS 'ours'; ALTER DATABASE \(place.fixture.database) SET work_mem = '9MB';
            """)
        } catch {
          codes.insert((error as? Fault)?.code.rawValue ?? "\(error)")
        }
        try place.isAsBefore("call \(call) of \(store.allCalls): \(fault)")
      }
    }
    #expect(codes.isSubset(of: ["E-STORE-FAILED", "E-ARTIFACT-DAMAGED", "E-OBJECT-MISSING"]), "\(codes)")
    #expect(!codes.isEmpty)
  }

  /// No space is left on the server's disk, when the old rows are gone and some of the new ones are there.
  @Test(arguments: [nil, 14, 18]) func theServersDiskIsFull(_ major: Int?) async throws {
    let place = try await InPlace(PrivateCluster(major: major, diskMayFill: true), rows: 60_000)
    let cluster = place.fixture.cluster
    let isFull = Once()
    let fault = try await place.mustFail(.databaseServer) { progress in
      if progress.phase == .load, progress.archiveBytes > 0, isFull.first { cluster.fillDisk() }
      // The half-loaded database is dropped before the way back begins, which makes room.
      if progress.phase == .preflight { cluster.emptyDisk() }
    }
    #expect(fault?.message.contains("is back as it was before") == true, "\(fault.map { "\($0)" } ?? "")")
    #expect(fault?.cause?.contains("No space left on device") == true, "\(fault.map { "\($0)" } ?? "")")
  }

  /// The role gets too few connections: told before anything is taken away. Where they are taken from it later, the way back needs few, and
  /// waits for them.
  @Test func connectionsAreShort() async throws {
    let role = "few_\(UUID().uuidString.prefix(6).lowercased())"
    let place = try await InPlace(
      rows: 60_000,
      sql: """
        CREATE ROLE \(role) LOGIN CREATEDB CONNECTION LIMIT 4 IN ROLE pg_signal_backend, pg_read_all_data;
        ALTER TABLE big OWNER TO \(role); ALTER TABLE small OWNER TO \(role);
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO \(role)', current_database()); END $$;
        """, later: "ALTER VIEW later OWNER TO \(role)")
    let cluster = place.fixture.cluster
    let refused = try await place.mustFail(.restoreRefused, user: role)
    #expect(refused?.message.contains("4 of the 6 connections") == true, "\(refused.map { "\($0)" } ?? "")")
    #expect(place.safety.files == [], "and no safety backup was made for it")

    @Sendable func limit(_ connections: Int) {
      _ = try? cluster.sql("postgres", "ALTER ROLE \(role) CONNECTION LIMIT \(connections)")
    }
    // With three the database is put back. With the one that holds it nothing goes on; nor does the way back, until there are more.
    for few in [3, 1] {
      limit(8)
      let (isShort, preflights) = (Once(), Counter())
      let fault = try await place.mustFail(.databaseUnreachable, user: role) { progress in
        if progress.phase == .schema, isShort.first { limit(few) }
        guard few == 1, progress.phase == .preflight else { return }
        // After the restore's own comes that of the first try of the way back, and that of the next one.
        let number = preflights.next()
        if number > 1 { limit(number == 2 ? 0 : 8) }
      }
      #expect(fault?.message.contains("is back as it was before") == true, "\(fault.map { "\($0)" } ?? "")")
    }
  }

  /// A subscription in the backup makes no database of ours one that can't be dropped, and its publisher hears nothing of it.
  @Test func aSubscriptionComesAlong() async throws {
    let place = try await InPlace(
      rows: 60_000,
      sql:
        "CREATE SUBSCRIPTION s CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = 'in_use')",
      later: "ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s")
    try await place.mustFailTheProof()
    #expect(try await place.run().isProved)
    #expect(try place.fixture.databases == [place.fixture.database])
    let subscription = """
      SELECT subname, subenabled, subslotname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid
      WHERE datname = current_database()
      """
    #expect(try place.fixture.cluster.sql(place.fixture.database, subscription) == "s|f|in_use\n")
  }

  /// A template can't be dropped, and makes room all the same; it is one again afterwards.
  @Test func aTemplate() async throws {
    let place = try await InPlace(
      sql: "UPDATE pg_database SET datistemplate = true WHERE datname = current_database()")
    let database = place.fixture.database
    try await place.mustFailTheProof()
    #expect(try await place.run().isProved)
    #expect(try place.fixture.databases == [database])
    let facts = "SELECT datistemplate FROM pg_database WHERE datname = '\(database)'"
    #expect(try place.fixture.cluster.sql("postgres", facts) == "t\n")
  }

  /// A connection of the load is ended by somebody; somebody changes a row before it is compared.
  @Test func somebodyInterferes() async throws {
    let place = try await InPlace(rows: 60_000)
    let (cluster, database) = (place.fixture.cluster, place.fixture.database)
    let ended = Once()
    try await place.mustFail(.restoreFailed, .databaseUnreachable, .databaseServer) { progress in
      guard progress.phase == .load, progress.archiveBytes > 0, ended.first else { return }
      _ = try? cluster.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE '\(database)\\_restore%'")
    }
    let fault = try await place.mustFailTheProof()
    #expect(fault?.cause?.contains("public.small") == true)
  }
}
