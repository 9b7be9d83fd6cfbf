import Foundation
import Glibc
import TestSupport
import Testing

/// What a rollback puts in place, and what `status` and `config check` warn of, as an operator sees it.
@Suite(.waits) struct RollbackTrustTests {
  private struct Fixture {
    let folder = TemporaryFolder()
    let cluster: PrivateCluster
    let daemon: DaemonProcess

    init(user: String = "postgres") throws {
      cluster = try PrivateCluster()
      try cluster.sql(
        "postgres",
        "CREATE DATABASE shop; CREATE ROLE mallory LOGIN CREATEDB; CREATE ROLE backup LOGIN IN ROLE pg_read_all_data")
      try cluster.sql("shop", "CREATE TABLE t AS SELECT 1 AS x")
      daemon = try DaemonProcess(
        """
        databases:
          shop: { connect: "\(cluster.conninfo("shop", user: user))", restore_connect: "\(cluster.conninfo("shop"))" }
        jobs: { manual: }
        restore: { keep_replaced: 1h }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """, in: folder)
      try daemon.waitFor("READY=1")
    }

    var kept: [String] {
      get throws {
        try cluster.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'shop\\_before\\_%' ORDER BY 1")
          .split(separator: "\n").map(String.init)
      }
    }
  }

  @Test func aForgedMarkIsNeitherPutBackNorDropped() throws {
    let fixture = try Fixture()
    let (daemon, cluster) = (fixture.daemon, fixture.cluster)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try cluster.sql("shop", "UPDATE t SET x = 2")
    #expect(try daemon.ctl("restore", "latest", "--force").status == 0)
    let real = try #require(try fixture.kept.first)
    for (name, time) in [
      ("shop_before_20990101t000000z", "2099-01-01T00:00:00Z"),
      ("shop_before_20200101t000000z", "2020-01-01T00:00:00Z"),
    ] {
      // As that role itself: it needs no more than CREATEDB.
      try cluster.sql(
        "postgres",
        """
        SET SESSION AUTHORIZATION mallory; CREATE DATABASE \(name);
        COMMENT ON DATABASE \(name) IS 'Kept by pgbackupd: was ''shop'' until \(time). pgbackupctl rollback puts it back.'
        """)
    }
    let back = try daemon.ctl("rollback", "shop", "--force")
    #expect(back.status == 0, "\(back.errors)")
    #expect(try cluster.sql("shop", "TABLE t") == "2\n", "what was replaced, and no stranger's")
    let status = try daemon.ctl("status").output
    #expect(status.contains("NOT TOUCHED: its mark is of a time that has not come"), "\(status)")
    #expect(status.contains("NOT TOUCHED: it is owned by 'mallory'"), "\(status)")
    let there = try fixture.kept
    #expect(there.count == 3 && !there.contains(real), "none of them was dropped: \(there)")
  }

