import Foundation
import Glibc
import TestSupport
import Testing

/// The built programs against a real server, as an operator uses them.
@Suite(.waits) struct DaemonTests {
  /// A daemon on a database with sample data, ready.
  private func start(
    _ jobs: String = "manual:", scale: Int? = 1, extra: String = "", prefix: [String] = [],
    folder: TemporaryFolder = TemporaryFolder(),
    database: String? = nil
  ) throws -> (daemon: DaemonProcess, cluster: PrivateCluster, database: String) {
    let cluster = try PrivateCluster.shared()
    let database = try database ?? cluster.makeDatabase(sample: scale)
    let daemon = try DaemonProcess(
      """
      databases:
        shop: { connect: "\(cluster.conninfo(database))" }
      jobs: { \(jobs) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(extra)
      """, in: folder, prefix: prefix)
    try daemon.waitFor("READY=1")
    return (daemon, cluster, database)
  }

  private func backups(_ daemon: DaemonProcess) throws -> [[String: Any]] {
    try #require(try daemon.ctlJSON("list") as? [[String: Any]])
  }

  @Test func anOnDemandBackupFromBeginToEnd() throws {
    let (daemon, _, _) = try start("daily: { schedule: '0 2 * * *', keep: 7d }", extra: "objectives: { rpo: 24h }")
    let backup = try daemon.ctl("backup", "shop", "--type", "daily", "--label", "v1.2")
    #expect(backup.status == 0, "\(backup.errors)")
    #expect(backup.output.hasPrefix("shop/"))
    // Which phases show depends on how quickly they pass.
    #expect(backup.errors.contains("daily of shop: "))

    let listed = try #require(try backups(daemon).first)
    #expect(listed["label"] as? String == "v1.2")
    #expect(listed["stores"] as? [String] == ["local"])
    let contents = try daemon.ctl("contents", "latest")
    #expect(contents.output.contains("portal.users"))
    #expect(contents.output.contains("(large objects)"))
    let status = try daemon.ctl("status")
    #expect(status.status == 0)
    #expect(status.output.contains("no problems"))
    #expect(status.output.contains("not run"))
    #expect(try daemon.ctl("jobs").output.contains("At 02:00, every day"))
    #expect(try daemon.ctl("show", "shop/latest:daily").output.contains("sha256"))
    // What no manifest may say is refused when it is asked for.
    for keep in ["106751991d", "5m", "soon"] {
      #expect(try daemon.ctl("backup", "shop", "--keep", keep).status == 2, "\(keep)")
    }
    // Who asked, as the kernel knows it, is in the ledger.
    #expect(try daemon.ctl("log").output.contains("by uid \(geteuid())"))
  }

