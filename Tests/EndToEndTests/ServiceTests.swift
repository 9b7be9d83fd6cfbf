import Foundation
import Glibc
import TestSupport
import Testing

/// What systemd and monitors see, and what careless clients can do.
@Suite(.waits) struct ServiceTests {
  private func start(
    extra: String = "", scale: Int? = nil, arguments: [String] = [], environment: [String: String] = [:]
  ) throws -> (DaemonProcess, PrivateCluster, String) {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: scale)
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))" } }
      jobs: { daily: { schedule: "0 2 * * *", zone: UTC } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")), \(extra) }
      """, in: folder, arguments: arguments, environment: environment)
    try daemon.waitFor("READY=1")
    return (daemon, cluster, database)
  }

  /// The watchdog hears of the daemon as long as the scheduler turns, and no longer.
  @Test func theWatchdog() throws {
    let (daemon, _, _) = try start(environment: ["WATCHDOG_USEC": "600000"])
    for _ in 0..<3 { try daemon.waitFor("WATCHDOG=1") }
    let (wedged, _, _) = try start(arguments: ["--debug-wedge-after", "0"], environment: ["WATCHDOG_USEC": "600000"])
    #expect(try wedged.fallsSilent(about: "WATCHDOG=1", for: 3))
    daemon.forgetNotifications()
    try daemon.waitFor("WATCHDOG=1")
    wedged.signal(SIGKILL)
  }

  @Test func theStatusLine() throws {
    let (daemon, cluster, database) = try start(scale: 1)
    let holder = try LockHolder(cluster, database, "portal.users")
    daemon.forgetNotifications()
    #expect(try daemon.ctl("backup", "shop", "--no-wait").status == 0)
    // pg_dump stands before the locked table.
    let status = try daemon.waitFor(prefix: "STATUS=manual of shop: dump")
    #expect(status.hasSuffix("; next: daily at " + status.suffix(20)))
    // A stop while a run winds down asks for patience.
    daemon.signal(SIGTERM)
    try daemon.waitFor("STOPPING=1")
    #expect(try daemon.waitFor(prefix: "EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=30000000")
    #expect(daemon.waitForExit() == 0)
    holder.release()
  }

  @Test func theStateDump() throws {
    let (daemon, _, _) = try start()
    daemon.forgetNotifications()
    daemon.signal(SIGUSR1)
    _ = try daemon.waitFor(prefix: "STATUS=")
    #expect(daemon.log.contains("state: job daily, next "))
    #expect(daemon.log.contains("state: store local at "))
    // Priorities, because standard error is a file here.
    #expect(daemon.log.contains("<5>pgbackupd is ready"))
  }

  /// The monitors' socket answers everybody, and changes nothing.
  @Test func theMonitorSocket() throws {
    let folder = TemporaryFolder()
    let path = folder.file("monitor.sock")
    let (daemon, _, _) = try start(extra: "monitor_socket: \(path)")
    #expect(try Shell.must("stat", ["-c", "%a", path]) == "666\n")
    let reply = try Shell.must("curl", ["-sS", "--unix-socket", path, "http://localhost/v1/status"])
    #expect(reply.contains(#""databases""#))
    for request in ["v1/reload", "v1/backups", "v1/jobs/daily/run", "v1/delete", "v1/anything"] {
      let refused = try Shell.must(
        "curl", ["-sS", "-w", "%{http_code}", "--unix-socket", path, "-X", "POST", "http://localhost/\(request)"])
      #expect(refused.hasSuffix("403"), "\(request): \(refused)")
      #expect(refused.contains("E-NOT-ALLOWED"))
    }
    #expect(!reply.contains("state/backups"))
    for request in ["v1/log", "v1/contents?id=shop/latest", "v1/backup?id=shop/latest", "v1/damaged?id=x"] {
      let missing = try Shell.must(
        "curl", ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path, "http://localhost/\(request)"])
      #expect(missing == "404", "\(request)")
    }
    #expect(try daemon.ctl("status").status == 0)
  }

  /// A daemon with two directories for stores, of which `nfs` stops answering once the file `hang` is there.
  private func withAHangingStore(_ jobs: String, stopWithin: String, hangsBy: String) throws -> (
    DaemonProcess, TemporaryFolder
  ) {
    let folder = TemporaryFolder()
    for name in ["disk", "nfs"] { mkdir(folder.file(name), 0o700) }
    let cluster = try PrivateCluster.shared()
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase()))" } }
      stores: { disk: { path: \(folder.file("disk")) }, nfs: { path: \(folder.file("nfs")) } }
      jobs: { \(jobs) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")), stop_within: \(stopWithin) }
      """, in: folder,
      environment: [
        "LD_PRELOAD": DaemonProcess.program("libHangingDisk.so"), "HANG_PATH": folder.file("nfs"),
        hangsBy: folder.file("hang"),
      ])
    try daemon.waitFor("READY=1")
    return (daemon, folder)
  }

  /// A delete that hangs is told, and holds up neither other changes nor the daemon's end.
  @Test func aStoreThatHangsInADelete() throws {
    let (daemon, folder) = try withAHangingStore(
      "quick: { stores: [disk] }, both:", stopWithin: "10s", hangsBy: "HANG_DELETE_SWITCH")
    #expect(try daemon.ctl("backup", "shop", "--type", "both").status == 0)
    #expect(try daemon.ctl("backup", "shop", "--type", "quick").status == 0)
    _ = try folder.write("hang", "")
    let deleted = try daemon.ctl("delete", "shop/latest:both", "--force")
    #expect(deleted.status == 8 && deleted.errors.contains("E-STORE-SILENT"), "\(deleted.errors)")
    #expect(try daemon.ctl("pin", "shop/latest:quick").status == 0)
    #expect(try daemon.ctl("reconcile", "--apply").status != 2)
    daemon.signal(SIGTERM)
    #expect(daemon.waitForExit() == 0)
  }

  /// A store that stops answering (a dead NFS server): backups into the others go on, `status` tells, and a stop is a stop.
  @Test func aStoreThatHangs() throws {
    let (daemon, folder) = try withAHangingStore(
      "quick: { stores: [disk] }, stuck: { stores: [nfs], timeout: 10s }", stopWithin: "5s", hangsBy: "HANG_SWITCH")
    _ = try folder.write("hang", "")
    // A run into that store alone can't be ended; it is given up, and its database is free again.
    let stuck = try daemon.ctl("backup", "shop", "--type", "stuck")
    #expect(stuck.status == 1)
    #expect(stuck.errors.contains("E-RUN-TIMEOUT"))
    // Waited for once, and not again.
    #expect(try daemon.ctl("backup", "shop", "--type", "quick").status == 0)
    #expect(try daemon.ctl("backup", "shop", "--type", "quick").status == 0)
    let status = try daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("E-STORE-SILENT"))
    daemon.signal(SIGTERM)
    #expect(daemon.waitForExit() == 0)
  }

  /// A file at the socket's path is somebody's, and stays.
  @Test func aFileIsNoSocket() throws {
    let folder = TemporaryFolder()
    let precious = try folder.write("precious.txt", "dear")
    let configuration = try folder.write(
      "pgbackupd.yaml",
      """
      databases: { shop: "host=/nonexistent" }
      daemon: { state: \(folder.file("state")), socket: \(precious) }
      """)
    let refused = try Shell.run(DaemonProcess.program("pgbackupd"), ["--config", configuration])
    #expect(refused.status == 10)
    #expect(refused.errors.contains("no socket"))
    #expect(try String(contentsOfFile: precious, encoding: .utf8) == "dear")
  }

  /// A state directory without room: backups go on, and `status` tells that the ledger does not.
  @Test func aLedgerThatCanNotBeWritten() throws {
    let folder = TemporaryFolder()
    mkdir(folder.file("store"), 0o700)
    let cluster = try PrivateCluster.shared()
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase()))" } }
      stores: { disk: { path: \(folder.file("store")) } }
      jobs: { manual: }
      backup: { compression: none }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    // The ledger may not grow; files of the backup are smaller than it is by then.
    let size = try FileManager.default.attributesOfItem(atPath: folder.file("state/ledger.ndjson"))[.size] as? Int ?? 0
    let padding = String(repeating: " ", count: 100_000) + "\n"
    let ledger = try #require(FileHandle(forWritingAtPath: folder.file("state/ledger.ndjson")))
    try ledger.seekToEnd()
    try ledger.write(contentsOf: Data(padding.utf8))
    try Shell.must("prlimit", ["--pid", "\(daemon.processIdentifier)", "--fsize=\(size + 100_001):"])
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let status = try daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("E-LEDGER-FAILED"))
    try Shell.must("prlimit", ["--pid", "\(daemon.processIdentifier)", "--fsize=unlimited:"])
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(!(try daemon.ctl("status").output.contains("E-LEDGER-FAILED")))
  }

  /// Three hundred clients that connect and say nothing, and one that says half a request: the operator gets through.
  @Test func clientsThatHang() throws {
    let (daemon, _, _) = try start()
    let idle = (0..<300).map { _ in Self.connect(daemon.socket) }
    defer { for client in idle { close(client) } }
    let half = Array("POST /v1/backups HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{".utf8)
    for client in idle.suffix(10) { _ = send(client, half, half.count, Int32(MSG_NOSIGNAL)) }
    for _ in 0..<3 { #expect(try daemon.ctl("status").status == 0) }
    #expect(try daemon.ctl("backup", "shop", "--type", "daily").status == 0)
  }

  /// Another process of its account reads neither its memory nor its environment or descriptors, and gets no core. Its
  /// own programs get their password all the same.
  @Test(.enabled(if: geteuid() == 0, "It needs an account to run as.")) func itsMemoryIsItsOwn() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster(authentication: ["local all keyed scram-sha-256"])
    let database = try cluster.makeDatabase()
    try cluster.sql(
      database, "CREATE ROLE keyed LOGIN PASSWORD 'a password'; GRANT pg_read_all_data TO keyed; CREATE TABLE t ()")
    let asAccount = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    _ = try folder.write("password", "a password\n")
    try Shell.must("chown", ["nobody", folder.path, folder.file("password")])
    let daemon = try DaemonProcess(
      """
      databases:
        shop: { connect: "\(cluster.conninfo(database, user: "keyed"))", password_file: \(folder.file("password")) }
      jobs: { daily: { schedule: "0 2 * * *", zone: UTC } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder,
      // The file's owner is root; the socket that it notifies is too.
      prefix: [
        "sh", "-c", "chmod a+r \"$0\"; chmod a+w \"$1\"; shift; exec \"$@\"", folder.file("pgbackupd.yaml"),
        folder.file("notify"),
      ] + asAccount)
    try daemon.waitFor("READY=1")
    let process = "/proc/\(daemon.processIdentifier)"
    let limits = try Shell.must("cat", ["\(process)/limits"]).split(separator: "\n")
    #expect(limits.contains { $0.hasPrefix("Max core file size") && $0.split(separator: " ").contains("0") })
    #expect(try Shell.must("stat", ["-c", "%U", "\(process)/environ"]) == "root\n")
    for name in ["environ", "mem", "maps", "fd/1"] {
      let look = try Shell.run(asAccount[0], asAccount.dropFirst() + ["head", "-c1", "\(process)/\(name)"])
      #expect(look.status != 0 && look.errors.contains("Permission denied"), "\(name): \(look.errors)")
    }
    // What any other process of the account shows.
    let other = try ChildProcess(asAccount[0], asAccount.dropFirst() + ["sleep", "1000"])
    try eventually("it is nobody's") {
      try Shell.must("stat", ["-c", "%U", "/proc/\(other.processIdentifier)/environ"]) == "nobody\n"
    }
    let backup = try daemon.ctl("backup", "shop")
    #expect(backup.status == 0, "\(backup.errors)")
  }

  /// Garbage on the socket, a line that never ends, a gigabyte of body: none of it is kept.
  @Test func clientsThatFlood() throws {
    let (daemon, _, _) = try start()
    let noise = (0..<65_536).map { UInt8(truncatingIfNeeded: $0 &* 40503 >> 7) }
    let letters = [UInt8](repeating: UInt8(ascii: "A"), count: 65_536)
    let request = Array("POST /v1/backups HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n".utf8)
    for (first, more) in [(noise, noise), (letters, letters), (request, letters)] {
      // Until the daemon has had enough; a gigabyte at most.
      let client = Self.connect(daemon.socket)
      var taken = send(client, first, first.count, Int32(MSG_NOSIGNAL))
      while taken < 1_000_000_000 {
        let count = send(client, more, more.count, Int32(MSG_NOSIGNAL))
        if count <= 0 { break }
        taken += count
      }
      close(client)
      #expect(taken >= first.count, "\(taken) bytes were taken")
    }
    #expect(try daemon.ctl("status").status == 0)
    let memory = try String(contentsOfFile: "/proc/\(daemon.processIdentifier)/status", encoding: .utf8)
      .split(separator: "\n").first { $0.hasPrefix("VmHWM") }.map(String.init)
    let peak = try #require(memory?.split(separator: " ").compactMap { Int($0) }.first)
    #expect(peak < 200_000, "\(peak) kB")
  }

  /// Clients that ask and never read: whoever comes next is served all the same.
  @Test func clientsThatNeverRead() throws {
    let (daemon, _, _) = try start()
    let request = Array(String(repeating: "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", count: 200).utf8)
    let clients = (0..<100).map { _ in Self.connect(daemon.socket) }
    defer { clients.forEach { close($0) } }
    for client in clients { _ = send(client, request, request.count, Int32(MSG_NOSIGNAL)) }
    for _ in 1...3 { #expect(try daemon.ctl("jobs").status == 0) }
  }

  private static func connect(_ path: String) -> Int32 {
    let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    _ = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(client, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return client
  }
}
