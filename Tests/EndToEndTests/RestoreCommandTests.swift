import Foundation
import Glibc
import TestSupport
import Testing

/// `restore` and what belongs to it, as an operator uses them.
@Suite(.waits) struct RestoreCommandTests {
  fileprivate struct Fixture {
    let folder: TemporaryFolder
    let cluster: PrivateCluster
    let database: String
    let daemon: DaemonProcess

    func rows(_ table: String, of database: String? = nil) throws -> Int? {
      Int(try cluster.sql(database ?? self.database, "SELECT count(*) FROM \(table)").filter(\.isNumber))
    }

    /// The databases of the server that begin like ours, without ours.
    var others: [String] {
      get throws {
        try cluster.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE '\(database)\\_%' ORDER BY 1")
          .split(separator: "\n").map(String.init)
      }
    }
  }

  private func start(
    scale: Int = 1, extra: String = "", daemon: String = "", folder: TemporaryFolder = TemporaryFolder(),
    database: String? = nil, cluster: PrivateCluster? = nil, environment: [String: String] = [:]
  ) throws -> Fixture {
    let cluster = try cluster ?? PrivateCluster.shared()
    let database = try database ?? cluster.makeDatabase("shop", sample: scale)
    let process = try DaemonProcess(
      """
      databases:
        shop: { connect: "\(cluster.conninfo(database))" }
      jobs: { manual: , daily: { keep: 7d } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock"))\(daemon) }
      \(extra)
      """, in: folder, environment: environment)
    try process.waitFor("READY=1")
    return Fixture(folder: folder, cluster: cluster, database: database, daemon: process)
  }

  @Test func fromDisasterToUndo() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let views = try fixture.rows("portal.views")
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views")

    #expect(try daemon.ctl("restore", "latest:proved", "--preview").status == 6)
    #expect(try daemon.ctl("status").output.contains("not run"))
    let preview = try daemon.ctl("restore", "latest", "--preview")
    #expect(preview.status == 0, "\(preview.errors)")
    #expect(preview.output.contains("pgbackupctl rollback shop undoes both"))
    #expect(preview.output.contains("not known yet"))
    #expect(try fixture.others == [])
    // Off a terminal nobody can be asked.
    #expect(try daemon.ctl("restore", "latest").status == 3)
    #expect(try fixture.rows("portal.views") == 0)

    let restore = try daemon.ctl("restore", "latest", "--force")
    #expect(restore.status == 0, "\(restore.errors)\n\(daemon.log)")
    #expect(restore.output.contains("of them proved row for row"))
    #expect(restore.output.contains("The database was away for "))
    #expect(try fixture.rows("portal.views") == views)
    let status = try daemon.ctl("status")
    #expect(status.output.contains("KEPT AS"))
    #expect(status.output.contains(try #require(fixture.others.first)))
    #expect(try daemon.ctl("restore", "latest", "--preview").output.contains("by the last restore"))

    #expect(try daemon.ctl("status").output.contains("this one"))
    #expect(try daemon.ctl("show", "latest:proved").output.contains("by a restore"))