  /// A schedule fires by itself, within the minute.
  @Test(.timeLimit(.minutes(10))) func aScheduleFires() throws {
    let (daemon, _, _) = try start("minutely: { schedule: '* * * * *', keep: 1h }", scale: nil)
    let finished = try daemon.followLedger().wait(for: #""kind":"run.finished""#)
    #expect(finished.contains(#""reason":"schedule "#))
    #expect(finished.contains(#""result":"succeeded""#))
    #expect(try backups(daemon).count >= 1)
  }

  @Test func deletePinAndReconcile() throws {
    let (daemon, _, _) = try start("brief: { keep: 1h }", scale: nil)
    for _ in 0..<2 { #expect(try daemon.ctl("backup", "shop", "--type", "brief").status == 0) }
    let ids = try backups(daemon).compactMap { $0["id"] as? String }
    #expect(ids.count == 2)
    #expect(try daemon.ctl("pin", ids[0], "--note", "audit").status == 0)
    #expect(try daemon.ctl("pin", ids[0]).status == 7)
    // Pinned: refused with its own status, and nothing is lost.
    #expect(try daemon.ctl("delete", ids[0], "--force").status == 3)
    #expect(try daemon.ctl("unpin", ids[0]).status == 0)
    // Off a terminal, without --force: nothing happens.
    let unconfirmed = try daemon.ctl("delete", ids[0])
    #expect(unconfirmed.status == 3)
    #expect(unconfirmed.errors.contains("--force"))
    #expect(try daemon.ctl("delete", ids[0], "--force").status == 0)
    #expect(try daemon.ctl("delete", ids[0], "--force").status == 6)
    #expect(try backups(daemon).count == 1)
    let preview = try daemon.ctl("reconcile")
    #expect(preview.output.contains("Nothing to do."))
    #expect(preview.output.contains("Kept:\n  \(ids[1]) (brief): "))
    #expect(daemon.folder.files(below: "state/backups").allSatisfy { !$0.contains(ids[0].split(separator: "/")[1]) })
  }

  /// A manifest that a disk has cut off: told in `status`, and deleted by the backup's whole name.
  @Test func aDamagedBackupCanBeDeleted() throws {
    let (daemon, _, _) = try start(scale: nil)
    for _ in 0..<2 { #expect(try daemon.ctl("backup", "shop").status == 0) }
    let ids = try backups(daemon).compactMap { $0["id"] as? String }
    let stamp = try #require(ids.first).split(separator: "/")[1]
    let manifest = try #require(
      daemon.folder.files(below: "state/backups").first { $0.contains(stamp) && $0.hasSuffix("/manifest.json") })
    #expect(truncate(daemon.folder.file("state/backups/\(manifest)"), 100) == 0)
    #expect(try daemon.ctl("status").output.contains("E-MANIFEST-INVALID"))
    #expect(try daemon.ctl("delete", ids[0]).status == 3)
    let deleted = try daemon.ctl("delete", ids[0], "--force")
    #expect(deleted.status == 0, "\(deleted.errors)")
    #expect(try daemon.ctl("status").status == 0)
    #expect(try backups(daemon).compactMap { $0["id"] as? String } == [ids[1]])
    #expect(try daemon.ctl("delete", ids[0], "--force").status == 6)
  }

  /// Several hosts: one that does not exist, one that accepts and says nothing, and the one that answers.
  @Test func aSilentHostIsPassedOver() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let (silent, port) = try Self.listenSilently()
    defer { close(silent) }
    let own = cluster.conninfo(try cluster.makeDatabase())
    let words = own.replacing("host=", with: "host=/nonexistent,127.0.0.1,").split(separator: " ")
      .filter { !$0.hasPrefix("port=") }.joined(separator: " ")
    let ownPort = own.split(separator: " ").first { $0.hasPrefix("port=") }?.dropFirst(5) ?? "5432"
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(words) port=\(ownPort),\(port),\(ownPort) connect_timeout=8" } }
      jobs: { manual: }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    let backup = try daemon.ctl("backup", "shop")
    #expect(backup.status == 0, "\(backup.errors)")
  }

  /// A server that lets everybody in and then says nothing holds up its own databases and nobody else's: what falls due on them fails, with
  /// the reason, and the daemon ends when it is asked to.
  @Test func aServerThatFallsSilent() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let own = cluster.conninfo(try cluster.makeDatabase())
    let silent = try PortForwarder(
      to: "\(cluster.host)/.s.PGSQL.\(PrivateCluster.port)", silentFrom: "pg_database", in: folder)
    let daemon = try DaemonProcess(
      """
      databases:
        main: { connect: "host=127.0.0.1 port=\(silent.port) user=postgres dbname=postgres", include: "*" }
        shop: { connect: "\(own)" }
      jobs: { all: , manual: }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let all = try daemon.ctl("run", "all")
    #expect(all.status == 8, "\(all.output)\(all.errors)")
    #expect(all.output.contains("shop/") && all.errors.contains("has not named its databases"), "\(all.errors)")
    daemon.signal(SIGTERM)
    #expect(daemon.waitForExit() == 0)
  }

  /// A TCP port that takes connections and never says a word.
  private static func listenSilently() throws -> (socket: Int32, port: UInt16) {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let port = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        _ = bind(listener, pointer, size)
        getsockname(listener, pointer, &size)
      }
      return $0.pointee.sin_port.bigEndian
    }
    guard listen(listener, 8) == 0 else { throw Shell.Failure(description: "no port") }
    return (listener, port)
  }

  @Test func labelsAreShortAndPlain() throws {
    let (daemon, _, _) = try start(scale: nil)
    for label in [
      "two\nlines", "\u{1B}[31mred", String(repeating: "x", count: 201), String(repeating: "x", count: 100_000),
    ] {
      #expect(try daemon.ctl("backup", "shop", "--label", label).status == 2)
    }
    #expect(try daemon.ctl("backup", "shop", "--label", "Größe – v1.2").status == 0)
    #expect(try daemon.ctl("schedule", "@daily", "--count", "100000000").status == 2)
  }

  /// A second run of a job on a database that it is running on is refused, with the run's id.
  @Test func twoRunsAtOnce() async throws {
    let (daemon, cluster, database) = try start()
    let holder = try LockHolder(cluster, database, "portal.users")
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    let second = try daemon.ctl("backup", "shop")
    #expect(second.status == 7)
    #expect(second.errors.contains("E-RUN-CONFLICT"))
    holder.release()
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status != 2)
  }

  /// SIGTERM in the middle of a dump: the run is aborted, nothing of it is left, and the daemon ends well.
  @Test func aGracefulStopInMidDump() throws {
    let (daemon, cluster, database) = try start()
    let holder = try LockHolder(cluster, database, "portal.users")
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    daemon.signal(SIGTERM)
    #expect(daemon.waitForExit() == 0)
    holder.release()
    #expect(daemon.folder.files(below: "state/backups").isEmpty)
    let ledger = try String(contentsOfFile: daemon.folder.file("state/ledger.ndjson"), encoding: .utf8)
    #expect(ledger.contains(#""result":"aborted""#))
    #expect(ledger.contains(#""kind":"daemon.stopped""#))
    #expect(!FileManager.default.fileExists(atPath: daemon.socket))
  }

  /// kill -9 in the middle of a dump: the next start sweeps, repairs, and the next run succeeds.
  @Test func aKillInMidDump() throws {
    let folder = TemporaryFolder()
    let (daemon, cluster, database) = try start(folder: folder)
    let holder = try LockHolder(cluster, database, "portal.users")
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    try holder.waitForWaiter()
    daemon.signal(SIGKILL)
    #expect(daemon.waitForExit() == -SIGKILL)
    holder.release()
    #expect(!folder.files(below: "state/backups").isEmpty)
    let (again, _, _) = try start(folder: folder, database: database)
    #expect(folder.files(below: "state/backups").isEmpty)
    #expect(try again.ctl("backup", "shop").status == 0)
    #expect(try backups(again).count == 1)
  }

  /// A file-size limit stands in for a full disk: the kernel refuses the write, whatever the byte.
  @Test(arguments: [0, 1, 65_536, 300_000]) func aFullDisk(_ bytes: Int) throws {
    let folder = TemporaryFolder()
    mkdir(folder.file("state"), 0o700)
    let (daemon, _, database) = try start("manual:", extra: "backup: { compression: none }", folder: folder)
    // Only from now on, so that the ledger's first lines fit; the ledger is smaller than the limits below it.
    try Shell.must("prlimit", ["--pid", "\(daemon.processIdentifier)", "--fsize=\(max(bytes, 4096)):"])
    let failed = try daemon.ctl("backup", "shop")
    #expect(failed.status == 1, "\(failed.errors)")
    #expect(failed.errors.contains("E-STORE-FULL"))
    #expect(folder.files(below: "state/backups").isEmpty)
    try Shell.must("prlimit", ["--pid", "\(daemon.processIdentifier)", "--fsize=unlimited:"])
    #expect(try daemon.ctl("backup", "shop").status == 0)
    _ = database
  }

  @Test func reloads() throws {
    let (daemon, _, _) = try start("daily: { schedule: '0 2 * * *' }", scale: nil)
    let good = try String(contentsOfFile: daemon.configuration, encoding: .utf8)
    _ = try daemon.folder.write("pgbackupd.yaml", good.replacing("0 2 * * *", with: "0 99 * * *"))
    let refused = try daemon.ctl("reload")
    #expect(refused.status == 10)
    #expect(refused.errors.contains("99 is no hour"))
    // The old schedule stays in force, and status says what is wrong.
    #expect(try daemon.ctl("jobs").output.contains("0 2 * * *"))
    let status = try daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("E-CONFIG-INVALID"))

    _ = try daemon.folder.write("pgbackupd.yaml", good.replacing("0 2 * * *", with: "30 4 * * *"))
    daemon.forgetNotifications()
    daemon.signal(SIGHUP)
    try daemon.waitFor("RELOADING=1")
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("jobs").output.contains("30 4 * * *"))
    #expect(try daemon.ctl("status").status == 0)
    #expect(try daemon.ctl("reload").output.contains("nothing changed"))
  }

  @Test func aSecondDaemonIsRefused() throws {
    let folder = TemporaryFolder()
    let (daemon, _, _) = try start(scale: nil, folder: folder)
    let second = try Shell.run(DaemonProcess.program("pgbackupd"), ["--config", daemon.configuration])
    #expect(second.status == 7)
    #expect(second.errors.contains("E-DAEMON-RUNNING"))
    #expect(try daemon.ctl("status").status == 0)
  }

  /// Manifests are signed by a key that the first start makes; signify checks them, a changed one is told and counts for nothing,
  /// and another daemon's key is believed once it is named.
  @Test func signedManifests() throws {
    let folder = TemporaryFolder()
    let (daemon, _, database) = try start(extra: "objectives: { rpo: 24h }", folder: folder)
    #expect(try Shell.must("stat", ["-c", "%a", folder.file("state/signing.sec")]) == "600\n")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let manifest = try #require(
      folder.files(below: "state/backups").first { $0.hasSuffix("/manifest.json") }.map {
        folder.file("state/backups/\($0)")
      })
    try Shell.must("signify-openbsd", ["-V", "-p", folder.file("state/signing.pub"), "-m", manifest])
    #expect(try daemon.ctl("status").status == 0)
    // A store that lies, be it by a single space.
    let text = try String(contentsOfFile: manifest, encoding: .utf8)
    try (text + " ").write(toFile: manifest, atomically: true, encoding: .utf8)
    let status = try daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("E-SIGNATURE-INVALID"))
    #expect(status.output.contains("does not exist"))
    try text.write(toFile: manifest, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("status").status == 0)

    // A new key (the state was lost): the old backup is believed only when its key is named.
    let old = try String(contentsOfFile: folder.file("state/signing.pub"), encoding: .utf8).split(separator: "\n")[1]
    daemon.signal(SIGTERM)
    #expect(daemon.waitForExit() == 0)
    unlink(folder.file("state/signing.sec"))
    let (again, _, _) = try start(extra: "objectives: { rpo: 24h }", folder: folder, database: database)
    #expect(try again.ctl("status").output.contains("E-SIGNATURE-INVALID"))
    let configuration = try String(contentsOfFile: again.configuration, encoding: .utf8)
    _ = try folder.write("pgbackupd.yaml", configuration + "\nsigning: { trusted: [\(old)] }\n")
    #expect(try again.ctl("reload").status == 0)
    #expect(try again.ctl("status").status == 0)
  }

  /// A host that can write and not read: everything works but looking inside, and `status` says so.
  @Test func encryptedWithoutAnIdentity() throws {
    let folder = TemporaryFolder()
    let key = folder.file("key.txt")
    let made = try Shell.run(DaemonProcess.program("pgbackupctl"), ["key", "generate", "--output", key])
    #expect(made.status == 0)
    let recipient = made.output.trimmingCharacters(in: .whitespacesAndNewlines)
    #expect(try Shell.must("age-keygen", ["-y", key]) == made.output)
    #expect(try Shell.must(DaemonProcess.program("pgbackupctl"), ["key", "show-recipient", key]) == made.output)
    #expect(try Shell.must("stat", ["-c", "%a", key]) == "600\n")
    #expect(try Shell.run(DaemonProcess.program("pgbackupctl"), ["key", "generate", "--output", key]).status == 7)

    let (daemon, _, _) = try start(extra: "encryption: { recipients: [\(recipient)] }", folder: folder)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("status").output.contains("No identity here"))
    let blind = try daemon.ctl("contents", "latest")
    #expect(blind.status == 4)
    #expect(blind.errors.contains("E-KEY-MISSING"))
    let good = try String(contentsOfFile: daemon.configuration, encoding: .utf8)
    _ = try folder.write(
      "pgbackupd.yaml", good.replacing("\(recipient)] }", with: "\(recipient)], identity_file: \(key) }"))
    #expect(try daemon.ctl("reload").status == 0)
    #expect(try daemon.ctl("contents", "latest").output.contains("portal.users"))
    #expect(try daemon.ctl("status").output.contains("An identity here opens it."))
    // A key that everybody may read is refused, and so is an identity for a recipient; neither shows the secret.
    chmod(key, 0o644)
    let loose = try daemon.ctl("reload")
    #expect(loose.status == 10)
    #expect(loose.errors.contains("chmod 0600"))
    let secret = try #require(
      try String(contentsOfFile: key, encoding: .utf8).split(separator: "\n").first { $0.hasPrefix("AGE") })
    _ = try folder.write("pgbackupd.yaml", good.replacing(recipient, with: secret))
    let swapped = try daemon.ctl("reload")
    #expect(swapped.errors.contains("an identity is no recipient"))
    #expect(!(swapped.errors + daemon.log).contains(secret))
  }

  @Test func databasesByPattern() throws {
    let cluster = try PrivateCluster()
    for name in ["app_one", "app_two", "app_test"] {
      try cluster.sql("postgres", "CREATE DATABASE \(name) TEMPLATE template0")
    }
    let folder = TemporaryFolder()
    let daemon = try DaemonProcess(
      """
      databases: { main: { connect: "\(cluster.conninfo("postgres"))", include: "app_*", exclude: "*_test" } }
      jobs: { nightly: { keep: 1d } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("run", "nightly").status == 0)
    #expect(
      try backups(daemon).compactMap { ($0["id"] as? String)?.split(separator: "/").first.map(String.init) }.sorted()
        == ["main.app_one", "main.app_two"])
    #expect(try daemon.ctl("backup", "main.app_two", "--type", "nightly").status == 0)
    let missing = try daemon.ctl("backup", "main.app_test")
    #expect(missing.status == 6)
  }

  /// The socket is an ordinary HTTP server for curl, and is not for everybody.
  @Test func theSocket() throws {
    let (daemon, _, _) = try start(scale: nil)
    let mode = try Shell.must("stat", ["-c", "%a", daemon.socket])
    #expect(mode == "660\n")
    let reply = try Shell.must("curl", ["-sS", "--unix-socket", daemon.socket, "http://localhost/v1/status"])
    #expect(reply.contains(#""version":"0.1.0""#))
    let missing = try Shell.must(
      "curl", ["-sS", "--unix-socket", daemon.socket, "http://localhost/v1/backup?id=shop/latest"])
    #expect(missing.contains("E-BACKUP-MISSING"))
    // Garbage and a body of a gigabyte's promise are refused, and the daemon lives on.
    let garbage = try Shell.run(
      "sh",
      [
        "-c",
        "head -c 100000 /dev/urandom | timeout 5 curl -sS --unix-socket '\(daemon.socket)' -X POST --data-binary @- http://x/v1/backups",
      ])
    #expect(!garbage.output.contains("succeeded"))
    #expect(try daemon.ctl("status").status == 0)
  }
}
