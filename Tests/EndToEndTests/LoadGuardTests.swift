import Foundation
import Glibc
import TestSupport
import Testing

/// A backup does no harm: who waits because of it does not wait for long.
@Suite(.waits) struct LoadGuardTests {
  private static func start(_ folder: TemporaryFolder, _ database: String, _ rules: String) throws -> DaemonProcess {
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(PrivateCluster.shared().conninfo(database))" } }
      jobs: { manual: }
      backup: { lock_wait: 10m, guard: { \(rules), every: 1s } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    return daemon
  }

  /// pg_dump has locked one table and waits for another one; an ALTER waits for pg_dump, and a reader behind the ALTER. The dump goes,
  /// and they go on.
  @Test func whoWaitsIsLetGo() throws {
    let (folder, cluster) = (TemporaryFolder(), try PrivateCluster.shared())
    let database = try cluster.makeDatabase("shop", sample: 1)
    let tables = try Shell.must(
      "psql",
      [
        "-XAtc",
        "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'portal'::regnamespace ORDER BY oid",
        cluster.conninfo(database),
      ]
    ).split(separator: "\n").map(String.init)
    let (first, last) = (try #require(tables.first), try #require(tables.last))
    let daemon = try Self.start(folder, database, "blocked: abort after 2s")
    let holder = try LockHolder(cluster, database, last)
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    try holder.waitForWaiter()
    // Both end only because the dump does: its own wait for the lock is longer.
    let alter = try Shell.run(
      "timeout", ["300", "psql", "-Xqc", "ALTER TABLE \(first) ADD COLUMN more int", cluster.conninfo(database)])
    #expect(alter.status == 0, "\(alter.errors)")
    let ended = try daemon.followLedger().wait(for: "run.finished")
    #expect(ended.contains("E-LOAD-EXCEEDED") && ended.contains("waited for its locks for"), "\(ended)")
    // What it has cost is on record, the more so where it was ended for that.
    #expect(ended.contains("\"snapshot_age_s\"") && ended.contains("\"blocked_sessions\""), "\(ended)")
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    // Held, so that the dump does not end before the guard has looked at it; what one look found is judged by the next.
    try holder.waitForWaiter()
    func looks() throws -> Set<String> {
      let text = try cluster.sql(
        "postgres",
        "SELECT pid, query_start FROM pg_stat_activity WHERE datname = '\(database)' AND application_name = 'pgbackupd guard'"
      )
      return Set(text.split(separator: "\n").map(String.init))
    }
    var seen = try looks()
    let before = seen.count
    try eventually("the guard looks twice") {
      seen.formUnion(try looks())
      return seen.count >= before + 2
    }
    holder.release()
    let record = try daemon.followLedger().wait(for: "run.finished", "succeeded")
    #expect(record.contains("\"snapshot_age_s\"") && record.contains("\"xmin_age\""))
  }

  /// A standby is backed up while its primary goes on; where its replay falls behind, the dump rests until it has caught up.
  @Test func aStandbyThatFallsBehind() throws {
    let (folder, primary) = (TemporaryFolder(), try PrivateCluster())
    let database = try primary.makeDatabase("shop", sample: 1)
    let standby = try PrivateCluster(standbyOf: primary)
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(standby.conninfo(database))" } }
      jobs: { manual: }
      backup: { lock_wait: 10m, guard: { replica_lag: pause after 1s, every: 1s } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    func waitUntil(_ condition: String) throws {
      try eventually("on the standby: \(condition)") { try standby.sql(database, "SELECT \(condition)") == "t\n" }
    }
    // A lock of the primary holds on the standby too, once it is replayed: the dump does not end before the guard has looked.
    let holder = try LockHolder(primary, database, "portal.users")
    try primary.sql(database, "CREATE TABLE sooner AS SELECT 1 AS number")
    try waitUntil("pg_last_xact_replay_timestamp() IS NOT NULL")
    try waitUntil(
      "EXISTS (SELECT FROM pg_locks WHERE relation = 'portal.users'::regclass AND mode = 'AccessExclusiveLock')")
    try standby.sql(database, "SELECT pg_wal_replay_pause()")
    try primary.sql(database, "CREATE TABLE later AS SELECT generate_series(1, 1000) AS number")
    // The lag is that of the last commit that was replayed: it grows by itself.
    try waitUntil(
      """
      pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()
        AND clock_timestamp() - pg_last_xact_replay_timestamp() > interval '1 second'
      """)
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    try eventually("the dump rests") {
      try daemon.ctl("status", "--json").output.contains("paused: the standby's replay is behind by")
    }
    holder.release()
    try standby.sql(database, "SELECT pg_wal_replay_resume()")
    let record = try daemon.followLedger().wait(for: "run.finished")
    #expect(record.contains("succeeded") && record.contains("\"replica_lag_s\""), "\(record)")
    #expect(record.contains("\"paused_s\""), "\(record)")
    let shown = try daemon.ctl("show", "shop/latest")
    #expect(shown.output.contains(", a standby"), "\(shown.output)")
    // Restored elsewhere, it is proved; into the standby itself nothing is.
    #expect(try daemon.ctl("drill", "shop").status == 0)
    let refused = try daemon.ctl("restore", "shop/latest", "--into", "more", "--force")
    #expect(refused.status != 0 && refused.errors.contains("is a standby"), "\(refused.errors)")
  }

  @Test func rules() throws {
    let folder = TemporaryFolder()
    let file = try folder.write(
      "c.yaml",
      "databases: { shop: postgresql:///shop }\nbackup: { guard: { blocked: stop after 5m, snapshot_age: pause after 1h, replica_lag: off, nonsense: 1 } }\n"
    )
    let result = try Shell.run(DaemonProcess.program("pgbackupctl"), ["config", "check", file])
    #expect(result.status == 10)
    #expect(
      result.errors.contains("'stop after 5m' is no rule: write 'warn after 10m'") && result.errors.contains("nonsense")
    )
  }
}
