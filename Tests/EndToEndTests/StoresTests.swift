import Foundation
import Glibc
import TestSupport
import Testing

/// Several stores, a real S3 server among them, and how they find together again.
@Suite(.waits) struct StoresTests {
  private struct Fixture {
    let daemon: DaemonProcess
    let folder: TemporaryFolder
    let cluster: PrivateCluster
    let server: S3Server
    let bucket: String

    /// The stores that a backup is whole in, by `list`.
    func stores(_ position: Int = 0) throws -> [String] {
      let backups = try #require(try daemon.ctlJSON("list") as? [[String: Any]])
      return (backups[position]["stores"] as? [String] ?? []).sorted()
    }

    /// Waits until so many parts of an unfinished upload are there.
    func waitForParts(_ count: Int) throws {
      try eventually("\(count) parts are there") {
        let uploads = try server.request("GET", "/\(bucket)?uploads=").output
        if let key = Self.text("Key", in: uploads), let id = Self.text("UploadId", in: uploads) {
          let parts = try server.request("GET", "/\(bucket)/\(key)?uploadId=\(id)").output
          if parts.components(separatedBy: "<PartNumber>").count > count { return true }
        }
        guard try objects().isEmpty else { throw Shell.Failure(description: "the upload was over too soon") }
        return false
      }
    }

    private static func text(_ name: String, in xml: String) -> String? {
      xml.components(separatedBy: "<\(name)>").dropFirst().first.map { String($0.prefix { $0 != "<" }) }
    }

    func objects() throws -> [String] { try server.keys(in: bucket, prefix: "prod") }
  }

