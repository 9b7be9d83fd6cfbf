import Foundation
import Glibc
import TestSupport
import Testing

/// `verify`, `drill`, `accept` and what follows from them, as an operator meets them.
@Suite(.waits) struct CheckCommandTests {
  private struct Fixture {
    let folder: TemporaryFolder
    let cluster: PrivateCluster
    let database: String
    let daemon: DaemonProcess

    /// The files of the newest backup in a store.
    func files(_ store: String) -> [String] {
      folder.files(below: store).filter { $0.contains(".dump.") }.sorted()
    }

    /// Changes one stored byte in the middle of the newest artifact there.
    func harm(_ store: String) throws {
      let path = folder.file("\(store)/" + (try #require(files(store).last)))
      var data = try Data(contentsOf: URL(filePath: path))
      data[data.count / 2] ^= 1
      try data.write(to: URL(filePath: path))
    }
  }

  private func start(
    _ folder: TemporaryFolder = TemporaryFolder(), database: String? = nil, stores: [String] = ["one", "two"],
    more: String = "", jobs: String = "", shop: String = ""
  ) throws -> Fixture {
    let cluster = try PrivateCluster.shared()
    let database = try database ?? cluster.makeDatabase("shop", sample: 1)
    for store in stores { mkdir(folder.file(store), 0o700) }
    let places = stores.map { "\($0): { path: \(folder.file($0)) }" }.joined(separator: ", ")
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))"\(shop) } }
      stores: { \(places) }
      jobs: { manual: , daily: { keep: 7d }\(jobs) }
      drill: { folder: \(folder.file("drills")) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(more)
      """, in: folder)
    try daemon.waitFor("READY=1")
    return Fixture(folder: folder, cluster: cluster, database: database, daemon: daemon)
  }

  /// A changed byte in one store is found, told with 9, and mended from the other store.
  @Test func damageIsFoundAndMended() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("verify", "--all").status == 6, "there is nothing yet")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let sound = try daemon.ctl("verify", "--all")
    #expect(sound.status == 0, "\(sound.errors)")
    #expect(sound.output.components(separatedBy: "archive").count == 3)
    try fixture.harm("two")
    let ledger = try daemon.followLedger()
    for level in ["checksum", "archive"] {
      let found = try daemon.ctl("verify", "shop/latest", "--store", "two", "--level", level)
      guard level == "checksum" else { continue }
      #expect(found.status == 9, "\(found.output)\(found.errors)")
      #expect(found.output.contains("DAMAGED"))
      #expect(found.errors.contains("E-ARTIFACT-DAMAGED") && found.errors.contains("next:"))
      try ledger.wait(for: "backup.copied", "\"store\":\"two\"")
    }
    let again = try daemon.ctl("verify", "--all")
    #expect(again.status == 0, "\(again.output)")
    let log = try daemon.ctl("log", "--lines", "100").output
    #expect(log.contains("damaged") && log.contains("sound"))
  }

  /// What is plainly broken is told by `verify` too, with 9: a file that was cut short, a manifest that is none. What was put right again
  /// is found to be sound, and counts again.
  @Test func whatIsPlainlyBroken() throws {
    let fixture = try start(stores: ["one"])
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill", "shop").status == 0)
    #expect(try daemon.ctl("check").output.contains("shop proved: OK"))
    let path = fixture.folder.file("one/" + (try #require(fixture.files("one").last)))
    let whole = try Data(contentsOf: URL(filePath: path))
    try whole.dropLast().write(to: URL(filePath: path))
    let cut = try daemon.ctl("verify", "--all")
    #expect(cut.status == 9 && cut.output.contains("DAMAGED"), "\(cut.output)\(cut.errors)")
    // A proof of what is gone proves nothing.
    let check = try daemon.ctl("check").output
    #expect(check.contains("shop proved: NOT RUN (not run"), "\(check)")
    try whole.write(to: URL(filePath: path))
    let again = try daemon.ctl("verify", "--all")
    #expect(again.status == 0 && !again.output.contains("DAMAGED"), "\(again.output)\(again.errors)")
    #expect(try daemon.ctl("check").output.contains("shop proved: OK"))

    let manifest = path.split(separator: "/").dropLast().map { "/\($0)" }.joined() + "/manifest.json"
    let signed = try Data(contentsOf: URL(filePath: manifest))
    try Data("{}".utf8).write(to: URL(filePath: manifest))
    let none = try daemon.ctl("verify", "--all")
    #expect(none.status == 9 && none.output.contains("DAMAGED"), "\(none.output)\(none.errors)")
    // A backup that nobody has deleted does not vanish without a word, and what is left of it is no leftover.
    try FileManager.default.removeItem(atPath: manifest)
    let status = try daemon.ctl("status")
    #expect(status.status == 10 && status.output.contains("was made, nobody has deleted it"), "\(status.output)")
    try signed.write(to: URL(filePath: manifest))
    #expect(try daemon.ctl("verify", "--all").status == 0)
    #expect(try !daemon.ctl("status").output.contains("nobody has deleted it"))
  }

  /// What was found damaged is remembered by the next daemon, and the only copy is not mended by wishful thinking.
  @Test func damageIsRemembered() throws {
    let fixture = try start(stores: ["one"])
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    try fixture.harm("one")
    #expect(try fixture.daemon.ctl("verify", "--all").status == 9)
    #expect(try fixture.daemon.ctl("list").output.contains("DAMAGED"))
    fixture.daemon.signal(SIGKILL)
    _ = fixture.daemon.waitForExit()
    let again = try start(fixture.folder, database: fixture.database, stores: ["one"])
    #expect(try again.daemon.ctl("list").output.contains("DAMAGED"))
    let status = try again.daemon.ctl("status")
    #expect(status.output.contains("E-ARTIFACT-DAMAGED"))
    #expect(try again.daemon.ctl("restore", "latest", "--into", "x").status == 6)
  }

  /// What is not there to be read is never passed over as if it were sound.
  @Test func whatIsNotReadIsNotPassed() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("verify", "--all").status == 0)
    let (two, away) = (fixture.folder.file("two"), fixture.folder.file("away"))
    try FileManager.default.moveItem(atPath: two, toPath: away)
    for arguments in [["--all"], ["--store", "two"], ["shop/latest", "--store", "two"]] {
      let verify = try Shell.run(
        DaemonProcess.program("pgbackupctl"), ["verify"] + arguments, environment: ["PGBACKUPD_SOCKET": daemon.socket])
      #expect(verify.status != 0, "\(arguments): \(verify.output)")
      #expect(verify.errors.contains("E-STORE-") && verify.errors.contains("two"), "\(arguments): \(verify.errors)")
    }
    try FileManager.default.moveItem(atPath: away, toPath: two)
    #expect(try daemon.ctl("verify", "--all").status == 0)
  }

  /// The state directory has lost what the backups before were like: the newest one tells it, by its contents.
  @Test func theMeasureIsFoundAgain() throws {
    let fixture = try start()
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    try FileManager.default.removeItem(atPath: fixture.folder.file("state/statistics"))
    try fixture.cluster.sql(fixture.database, "TRUNCATE portal.views")
    let backup = try fixture.daemon.ctl("backup", "shop")
    #expect(backup.output.contains("IN DOUBT"), "\(backup.output)\(backup.errors)")
  }

  /// Where nobody can read what those before were like, and the state directory has lost it, the backup is in doubt, and so is what is
  /// compared with it, until somebody accepts.
  @Test func comparedWithNothing() throws {
    let folder = TemporaryFolder()
    let key = try Shell.must(DaemonProcess.program("pgbackupctl"), ["key", "generate", "--output", folder.file("key")])
    let recipient = try #require(key.split(whereSeparator: \.isWhitespace).first { $0.hasPrefix("age1") })
    let fixture = try start(folder, stores: ["one"], more: "encryption: { recipients: [\(recipient)] }")
    let daemon = fixture.daemon
    #expect(try !daemon.ctl("backup", "shop").output.contains("IN DOUBT"), "the first one has nothing before it")
    try FileManager.default.removeItem(atPath: folder.file("state/statistics"))
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views")
    for _ in 0..<2 {
      let backup = try daemon.ctl("backup", "shop")
      #expect(backup.output.contains("IN DOUBT: not-compared"), "\(backup.output)\(backup.errors)")
    }
    let status = try daemon.ctl("status")
    #expect(status.status == 10 && status.output.contains("E-BACKUP-DOUBTFUL"), "\(status.output)")
    #expect(status.output.contains("nobody has said that it is right"), "\(status.output)")
    #expect(try daemon.ctl("list").output.contains("newest without a warning"))
    #expect(try daemon.ctl("show", "latest").output.contains("not-compared"))
    #expect(try daemon.ctl("accept", "latest").status == 0)
    #expect(try daemon.ctl("status").status == 0)
    #expect(try !daemon.ctl("backup", "shop").output.contains("IN DOUBT"))
  }

  /// Nobody misses large objects by a table's rows.
  @Test func largeObjectsThatVanish() throws {
    let fixture = try start(stores: ["one"])
    try fixture.cluster.sql(fixture.database, "SELECT lo_create(0) FROM generate_series(1, 20)")
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(fixture.database, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    let backup = try fixture.daemon.ctl("backup", "shop")
    #expect(backup.output.contains("IN DOUBT: rows-lost of (large objects)"), "\(backup.output)")
  }

  /// What is configured no more is kept, and read back with the rest; what is damaged there is told.
  @Test func formerDatabasesAreVerified() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop", sample: 1)
    func start(_ name: String) throws -> DaemonProcess {
      let daemon = try DaemonProcess(
        """
        databases: { \(name): { connect: "\(cluster.conninfo(database))" } }
        stores: { one: { path: \(folder.file("one")) } }
        jobs: { manual: , verify: { action: verify }, new: { action: verify, databases: [\(name)] } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """, in: folder)
      try daemon.waitFor("READY=1")
      return daemon
    }
    mkdir(folder.file("one"), 0o700)
    let former = try start("old")
    #expect(try former.ctl("backup", "old").status == 0)
    former.signal(SIGTERM)
    _ = former.waitForExit()
    let daemon = try start("shop")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let run = try daemon.ctl("run", "verify")
    #expect(
      run.status == 0 && run.output.contains("old/") && run.output.contains("shop/"), "\(run.output)\(run.errors)")
    #expect(try !daemon.ctl("run", "new").output.contains("old/"))
    let artifact = try #require(folder.files(below: "one/old").first { $0.contains(".dump.") })
    let path = folder.file("one/old/\(artifact)")
    var bytes = try Data(contentsOf: URL(filePath: path))
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: URL(filePath: path))
    #expect(try daemon.ctl("run", "verify").status != 0)
    let status = try daemon.ctl("status").output
    #expect(status.contains("verify of 'old'") && status.contains("E-ARTIFACT-DAMAGED"), "\(status)")
  }

  /// What a drill did not prove stands at the head of everything, whatever was proved before it; so does a store that nobody has measured.
  @Test func aFailedDrillHeadsEverything() throws {
    let port = try FreePorts.take(1)[0]
    let fixture = try start(
      more: "objectives: { proved: 8d, rto: 1h }\nmetrics: { listen: '127.0.0.1:\(port)' }",
      shop: ", assert: [\"SELECT count(*) > 0 FROM portal.views\"]")
    let daemon = fixture.daemon
    func page() throws -> String { try Shell.must("curl", ["-sS", "--noproxy", "*", "http://127.0.0.1:\(port)/"]) }
    func html() throws -> String {
      _ = try daemon.ctl("report", "--format", "html", "--output", fixture.folder.file("report.html"))
      return try String(contentsOfFile: fixture.folder.file("report.html"), encoding: .utf8)
    }
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try page().contains("aria-label=\"Newest proved: never proved, the first has time until "))
    #expect(try daemon.ctl("drill", "shop", "--from", "one").status == 0)
    let check = try daemon.ctl("check").output
    #expect(check.contains("shop rto: NOT RUN") && check.contains("whole from two: not measured"), "\(check)")
    #expect(try page().contains("whole from two: not measured"))
    #expect(try html().contains("<dt>Newest proved</dt>") && !html().contains("not met"))
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill", "shop", "--from", "two").status == 9)
    let report = try daemon.ctl("report").output
    let line = try #require(report.split(separator: "\n").first { $0.hasPrefix("shop ") }, "\(report)")
    #expect(line.contains("FAILED 2") && line.contains("8d MISSED"), "\(line)")
    #expect(try html().contains("<dt>Newest proved</dt><dd>FAILED 2") && html().contains("not met"))
    #expect(try page().contains("the newest backup&#39;s drill FAILED 2"))
  }

  /// Who has ended a drill is not called out of bed for it.
  @Test func aCancelledDrillIsMild() throws {
    let fixture = try start(stores: ["one"], shop: ", assert: [\"SELECT pg_sleep(600) IS NULL\"]")
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill", "--no-wait").status == 0)
    while try !daemon.ctl("status").output.contains("assertions") {}
    let status = try #require(try daemon.ctlJSON("status") as? [String: Any])
    let run = try #require((status["runs"] as? [[String: Any]])?.first?["id"] as? String)
    #expect(try daemon.ctl("cancel", run).status == 0)
    try daemon.followLedger().wait(for: "run.finished", run, "aborted")
    let check = try daemon.ctl("check", "--nagios")
    #expect(check.status == 1 && check.output.contains("E-RUN-ABORTED"), "\(check.output)")
  }

  /// The proof lies beside the backup in every store; one that is lost or changed there comes back from another.
  @Test func proofsAreMended() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill").status == 0)
    func proofs(_ store: String) -> [String: Data] {
      let files = fixture.folder.files(below: store).filter { $0.contains("/proof-") }
      return Dictionary(
        uniqueKeysWithValues: files.map {
          ($0, FileManager.default.contents(atPath: fixture.folder.file("\(store)/\($0)")) ?? Data())
        })
    }
    let written = proofs("one")
    #expect(written.count == 2 && proofs("two") == written)
    let name = try #require(written.keys.first { $0.hasSuffix(".json") })
    let path = fixture.folder.file("two/\(name)")
    for harm in ["lost", "changed", "not signed"] {
      switch harm {
      case "lost": try FileManager.default.removeItem(atPath: path)
      case "changed": try Data("{}".utf8).write(to: URL(filePath: path))
      default: try FileManager.default.removeItem(atPath: path + ".sig")
      }
      // By this one, or by the daemon's own a moment before.
      #expect(try daemon.ctl("reconcile", "--apply").status == 0)
      #expect(proofs("two") == written, "\(harm)")
      #expect(try !daemon.ctl("reconcile").output.contains("proof"), "\(harm)")
    }
    #expect(try daemon.ctl("log", "--lines", "100").output.contains("proof.copied"))
    // Among others that nobody trusted has signed it is found all the same, and not copied again and again.
    for number in 1...5 {
      try Data("junk".utf8).write(
        to: URL(
          filePath: fixture.folder.file(
            "two/\(name.dropLast("20261129T205617Z.json".count))9999123\(number)T000000Z.json")))
    }
    let copies = { try daemon.ctl("log", "--lines", "200").output.components(separatedBy: "proof.copied").count }
    let before = try copies()
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try copies() == before)
  }

  @Test func aDrillProves() throws {
    let fixture = try start(shop: ", assert: [\"SELECT count(*) > 100 FROM portal.users\"]")
    let daemon = fixture.daemon
    #expect(try daemon.ctl("drill").status == 6)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("status").output.contains("not run"))
    let drill = try daemon.ctl("drill", "shop")
    #expect(drill.status == 0, "\(drill.errors)\n\(daemon.log)")
    #expect(drill.output.contains("is PROVED") && drill.output.contains("1 assertion holds"), "\(drill.output)")
    #expect(fixture.folder.files(below: "drills") == [])
    #expect(try daemon.ctl("status").output.contains("this one"))
    #expect(try daemon.ctl("show", "latest:proved").output.contains("by a drill"))
    #expect(try daemon.ctl("list").output.contains("proved"))
    for store in ["one", "two"] {
      #expect(fixture.folder.files(below: store).count { $0.contains("/proof-") } == 2, "a proof and its signature")
    }
    // The proof outlives the ledger.
    daemon.signal(SIGTERM)
    _ = daemon.waitForExit()
    try FileManager.default.removeItem(atPath: fixture.folder.file("state/ledger.ndjson"))
    let again = try start(fixture.folder, database: fixture.database)
    #expect(try again.daemon.ctl("status").output.contains("this one"))
  }

  /// A proof names the store that it was read from, and no other; a job's own drills read each in turn, so that each one's time is known.
  @Test func drillsFromEachStore() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill", "shop").output.contains("from one in"))
    func predicted(_ store: String) throws -> Bool {
      let line = try daemon.ctl("status").output.split(separator: "\n").first { $0.contains("whole from \(store)") }
      return try !#require(line).contains("not run")
    }
    #expect(try predicted("one") && !predicted("two"))
    #expect(try daemon.ctl("run", "drill").status == 0)
    #expect(try predicted("two"))
    let named = try daemon.ctl("drill", "shop", "--from", "two")
    #expect(named.output.contains("from two in"), "\(named.output)\(named.errors)")
    #expect(try daemon.ctl("drill", "shop", "--from", "three").errors.contains("E-STORE-MISSING"))
  }

  @Test func anAssertionThatDoesNotHold() throws {
    let fixture = try start(shop: ", assert: [\"SELECT count(*) > 100000000 FROM portal.users\"]")
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    let drill = try fixture.daemon.ctl("drill")
    #expect(drill.status == 9 && drill.errors.contains("E-ASSERTION-FAILED"), "\(drill.errors)")
    let status = try fixture.daemon.ctl("status").output
    #expect(status.contains("FAILED ") && !status.contains("not run") && status.contains("E-ASSERTION-FAILED"))
    #expect(try fixture.daemon.ctl("list").output.contains("PROOF FAILED"))
    #expect(try fixture.daemon.ctl("show", "latest").output.contains("FAILED 2"))
    #expect(try fixture.daemon.ctl("check").output.contains("the last drill of the newest backup FAILED"))
    #expect(try fixture.daemon.ctl("report").output.contains("FAILED 2"))
    // In the stores, too: who has nothing but those knows it.
    for store in ["one", "two"] {
      let records = fixture.folder.files(below: store).filter { $0.contains("/proof-") && $0.hasSuffix(".json") }
      #expect(records.count == 1, "\(records)")
    }
    fixture.daemon.signal(SIGTERM)
    _ = fixture.daemon.waitForExit()
    try FileManager.default.removeItem(atPath: fixture.folder.file("state/ledger.ndjson"))
    let again = try start(fixture.folder, database: fixture.database)
    #expect(try again.daemon.ctl("list").output.contains("PROOF FAILED"))
    #expect(try again.daemon.ctl("show", "latest").output.contains("FAILED 2"))
    #expect(try again.daemon.ctl("show", "latest:proved").errors.contains("No backup of 'shop' has been proved"))
    let report = try again.daemon.ctl("report").output
    #expect(report.contains("did not prove it") && report.contains("by its signed record"), "\(report)")
    // Until one proves it.
    #expect(try again.daemon.ctl("drill").status == 0)
    #expect(try again.daemon.ctl("status").output.contains("this one"))
    #expect(try !again.daemon.ctl("list").output.contains("PROOF FAILED"))
  }

  /// A drill that could not ask is a run that failed, and no word about the backup: its proof stands.
  @Test func anAssertionThatCantBeAsked() throws {
    let fixture = try start(stores: ["one"])
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill").status == 0)
    let file = daemon.configuration
    let text = try String(contentsOfFile: file, encoding: .utf8)
    try text.replacing("\(fixture.database)'\" }", with: "\(fixture.database)'\", assert: [\"selec 1\"] }")
      .write(toFile: file, atomically: true, encoding: .utf8)
    #expect(try String(contentsOfFile: file, encoding: .utf8).contains("selec 1"), "\(text)")
    #expect(try daemon.ctl("reload").status == 0)
    let drill = try daemon.ctl("drill")
    #expect(drill.status == 1 && drill.errors.contains("E-ASSERTION-INVALID"), "\(drill.errors)")
    let status = try daemon.ctl("status").output
    #expect(status.contains("this one") && status.contains("E-ASSERTION-INVALID"), "\(status)")
    #expect(try !daemon.ctl("list").output.contains("PROOF FAILED"))
  }

  /// A daemon that is killed in a drill takes its server along, and leaves a folder; the next daemon removes it.
  @Test func aKilledDrillIsSwept() throws {
    let fixture = try start(shop: ", assert: [\"SELECT pg_sleep(600) IS NULL\"]")
    #expect(try fixture.daemon.ctl("backup", "shop").status == 0)
    #expect(try fixture.daemon.ctl("drill", "--no-wait").status == 0)
    try eventually("the drill asks its questions") {
      try fixture.daemon.ctl("status").output.contains("assertions")
    }
    fixture.daemon.signal(SIGKILL)
    _ = fixture.daemon.waitForExit()
    try eventually("the server ends with the daemon") { try servers(fixture.folder) == 0 }
    #expect(fixture.folder.files(below: "drills") != [])
    let again = try start(fixture.folder, database: fixture.database)
    let ledger = try again.daemon.followLedger()
    try ledger.wait(for: "leftovers.swept", "servers of drills")
    #expect(fixture.folder.files(below: "drills") == [])
  }

  private func servers(_ folder: TemporaryFolder) throws -> Int {
    try Shell.run("pgrep", ["-f", "postgres.*-D.*\(folder.path)"]).output.split(separator: "\n").count
  }

  /// Rows that vanish are told at once, in every place; the last backup without a warning stays; accept ends it.
  @Test func lostRowsAreDoubted() throws {
    let fixture = try start(more: "objectives: { rpo: 24h }")
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views; DROP TABLE portal.floats")
    let second = try daemon.ctl("backup", "shop")
    #expect(second.status == 0)
    #expect(second.output.contains("IN DOUBT: rows-lost of portal.views"), "\(second.output)")
    #expect(second.output.contains("table-vanished of portal.floats"))
    #expect(second.output.contains("pgbackupctl accept"))
    #expect(try daemon.ctl("status").output.contains("E-BACKUP-DOUBTFUL"))
    let list = try daemon.ctl("list").output
    #expect(list.contains("IN DOUBT") && list.contains("newest without a warning"))
    #expect(try daemon.ctl("show", "latest").output.contains("rows-lost of portal.views"))
    // Nothing names a table where everybody can read it.
    for manifest in fixture.folder.files(below: "one") where manifest.hasSuffix("manifest.json") {
      #expect(try !String(contentsOfFile: fixture.folder.file("one/\(manifest)"), encoding: .utf8).contains("views"))
    }
    // A third one like the second is as doubtful: a loss does not become the norm.
    #expect(try daemon.ctl("backup", "shop").output.contains("IN DOUBT"))
    #expect(try daemon.ctl("accept", "shop/oldest").status == 2)
    let accept = try daemon.ctl("accept", "latest", "--note", "cleaned up")
    #expect(accept.status == 0, "\(accept.errors)")
    #expect(try !daemon.ctl("status").output.contains("E-BACKUP-DOUBTFUL"))
    #expect(try !daemon.ctl("list").output.contains("IN DOUBT"))
    #expect(try !daemon.ctl("backup", "shop").output.contains("IN DOUBT"))
    daemon.signal(SIGTERM)
    _ = daemon.waitForExit()
    let again = try start(fixture.folder, database: fixture.database, more: "objectives: { rpo: 24h }")
    #expect(try !again.daemon.ctl("list").output.contains("IN DOUBT"))
  }

  @Test func mistakesAreTold() throws {
    let fixture = try start()
    let daemon = fixture.daemon
    #expect(try daemon.ctl("backup", "shop").status == 0)
    for (words, status, text) in [
      (["verify"], 2, "--all"), (["verify", "--all", "latest"], 2, "exclude each other"),
      (["verify", "latest", "--level", "deep"], 2, "checksum, archive"),
      (["verify", "--all", "--store", "three"], 8, "there are one, two"),
      (["verify", "shop/oldest:weekly"], 6, "E-"), (["drill", "nobody"], 6, "E-BACKUP-MISSING"),
      (["backup", "shop", "--type", "verify"], 2, "no type of backups"), (["accept", "latest"], 2, "not flagged"),
    ] {
      let result = try Shell.run(
        DaemonProcess.program("pgbackupctl"), words, environment: ["PGBACKUPD_SOCKET": daemon.socket])
      #expect(result.status == Int32(status), "\(words): \(result.status) \(result.errors)")
      #expect(result.errors.contains(text), "\(words): \(result.errors)")
    }
  }
}
