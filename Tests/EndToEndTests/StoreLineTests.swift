import Foundation
import Glibc
import TestSupport
import Testing

/// The way to an S3 server: proxies, rights that are missing, and lines that hang.
@Suite(.waits) struct StoreLineTests {
  private struct Fixture {
    let folder: TemporaryFolder
    let server: S3Server
    let bucket: String
    let daemon: DaemonProcess

    func keys() throws -> [String] { try server.keys(in: bucket) }

    func lose(_ isLost: (String) -> Bool = { _ in true }) throws {
      for key in try keys().filter(isLost) {
        #expect(try server.request("DELETE", "/\(bucket)/\(key)").status == 0)
      }
    }
  }

  /// - Parameters:
  ///   - more: words of the store's section.
  ///   - others: more stores.
  private func start(
    _ more: String = "", endpoint: String? = nil, others: (S3Server, String) -> String = { _, _ in "" },
    stores: String = "offsite", environment: [String: String] = [:], rows: Int = 10,
    folder: TemporaryFolder = TemporaryFolder()
  ) throws -> Fixture {
    let cluster = try PrivateCluster.shared()
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    let database = try cluster.makeDatabase()
    try cluster.sql(
      database,
      "CREATE TABLE noise AS SELECT n, repeat(md5(n::text), 30) AS words FROM generate_series(1, \(rows)) AS n")
    mkdir(folder.file("local"), 0o700)
    let store = server.configuration(bucket: bucket, prefix: "one").replacing("} }", with: "\(more) } }")
      .replacing(server.endpoint, with: endpoint ?? server.endpoint)
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))" } }
      stores: { local: { path: \(folder.file("local")) }, offsite: \(store)\(others(server, bucket)) }
      jobs: { daily: { keep: 30d, stores: [\(stores)] } }
      backup: { compression: none }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder, environment: environment)
    try daemon.waitFor("READY=1")
    return Fixture(folder: folder, server: server, bucket: bucket, daemon: daemon)
  }

  /// Through a proxy with a password, into TLS under a private authority; the password shows nowhere.
  @Test func aProxyWithAPassword() throws {
    let (password, folder) = ("h0llow-Tree", TemporaryFolder())
    let proxy = try TunnelProxy(user: "backup", password: password)
    let file = try folder.write("proxy", "http://backup:\(password)@127.0.0.1:\(proxy.port)\n")
    // What the environment names is for who names nothing.
    let fixture = try start(
      ", proxy_file: \(file)",
      environment: ["https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "no_proxy": ""],
      folder: folder)
    let run = try fixture.daemon.ctl("backup", "shop", "--type", "daily")
    #expect(run.status == 0, "\(run.errors)")
    #expect(try fixture.keys().count == 6)
    let place = "CONNECT localhost:\(fixture.server.port)"
    #expect(proxy.next() == "\(place) 200")

    _ = try folder.write("proxy", "http://backup:wr0ng-Tree@127.0.0.1:\(proxy.port)\n")
    #expect(try fixture.daemon.ctl("reload").status == 0)
    let refused = try fixture.daemon.ctl("backup", "shop", "--type", "daily")
    #expect(refused.status != 0)
    while let line = proxy.next(), line != "\(place) 407" { #expect(line == "\(place) 200") }
    let told = try refused.output + refused.errors + fixture.daemon.log + fixture.daemon.ctl("status").output
    #expect(!told.contains(password) && !told.contains("wr0ng-Tree"))
    #expect(told.contains("407"), "\(refused.errors)")
  }

  /// As curl(1) has it: https_proxy is for all hosts but those of no_proxy.
  @Test func theEnvironmentsProxy() throws {
    let proxy = try TunnelProxy(user: "backup", password: "secret")
    let address = "http://backup:secret@127.0.0.1:\(proxy.port)"
    let through = try start(environment: ["https_proxy": address, "no_proxy": "example.com"])
    #expect(try through.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(proxy.next() == "CONNECT localhost:\(through.server.port) 200")
    let past = try start(environment: ["https_proxy": "http://127.0.0.1:1", "no_proxy": "example.com,localhost"])
    #expect(try past.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try past.keys().count == 6)
  }

  /// Keys that may not list unfinished uploads: copies are made all the same, and that is told once.
  @Test func uploadsThatMayNotBeListed() throws {
    let proxy = try FaultProxy(to: S3Server.shared())
    try proxy.plan(.deny, of: "^GET [^?]*[?].*uploads=")
    let fixture = try start(endpoint: proxy.endpoint, stores: "local, offsite", rows: 9000)
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    let all = try fixture.keys()
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    try fixture.lose()
    let copied = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(copied.status == 0 && copied.output.contains("copy shop/"), "\(copied.output)\(copied.errors)")
    #expect(try fixture.keys() == all)
    #expect(try fixture.daemon.ctl("reconcile").output.hasPrefix("Nothing to do."))
    #expect(fixture.daemon.log.components(separatedBy: "its unfinished uploads").count == 2, "\(fixture.daemon.log)")
    #expect(try proxy.requests().contains { $0.contains("uploads=&prefix=one") })
  }

  /// A store that takes a copy and does not answer holds up no copy into another one.
  @Test func oneHangingLine() throws {
    let proxy = try FaultProxy(to: S3Server.shared())
    let fixture = try start(
      endpoint: proxy.endpoint,
      others: { server, bucket in ", other: \(server.configuration(bucket: bucket, prefix: "two"))" },
      stores: "local, offsite, other")
    #expect(try fixture.daemon.ctl("backup", "shop", "--type", "daily").status == 0)
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    let all = try fixture.keys()
    try fixture.lose()
    let ledger = try fixture.daemon.followLedger()
    // Its repetitions too, which come once it has waited long enough.
    try proxy.plan(.stall, of: "^PUT ")
    let command = try ChildProcess(
      DaemonProcess.program("pgbackupctl"), ["reconcile", "--apply"],
      environment: ["PGBACKUPD_SOCKET": fixture.daemon.socket])
    #expect(try proxy.waitUntilHeld() != nil)
    try ledger.wait(for: "backup.copied", #""store":"other""#)
    #expect(!ledger.seen.contains { $0.contains("backup.copied") && $0.contains(#""store":"offsite""#) })
    #expect(try fixture.keys().allSatisfy { $0.hasPrefix("two/") })
    try proxy.release()
    try ledger.wait(for: "backup.copied", #""store":"offsite""#)
    #expect(command.wait() == 0)
    #expect(try fixture.keys() == all)
  }
}
