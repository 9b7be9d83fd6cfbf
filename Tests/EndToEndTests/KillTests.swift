import Foundation
import Glibc
import TestSupport
import Testing

/// The daemon is killed while one of its requests to an S3 server is on its way, whichever: nothing false is ever listed, what was
/// unfinished is finished or gone, and work goes on.
@Suite(.waits) struct KillTests {
  private final class Fixture {
    let folder = TemporaryFolder()
    let server: S3Server
    let proxy: FaultProxy
    let bucket: String
    private(set) var daemon: DaemonProcess
    private let configuration: String

    /// - Parameter stores: of the daily backups, of `local`, `offsite` and `other`.
    init(dailyTo stores: String) throws {
      (server, bucket) = (try .shared(), try S3Server.shared().makeBucket())
      proxy = try FaultProxy(to: server)
      let cluster = try PrivateCluster.shared()
      let database = try cluster.makeDatabase()
      // Three parts of an upload.
      try cluster.sql(
        database,
        "CREATE TABLE noise AS SELECT n, repeat(md5(n::text), 30) AS words FROM generate_series(1, 18000) AS n")
      mkdir(folder.file("local"), 0o700)
      let (server, bucket, endpoint) = (server, bucket, proxy.endpoint)
      func remote(_ prefix: String) -> String {
        server.configuration(bucket: bucket, prefix: prefix).replacing(server.endpoint, with: endpoint)
      }
      configuration = """
        databases: { shop: { connect: "\(cluster.conninfo(database))" } }
        stores: { local: { path: \(folder.file("local")) }, offsite: \(remote("one")), other: \(remote("two")) }
        jobs: { daily: { keep: 30d, stores: [\(stores)] } }
        backup: { compression: none }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
        """
      daemon = try DaemonProcess(configuration, in: folder)
      try daemon.waitFor("READY=1")
    }

    /// Kills the daemon at the request that the proxy is to hold, and starts it again.
    /// - Parameter arrives: the request comes through all the same.
    func killWhenHeld(arrives: Bool) throws -> String {
      let held = try #require(try proxy.waitUntilHeld())
      daemon.signal(SIGKILL)
      #expect(daemon.waitForExit() == -SIGKILL)
      if arrives { try proxy.release() } else { try proxy.drop() }
      daemon = try DaemonProcess(configuration, in: folder)
      try daemon.waitFor("READY=1")
      return "killed at '\(held)', which \(arrives ? "came through" : "did not")"
    }

    /// What is listed is whole, in each of its stores; nothing is left to do.
    func requireHealth(_ what: String) throws {
      let reconciled = try daemon.ctl("reconcile", "--apply")
      #expect(reconciled.status == 0, "\(what): \(reconciled.output)\(reconciled.errors)")
      let preview = try daemon.ctl("reconcile")
      #expect(preview.output.hasPrefix("Nothing to do."), "\(what): \(preview.output)")
      let listed = try #require(try daemon.ctlJSON("list") as? [[String: Any]])
      if !listed.isEmpty {
        let verified = try daemon.ctl("verify", "--all", "--level", "checksum")
        #expect(verified.status == 0, "\(what): \(verified.output)\(verified.errors)\n\(daemon.log.suffix(3000))")
      }
      #expect(folder.files(below: "local").allSatisfy { !$0.contains(".incoming") }, "\(what)")
    }

    /// The keys in the bucket, or of its unfinished uploads.
    func keys(_ query: String = "list-type=2") throws -> [String] {
      try server.request("GET", "/\(bucket)?\(query)").output.components(separatedBy: "<Key>").dropFirst()
        .map { String($0.prefix { $0 != "<" }) }
    }

    var manifests: [String] {
      get throws { try keys().filter { $0.hasSuffix("/manifest.json") } }
    }
  }