  /// A mark of an earlier version has no signature: the ledger tells what is ours, and where it does not, somebody has
  /// to.
  @Test func afterAnUpgradeTheLedgerTells() throws {
    let fixture = try Fixture()
    let (daemon, cluster) = (fixture.daemon, fixture.cluster)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    for value in [2, 3] {
      try cluster.sql("shop", "UPDATE t SET x = \(value)")
      #expect(try daemon.ctl("restore", "latest", "--force").status == 0)
      let kept = try #require(try fixture.kept.last)
      let time = try cluster.sql(
        "postgres",
        "SELECT substring(shobj_description(oid, 'pg_database') FROM 'until (.*?Z)') FROM pg_database WHERE datname = '\(kept)'"
      ).dropLast()
      try cluster.sql(
        "postgres",
        "COMMENT ON DATABASE \"\(kept)\" IS 'Kept by pgbackupd: was ''shop'' until \(time). pgbackupctl rollback puts it back.'"
      )
    }
    let back = try daemon.ctl("rollback", "shop", "--force")
    #expect(back.status == 0, "\(back.errors)")
    #expect(try cluster.sql("shop", "TABLE t") == "3\n")
    // One that no ledger knows, of the same owner: it may be what another daemon has put aside.
    let unknown = "shop_before_\(String(try #require(try fixture.kept.last).suffix(16).prefix(8)))t235959z"
    try cluster.sql("postgres", "CREATE DATABASE \(unknown)")
    let now = try cluster.sql(
      "postgres", "SELECT to_char((now() + interval '30 s') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    ).dropLast()
    try cluster.sql(
      "postgres",
      "COMMENT ON DATABASE \(unknown) IS 'Kept by pgbackupd: was ''shop'' until \(now). pgbackupctl rollback puts it back.'"
    )
    let refused = try daemon.ctl("rollback", "shop", "--force")
    #expect(refused.status == 4 && refused.errors.contains("E-ROLLBACK-REFUSED"), "\(refused.errors)")
    #expect(refused.errors.contains("pgbackupctl rollback shop --kept \(unknown)"), "\(refused.errors)")
    #expect(try daemon.ctl("rollback", "shop", "--kept", unknown, "--force").status == 0)
    #expect(try cluster.sql("shop", "SELECT count(*) FROM pg_class WHERE relname = 't'") == "0\n")
  }

  @Test func aSuperuserThatBacksUpIsAWarningAndNoProblem() throws {
    let fixture = try Fixture()
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    try eventually("the role is looked at") { try fixture.daemon.ctl("status").output.contains("WARNINGS") }
    let status = try fixture.daemon.ctl("status")
    #expect(status.status == 0, "\(status.output)")
    #expect(status.output.contains("no problems, 1 warning") && status.output.contains("E-DB-SUPERUSER"))
    #expect(try fixture.daemon.ctl("check").status == 0)
    let check = try Shell.run(DaemonProcess.program("pgbackupctl"), ["config", "check", fixture.daemon.configuration])
    #expect(
      check.status == 0 && check.output.contains("warning: E-DB-SUPERUSER: The role 'postgres'"), "\(check.output)")
    #expect(check.output.components(separatedBy: "warning:").count == 2, "who restores may be one: \(check.output)")
  }

  @Test func aRoleThatOnlyReadsIsNoWarning() throws {
    let fixture = try Fixture(user: "backup")
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    let check = try Shell.run(DaemonProcess.program("pgbackupctl"), ["config", "check", fixture.daemon.configuration])
    #expect(check.status == 0 && !check.output.contains("warning:"), "\(check.output)")
  }

  @Test func configCheckWarnsOfServersThatProveNothing() throws {
    let folder = TemporaryFolder()
    func check(_ connect: String, libraries: String? = nil) throws -> Shell.Result {
      let file = try folder.write("c.yaml", "databases: { shop: { connect: \"\(connect)\" } }")
      return try Shell.run(
        DaemonProcess.program("pgbackupctl"), ["config", "check", file],
        environment: libraries.map { ["LD_LIBRARY_PATH": $0] } ?? [:])
    }
    // An address that is nobody's (RFC 5737): the configuration alone says it.
    let open = try check("host=db.example hostaddr=192.0.2.1 user=backup")
    #expect(open.status == 0 && open.output.contains("warning: E-DB-UNVERIFIED"), "\(open.output)\(open.errors)")
    #expect(open.output.contains("at 'db.example' need not prove who it is (sslmode prefer)"), "\(open.output)")
    let verified = try check("host=db.example hostaddr=192.0.2.1 user=backup sslmode=verify-full")
    #expect(verified.status == 0 && !verified.output.contains("warning:"), "\(verified.output)")

    // libpq 16 knows it; Debian's own may not.
    let asked = "host=/nowhere user=backup require_auth=scram-sha-256"
    let newer = "\(repositoryRoot)/.build/postgres/18/lib"
    if FileManager.default.fileExists(atPath: newer + "/libpq.so.5") {
      let taken = try check(asked, libraries: newer)
      #expect(taken.status == 0, "\(taken.errors)")
      let older = try check(asked, libraries: "\(repositoryRoot)/.build/postgres/14/lib")
      #expect(
        older.status == 10 && older.errors.contains("'require_auth' needs libpq 16 or later"), "\(older.errors)")
    }
    let own = try check(asked)
    #expect(own.status == 0 || own.errors.contains("'require_auth' needs libpq 16 or later"), "\(own.errors)")
  }
}
