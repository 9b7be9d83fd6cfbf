import Foundation
import Glibc
import TestSupport
import Testing

/// A store that answers with an old state: the newest backup is there, and it does not show it.
@Suite(.waits) struct WithheldTests {
  private struct Fixture {
    let daemon: DaemonProcess
    let folder: TemporaryFolder
    /// The oldest first.
    let ids: [String]

    init() throws {
      let (folder, cluster) = (TemporaryFolder(), try PrivateCluster.shared())
      self.folder = folder
      for name in ["one", "two", "hidden"] { mkdir(folder.file(name), 0o700) }
      daemon = try DaemonProcess(
        """
        databases: { shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase("shop", sample: 1)))" } }
        stores: { one: { path: \(folder.file("one")) }, two: { path: \(folder.file("two")) } }
        jobs: { manual: }
        alerts: { command: { run: "cat >>\(folder.file("alerts"))" } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """, in: folder)
      try daemon.waitFor("READY=1")
      for _ in 0..<2 { #expect(try daemon.ctl("backup", "shop").status == 0) }
      // What the runs' ends have begun is over then.
      #expect(try daemon.ctl("reconcile", "--apply").status == 0)
      ids = try #require(try daemon.ctlJSON("list") as? [[String: Any]]).compactMap { $0["id"] as? String }.sorted()
    }

    var newest: String { ids[1] }

    /// From now on the store shows its state of before the last backup.
    func withhold(in store: String) throws {
      let stamp = newest.dropFirst("shop/".count)
      try Shell.must("mv", [folder.file("\(store)/shop/manual/\(stamp)"), folder.file("hidden/\(store)")])
    }

    func show(in store: String) throws {
      let stamp = newest.dropFirst("shop/".count)
      try Shell.must("mv", [folder.file("hidden/\(store)"), folder.file("\(store)/shop/manual/\(stamp)")])
    }

    func alerts() -> String { (try? String(contentsOfFile: folder.file("alerts"), encoding: .utf8)) ?? "" }
  }

  /// The other store and the ledger know better: `status` says so under a code of its own, and somebody is called.
  @Test func aStoreThatIsBehindIsTold() throws {
    let fixture = try Fixture()
    #expect(try fixture.daemon.ctl("status").status == 0)
    try fixture.withhold(in: "one")
    let status = try fixture.daemon.ctl("status")
    #expect(status.status == 10, "\(status.output)")
    #expect(status.output.contains("E-STORE-STALE: Store 'one' does not show \(fixture.newest)"), "\(status.output)")
    #expect(status.output.contains("its newest is \(fixture.ids[0])"), "\(status.output)")
    #expect(try fixture.daemon.ctl("check").output.contains("E-STORE-STALE"))
    // A reload looks at what is wrong as each minute does.
    #expect(try fixture.daemon.ctl("reload").status == 0)
    try eventually("somebody is called") { fixture.alerts().contains("E-STORE-STALE") }
    // The newest still comes from the other.
    let preview = try fixture.daemon.ctl("restore", "shop/latest", "--into", "copy", "--preview")
    #expect(preview.output.contains(fixture.newest) && !preview.output.contains("E-BACKUP-NEWER"))

    // A client that has both stores and nothing else says so too.
    let alone = try fixture.daemon.ctl(
      "list", "--standalone", "--store", fixture.folder.file("one"), "--store", fixture.folder.file("two"))
    #expect(alone.output.contains(fixture.newest))
    #expect(alone.errors.contains("\(fixture.folder.file("one")) does not show \(fixture.newest)"), "\(alone.errors)")
    // From that store alone nobody can know: nothing that is signed says that nothing came later.
    let blind = try fixture.daemon.ctl("list", "--standalone", "--store", fixture.folder.file("one"))
    #expect(!blind.output.contains(fixture.newest) && blind.errors.isEmpty, "\(blind.errors)")

    try fixture.show(in: "one")
    #expect(try fixture.daemon.ctl("status").status == 0)
  }

