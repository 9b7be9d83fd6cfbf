import Foundation
import TestSupport
import Testing

/// What ties a database to others goes by the database and not by its name: told before a restore begins, and not hours later.
@Suite(.waits) struct RestoreTiesTests {
  private struct Fixture {
    let folder = TemporaryFolder()
    let cluster: PrivateCluster
    let database: String
    let daemon: DaemonProcess

    /// - Parameter user: who restores.
    init(user: String = "postgres") throws {
      cluster = try PrivateCluster(settings: ["wal_level=logical", "max_prepared_transactions=5"])
      database = try cluster.makeDatabase("shop")
      try cluster.sql(database, "CREATE TABLE orders AS SELECT i FROM generate_series(1, 100) i")
      daemon = try DaemonProcess(
        """
        databases:
          shop: { connect: "\(cluster.conninfo(database))", restore_connect: "\(cluster.conninfo(database, user: user))" }
        jobs: { manual: }
        restore: { keep_replaced: 1h }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """, in: folder)
      try daemon.waitFor("READY=1")
    }

    /// The databases of the server that begin like ours, without ours.
    var others: [String] {
      get throws {
        try cluster.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE '\(database)\\_%' ORDER BY 1")
          .split(separator: "\n").map(String.init)
      }
    }
  }

  @Test func preparedTransactionsAreToldInTime() throws {
    let fixture = try Fixture()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(fixture.database, "BEGIN; INSERT INTO orders VALUES (0); PREPARE TRANSACTION 'it''s open'")
    for way in ["--force", "--in-place"] {
      let restore = try daemon.ctl("restore", "latest", "--force", way)
      #expect(restore.status == 4, "\(restore.output)\(restore.errors)")
      #expect(restore.errors.contains("E-RESTORE-REFUSED") && restore.errors.contains("COMMIT PREPARED 'it''s open'"))
    }
    // Beside it, nothing is in the way.
    #expect(try daemon.ctl("restore", "latest", "--into", fixture.database + "_beside", "--force").status == 0)
    try fixture.cluster.sql(fixture.database, "ROLLBACK PREPARED 'it''s open'")
    #expect(try daemon.ctl("restore", "latest", "--force").status == 0)
  }

