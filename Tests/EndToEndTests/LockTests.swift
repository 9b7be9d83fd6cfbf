import Foundation
import Glibc
import TestSupport
import Testing
import Units

/// Object Lock over the life of a backup: a retention that is made longer makes its locks longer.
@Suite struct LockTests {
  @Test func locksFollowTheRetention() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let server = try S3Server.shared()
    let bucket = try server.makeBucket(withLock: true)
    let database = try cluster.makeDatabase("shop", sample: 1)
    func configuration(keep: String, lock: String) -> String {
      let store = server.configuration(bucket: bucket, prefix: "prod").replacing(" } }", with: "\(lock) } }")
      return """
        databases: { shop: { connect: "\(cluster.conninfo(database))" } }
        stores: { offsite: \(store) }
        jobs: { daily: { keep: \(keep) } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """
    }
    let daemon = try DaemonProcess(configuration(keep: "2d", lock: ", lock: governance"), in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    let keys = try server.request("GET", "/\(bucket)?list-type=2&prefix=prod").output.components(separatedBy: "<Key>")
      .dropFirst().map { String($0.prefix { $0 != "<" }) }
    #expect(keys.count >= 6, "\(keys)")
    let id = try #require((try daemon.ctlJSON("list") as? [[String: Any]])?.first?["id"] as? String)
    let time = try #require(Date(stamp: String(id.suffix(16))))
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
    #expect(try days() == [2])
    #expect(try daemon.ctl("reconcile").output.contains("Nothing to do"))

    func change(_ keep: String) throws {
      try configuration(keep: keep, lock: ", lock: governance").write(
        toFile: folder.file("pgbackupd.yaml"), atomically: true, encoding: .utf8)
      #expect(try daemon.ctl("reload").status == 0)
    }
    try change("30d")
    let ledger = try daemon.followLedger()
    // By this one, or by the daemon's own a moment before.
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    try ledger.wait(for: "backup.locked", "locked there until")
    #expect(try days() == [30])
    #expect(try daemon.ctl("reconcile").output.contains("Nothing to do"))
    try change("40d")
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try days() == [40])
    // A shorter one shortens none: that is what a lock is for.
    try change("1d")
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try days() == [40])
    // What is locked can't expire, and that is no trouble.
    #expect(try daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try daemon.ctl("status").output.contains("no problems"))
    #expect(try days() == [40])
  }

  /// A manifest is lost, and the copy that mends it finds the other files there, locked for a shorter time.
  @Test func whatARepairFindsIsLockedToo() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let server = try S3Server.shared()
    let bucket = try server.makeBucket(withLock: true)
    let database = try cluster.makeDatabase("shop", sample: 1)
    mkdir(folder.file("local"), 0o700)
    func configuration(keep: String) -> String {
      let store = server.configuration(bucket: bucket, prefix: "prod").replacing(" } }", with: ", lock: governance } }")
      return """
        databases: { shop: { connect: "\(cluster.conninfo(database))" } }
        stores: { local: { path: \(folder.file("local")) }, offsite: \(store) }
        jobs: { daily: { keep: \(keep) } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """
    }
    let daemon = try DaemonProcess(configuration(keep: "2d"), in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    let keys = try server.request("GET", "/\(bucket)?list-type=2&prefix=prod").output.components(separatedBy: "<Key>")
      .dropFirst().map { String($0.prefix { $0 != "<" }) }
    let manifest = try #require(keys.first { $0.hasSuffix("manifest.json") })
    #expect(try server.request("DELETE", "/\(bucket)/\(manifest)").status == 0)
    try configuration(keep: "30d").write(toFile: folder.file("pgbackupd.yaml"), atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("reload").status == 0)
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    let id = try #require((try daemon.ctlJSON("list") as? [[String: Any]])?.first?["id"] as? String)
    let time = try #require(Date(stamp: String(id.suffix(16))))
    for key in keys {
      let told = try server.request("GET", "/\(bucket)/\(key)?retention=").output
      let text = told.components(separatedBy: "<RetainUntilDate>").dropFirst().first?.prefix { $0 != "<" }
      let end = try #require(text.flatMap { Date(rfc3339: String($0)) }, "\(key): \(told)")
      #expect(end.timeIntervalSince(time) / 86_400 == 30, "\(key)")
    }
  }
}