    #expect(try daemon.ctl("rollback", "shop").status == 3)
    let rollback = try daemon.ctl("rollback", "shop", "--force")
    #expect(rollback.status == 0, "\(rollback.errors)")
    #expect(try fixture.rows("portal.views") == 0)
    let log = try daemon.ctl("log").output
    #expect(log.contains("restore") && log.contains("database.rolled_back"))
  }

  @Test func tablesAndTheirHistory() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views WHERE seconds > 10")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let history = try daemon.ctl("history", "shop", "views_2025")
    #expect(history.status == 0, "\(history.errors)")
    #expect(history.output.contains("ROWS VANISHED"))
    let difference = try daemon.ctl("diff", "oldest", "latest")
    #expect(difference.output.contains("portal.views_2025"))
    #expect(!difference.output.contains("portal.users"))

    let restore = try daemon.ctl("restore", "oldest", "--table", "portal.views", "--into-schema", "rescue")
    #expect(restore.status == 0, "\(restore.errors)")
    #expect(
      try fixture.cluster.sql(
        fixture.database, "SELECT count(*) FROM (TABLE rescue.views_2025 UNION ALL TABLE rescue.views_2026) v")
        == "27000\n")
    let unknown = try daemon.ctl("restore", "oldest", "--table", "viewz")
    #expect(unknown.status == 6)
    #expect(unknown.errors.contains("E-TABLE-MISSING"))
    #expect(try daemon.ctl("restore", "oldest", "--replace", "--force").status == 2)
    #expect(try daemon.ctl("history", "shop", "viewz").status == 6)
  }

  @Test func inPlace() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let views = try fixture.rows("portal.views")
    #expect(try daemon.ctl("restore", "latest", "--force").status == 0)
    let older = try fixture.others
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views; CREATE TABLE only_now AS SELECT 7 AS x")
    let restore = try daemon.ctl("restore", "latest", "--in-place", "--force")
    #expect(restore.status == 0, "\(restore.errors)\n\(daemon.log)")
    #expect(try fixture.rows("portal.views") == views)
    #expect(try fixture.others == older)
    // What was there is in the safety backup, and no older database takes its place.
    let rollback = try daemon.ctl("rollback", "shop", "--force")
    #expect(rollback.status == 6 && rollback.errors.contains("next:  pgbackupctl restore shop/2"), "\(rollback.errors)")
    let safety = try daemon.ctl("restore", "latest:pre-restore", "--into", fixture.database + "_then")
    #expect(safety.status == 0, "\(safety.errors)")
    #expect(try fixture.rows("only_now", of: fixture.database + "_then") == 1)
  }

  /// A view that no restore can fill shows when the live database is gone already: all of its rows are put back, nothing is marked as
  /// kept, and nothing is there to roll back to.
  @Test func aFailureInPlaceIsUndone() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    try fixture.cluster.sql(
      fixture.database,
      """
      CREATE TABLE only_now AS SELECT 7 AS x;
      CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM only_now';
      CREATE MATERIALIZED VIEW unfillable AS SELECT f(); COMMENT ON DATABASE "\(fixture.database)" IS 'ours';
      """)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let restore = try daemon.ctl("restore", "latest", "--in-place", "--force")
    #expect(restore.status == 1, "\(restore.output)\(restore.errors)")
    // With all its rows; what could not be made again is told and not passed over.
    #expect(restore.errors.contains("is back with its rows, but NOT all of it"), "\(restore.errors)")
    #expect(restore.errors.contains("unfillable") || restore.errors.contains("only_now"), "\(restore.errors)")
    #expect(try fixture.rows("only_now") == 1)
    #expect(try fixture.rows("portal.views") == 27_000)
    #expect(try fixture.others == [])
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '\(fixture.database)'"
    #expect(try fixture.cluster.sql("postgres", comment) == "ours\n")
    #expect(try daemon.ctl("status").output.contains("KEPT AS") == false)
    #expect(try daemon.ctl("rollback", "shop", "--force").status == 6)
  }

  /// A role that can't make all of it again is told so before anything is taken away.
  @Test func inPlaceByARoleThatMayNot() throws {
    let fixture = try start()
    let role = "mover_\(fixture.database)"
    try fixture.cluster.sql(
      fixture.database,
      """
      CREATE ROLE \(role) LOGIN CREATEDB IN ROLE pg_signal_backend, pg_read_all_data; CREATE ROLE "of \(role)";
      CREATE TABLE others (n int); ALTER TABLE others OWNER TO "of \(role)";
      ALTER DATABASE "\(fixture.database)" OWNER TO \(role);
      """)
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    let path = fixture.folder.file("pgbackupd.yaml")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let own = fixture.cluster.conninfo(fixture.database)
    try text.replacing(
      "connect: \"\(own)\"",
      with: "connect: \"\(own)\", restore_connect: \"\(fixture.cluster.conninfo(fixture.database, user: role))\""
    ).write(toFile: path, atomically: true, encoding: .utf8)
    #expect(try String(contentsOfFile: path, encoding: .utf8).contains("restore_connect"))
    #expect(try fixture.daemon.ctl("reload").status == 0)
    let before = try Shell.must("\(fixture.cluster.binaries)/pg_dump", ["-s", "-d", own]).split(separator: "\n")
    let restore = try fixture.daemon.ctl("restore", "latest", "--in-place", "--force")
    #expect(restore.status == 4 && restore.errors.contains("Nothing was replaced"), "\(restore.errors)")
    let after = try Shell.must("\(fixture.cluster.binaries)/pg_dump", ["-s", "-d", own]).split(separator: "\n")
    #expect(before.filter { !$0.contains("restrict") } == after.filter { !$0.contains("restrict") })
    #expect(try fixture.others == [])
  }

  /// The server dies in the middle and is away for a while: what was there before is put back as soon as it is there again, and meanwhile
  /// everybody is told.
  @Test func theServerDiesInARestoreInPlace() throws {
    let cluster = try PrivateCluster()
    let folder = TemporaryFolder()
    let store = TemporaryFolder()
    defer { withExtendedLifetime(store) {} }
    // At a pace that leaves time for the crash.
    let extra = "stores: { slow: { path: \"\(store.path)\", rate_limit: 16MiB/s } }\nbackup: { compression: none }"
    let fixture = try start(scale: 10, extra: extra, folder: folder, cluster: cluster)
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    try cluster.sql(fixture.database, "CREATE TABLE later AS SELECT 1 AS id")
    #expect(try fixture.daemon.ctl("restore", "latest", "--in-place", "--force", "--no-wait").status == 0)
    let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE '%before%'"
    try eventually("the old database is set aside") { try cluster.sql("postgres", kept) != "0\n" }
    try eventually("the old database is dropped") { try cluster.sql("postgres", kept) == "0\n" }
    let ledger = try fixture.daemon.followLedger()
    try cluster.crash()
    try ledger.wait(for: "run.finished", "in-place", "\"failed\"")
    let lost = try fixture.daemon.ctl("status")
    #expect(lost.status == 10)
    // After a restart of the daemon too.
    fixture.daemon.signal(SIGTERM)
    #expect(fixture.daemon.waitForExit() == 0)
    let again = try start(
      extra: extra, folder: folder, database: fixture.database, cluster: cluster,
      environment: ["WATCHDOG_USEC": "1500000"])
    try eventually("it is told") { try again.daemon.ctl("status").output.contains("is not in its place") }
    try cluster.beginAgain()
    let later = try again.daemon.followLedger()
    try later.wait(for: "run.finished", "what was there before is put back", "succeeded")
    #expect(try cluster.sql(fixture.database, "SELECT id FROM later") == "1\n")
    try eventually("no run is left") { try !again.daemon.ctl("status").output.contains("\nRUNS") }
    // It is nothing to roll back from any more.
    let rollback = try again.daemon.ctl("rollback", "shop", "--force")
    #expect(rollback.status == 6 && !rollback.errors.contains("one in place"), "\(rollback.errors)")
  }

  /// Before anything is taken away: a damaged backup, and a database that can't be dropped.
  @Test func inPlaceIsRefusedInTime() throws {
    let fixture = try start(extra: "backup: { compression: none }")
    let daemon = fixture.daemon
    try fixture.cluster.sql(
      fixture.database,
      "CREATE SUBSCRIPTION s_\(fixture.database) CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let held = try daemon.ctl("restore", "latest", "--in-place", "--force")
    #expect(held.status == 4)
    #expect(held.errors.contains("E-RESTORE-REFUSED"), "\(held.errors)")
    #expect(try fixture.rows("portal.views") == 27_000)
    try fixture.cluster.sql(
      fixture.database,
      "ALTER SUBSCRIPTION s_\(fixture.database) SET (slot_name = NONE); DROP SUBSCRIPTION s_\(fixture.database)")
    try fixture.damage("user 1234")
    let damaged = try daemon.ctl("restore", "latest", "--in-place", "--force")
    #expect(damaged.status == 9)
    #expect(try fixture.others == [])
    #expect(try fixture.rows("portal.views") == 27_000)
  }

  /// A damaged backup is refused before anything is swapped, and leaves nothing behind.
  @Test func damageIsRefused() throws {
    let fixture = try start(extra: "backup: { compression: none }")
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.damage("user 1234")
    let restore = try daemon.ctl("restore", "latest", "--force")
    #expect(restore.status == 9)
    #expect(restore.errors.contains("E-ARTIFACT-DAMAGED"))
    #expect(restore.errors.contains("portal.users"))
    #expect(try fixture.others == [])
    // A manifest that nobody trusted has signed.
    let folder = try #require(fixture.folder.files(below: "state/backups").first { $0.hasSuffix("manifest.json.sig") })
    try FileManager.default.removeItem(atPath: fixture.folder.file("state/backups/\(folder)"))
    let id = try #require((try daemon.ctlJSON("list") as? [[String: Any]])?.first?["id"] as? String)
    let unsigned = try daemon.ctl("restore", id, "--force")
    #expect(unsigned.status == 9)
    #expect(unsigned.errors.contains("--accept-untrusted"))
    let status = try daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("is not signed"))
  }

  @Test func aCancelledRestoreLeavesNothing() throws {
    let store = TemporaryFolder()
    defer { withExtendedLifetime(store) {} }
    let fixture = try start(
      scale: 20,
      extra: "stores: { slow: { path: \"\(store.path)\", rate_limit: 4MiB/s } }\nbackup: { compression: none }")
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let begun = try #require(
      try daemon.ctlJSON("restore", "latest", "--force", "--no-wait") as? [[String: Any]])
    let run = try #require(begun.first?["id"] as? String)
    let ledger = try daemon.followLedger()
    try ledger.wait(for: "run.started", run)
    #expect(try daemon.ctl("restore", "latest", "--force").status == 7)
    #expect(try daemon.ctl("delete", "latest", "--force").status == 7)
    #expect(try daemon.ctl("cancel", run).status == 0)
    #expect(try ledger.wait(for: "run.finished", run).contains("aborted"))
    #expect(try fixture.others == [])
    #expect(try fixture.rows("portal.users") == 40_000)
  }

  /// One table's rows are what COPY gives, in each format, and only its own bytes are read.
  @Test func extract() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let copy = try daemon.ctl("extract", "latest", "--table", "portal.media")
    #expect(copy.status == 0, "\(copy.errors)")
    func psql(_ options: String, _ columns: String = "id, owner, kind, title, bytes, tags, checksum, aspect, price")
      throws -> String
    {
      try fixture.cluster.sql(
        fixture.database, "SET extra_float_digits = 3; COPY portal.media (\(columns)) TO STDOUT \(options)")
    }
    #expect(copy.output == (try psql("")))
    #expect(try daemon.ctl("extract", "latest", "--table", "media", "--format", "csv").output == psql("CSV HEADER"))
    #expect(
      try daemon.ctl("extract", "latest", "--table", "media", "--columns", "title,id").output == psql("", "title, id"))
    let odd = #"Odd "values" – Füße"#
    let json = try daemon.ctl("extract", "latest", "--table", odd, "--format", "json").output
    let lines = try json.split(separator: "\n").map { line in
      try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
    }
    #expect(lines.count == 6)
    #expect(lines[0]["mixed Case"] is NSNull && lines[0]["v"] as? String == "")
    #expect(lines[2]["mixed Case"] as? String == "line\nbreak")
    #expect(lines[1]["v"] as? String == "\\.")
    #expect(try daemon.ctl("extract", "latest", "--table", "media", "--columns", "no").status == 6)
    // A partitioned table: the rows of all its partitions, of which one has its columns in another order.
    try fixture.cluster.sql(
      fixture.database,
      """
      CREATE TABLE p (a int, b text) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
      CREATE TABLE mid (b text, a int) PARTITION BY LIST (b); CREATE TABLE p2 PARTITION OF mid FOR VALUES IN ('x');
      ALTER TABLE p ATTACH PARTITION mid FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (1, 'one'), (11, 'x'), (12, 'x');
      """)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("extract", "latest", "--table", "p").output == "1\tone\n11\tx\n12\tx\n")
    #expect(try daemon.ctl("extract", "latest", "--table", "mid").output == "x\t11\nx\t12\n")
    let csv = try daemon.ctl("extract", "latest", "--table", "public.p", "--format", "csv", "--columns", "b,a").output
    #expect(csv == "b,a\none,1\nx,11\nx,12\n")
    let views = try daemon.ctl("extract", "latest", "--table", "views").output.split(separator: "\n").sorted()
    let live = try fixture.cluster.sql(fixture.database, "COPY (TABLE portal.views) TO STDOUT").split(separator: "\n")
    #expect(views == live.sorted() && views.count == 27_000)
    #expect(try daemon.ctl("verify", "--all").status == 0)
    // Its history is that of all of them, and a partition that was detached is missed there.
    _ = try fixture.cluster.sql(fixture.database, "ALTER TABLE p DETACH PARTITION mid")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let history = try daemon.ctl("history", "shop", "p").output
    #expect(history.contains("ROWS VANISHED"), "\(history)")
    #expect(try daemon.ctl("history", "shop", "mid").output.contains("public.mid"))
    #expect(try daemon.ctl("extract", "latest", "--table", "media", "--format", "xml").status == 2)
  }

  /// Damage is told as what it is, and by the daemon's log; one damaged backup hides no other in a table's history; a backup that nobody
  /// trusted has signed is read where somebody says so.
  @Test func extractAndDamage() throws {
    let fixture = try start(extra: "backup: { compression: none }")
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.damage("user 1234")
    let damaged = try daemon.ctl("extract", "latest", "--table", "portal.users")
    #expect(damaged.status == 9 && damaged.errors.contains("E-ARTIFACT-DAMAGED"), "\(damaged.errors)")
    // It lies in the same frame, and a frame is used whole or not at all.
    #expect(try daemon.ctl("extract", "latest", "--table", "portal.media").status == 9)

    #expect(try daemon.ctl("backup", "shop").status == 0)
    let store = "state/backups"
    let contents = fixture.folder.files(below: store).filter { $0.contains("contents.json") }.sorted()
    let path = fixture.folder.file("\(store)/\(contents[0])")
    var bytes = try Data(contentsOf: URL(filePath: path))
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: URL(filePath: path))
    let history = try daemon.ctl("history", "shop", "portal.users")
    #expect(history.status == 0 && history.output.contains("can't be read"), "\(history.output)\(history.errors)")
    #expect(history.output.contains("2000"), "\(history.output)")

    let signature = try #require(
      fixture.folder.files(below: store).filter { $0.hasSuffix("manifest.json.sig") }.sorted().last)
    try FileManager.default.removeItem(atPath: fixture.folder.file("\(store)/\(signature)"))
    let ids = try #require(try daemon.ctlJSON("list") as? [[String: Any]]).compactMap { $0["id"] as? String }.sorted()
    let unsigned = ["extract", ids[1], "--table", "portal.media"]
    func ctl(_ arguments: [String]) throws -> Shell.Result {
      try Shell.run(DaemonProcess.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": daemon.socket])
    }
    let refused = try ctl(unsigned)
    #expect(refused.status == 9 && refused.errors.contains("E-SIGNATURE-INVALID"), "\(refused.errors)")
    #expect(try ctl(unsigned + ["--accept-untrusted"]).status == 0)
  }

  /// A new machine: no daemon, no state, another server. What is there: the store, the key, and the public half of the signing key.
  @Test func withoutADaemon() throws {
    let folder = TemporaryFolder()
    let key = folder.file("key.txt")
    let made = try Shell.must(DaemonProcess.program("pgbackupctl"), ["key", "generate"])
    _ = try folder.write("key.txt", made)
    let recipient =
      try #require(made.split(separator: "\n").first { $0.contains("age1") }).split(separator: " ").last ?? ""
    let fixture = try start(extra: "encryption: { recipients: [\(recipient)] }", folder: folder)
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    fixture.daemon.signal(SIGTERM)
    #expect(fixture.daemon.waitForExit() == 0)

    let server = try PrivateCluster()
    let ctl = { (arguments: [String]) in
      try Shell.run(
        DaemonProcess.program("pgbackupctl"), arguments + ["--standalone", "--store", folder.file("state/backups")])
    }
    let listed = try ctl(["list"])
    #expect(listed.output.contains("shop/"), "\(listed.errors)")
    let place = ["--connect", server.conninfo("postgres")]
    let keyless = try ctl(["restore", "shop/latest", "--force"] + place)
    #expect(keyless.status == 4)
    #expect(keyless.errors.contains("E-KEY-MISSING"))
    let trust = ["--trust", folder.file("state/signing.pub")]
    let restored = try ctl(["restore", "shop/latest", "--force", "--identity", key] + place + trust)
    #expect(restored.status == 0, "\(restored.errors)")
    #expect(restored.output.contains("of them proved row for row"))
    #expect(try server.sql(fixture.database, "SELECT count(*) FROM portal.views") == "27000\n")
    let rows = try ctl(["extract", "shop/latest", "--table", "portal.floats", "--identity", key])
    #expect(rows.output.hasPrefix("NaN\tInfinity"), "\(rows.errors)")
    let id = try #require(listed.output.split(whereSeparator: \.isWhitespace).first { $0.hasPrefix("shop/") })
    let stranger = try ctl(
      ["restore", String(id), "--force", "--identity", key, "--trust", try strangersKey(folder)] + place)
    #expect(stranger.status == 9)
  }

  private func strangersKey(_ folder: TemporaryFolder) throws -> String {
    try Shell.must(
      "signify-openbsd", ["-G", "-n", "-p", folder.file("other.pub"), "-s", folder.file("other.sec")])
    return folder.file("other.pub")
  }

  /// Killed in the middle: the live database is as it was, and what was half-made is swept.
  @Test func aKilledRestoreLeavesNothing() throws {
    let folder = TemporaryFolder()
    let store = TemporaryFolder()
    defer { withExtendedLifetime(store) {} }
    let extra = "stores: { slow: { path: \"\(store.path)\", rate_limit: 4MiB/s } }\nbackup: { compression: none }"
    let fixture = try start(scale: 20, extra: extra, folder: folder)
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    #expect(try fixture.daemon.ctl("restore", "latest", "--force", "--no-wait").status == 0)
    // Once it is marked as unfinished: what dies before is swept an hour later.
    let marked =
      "SELECT count(*) FROM pg_database WHERE datname LIKE '\(fixture.database)\\_%' AND shobj_description(oid, 'pg_database') LIKE 'Not finished%'"
    try eventually("it is marked") { try fixture.cluster.sql("postgres", marked) == "1\n" }
    fixture.daemon.signal(SIGKILL)
    #expect(fixture.daemon.waitForExit() == -SIGKILL)
    let again = try start(
      extra: extra, daemon: ", reconcile_every: 1s", folder: folder, database: fixture.database,
      environment: ["WATCHDOG_USEC": "1500000"])
    let ledger = try again.daemon.followLedger()
    try ledger.wait(for: "run.finished", "interrupted")
    try ledger.wait(for: "leftovers.swept", "a restore left unfinished")
    #expect(try again.others == [])
    #expect(try again.rows("portal.users") == 40_000)
  }

  /// Killed when the live database has lost its name to a restore in place, or is gone: the next start puts it back by itself.
  @Test(arguments: [false, true]) func aKilledRestoreInPlace(_ isDropped: Bool) throws {
    let folder = TemporaryFolder()
    let store = TemporaryFolder()
    defer { withExtendedLifetime(store) {} }
    let extra = "stores: { slow: { path: \"\(store.path)\", rate_limit: 8MiB/s } }\nbackup: { compression: none }"
    let fixture = try start(scale: 10, extra: extra, folder: folder)
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(fixture.database, "CREATE TABLE later AS SELECT 1 AS id")
    #expect(try fixture.daemon.ctl("restore", "latest", "--in-place", "--force", "--no-wait").status == 0)
    let name = isDropped ? "\(fixture.database)_before%" : fixture.database
    let gone = "SELECT count(*) FROM pg_database WHERE datname LIKE '\(name)'"
    if isDropped {
      try eventually("it is set aside") { try fixture.cluster.sql("postgres", gone) != "0\n" }
    }
    try eventually("it is gone") { try fixture.cluster.sql("postgres", gone) == "0\n" }
    fixture.daemon.signal(SIGKILL)
    #expect(fixture.daemon.waitForExit() == -SIGKILL)
    let again = try start(extra: extra, folder: folder, database: fixture.database)
    let ledger = try again.daemon.followLedger()
    try ledger.wait(for: "run.finished", "interrupted", "in-place")
    if isDropped {
      try ledger.wait(for: "run.finished", "what was there before is put back", "succeeded")
    } else {
      try ledger.wait(for: "database.rolled_back", "the daemon died in a restore in place")
    }
    #expect(try again.rows("later") == 1)
    #expect(try again.rows("portal.users") == 20_000)
    #expect(try again.daemon.ctl("backup", "shop").status == 0)
    let healed = try again.daemon.ctl("status")
    #expect(healed.status == 0, "\(healed.output)")
  }
}

extension RestoreCommandTests.Fixture {
  /// Changes a byte of the stored artifact, inside this text.
  fileprivate func damage(_ text: String) throws {
    let name = try #require(folder.files(below: "state/backups").first { $0.hasSuffix(".dump") })
    let path = folder.file("state/backups/\(name)")
    var bytes = try Data(contentsOf: URL(filePath: path))
    let place = try #require(bytes.range(of: Data("\t\(text)\t".utf8)))
    bytes[place.lowerBound + 2] ^= 1
    try bytes.write(to: URL(filePath: path))
  }
}
