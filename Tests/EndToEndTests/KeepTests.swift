import Foundation
import Glibc
import TestSupport
import Testing

/// What must stay stays, whoever asks: backups that nobody here can judge, and those whose age a wrong clock tells.
@Suite(.waits) struct KeepTests {
  /// A daemon with a clock of its own, whose state and store outlive it.
  private final class Fixture {
    let folder: TemporaryFolder
    let store: String
    let connect: String
    private let database: String
    private(set) var daemon: DaemonProcess

    init(
      _ database: String = "shop", keep: String, at time: String, store: String? = nil, trusted: String? = nil
    ) throws {
      let (cluster, folder) = (try PrivateCluster.shared(), TemporaryFolder())
      (self.folder, self.database) = (folder, database)
      self.store = store ?? folder.file("store")
      mkdir(self.store, 0o700)
      connect = cluster.conninfo(try cluster.makeDatabase(sample: 1))
      daemon = try Self.start(
        folder, Self.configuration(database, connect, self.store, folder, keep, trusted), at: time)
    }

    private static func configuration(
      _ database: String, _ connect: String, _ store: String, _ folder: TemporaryFolder, _ keep: String,
      _ trusted: String?
    ) -> String {
      """
      databases: { \(database): { connect: "\(connect)" } }
      stores: { local: { path: \(store) } }
      jobs: { daily: { keep: \(keep) } }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(trusted.map { "signing: { trusted: [\($0)] }" } ?? "")
      """
    }

    private static func start(
      _ folder: TemporaryFolder, _ configuration: String, at time: String, isKept: Bool = false
    ) throws -> DaemonProcess {
      let clock = ShiftedClock(in: folder)
      try clock.set(time)
      let daemon = try DaemonProcess(configuration, in: folder, environment: clock.environment(isKept: isKept))
      try daemon.waitFor("READY=1")
      return daemon
    }

    /// Stops the daemon, and starts it again at a later time.
    func again(
      at time: String, keep: String, isKept: Bool = false, trusted: String? = nil, database: String? = nil
    ) throws {
      daemon.signal(SIGTERM)
      #expect(daemon.waitForExit() == 0)
      daemon = try Self.start(
        folder, Self.configuration(database ?? self.database, connect, store, folder, keep, trusted), at: time,
        isKept: isKept)
    }

    func backup() throws {
      let run = try daemon.ctl("backup", database, "--type", "daily")
      #expect(run.status == 0, "\(run.errors)")
    }

    var key: String {
      get throws {
        String(try String(contentsOfFile: folder.file("state/signing.pub"), encoding: .utf8).split(separator: "\n")[1])
      }
    }

    /// The key is lost: the next start makes another one. Returns the old one, as the configuration takes it.
    func loseKey() throws -> String {
      let old = try key
      unlink(folder.file("state/signing.sec"))
      unlink(folder.file("state/signing.pub"))
      return old
    }

    /// The folders in the store that have a manifest.
    func backups() throws -> [String] {
      try Shell.must("find", [store, "-name", "manifest.json"]).split(separator: "\n").map(String.init).sorted()
    }
  }