  @Test func replicationIsToldOf() throws {
    let fixture = try Fixture()
    let (daemon, database) = (fixture.daemon, fixture.database)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(
      database,
      """
      CREATE SUBSCRIPTION inbound CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false);
      SELECT pg_create_logical_replication_slot('outbound', 'test_decoding');
      """)
    let preview = try daemon.ctl("restore", "latest", "--preview")
    for name in ["slot outbound", "subscription inbound is disabled"] {
      #expect(preview.output.contains(name), "\(preview.output)")
    }
    try fixture.cluster.sql(database, "ALTER SUBSCRIPTION inbound ENABLE")
    let enabled = try daemon.ctl("restore", "latest", "--preview").output
    #expect(
      enabled.contains("subscription inbound goes on") && !enabled.contains("is disabled, and stays"), "\(enabled)")
    try fixture.cluster.sql(database, "ALTER SUBSCRIPTION inbound DISABLE")
    let inPlace = try daemon.ctl("restore", "latest", "--in-place", "--force")
    #expect(inPlace.status == 4 && inPlace.errors.contains("can't be dropped"), "\(inPlace.errors)")
    #expect(try fixture.others == [])
    let restore = try daemon.ctl("restore", "latest", "--force")
    #expect(restore.status == 0, "\(restore.errors)")
    for part in ["but: E-REPLICATION-LEFT", "slot outbound", "subscription inbound"] {
      #expect(restore.output.contains(part), "\(restore.output)")
    }
    let kept = try #require(try fixture.others.first)
    #expect(
      try fixture.cluster.sql("postgres", "SELECT database FROM pg_replication_slots") == "\(kept)\n",
      "it does not follow the name")

    // What is kept too long and can't be dropped is told, and stops neither the list nor the others.
    try fixture.cluster.sql(
      "postgres",
      """
      COMMENT ON DATABASE "\(kept)" IS 'Kept by pgbackupd: was ''\(database)'' until 2026-01-01T00:00:00Z. pgbackupctl rollback puts it back.'
      """)
    let again = try daemon.ctl("restore", "latest", "--force")
    #expect(again.status == 0, "\(again.errors)")
    let status = try daemon.ctl("status")
    #expect(status.status == 10, "\(status.output)")
    #expect(status.output.contains("'\(kept)', which a restore has left, can't be dropped"), "\(status.output)")
    #expect(status.output.components(separatedBy: "_before_").count > 3, "both are listed: \(status.output)")
  }

  /// `--no-owner --no-privileges` leaves out who owns and who may, and not whom a policy is for.
  @Test func aPolicysRoleIsMissedInTime() throws {
    let fixture = try Fixture()
    let daemon = fixture.daemon
    try fixture.cluster.sql(
      fixture.database,
      """
      CREATE ROLE "ward ""7"", all"; CREATE ROLE reader;
      CREATE POLICY "by TO nobody" ON orders AS RESTRICTIVE FOR SELECT TO "ward ""7"", all", reader USING (i > 0);
      """)
    try fixture.cluster.sql(fixture.database, "ALTER ROLE reader IN DATABASE \(fixture.database) SET work_mem = '7MB'")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(fixture.database, #"DROP POLICY "by TO nobody" ON orders; DROP ROLE "ward ""7"", all""#)
    let refused = try daemon.ctl("restore", "latest", "--no-owner", "--no-privileges", "--force")
    #expect(refused.status == 4, "\(refused.output)\(refused.errors)")
    #expect(refused.errors.contains("E-ROLE-MISSING") && refused.errors.contains(#"the role ward "7", all."#))
    try fixture.cluster.sql(fixture.database, "DROP ROLE reader")
    let both = try daemon.ctl("restore", "latest", "--no-owner", "--no-privileges", "--force")
    #expect(both.errors.contains(#"the role reader, ward "7", all."#), "\(both.errors)")
    #expect(try daemon.ctl("restore", "latest", "--globals", "--force").status == 0)
    #expect(try fixture.cluster.sql("postgres", "SELECT setconfig FROM pg_db_role_setting") == "{work_mem=7MB}\n")
    #expect(
      try fixture.cluster.sql(fixture.database, "SELECT roles::text FROM pg_policies").contains(#"ward \"7\", all"#))
  }

  /// Roles come all or not at all.
  @Test func rolesComeTogether() throws {
    let fixture = try Fixture(user: "mover")
    let daemon = fixture.daemon
    try fixture.cluster.sql(
      "postgres",
      """
      CREATE ROLE mover LOGIN CREATEDB CREATEROLE; GRANT pg_signal_backend TO mover; CREATE ROLE aide;
      CREATE ROLE boss SUPERUSER; ALTER DATABASE \(fixture.database) OWNER TO mover;
      """)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    // A superuser's session can't be ended by such a role: told before anything is loaded.
    let session = try LockHolder(fixture.cluster, fixture.database, "orders")
    let held = try daemon.ctl("restore", "latest", "--force")
    #expect(held.status == 4 && held.errors.contains("postgres (pid "), "\(held.errors)")
    session.release()
    try fixture.cluster.sql("postgres", "DROP ROLE aide; DROP ROLE boss")
    let restore = try daemon.ctl("restore", "latest", "--globals", "--force")
    #expect(restore.status == 4, "\(restore.output)\(restore.errors)")
    #expect(restore.errors.contains("'mover' could not create the roles"), "\(restore.errors)")
    #expect(
      try fixture.cluster.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname IN ('aide', 'boss')") == "0\n")
    #expect(try fixture.others == [])
  }
}