  /// It was deleted, for a reason perhaps. A store that shows it again gives it to no other, and is told.
  @Test func whatWasDeletedDoesNotComeBack() throws {
    let fixture = try Fixture()
    let place = "two/shop/manual/\(fixture.newest.dropFirst("shop/".count))"
    try Shell.must("cp", ["-a", fixture.folder.file(place), fixture.folder.file("hidden/copy")])
    #expect(try fixture.daemon.ctl("delete", fixture.newest, "--force").status == 0)
    #expect(try fixture.daemon.ctl("status").status == 0)
    try Shell.must("mv", [fixture.folder.file("hidden/copy"), fixture.folder.file(place)])
    let plan = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(!plan.output.contains("copy \(fixture.newest)"), "\(plan.output)")
    #expect(fixture.folder.files(below: "one").filter { $0.contains(fixture.newest.suffix(16)) } == [])
    let status = try fixture.daemon.ctl("status")
    #expect(status.status == 10)
    #expect(
      status.output.contains("E-STORE-STALE: Store 'two' shows \(fixture.newest) again, which was deleted there on"),
      "\(status.output)")
    // Somebody may want it after all.
    #expect(try fixture.daemon.ctl("pin", fixture.newest).status == 0)
    #expect(try fixture.daemon.ctl("status").status == 0)
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(fixture.folder.files(below: "one").contains { $0.contains(fixture.newest.suffix(16)) })
  }

  /// Nobody signs a pin: one that this daemon has not set is told, and holds what it lies beside.
  @Test func aPinOfNobodyIsTold() throws {
    let fixture = try Fixture()
    let place = "two/shop/manual/\(fixture.ids[0].dropFirst("shop/".count))"
    _ = try fixture.folder.write(
      "\(place)/pin.json",
      "{\"format\":\"pgbackupd-pin\",\"version\":\"1.0\",\"since\":\"2026-11-20T14:00:00Z\",\"by\":\"uid 0\\u001b[2J\"}"
    )
    let status = try fixture.daemon.ctl("status")
    #expect(
      status.status == 10 && status.output.contains("E-PIN-UNKNOWN: \(fixture.ids[0]) is pinned"), "\(status.output)")
    #expect(!status.output.contains("\u{1B}[2J"))
    #expect(try fixture.daemon.ctl("unpin", fixture.ids[0]).status == 0)
    #expect(try fixture.daemon.ctl("status").status == 0)
    #expect(try fixture.daemon.ctl("pin", fixture.ids[0]).status == 0)
    #expect(try fixture.daemon.ctl("status").status == 0)
  }

  /// Withheld by all: the older one is not taken for the newest without a word, before and after.
  @Test func theOlderOneIsNotTakenSilently() throws {
    let fixture = try Fixture()
    for store in ["one", "two"] { try fixture.withhold(in: store) }
    let status = try fixture.daemon.ctl("status")
    #expect(status.output.contains("E-BACKUP-MISSING: \(fixture.newest) was made"), "\(status.output)")
    let word = "E-BACKUP-NEWER: A newer backup than \(fixture.ids[0]) was made"
    let preview = try fixture.daemon.ctl("restore", "shop/latest", "--into", "withheld_copy", "--preview")
    #expect(preview.status == 0 && preview.output.contains("but: \(word)"), "\(preview.output)\(preview.errors)")
    #expect(preview.output.contains(fixture.newest) && preview.output.contains("by the ledger it lies in one, two"))
    let done = try fixture.daemon.ctl("restore", "shop/latest", "--into", "withheld_copy", "--force")
    #expect(done.status == 0 && (done.output + done.errors).contains(word), "\(done.output)\(done.errors)")
    // One that is truncated is withheld as well.
    for store in ["one", "two"] { try fixture.show(in: store) }
    let clean = try fixture.daemon.ctl("restore", "shop/latest", "--into", "x", "--preview")
    #expect(clean.output.contains(fixture.newest) && !clean.output.contains("E-BACKUP-NEWER"), "\(clean.output)")
    for store in ["one", "two"] {
      let file = try #require(
        fixture.folder.files(below: store).first {
          $0.hasSuffix(".dump.zst") && $0.contains(fixture.newest.dropFirst("shop/".count))
        })
      #expect(truncate(fixture.folder.file("\(store)/\(file)"), 100) == 0)
    }
    for arguments in [
      ["restore", "shop/latest", "--into", "x", "--preview"],
      [
        "restore", "shop/latest", "--preview", "--into", "x", "--standalone", "--config", fixture.daemon.configuration,
        "--trust", fixture.folder.file("state/signing.pub"),
      ],
    ] {
      let damaged = try Shell.run(
        DaemonProcess.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": fixture.daemon.socket])
      #expect(damaged.output.contains("A newer backup than \(fixture.ids[0]) can't be used"), "\(damaged)")
    }
  }
}