  @Test func inABackup() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed)
    let fixture = try Fixture(dailyTo: "local, offsite")
    let backup = ["backup", "shop", "--type", "daily"]
    try fixture.proxy.plan(.none)
    #expect(try fixture.daemon.ctl(backup).status == 0)
    let count = try fixture.proxy.requests().count
    #expect(count > 20)

    // The object is completed; a backup is committed; and anywhere.
    let completion = ("POST .*uploadId=", 0)
    let commit = ("PUT .*manifest.json$", 0)
    let rounds = [completion, commit] + (0..<3).map { _ in ("", Int.random(in: 0..<count - 3, using: &random)) }
    for (number, (pattern, position)) in rounds.enumerated() {
      try fixture.proxy.plan(.hold, at: position, of: pattern)
      #expect(try fixture.daemon.ctl(backup + ["--no-wait"]).status == 0)
      let what = try "seed \(seed), round \(number), " + fixture.killWhenHeld(arrives: .random(using: &random))
      try fixture.proxy.plan(.none)
      try fixture.requireHealth(what)
      let before = try fixture.manifests.count
      let again = try fixture.daemon.ctl(backup)
      #expect(again.status == 0, "\(what): \(again.errors)")
      #expect(try fixture.manifests.count == before + 1, "\(what)")
      // A killed run's upload shows nowhere, and is given up when it is a day old: there is one at most.
      let unfinished = try fixture.keys("uploads=")
      #expect(unfinished.count <= number + 1, "\(what): \(unfinished)")
    }
    try fixture.requireHealth("seed \(seed), at the end")
  }

  /// What is half gone goes, what is not begun stays, and neither is told to be lost.
  @Test func inADeletion() throws {
    let fixture = try Fixture(dailyTo: "offsite")
    for (position, arrives) in [(0, false), (0, true), (1, false), (3, true)] {
      #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
      let id = try #require((try fixture.daemon.ctlJSON("list") as? [[String: Any]])?.first?["id"] as? String)
      let all = try fixture.keys()
      #expect(all.count == 6)
      try fixture.proxy.plan(.hold, at: position, of: "^DELETE")
      let command = try ChildProcess(
        DaemonProcess.program("pgbackupctl"), ["delete", id, "--force"],
        environment: ["PGBACKUPD_SOCKET": fixture.daemon.socket])
      let what = try "\(position): " + fixture.killWhenHeld(arrives: arrives)
      #expect(command.wait() != 0)
      try fixture.proxy.plan(.none)
      try fixture.requireHealth(what)
      let isBegun = position > 0 || arrives
      #expect(try fixture.keys() == (isBegun ? [] : all), "\(what)")
      let status = try fixture.daemon.ctl("status")
      #expect(!status.output.contains("E-BACKUP-MISSING"), "\(what): \(status.output)")
      if !isBegun { #expect(try fixture.daemon.ctl("delete", id, "--force").status == 0) }
    }
  }

  /// From a disk into a bucket, and into a second place in it.
  @Test func inACopy() throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed)
    let fixture = try Fixture(dailyTo: "local, offsite, other")
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    // What the end of the run has begun is over then.
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    let all = try fixture.keys()
    #expect(all.count == 12)
    let local = fixture.folder.files(below: "local")

    for key in all { try fixture.server.request("DELETE", "/\(fixture.bucket)/\(key)") }
    try fixture.proxy.plan(.none)
    let copied = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(copied.status == 0, "\(copied.output)")
    let count = try fixture.proxy.requests().count
    #expect(count > 40, "\(copied.output)")
    let rounds =
      [("POST .*uploadId=", 0), ("PUT .*manifest.json$", 1)]
      + (0..<4).map { _ in ("", Int.random(in: 0..<count / 4 * 3, using: &random)) }
    for (number, (pattern, position)) in rounds.enumerated() {
      for key in all { try fixture.server.request("DELETE", "/\(fixture.bucket)/\(key)") }
      try fixture.proxy.plan(.hold, at: position, of: pattern)
      let command = try ChildProcess(
        DaemonProcess.program("pgbackupctl"), ["reconcile", "--apply"],
        environment: ["PGBACKUPD_SOCKET": fixture.daemon.socket])
      let what = try "seed \(seed), round \(number), " + fixture.killWhenHeld(arrives: .random(using: &random))
      #expect(command.wait() != 0)
      try fixture.proxy.plan(.none)
      try fixture.requireHealth(what)
      #expect(try fixture.keys() == all, "\(what)")
      // What no part has come of is not gone on with; there is one for each store at most.
      let unfinished = try fixture.keys("uploads=")
      #expect(unfinished.count <= 2 * (number + 1), "\(what): \(unfinished)")
      #expect(fixture.folder.files(below: "local") == local, "\(what)")
    }
  }
}

extension DaemonProcess {
  fileprivate func ctl(_ arguments: [String]) throws -> Shell.Result {
    try Shell.run(Self.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": socket])
  }
}
