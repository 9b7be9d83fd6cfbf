import Foundation
import Glibc
import TestSupport
import Testing

/// A failure reaches a person, once; silence reaches them too; and no run waits for any of it.
@Suite(.serialized, .waits) struct AlertTests {
  fileprivate static func daemon(
    _ folder: TemporaryFolder, connect: String, _ more: String
  ) throws -> DaemonProcess {
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(connect)" } }
      jobs: { manual: }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(more)
      """, in: folder)
    try daemon.waitFor("READY=1")
    return daemon
  }

  fileprivate static func json(_ item: Sinks.Item) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data((item.body ?? "").utf8)) as? [String: Any])
  }

  /// Two failed runs are one message; the third, which succeeds, is its end. A dead-man ping hears of each run.
  @Test func oneIncident() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    let database = "late_\(UUID().uuidString.prefix(8).lowercased())"
    let daemon = try Self.daemon(
      folder, connect: cluster.conninfo(database),
      """
      alerts:
        on: [failure, recovered, success]
        webhook: { url: "\(sinks.url("ok", "hook-secret-1"))" }
        ping: { url: "\(sinks.url("flaky-1", "ping-secret-1"))", jobs: [manual] }
      """)
    #expect(try daemon.ctl("backup", "shop").status != 0)
    #expect(try daemon.ctl("backup", "shop").status != 0)
    try Shell.must("createdb", ["--template=template0", "--maintenance-db", cluster.conninfo("postgres"), database])
    #expect(try daemon.ctl("backup", "shop").status == 0)
    var hooks: [[String: Any]] = []
    var pings: [String] = []
    var failures: [String] = []
    while hooks.count < 3 || pings.count < 9 {
      let item = try sinks.next()
      if item.path?.hasPrefix("/ok/") == true {
        hooks.append(try Self.json(item))
      } else {
        pings.append(item.path ?? "")
        if item.path?.hasSuffix("/fail") == true { failures.append(item.body ?? "") }
      }
    }
    #expect(Set(hooks.compactMap { $0["kind"] as? String }) == ["opened", "event", "recovered"])
    let opened = try #require(hooks.first { $0["kind"] as? String == "opened" })
    #expect(opened["code"] as? String == "E-DB-MISSING" && opened["database"] as? String == "shop")
    #expect((opened["holds"] as? [String])?.first?.contains("no good backup") == true)
    #expect((opened["next"] as? String)?.isEmpty == false)
    let recovered = try #require(hooks.first { $0["kind"] as? String == "recovered" })
    #expect(recovered["id"] as? String == opened["id"] as? String)
    #expect(failures.allSatisfy { $0.contains("The log's end:\n") && $0.contains("error=E-DB-MISSING") }, "\(failures)")
    // The first request of each kind failed and was repeated; the order holds.
    let base = "/flaky-1/ping-secret-1"
    #expect(
      pings == ["/start", "/start", "/fail", "/fail", "/start", "/fail", "/start", "", ""].map { base + $0 }, "\(pings)"
    )
    let status = try daemon.ctl("status").output
    #expect(status.contains("webhook") && status.contains("ping"))
    for text in [status, daemon.log] { #expect(!text.contains("-secret-1")) }
  }

  /// Where the queue's disk takes nothing, which may be what there is to tell, messages go out from memory. Whatever channels there are, the
  /// journal tells of problems too.
  @Test func aQueueThatTakesNothing() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    try FileManager.default.createDirectory(atPath: folder.file("away"), withIntermediateDirectories: false)
    let daemon = try Self.daemon(
      folder, connect: cluster.conninfo("no_such_database"),
      """
      alerts: { webhook: { url: "\(sinks.url("ok", "hook"))" } }
      stores: { away: { path: \(folder.file("away")) } }
      """)
    let queue = folder.file("state/alerts/webhook")
    try FileManager.default.removeItem(atPath: queue)
    try Data().write(to: URL(filePath: queue))
    #expect(try daemon.ctl("backup", "shop").status != 0)
    let item = try sinks.next()
    #expect(try Self.json(item)["kind"] as? String == "opened")
    #expect(daemon.log.contains("waits in memory"), "\(daemon.log)")
    try FileManager.default.removeItem(atPath: folder.file("away"))
    #expect(try daemon.ctl("backup", "shop").status != 0)
    func waitForLog(_ words: String) throws {
      try eventually("the log says '\(words)': \(daemon.log)") {
        _ = try daemon.ctl("status")
        return daemon.log.contains(words)
      }
    }
    try waitForLog("E-STORE-MISSING")
    try FileManager.default.createDirectory(atPath: folder.file("away"), withIntermediateDirectories: false)
    #expect(try daemon.ctl("backup", "shop").status != 0)
    try waitForLog("a problem is over")
  }

  /// A channel that hangs delays no run and no other channel; what waits for it outlives kill -9, and comes once it can.
  @Test func aDeadChannelDelaysNobody() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    func alerts(_ mode: String) -> String {
      """
      alerts:
        on: [success]
        slack: { url: "\(sinks.url(mode, "dead-secret-2"))" }
        webhook: { url: "\(sinks.url("ok", "live"))" }
      """
    }
    let database = try cluster.makeDatabase("shop")
    do {
      let daemon = try Self.daemon(folder, connect: cluster.conninfo(database), alerts("hang"))
      #expect(try daemon.ctl("backup", "shop").status == 0)
      #expect(try daemon.ctl("backup", "shop").status == 0)
      for _ in 0..<2 { _ = try sinks.next("ok") }
      let status = try #require(try daemon.ctlJSON("status") as? [String: Any])
      let slack = try #require((status["alerts"] as? [[String: Any]])?.first { $0["name"] as? String == "slack" })
      #expect(slack["waiting"] as? Int == 2)
      daemon.signal(SIGKILL)
      #expect(daemon.waitForExit() == -SIGKILL)
    }
    let daemon = try Self.daemon(folder, connect: cluster.conninfo(database), alerts("ok-again"))
    let first = try sinks.next("ok-again")
    let second = try sinks.next("ok-again")
    #expect(first.body != second.body && first.body?.contains("succeeded") == true)
    #expect(!daemon.log.contains("dead-secret-2"))
  }

  /// A message that a channel does not take, whatever its reason, keeps those behind it no longer than two tries.
  @Test func aRefusedMessageHoldsUpNobody() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    let connect = cluster.conninfo(try cluster.makeDatabase("shop"))
    let daemon = try DaemonProcess(
      """
      databases: { strange: { connect: "\(connect)" }, shop: { connect: "\(connect)" } }
      jobs: { manual: }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      alerts: { on: [success], webhook: { url: "\(sinks.url("picky-strange"))" } }
      """, in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "strange").status == 0)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    var bodies: [String] = []
    while !bodies.contains(where: { $0.contains("'shop'") }) { bodies.append(try sinks.next().body ?? "") }
    let count = bodies.count
    #expect(count >= 3 && bodies.dropLast().allSatisfy { $0.contains("'strange'") }, "\(bodies)")
    // It is tried again behind the others, and keeps no later one waiting.
    while !bodies.dropFirst(count).contains(where: { $0.contains("'strange'") }) {
      bodies.append(try sinks.next().body ?? "")
    }
    #expect(daemon.log.contains(" times, and others are taken"), "\(daemon.log)")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    while try sinks.next().body?.contains("'shop'") != true {}
    #expect(!daemon.log.contains("was given up"))
  }

  /// Somebody who has begun a restore and gone to bed hears how it went; nothing is open behind it.
  @Test func restoresAreTold() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    let (database, gate) = (try cluster.makeDatabase("shop", sample: 1), folder.file("gate"))
    let daemon = try Self.daemon(
      folder, connect: cluster.conninfo(database),
      """
      alerts: { on: [failure, success], webhook: { url: "\(sinks.url("ok"))" }, ping: { url: "\(sinks.url("ping"))" } }
      hooks: { before_restore: ["test ! -e \(gate)"] }
      """)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    _ = try sinks.next("ok")
    let (into, other) = (database + "_beside", database + "_other")
    defer { for name in [into, other] { _ = try? cluster.sql("postgres", "drop database if exists \"\(name)\"") } }
    #expect(try daemon.ctl("restore", "latest", "--into", into, "--force").status == 0)
    // And nothing between: what has just been made is not missed in a catalog that was read before.
    let told = try Self.json(try sinks.next("ok"))
    #expect((told["sentence"] as? String)?.hasSuffix(" into '\(into)' succeeded.") == true, "\(told)")
    try "".write(toFile: gate, atomically: true, encoding: .utf8)
    let second = try daemon.ctl("restore", "latest", "--into", other, "--force")
    #expect(second.status != 0, "\(second.output)\(second.errors)")
    let failed = try Self.json(try sinks.next("ok"))
    #expect(failed["kind"] as? String == "event" && failed["topic"] as? String == "failure", "\(failed)")
    #expect((failed["code"] as? String)?.hasPrefix("E-") == true && failed["next"] as? String != nil, "\(failed)")
  }

  /// `alert test` tells who took it, and why another did not; a refused file and a reload are told to who wants them.
  @Test func testsAndReloads() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    let connect = cluster.conninfo(try cluster.makeDatabase("shop"))
    let daemon = try Self.daemon(
      folder, connect: connect,
      """
      alerts:
        discord: { url: "\(sinks.url("fail", "token-secret-3"))" }
        channels:
          oncall: { kind: webhook, url: "\(sinks.url("ok"))", on: [reload, recovered] }
          mail: { kind: email, to: dba@example.org, smtp: "localhost:\(sinks.startTLS)", ca_file: \(sinks.authorityFile),
                  user: user, password: "pass word" }
      """)
    let tested = try daemon.ctl("alert", "test")
    #expect(tested.status == 10, "\(tested.output)\(tested.errors)")
    for line in ["oncall (webhook): took it", "mail (email): took it", "discord (discord): DID NOT TAKE IT", "500"] {
      #expect(tested.output.contains(line), "\(tested.output)")
    }
    #expect(!tested.output.contains("token-secret-3"))
    #expect(Set([try sinks.next().kind, try sinks.next().kind, try sinks.next().kind]) == ["http", "mail"])
    #expect(try daemon.ctl("alert", "test", "mail").status == 0)
    #expect(try sinks.next().user == "user")
    #expect(try daemon.ctl("alert", "test", "nobody").status == 6)

    let good = try String(contentsOfFile: daemon.configuration, encoding: .utf8)
    try (good + "nonsense: 1\n").write(toFile: daemon.configuration, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("reload").status != 0)
    let refused = try Self.json(try sinks.next("ok"))
    #expect(refused["kind"] as? String == "opened" && refused["code"] as? String == "E-CONFIG-INVALID")
    try good.write(toFile: daemon.configuration, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("reload").status == 0)
    let kinds = [try Self.json(try sinks.next("ok")), try Self.json(try sinks.next("ok"))].compactMap {
      $0["kind"] as? String
    }
    #expect(kinds.sorted() == ["event", "recovered"])
  }

  /// Hooks: one that fails before a run ends it, with its own words; those behind it see how it went.
  @Test func hooks() throws {
    let (folder, cluster) = (TemporaryFolder(), try PrivateCluster.shared())
    let (gate, out) = (folder.file("gate"), folder.file("out"))
    let daemon = try Self.daemon(
      folder, connect: cluster.conninfo(try cluster.makeDatabase("shop")),
      """
      hooks:
        before_backup: ["test -e \(gate) || { echo 'the gate is shut' >&2; exit 7; }"]
        after_backup: [["/bin/sh", "-c", "echo $PGBACKUPD_DATABASE $PGBACKUPD_RESULT $PGBACKUPD_BACKUP >> \(out); echo done"]]
      """)
    let refused = try daemon.ctl("backup", "shop")
    #expect(
      refused.status == 1 && refused.errors.contains("E-HOOK-FAILED") && refused.errors.contains("the gate is shut"))
    // What comes after runs in any case, and is told how it went.
    #expect(try String(contentsOfFile: out, encoding: .utf8) == "shop failed\n")
    try FileManager.default.removeItem(atPath: out)
    try "".write(toFile: gate, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let told = try String(contentsOfFile: out, encoding: .utf8)
    #expect(told.hasPrefix("shop succeeded shop/2"), "\(told)")
    #expect(daemon.log.contains("a hook has run") && daemon.log.contains("done"))
  }
}

extension AlertTests {
  /// A hook that outlasts its time is gone with its children, also where it does not listen; one that fails behind a run is a problem.
  @Test func badHooks() throws {
    let (folder, cluster) = (TemporaryFolder(), try PrivateCluster.shared())
    let (pid, gate) = (folder.file("pid"), folder.file("gate"))
    let daemon = try Self.daemon(
      folder, connect: cluster.conninfo(try cluster.makeDatabase("shop")),
      """
      hooks:
        timeout: 5s
        before_backup: [["/bin/sh", "-c", "trap '' TERM; test -e \(gate) && exit 0; sleep 900 & echo $! > \(pid); wait; wait"]]
        after_backup: ["test ! -e \(gate)"]
      """)
    let late = try daemon.ctl("backup", "shop")
    #expect(late.status == 1 && late.errors.contains("did not end within 5s"), "\(late.errors)")
    // Dead, and perhaps not buried yet.
    let child = try String(contentsOfFile: pid, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    let state = try Shell.run("ps", ["-o", "stat=", "-p", child]).output
    #expect(state.isEmpty || state.hasPrefix("Z"), "the hook's child lives on: \(state)")
    try "".write(toFile: gate, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let status = try daemon.ctl("status")
    #expect(status.status == 10 && status.output.contains("The hook 'after_backup' failed"), "\(status.output)")
  }
}

/// What takes minutes by the clock, beside all else.
@Suite(.waits) struct SlowAlertTests {
  /// A store that goes away between two runs is told within a minute or so, and its return too.
  @Test func aStoreThatGoesAwayIsTold() throws {
    let (folder, sinks, cluster) = (TemporaryFolder(), try Sinks(), try PrivateCluster.shared())
    mkdir(folder.file("store"), 0o700)
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase("shop")))" } }
      jobs: { manual: }
      stores: { local: { path: \(folder.file("store")) } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      alerts: { on: [failure, recovered], webhook: { url: "\(sinks.url("ok"))" } }
      """, in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    try FileManager.default.moveItem(atPath: folder.file("store"), toPath: folder.file("unplugged"))
    try "".write(toFile: folder.file("store"), atomically: true, encoding: .utf8)
    let asked = ContinuousClock.now
    let opened = try AlertTests.json(try sinks.next("ok"))
    #expect(opened["store"] as? String == "local" && ContinuousClock.now - asked < .seconds(180), "\(opened)")
    try FileManager.default.removeItem(atPath: folder.file("store"))
    try FileManager.default.moveItem(atPath: folder.file("unplugged"), toPath: folder.file("store"))
    while true {
      let next = try AlertTests.json(try sinks.next("ok"))
      guard next["id"] as? String == opened["id"] as? String else { continue }
      #expect(next["kind"] as? String == "recovered")
      break
    }
  }
}