  /// The state is lost, and with it the key: what the new one has not signed is nobody's to expire, until somebody says whose it is.
  @Test func aNewKeyExpiresNothing() throws {
    let fixture = try Fixture(keep: "7d", at: "2026-12-01T02:00:00Z")
    try fixture.backup()
    try fixture.again(at: "2026-12-02T02:00:00Z", keep: "7d")
    try fixture.backup()
    let (all, key) = (try fixture.backups(), try fixture.loseKey())
    #expect(all.count == 2)
    try fixture.again(at: "2026-12-20T02:00:00Z", keep: "7d")
    let applied = try fixture.daemon.ctl("reconcile", "--apply")
    #expect(applied.status == 0 && applied.output.contains("signed by nobody who is trusted here"), "\(applied.output)")
    #expect(try fixture.backups() == all)
    #expect(try fixture.daemon.ctl("status").output.contains("E-SIGNATURE-INVALID"))
    // Now they are known to be its own, and the newest stays.
    try fixture.again(at: "2026-12-20T03:00:00Z", keep: "7d", trusted: key)
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.backups() == [all[1]])
  }

  /// Two daemons share a store, and each keeps its own database's backups for its own time.
  @Test func anothersAreItsOwn() throws {
    let first = try Fixture(keep: "30d", at: "2026-12-01T02:00:00Z")
    try first.backup()
    try first.again(at: "2026-12-02T02:00:00Z", keep: "30d")
    try first.backup()
    let all = try first.backups()
    let second = try Fixture(
      "crm", keep: "1h", at: "2026-12-05T02:00:00Z", store: first.store, trusted: try first.key)
    try second.backup()
    let applied = try second.daemon.ctl("reconcile", "--apply")
    #expect(applied.status == 0 && applied.output.contains("another daemon's"), "\(applied.output)")
    #expect(try first.backups().filter(all.contains) == all)
    #expect(try second.daemon.ctl("list", "shop").output.contains("another daemon's"))
    let verified = try second.daemon.ctl("run", "verify")
    #expect(verified.status == 0, "\(verified.errors)")
    let log = try second.daemon.ctl("log", "--lines", "1000").output
    #expect(log.contains("crm/") && !log.contains("shop/"), "\(log)")
    // Its own policy holds for it.
    try first.again(at: "2027-01-20T02:00:00Z", keep: "30d")
    #expect(try first.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try first.backups().filter(all.contains) == [all[1]])
  }

  /// A new key, and a database that is configured no more: what the ledger has made is this daemon's all the same.
  @Test func itsOwnUnderAnotherKey() throws {
    let fixture = try Fixture(keep: "7d", at: "2026-12-01T02:00:00Z")
    try fixture.backup()
    try fixture.again(at: "2026-12-02T02:00:00Z", keep: "7d")
    try fixture.backup()
    let (all, key) = (try fixture.backups(), try fixture.loseKey())
    try fixture.again(at: "2026-12-20T02:00:00Z", keep: "7d", trusted: key, database: "crm")
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.backups() == [all[1]])
  }

  /// A clock that is a year ahead when the daemon starts: nothing expires before somebody has looked.
  @Test func aStartInTheFuture() throws {
    let fixture = try Fixture(keep: "7d", at: "2026-12-01T02:00:00Z")
    try fixture.backup()
    try fixture.backup()
    let all = try fixture.backups()
    #expect(all.count == 2)
    try fixture.again(at: "2027-12-01T02:00:00Z", keep: "7d")
    try fixture.backup()
    #expect(try fixture.backups().count == 3)
    let doubtful = try fixture.daemon.ctl("status")
    #expect(doubtful.status == 10 && doubtful.output.contains("E-CLOCK-DOUBTFUL"), "\(doubtful.output)")
    // The doubt outlives the daemon.
    try fixture.again(at: "2027-12-01T03:00:00Z", keep: "7d")
    try fixture.backup()
    #expect(try fixture.backups().count == 4)
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.backups().allSatisfy { !all.contains($0) })
    #expect(try fixture.daemon.ctl("status").status == 0)
    // Where somebody keeps the clock, the machine was off.
    try fixture.again(at: "2028-02-01T02:00:00Z", keep: "7d", isKept: true)
    #expect(try fixture.daemon.ctl("status").status == 0)
    try fixture.backup()
    #expect(try fixture.daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try fixture.backups().count == 1)
  }

  /// Files that no restore needs, and that nobody signs: they take no backup away.
  @Test func smallFilesAreNoReason() throws {
    let fixture = try Fixture(keep: "7d", at: "2026-12-01T02:00:00Z")
    let daemon = fixture.daemon
    try fixture.backup()
    let place = URL(filePath: try #require(try fixture.backups().first)).deletingLastPathComponent().path
    let text = try String(contentsOfFile: "\(place)/RECOVER.txt", encoding: .utf8)
    unlink("\(place)/RECOVER.txt")
    #expect(try daemon.ctl("verify", "shop/latest").status == 0)
    let written = try daemon.ctl("reconcile", "--apply")
    #expect(written.status == 0, "\(written.output)\(written.errors)")
    #expect(try String(contentsOfFile: "\(place)/RECOVER.txt", encoding: .utf8) == text)
    #expect(try daemon.ctl("reconcile").output.hasPrefix("Nothing to do."))
    // One that tells people something else is damage.
    try (text + "\n").write(toFile: "\(place)/RECOVER.txt", atomically: false, encoding: .utf8)
    #expect(try daemon.ctl("reconcile", "--apply").status == 0)
    #expect(try String(contentsOfFile: "\(place)/RECOVER.txt", encoding: .utf8) == text)

    try "garbage".write(toFile: "\(place)/pin.json", atomically: false, encoding: .utf8)
    let told = try daemon.ctl("status")
    #expect(told.status == 10 && told.output.contains("E-PIN-UNREADABLE"), "\(told.output)")
    #expect(try daemon.ctl("list").output.contains("a pin that can't be read"))
    #expect(try daemon.ctl("delete", "shop/latest", "--force").status == 3)
    let into = "into_\(UUID().uuidString.prefix(8).lowercased())"
    #expect(try daemon.ctl("restore", "shop/latest", "--into", into).status == 0)
    try PrivateCluster.shared().sql("postgres", "DROP DATABASE \(into)")
    #expect(try daemon.ctl("unpin", "shop/latest").status == 0)
    #expect(try daemon.ctl("status").status == 0)
  }
}
