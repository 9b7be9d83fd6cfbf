import Foundation
import Glibc
import TestSupport
import Testing

/// A backup does no harm: who waits because of it does not wait for long.
@Suite struct LoadGuardTests {
  private static func start(_ folder: TemporaryFolder, _ database: String, _ rules: String) throws -> DaemonProcess {
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(PrivateCluster.shared().conninfo(database))" } }
      jobs: { manual: }
      backup: { guard: { \(rules), every: 1s } }
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
    let run = try Shell.run(
      DaemonProcess.program("pgbackupctl"), ["backup", "shop", "--no-wait"],
      environment: ["PGBACKUPD_SOCKET": daemon.socket])
    #expect(run.status == 0)
    try holder.waitForWaiter()
    // Both end only because the dump does: its own wait for the lock is a minute.
    let alter = try Shell.run(
      "timeout", ["30", "psql", "-Xqc", "ALTER TABLE \(first) ADD COLUMN more int", cluster.conninfo(database)])
    #expect(alter.status == 0, "\(alter.errors)")
    let ended = try daemon.followLedger().wait(for: "run.finished")
    #expect(ended.contains("E-LOAD-EXCEEDED") && ended.contains("waited for its locks for"), "\(ended)")
    holder.release()
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let record = try daemon.followLedger().wait(for: "run.finished", "succeeded")
    #expect(record.contains("\"snapshot_age_s\"") && record.contains("\"xmin_age\""))
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
