import Foundation
import TestSupport
import Testing

/// A restore in place that could not put back what it had taken away: the daemon tells of it, and goes on trying.
@Suite(.waits) struct PutBackTests {
  /// Everybody is told that the database is gone, for as long as it is; and each time it is what was there last that is put back.
  @Test func theWayBackFailsToo() throws {
    let (folder, store) = (TemporaryFolder(), TemporaryFolder())
    defer { withExtendedLifetime(store) {} }
    let cluster = try PrivateCluster()
    let database = try cluster.makeDatabase("shop")
    try cluster.sql(
      database,
      """
      CREATE ROLE mover LOGIN CREATEDB IN ROLE pg_signal_backend, pg_read_all_data;
      ALTER DATABASE "\(database)" OWNER TO mover; SET ROLE mover; CREATE TABLE later (id int);
      CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 16000) i;
      """)
    let daemon = try DaemonProcess(
      """
      databases:
        shop: { connect: "\(cluster.conninfo(database))", restore_connect: "\(cluster.conninfo(database, user: "mover"))" }
      jobs: { manual: }
      stores: { slow: { path: "\(store.path)", rate_limit: 4MiB/s } }
      backup: { compression: none }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder, environment: ["WATCHDOG_USEC": "1500000"])
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let present = "SELECT count(*) FROM pg_database WHERE datname ~ '^\(database)(_before.*)?$'"
    let work = "FROM pg_stat_activity WHERE datname LIKE '%\\_restore\\_%'"
    for round in 1...2 {
      try cluster.sql(database, "SET ROLE mover; TRUNCATE later; INSERT INTO later VALUES (\(round))")
      let ledger = try daemon.followLedger()
      let begun = try daemon.ctlJSON("restore", "latest:manual", "--in-place", "--force", "--no-wait")
      let run = try #require((begun as? [[String: Any]])?.first?["id"] as? String)
      while try cluster.sql("postgres", present) != "0\n" {}
      while try cluster.sql("postgres", "SELECT count(*) \(work) AND query LIKE 'COPY%'") == "0\n" {}
      try cluster.sql("postgres", "ALTER ROLE mover NOCREATEDB; SELECT pg_terminate_backend(pid) \(work)")
      try ledger.wait(for: "run.finished", run, "\"failed\"")
      for _ in 1...2 {
        try ledger.wait(for: "run.finished", "a restore in place failed; what was there before", "\"failed\"")
        let status = try daemon.ctl("status")
        #expect(status.status == 10 && status.output.contains("is not in its place"), "\(status.output)")
      }
      try cluster.sql("postgres", "ALTER ROLE mover CREATEDB")
      try ledger.wait(for: "run.finished", "a restore in place failed; what was there before", "succeeded")
      #expect(try cluster.sql(database, "SELECT id FROM later") == "\(round)\n")
      let status = try daemon.ctl("status")
      #expect(!status.output.contains("is not in its place"), "\(status.output)")
    }
  }
}
