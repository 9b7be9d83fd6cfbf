import Foundation
import Glibc
import TestSupport
import Testing
import Units

/// Object Lock over the life of a backup: a retention that is made longer makes its locks longer.
@Suite(.waits) struct LockTests {
  /// A daemon with one backup, which is kept for two days, in a bucket that locks.
  private struct Fixture {
    let folder = TemporaryFolder()
    let server: S3Server
    let bucket: String
    let daemon: DaemonProcess
    /// Of the backup's files in the bucket.
    let keys: [String]
    /// Of the backup.
    private let time: Date
    private let configuration: (_ keep: String) -> String

    /// - Parameter localToo: whether a store on the disk has what is lost in the bucket.
    init(localToo: Bool = false) throws {
      let cluster = try PrivateCluster.shared()
      let database = try cluster.makeDatabase("shop", sample: 1)
      server = try S3Server.shared()
      bucket = try server.makeBucket(withLock: true)
      mkdir(folder.file("local"), 0o700)
      let local = localToo ? "local: { path: \(folder.file("local")) }, " : ""
      let store = server.configuration(bucket: bucket, prefix: "prod").replacing(" } }", with: ", lock: governance } }")
      let folder = folder
      configuration = { keep in
        """
        databases: { shop: { connect: "\(cluster.conninfo(database))" } }
        stores: { \(local)offsite: \(store) }
        jobs: { daily: { keep: \(keep) } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """
      }
      daemon = try DaemonProcess(configuration("2d"), in: folder)
      try daemon.waitFor("READY=1")
      #expect(try daemon.ctl("backup", "shop", "--type", "daily").status == 0)
      keys = try server.keys(in: bucket, prefix: "prod")
      #expect(keys.count >= 6, "\(keys)")
      let id = try #require((try daemon.ctlJSON("list") as? [[String: Any]])?.first?["id"] as? String)
      time = try #require(Date(stamp: String(id.suffix(16))))
    }

    func keep(_ keep: String) throws {
      try configuration(keep).write(toFile: folder.file("pgbackupd.yaml"), atomically: true, encoding: .utf8)
      #expect(try daemon.ctl("reload").status == 0)
    }

    /// Another daemon on the same state, so many hours later.
    func startAgain(keep: String, hours: Int64) throws -> DaemonProcess {
      let clock = ShiftedClock(in: folder)
      try clock.shift(by: hours * 3600)
      let daemon = try DaemonProcess(configuration(keep), in: folder, environment: clock.environment())
      try daemon.waitFor("READY=1")
      return daemon
    }

    /// How long after its snapshot each of its files is locked, in days.
    func days() throws -> Set<Double> {
      var found: Set<Double> = []
      for key in keys {
        let told = try server.request("GET", "/\(bucket)/\(key)?retention=").output
        let text = told.components(separatedBy: "<RetainUntilDate>").dropFirst().first?.prefix { $0 != "<" }
        let end = try #require(text.flatMap { Date(rfc3339: String($0)) }, "\(key): \(told)")
        found.insert(end.timeIntervalSince(time) / 86_400)
      }
      return found
    }
  }

  @Test func locksFollowTheRetention() throws {
    let fixture = try Fixture()
    let daemon = fixture.daemon
    #expect(try fixture.days() == [2])
    #expect(try daemon.ctl("reconcile").output.contains("Nothing to do"))

    try fixture.keep("30d")
    let ledger = try daemon.followLedger()
    // By this one, or by the daemon's own a moment before.
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    try ledger.wait(for: "backup.locked", "locked there until")
    #expect(try fixture.days() == [30])
    #expect(try daemon.ctl("reconcile").output.contains("Nothing to do"))
    try fixture.keep("40d")
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.days() == [40])
    // A shorter one shortens none: that is what a lock is for.
    try fixture.keep("1d")
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.days() == [40])
    // What is locked can't expire, and that is no trouble.
    #expect(try daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    let status = try daemon.ctl("status").output
    #expect(status.contains("no problems"), "\(status)")
    #expect(try fixture.days() == [40])
  }

  /// A daemon that has just begun knows of no lock, and takes none for ended: also where the retention is a shorter one by now.
  @Test func aRestartForgetsNoLock() throws {
    let fixture = try Fixture()
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    fixture.daemon.signal(SIGTERM)
    #expect(fixture.daemon.waitForExit() == 0)
    let later = try fixture.startAgain(keep: "1h", hours: 3)
    #expect(try later.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try later.ctl("reconcile", "--apply").status == 0)
    #expect((try later.ctlJSON("list") as? [Any])?.count == 3)
    #expect(try fixture.days() == [2])
    #expect(try later.ctl("status").output.contains("no problems"))
  }

  /// A manifest is lost, and the copy that mends it finds the other files there, locked for a shorter time.
  @Test func whatARepairFindsIsLockedToo() throws {
    let fixture = try Fixture(localToo: true)
    let manifest = try #require(fixture.keys.first { $0.hasSuffix("manifest.json") })
    #expect(try fixture.server.request("DELETE", "/\(fixture.bucket)/\(manifest)").status == 0)
    try fixture.keep("30d")
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.days() == [30])
  }
}