  private func start(
    jobs: String = "daily: { stores: [local, offsite] }", more: String = "", endpoint: String? = nil,
    environment: [String: String] = [:], scale: Int = 1, localToo: Bool = true
  ) throws -> Fixture {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    mkdir(folder.file("local"), 0o700)
    var store = server.configuration(bucket: bucket, prefix: "prod")
    // A slow disk sets the pace for all; a slow line would be waited for by nobody.
    let limit = scale > 1 ? ", rate_limit: 2MiB/s" : ""
    if !localToo { store = store.replacing("} }", with: "}\(limit) }") }
    if let endpoint { store = store.replacing(server.endpoint, with: endpoint) }
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase(sample: scale)))" } }
      stores: { local: { path: \(folder.file("local"))\(localToo ? limit : "") }, offsite: \(store) }
      jobs: { \(jobs) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(more)
      """, in: folder, environment: environment)
    try daemon.waitFor("READY=1")
    return Fixture(daemon: daemon, folder: folder, cluster: cluster, server: server, bucket: bucket)
  }

  /// One run fills both stores with the same bytes; what lies in S3 opens with curl, zstd and pg_restore.
  @Test func localAndOffsite() throws {
    let fixture = try start()
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try fixture.stores() == ["local", "offsite"])
    let keys = try fixture.objects()
    #expect(keys.count == 6)
    for key in keys {
      let copy = fixture.folder.file("copy")
      #expect(try fixture.server.request("GET", "/\(fixture.bucket)/\(key)", ["-o", copy]).status == 0)
      let local = fixture.folder.file("local/\(key.dropFirst("prod/".count))")
      #expect(try Shell.run("cmp", [copy, local]).status == 0)
      if key.hasSuffix(".dump.zst") {
        #expect(
          try Shell.must("sh", ["-c", "zstd -dc '\(copy)' | \(fixture.cluster.binaries)/pg_restore --list"]).contains(
            "users"))
      }
    }
    let status = try fixture.daemon.ctl("status")
    #expect(status.output.contains("s3://\(fixture.bucket)/prod at https://localhost"))
    #expect(status.output.contains("no problems"))
    #expect(!fixture.daemon.log.contains(S3Server.secretKey))
  }

  /// Backups for S3 alone leave no file on the disk.
  @Test func straightThrough() throws {
    let fixture = try start(jobs: "monthly: { stores: [offsite] }")
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "monthly").status == 0)
    #expect(try fixture.stores() == ["offsite"])
    #expect(fixture.folder.files(below: "local").isEmpty)
    #expect(fixture.folder.files(below: "state").allSatisfy { !$0.contains("dump") })
    #expect(try fixture.daemon.ctl("contents", "latest").output.contains("portal.users"))
    #expect(try fixture.daemon.ctl("delete", "shop/latest", "--force").status == 0)
    #expect(try fixture.objects().isEmpty)
  }

  /// Whatever is missing or damaged in one store comes back from the other.
  @Test func whatIsLostIsRepaired() throws {
    let fixture = try start()
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    // What the end of the run has begun is over then.
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    let all = try fixture.objects()
    let local = { (key: String) in fixture.folder.file("local/\(key.dropFirst("prod/".count))") }
    let dump = try #require(all.first { $0.hasSuffix(".dump.zst") })
    let whole = try Data(contentsOf: URL(filePath: local(dump)))

    func reconcile() throws -> String {
      let preview = try fixture.daemon.ctl("reconcile")
      #expect(preview.output.contains("copy shop/"))
      let done = try fixture.daemon.ctl("reconcile", "--apply")
      #expect(done.status == 0, "\(done.output)")
      #expect(try fixture.daemon.ctl("reconcile").output.hasPrefix("Nothing to do."))
      #expect(try fixture.stores() == ["local", "offsite"])
      #expect(try fixture.objects() == all)
      #expect(try Data(contentsOf: URL(filePath: local(dump))) == whole)
      return done.output
    }
    // An object is lost, a manifest is lost, all of it is lost.
    for lost in [all.filter { $0.hasSuffix(".dump.zst") }, all.filter { $0.hasSuffix("manifest.json") }, all] {
      for key in lost { #expect(try fixture.server.request("DELETE", "/\(fixture.bucket)/\(key)").status == 0) }
      _ = try reconcile()
    }
    // A signature that is taken away makes a manifest worth nothing; so does none from the beginning.
    let signature = try #require(all.first { $0.hasSuffix(".sig") })
    #expect(try fixture.server.request("DELETE", "/\(fixture.bucket)/\(signature)").status == 0)
    #expect(try fixture.daemon.ctl("status").output.contains("is not signed"))
    #expect(try reconcile().contains("not signed"))
    // Shorter than it was; forged; gone.
    #expect(truncate(local(dump), 1000) == 0)
    #expect(try reconcile().contains("not whole there"))
    let manifest = try #require(all.first { $0.hasSuffix("manifest.json") })
    try Shell.must("sed", ["-i", "s/\"rows\" *: *[0-9]*/\"rows\": 7/", local(manifest)])
    #expect(try reconcile().contains("forged"))
    try Shell.must("rm", ["-r", fixture.folder.file("local/shop")])
    _ = try reconcile()

    // A byte is changed in the only other copy: that is noticed on the way, and nothing false is copied.
    for key in all { #expect(try fixture.server.request("DELETE", "/\(fixture.bucket)/\(key)").status == 0) }
    let file = open(local(dump), O_RDWR)
    var byte: UInt8 = 0
    #expect(pread(file, &byte, 1, 500) == 1)
    byte ^= 1
    #expect(pwrite(file, &byte, 1, 500) == 1)
    close(file)
    let failed = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(failed.status == 1)
    #expect(failed.output.contains("SHA-256 differs"))
    #expect(try fixture.objects().allSatisfy { !$0.hasSuffix("manifest.json") })
    let status = try fixture.daemon.ctl("status")
    #expect(status.status == 10)
    let ledger = try fixture.daemon.ctl("log").output
    #expect(ledger.contains("backup.copied"))
  }

  /// The S3 server is away while the backup runs: the local copy is made all the same, and the other one when it is back.
  @Test func anOutageHeals() throws {
    let server = try S3Server.shared()
    let folder = TemporaryFolder()
    let proxy = try PortForwarder(to: server.port, in: folder)
    let fixture = try start(
      more: "objectives: { quorum: 2 }", endpoint: "https://localhost:\(proxy.port)",
      environment: ["WATCHDOG_USEC": "1500000"])
    proxy.stop()
    let run = try fixture.daemon.ctl("backup", "shop", "--type", "daily")
    #expect(run.status == 0)
    #expect(run.output.contains("E-STORE-UNREACHABLE") || run.errors.contains("E-STORE-UNREACHABLE"))
    #expect(try fixture.stores() == ["local"])
    let status = try fixture.daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("1 of 2 stores"))
    let blind = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(blind.status == 10)
    #expect(blind.output.contains("could not be read"))
    try proxy.restart()
    let healed = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(healed.status == 0, "\(healed.output)\n\(proxy.report)")
    #expect(try fixture.stores() == ["local", "offsite"], "\(healed.output)\n\(fixture.daemon.log)")
    #expect(try fixture.daemon.ctl("status").status == 0)
  }

  /// The daemon is killed while parts are on their way: nothing false is there afterwards, and the next run is whole.
  @Test(arguments: [1, 3]) func killedInMidUpload(_ parts: Int) throws {
    let fixture = try start(jobs: "daily: { stores: [local, offsite] }", more: Self.slow, scale: 10)
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily", "--no-wait").status == 0)
    try fixture.waitForParts(parts)
    fixture.daemon.signal(SIGKILL)
    #expect(fixture.daemon.waitForExit() == -SIGKILL)
    #expect(try fixture.objects().isEmpty)

    let configuration = try String(contentsOfFile: fixture.folder.file("pgbackupd.yaml"), encoding: .utf8)
    let again = try DaemonProcess(configuration.replacing(", rate_limit: 2MiB/s", with: ""), in: fixture.folder)
    try again.waitFor("READY=1")
    #expect(try again.ctl("log").output.contains("interrupted"))
    #expect(try again.ctlJSON("list") as? [String] == [])
    #expect(try again.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try again.ctl("reconcile").output.hasPrefix("Nothing to do."))
    let (all, offsite) = (fixture.folder.files(below: "local").map { "prod/\($0)" }, try fixture.objects())
    // The local file of the first run may have been whole already: without a manifest it is no backup.
    let local = all.filter { file in
      all.contains(file.prefix(upTo: file.lastIndex(of: "/") ?? file.startIndex) + "/manifest.json")
    }
    #expect(local == offsite, "\(all)\nand \(offsite)")
  }

  /// The server goes away while parts are on their way: the run ends well with the local copy, and the other comes later.
  @Test func theServerGoesInMidUpload() throws {
    let folder = TemporaryFolder()
    let proxy = try PortForwarder(to: S3Server.shared().port, in: folder)
    let fixture = try start(
      jobs: "daily: { stores: [local, offsite] }", more: Self.slow, endpoint: "https://localhost:\(proxy.port)",
      scale: 10)
    let ledger = try fixture.daemon.followLedger()
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily", "--no-wait").status == 0)
    try fixture.waitForParts(1)
    proxy.stop()
    let line = try ledger.wait(for: "run.finished")
    #expect(line.contains("succeeded"))
    #expect(line.contains("E-STORE-UNREACHABLE"))
    #expect(try fixture.stores() == ["local"])
    try proxy.restart()
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.stores() == ["local", "offsite"])
  }

  /// A slow line holds up neither the dump nor its quorum's peace: the copy is made beside, and told while it is made.
  @Test func theSlowLineComesAfterwards() throws {
    let fixture = try start(more: Self.slow + "\nobjectives: { quorum: 2 }", scale: 10, localToo: false)
    let ledger = try fixture.daemon.followLedger()
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try ledger.wait(for: "run.finished").contains("\"stores_later\":\"offsite\""))
    // Whether the copy is still on its way or there: nothing is missed.
    let status = try fixture.daemon.ctl("status")
    #expect(status.status == 0, "\(status.output)")
    #expect(try ledger.wait(for: "backup.copied").contains("\"from\":\"local\""))
    #expect(try fixture.stores() == ["local", "offsite"])
  }

  /// Uncompressed, several parts, at a pace that leaves time to break things.
  private static let slow = "backup: { compression: none }"

  /// Without anybody asking: the stores are looked at every so often.
  @Test func storesConvergeByThemselves() throws {
    let fixture = try start(environment: ["WATCHDOG_USEC": "1500000"])
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    let all = try fixture.objects()
    let text = try String(contentsOfFile: fixture.folder.file("pgbackupd.yaml"), encoding: .utf8)
    _ = try fixture.folder.write(
      "pgbackupd.yaml", text.replacing("control.sock }", with: "control.sock, reconcile_every: 1s }"))
    for key in all { #expect(try fixture.server.request("DELETE", "/\(fixture.bucket)/\(key)").status == 0) }
    let ledger = try fixture.daemon.followLedger()
    #expect(try fixture.daemon.ctl("reload").status == 0)
    try ledger.wait(for: "backup.copied", #""store":"offsite""#)
    // A copy that was going on while they vanished may have taken some for there: the next one brings those.
    try eventually("all is there again: \(ledger.seen.joined(separator: "\n"))") { try fixture.objects() == all }
  }
}
