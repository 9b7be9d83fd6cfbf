import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresTools
import TestSupport
import Testing

@testable import BackupOperations

/// ANALYZE after a restore: for the planner's good, and never what a restore fails by.
@Suite(.waits) struct RestoreStatisticsTests {
  /// A foreign table among the partitions whose server is nowhere, and an extended statistics object that divides by
  /// zero.
  @Test func tablesThatCanNotBeAnalyzedAreNamedAndRestored() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
        CREATE USER MAPPING FOR PUBLIC SERVER nowhere;
        CREATE TABLE measured (day date, n int) PARTITION BY RANGE (day);
        CREATE TABLE measured_here PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE FOREIGN TABLE measured_there PARTITION OF measured FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
          SERVER nowhere;
        INSERT INTO measured_here SELECT '2026-02-02', n FROM generate_series(1, 100) AS n;
        CREATE TABLE shares (a int, b int);
        CREATE STATISTICS share ON (a / b) FROM shares;
        INSERT INTO shares VALUES (1, 0);
        CREATE TABLE plain AS SELECT n FROM generate_series(1, 1000) AS n;
        """)
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.isProved)
    let warning = try #require(outcome.warnings.first { $0.code == .statisticsMissing })
    #expect(warning.cause?.contains("public.measured: ") == true && warning.cause?.contains("public.shares: ") == true)
    #expect(warning.cause?.contains("plain") == false)
    let analyzed = try fixture.cluster.sql(
      fixture.database, "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public' ORDER BY 1")
    #expect(analyzed == "measured_here\nplain\n")
    let folder = TemporaryFolder()
    #expect(try await DrillTests.drill(fixture, folder: folder)().proof.isWhole)
  }

  @Test func withoutStatisticsNothingIsAnalyzed() async throws {
    let fixture = try await RestoreFixture(sample: nil, sql: "CREATE TABLE t AS SELECT generate_series(1, 9) AS n")
    var request = fixture.request
    request.makesStatistics = false
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.isProved && !outcome.phases.contains { $0.name == RunProgress.Phase.statistics.rawValue })
    #expect(try fixture.cluster.sql(fixture.database, "SELECT count(*) FROM pg_stats WHERE tablename = 't'") == "0\n")
  }

  /// More tables than one transaction can lock: no step of a restore takes the locks of all at once.
  @Test func aRestoreNeedsNoLockForEachTable() async throws {
    let tables = 3000
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        SET client_min_messages = warning;
        DO $$ BEGIN FOR n IN 1..6 LOOP
          EXECUTE format('CREATE SCHEMA s%s', n);
        END LOOP; END $$;
        """
          + (1...tables).map { "CREATE TABLE s\($0 % 6 + 1).t\($0) (id int PRIMARY KEY);" }.joined(separator: "\n"))
    let small = try PrivateCluster(settings: ["max_locks_per_transaction=10", "max_connections=20"])
    #expect(throws: (any Error).self) {
      try small.sql(
        "postgres",
        "BEGIN; " + (1...tables).map { "CREATE TABLE x\($0) (id int PRIMARY KEY);" }.joined() + " ROLLBACK")
    }
    var request = fixture.request
    request.target = .beside("many")
    let outcome = try await Restore(
      request, of: fixture.manifest, from: [fixture.workshop.store], identities: [],
      on: try connection(small, "postgres"), programs: [small.binaries],
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: Logger(label: "test"), liveName: fixture.database
    ).run()
    #expect(outcome.isProved && outcome.provedTables == tables && outcome.warnings == [])
  }

  /// From PostgreSQL 15 on, `public` belongs to the database's owner: the new database is his from the start.
  @Test(arguments: RestoreMatrixTests.majors) func aMemberOfTheOwnerRestoresWithoutBeingSuperuser(
    _ major: Int
  ) async throws {
    let cluster = try PrivateCluster(major: major)
    try cluster.sql(
      "postgres",
      """
      CREATE ROLE app_owner LOGIN; CREATE ROLE app_reader; CREATE ROLE restorer LOGIN CREATEDB;
      GRANT app_owner, pg_signal_backend TO restorer;
      """)
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: """
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO app_owner', current_database()); END $$;
        SET ROLE app_owner;
        CREATE TABLE public.orders AS SELECT n FROM generate_series(1, 100) AS n;
        CREATE VIEW public.few AS SELECT * FROM public.orders WHERE n < 3;
        CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
        GRANT SELECT ON public.orders TO app_reader;
        """)
    let before = try fixture.text(fixture.database)
    let outcome = try await fixture.restore(fixture.request, user: "restorer").run()
    #expect(outcome.isProved && outcome.provedTables == 1)
    #expect(try fixture.text(fixture.database) == before)
    let owner = "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    #expect(try cluster.sql(fixture.database, owner) == "app_owner\n")
  }
}
