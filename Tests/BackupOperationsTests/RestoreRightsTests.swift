import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresTools
import Quoting
import TestSupport
import Testing

@testable import BackupOperations

/// Whose rows a role may see, and which roles come along.
@Suite(.waits) struct RestoreRightsTests {
  /// Row-level security that binds the owner too is restored and proved by that owner, and binds him afterwards.
  @Test func forcedRowSecurity() async throws {
    let role = "bound_\(UUID().uuidString.prefix(6).lowercased())"
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE ROLE \(role) LOGIN CREATEDB IN ROLE pg_signal_backend;
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO \(role)', current_database()); END $$;
        SET ROLE \(role); CREATE TABLE "their Rows" AS SELECT generate_series(1, 100) AS n;
        CREATE POLICY few ON "their Rows" USING (n < 3);
        ALTER TABLE "their Rows" ENABLE ROW LEVEL SECURITY; ALTER TABLE "their Rows" FORCE ROW LEVEL SECURITY;
        CREATE TABLE free AS SELECT 1 AS n; ALTER TABLE free FORCE ROW LEVEL SECURITY;
        """)
    let before = try fixture.text(fixture.database)
    let outcome = try await fixture.restore(fixture.request, user: role).run()
    #expect(outcome.isProved && outcome.provedTables == 2, "\(outcome)")
    #expect(try fixture.text(fixture.database) == before)
    #expect(try fixture.cluster.sql(fixture.database, "SET ROLE \(role); SELECT count(*) FROM \"their Rows\"") == "2\n")
  }

  /// A foreign key is checked by the tables' owner, whom a policy would keep from the rows that it refers to: with several
  /// connections, pg_restore makes the one before the other now and then.
  @Test func forcedRowSecurityUnderForeignKeys() async throws {
    let role = "bound_\(UUID().uuidString.prefix(6).lowercased())"
    let tables = (1...12).map { number in
      """
      CREATE TABLE a\(number) (n int PRIMARY KEY); INSERT INTO a\(number) SELECT generate_series(1, 100);
      CREATE TABLE b\(number) (n int REFERENCES a\(number)); INSERT INTO b\(number) SELECT generate_series(1, 100);
      """
        + ["a", "b"].map {
          """
          CREATE POLICY few ON \($0)\(number) USING (n < 3);
          ALTER TABLE \($0)\(number) ENABLE ROW LEVEL SECURITY; ALTER TABLE \($0)\(number) FORCE ROW LEVEL SECURITY;
          """
        }.joined()
    }
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE ROLE \(role) LOGIN CREATEDB IN ROLE pg_signal_backend;
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO \(role)', current_database()); END $$;
        SET ROLE \(role); \(tables.joined())
        """)
    let before = try fixture.text(fixture.database)
    var request = fixture.request
    request.jobs = 4
    let outcome = try await fixture.restore(request, user: role).run()
    #expect(outcome.isProved && outcome.provedTables == 24, "\(outcome)")
    #expect(try fixture.text(fixture.database) == before)
  }

  /// Until when a password holds is no matter of how the database writes dates.
  @Test func passwordsEndWhenTheyDid() async throws {
    let cluster = try PrivateCluster.shared()
    let role = "until_\(UUID().uuidString.prefix(6).lowercased())"
    let database = try cluster.makeDatabase("live")
    try cluster.sql(database, "CREATE ROLE \(role) VALID UNTIL '2030-02-01 03:04:05+00'")
    try cluster.sql("postgres", "ALTER DATABASE \(database) SET DateStyle = 'SQL, DMY'")
    let workshop = Workshop()
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    let manifest = try await workshop.backup(
      try connection(cluster, database), database: database, settings: settings
    ).run().manifest
    let read = try await Globals.read(manifest, from: [workshop.store], identities: [])
    let globals = try #require(read)
    let lines = globals.missing(from: .init(), withTablespaces: false).map(\.statement)
    let line = try #require(lines.first { $0.hasPrefix("ALTER ROLE \(role) ") })
    #expect(line.contains("VALID UNTIL '2030-02-01 "), "\(line)")
  }

  @Test(arguments: [
    ("GRANT a TO b GRANTED BY c;", "GRANT a TO b;"),
    ("GRANT a TO b WITH ADMIN OPTION GRANTED BY \"c d\";", "GRANT a TO b WITH ADMIN OPTION;"),
    (#"GRANT a TO " GRANTED BY x" GRANTED BY "y GRANTED BY z";"#, #"GRANT a TO " GRANTED BY x";"#),
    ("GRANT a TO b;", "GRANT a TO b;"),
  ]) func withoutGrantors(_ line: String, _ expected: String) {
    let globals = Globals("CREATE ROLE a;\n\(line)\n")
    var inventory = PostgresSession.ServerInventory()
    inventory.roles = ["b", " GRANTED BY x"]
    func missing(_ withGrantors: Bool) -> [String] {
      globals.missing(from: inventory, withTablespaces: false, withGrantors: withGrantors).map(\.statement)
    }
    #expect(missing(true) == ["CREATE ROLE a;", line])
    #expect(missing(false) == ["CREATE ROLE a;", expected])
  }

  /// Up to PostgreSQL 15 a role that may make roles grants memberships in its name, which 16 and later do not take from it.
  @Test func membershipsOfOldServers() async throws {
    let (old, new) = (try PrivateCluster(), try PrivateCluster(major: 18))
    try old.sql(
      "postgres",
      """
      CREATE ROLE maker LOGIN CREATEROLE; CREATE ROLE "the group"; CREATE ROLE member;
      SET ROLE maker; GRANT "the group" TO member WITH ADMIN OPTION;
      """)
    let fixture = try await RestoreFixture(cluster: old, sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS n")
    var request = fixture.request
    request.withGlobals = true
    let outcome = try await Restore(
      request, of: fixture.manifest, from: [fixture.workshop.store], identities: [],
      on: try connection(new, fixture.database), programs: [new.binaries],
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: Logger(label: "test")
    ).run()
    #expect(outcome.isProved)
    let members =
      "SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members WHERE member = 'member'::regrole"
    #expect(try new.sql("postgres", members) == "\"the group\"|member|t\n")
  }
}
