import BackupCatalog
import BackupOperations
import Faults
import Foundation
import PostgresTools
import Synchronization
import TestSupport
import Testing

/// What other roles of a server do while a restore is at work: they see none of its rows, and get nobody's place.
@Suite(.waits) struct RestoreStrangerTests {
  /// Runs once, when a restore comes to a phase.
  private final class Once: Sendable {
    private let isDone = Mutex(false)
    func run(_ work: () -> Void) {
      let isFirst = isDone.withLock { isDone in
        defer { isDone = true }
        return !isDone
      }
      if isFirst { work() }
    }
  }

  private final class Looks: Sendable {
    private let words = Mutex<[String]>([])
    func add(_ text: String) { words.withLock { $0.append(text) } }
    var all: [String] { words.withLock { $0 } }
  }

  /// Rows are loaded before row-level security and the database's own privileges: nobody else may look at them then.
  @Test func nobodyLooksIntoWhatIsBeingLoaded() async throws {
    let cluster = try PrivateCluster()
    try cluster.sql("postgres", "CREATE ROLE bob LOGIN; CREATE ROLE guest LOGIN")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: """
        CREATE TABLE tenants (name text, secret text); INSERT INTO tenants VALUES ('bob', 'b'), ('eve', 'e');
        ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON tenants USING (name = current_user); GRANT SELECT ON tenants TO PUBLIC;
        DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
          EXECUTE format('GRANT CONNECT ON DATABASE %I TO bob', current_database()); END $$;
        """)
    let acl = """
      SELECT string_agg(one::text, ' ' ORDER BY one::text) FROM pg_database, unnest(datacl) AS one
      WHERE datname = current_database()
      """
    let before = (try fixture.text(fixture.database), try cluster.sql(fixture.database, acl))
    let looked = Looks()
    let once = Once()
    let outcome = try await fixture.restore(
      fixture.request,
      report: { progress in
        guard progress.phase == .proof else { return }
        once.run {
          for user in ["bob", "guest"] {
            let work = try? fixture.databases.first { $0.contains("_restore_") }
            let look = try? Shell.run(
              "\(cluster.binaries)/psql",
              ["-X", "-d", cluster.conninfo(work ?? "", user: user), "-c", "SELECT count(*) FROM tenants"])
            looked.add(look?.errors ?? "")
          }
        }
      }
    ).run()
    #expect(looked.all.count == 2 && looked.all.allSatisfy { $0.contains("permission denied for database") })
    #expect(outcome.isProved)
    // What it has in the end is what it had.
    #expect(try fixture.text(fixture.database) == before.0)
    #expect(try cluster.sql(fixture.database, acl) == before.1)
    #expect(try cluster.sql(fixture.database, "SET ROLE bob; SELECT secret FROM tenants").hasSuffix("b\n"))
  }

  /// A database that had no privileges of its own has none afterwards, whoever restores.
  @Test func defaultPrivilegesStayTheDefault() async throws {
    let cluster = try PrivateCluster()
    try cluster.sql(
      "postgres",
      "CREATE ROLE owner; CREATE ROLE restorer LOGIN CREATEDB; GRANT owner, pg_signal_backend TO restorer")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: """
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO owner', current_database()); END $$;
        SET ROLE owner; CREATE TABLE t AS SELECT 1 AS n
        """)
    func create(_ database: String) throws -> [String] {
      try Shell.must("\(cluster.binaries)/pg_dump", ["--create", "--schema-only", "-d", cluster.conninfo(database)])
        .split(separator: "\n").map(String.init).filter { $0.contains("DATABASE") && !$0.contains("restrict") }
    }
    let before = try create(fixture.database)
    while try cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = '\(fixture.database)'")
      != "0\n"
    {}
    _ = try await fixture.restore(fixture.request, user: "restorer").run()
    #expect(try create(fixture.database) == before)
  }

  /// Who makes a database of the name that a restore is about to take gets neither its place nor our signature.
  @Test func aDatabaseThatCameMeanwhileIsNotPutAside() async throws {
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(), sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS n")
    let (cluster, name) = (fixture.cluster, fixture.database)
    try cluster.sql("postgres", "CREATE ROLE mallory LOGIN CREATEDB")
    let take: @Sendable () -> Void = {
      _ = try? cluster.sql("postgres", "SET ROLE mallory; CREATE DATABASE \(name)")
    }
    // It was gone, and comes while the backup is loaded; then one is there, and another one takes its place.
    for isGone in [true, false] {
      let once = Once()
      if isGone { try cluster.sql("postgres", "DROP DATABASE \(name) WITH (FORCE)") }
      let fault = await #expect(throws: Fault.self) {
        try await fixture.restore(
          fixture.request,
          report: { progress in
            guard progress.phase == .proof else { return }
            once.run {
              if !isGone { _ = try? cluster.sql("postgres", "DROP DATABASE \(name) WITH (FORCE)") }
              take()
            }
          }
        ).run()
      }
      #expect(fault?.code == .swapFailed, "\(fault.map { "\($0)" } ?? "")")
      #expect(
        try cluster.sql("postgres", "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '\(name)'")
          == "mallory\n")
      #expect(try fixture.databases == [name])
      #expect(try await fixture.rollback().kept() == [])
    }
  }
}
