import Foundation
import Glibc
import TestSupport
import Testing

/// Other accounts of this machine on the control socket, and keys of other hosts in a shared store.
@Suite(.waits, .enabled(if: geteuid() == 0)) struct RoleTests {
  /// An account, with its groups, as setpriv(1) makes one of this process.
  private struct Person {
    let name: String
    var groups = "users"
  }

  private struct Fixture {
    let daemon: DaemonProcess
    let folder: TemporaryFolder
    /// Where every account finds it.
    let client: String

    init(roles: String?, backups: Int = 1, scale: Int = 1, extra: String = "") throws {
      let (folder, cluster) = (TemporaryFolder(), try PrivateCluster.shared())
      self.folder = folder
      let database = try cluster.makeDatabase("shop", sample: scale)
      daemon = try DaemonProcess(
        """
        databases: { shop: { connect: "\(cluster.conninfo(database))" } }
        jobs: { manual: , daily: { schedule: "0 2 * * *", keep: 7d } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock"))\(Self.text(roles)) }
        drill: { folder: \(folder.file("drills")) }
        \(extra)
        """, in: folder)
      try daemon.waitFor("READY=1")
      client = folder.file("pgbackupctl")
      try Shell.must("install", ["-m", "755", DaemonProcess.program("pgbackupctl"), client])
      try letIn()
      for _ in 0..<backups { #expect(try daemon.ctl("backup", "shop").status == 0) }
    }

    static func text(_ roles: String?) -> String { roles.map { ", roles: \($0)" } ?? "" }

    /// The socket's group are the people who may use it at all.
    func letIn() throws { try Shell.must("chgrp", ["users", daemon.socket]) }

    func ctl(_ person: Person, _ arguments: String...) throws -> Shell.Result {
      try Shell.run(
        "setpriv", RoleTests.become(person) + [client] + arguments, environment: ["PGBACKUPD_SOCKET": daemon.socket])
    }
  }

  private static let roles =
    "{ reader: [\"group:users\"], operator: [\"user:games\"], restorer: [\"user:backup\", \"group:operator\"] }"
  private static let (reader, `operator`, restorer) = (
    Person(name: "nobody"), Person(name: "games"), Person(name: "backup")
  )

  /// Three accounts and one socket: each does what its role says, is told who may do the rest, and that is on record.
  @Test func everyoneDoesWhatTheirRoleSays() throws {
    let fixture = try Fixture(roles: Self.roles, backups: 2)
    // The group of a role, without being in any list by name.
    let guest = Person(name: "nobody", groups: "users,operator")
    let (all, some, few) = (
      [Self.reader, Self.operator, Self.restorer, guest], [Self.operator, Self.restorer, guest], [Self.restorer, guest]
    )
    let id = try #require(try fixture.daemon.ctlJSON("list") as? [[String: Any]]).compactMap { $0["id"] as? String }
    for (words, allowed, deed) in [
      (["status"], all, ""), (["list"], all, ""), (["log"], all, ""), (["show", id[0]], all, ""),
      (["contents", "latest"], all, ""), (["restore", "latest", "--into", "copy", "--preview"], all, ""),
      (["pin", id[0]], some, "Pinning a backup"), (["backup", "shop"], some, "Making a backup"),
      (["verify", "--all"], some, "Verifying backups"), (["reconcile"], some, "Reconciling the stores"),
      (["reload"], some, "Reloading the configuration"), (["unpin", id[0]], few, "Unpinning a backup"),
      (["extract", "latest", "--table", "portal.users"], few, "Reading a table's rows"),
      (["adopt", fixture.folder.path, "--list"], few, "Looking for dumps to adopt"),
    ] {
      for person in all {
        let result = try Shell.run(
          "setpriv", Self.become(person) + [fixture.client] + words,
          environment: ["PGBACKUPD_SOCKET": fixture.daemon.socket])
        if allowed.contains(where: { $0.name == person.name && $0.groups == person.groups }) {
          #expect(![3, 8].contains(result.status), "\(person) \(words): \(result.errors)")
        } else {
          #expect(result.status == 3, "\(person) \(words): \(result.output)\(result.errors)")
          #expect(result.errors.contains("E-NOT-ALLOWED: \(deed) needs the role "), "\(result.errors)")
          #expect(result.errors.contains("user backup, group operator"), "\(result.errors)")
        }
      }
    }
    #expect(try fixture.ctl(Self.operator, "delete", id[1], "--force").status == 3)
    #expect(try fixture.ctl(Self.restorer, "delete", id[1], "--force").status == 0)
    let ledger = try fixture.daemon.ctl("log", "--lines", "1000").output
    let refused = ledger.split(separator: "\n").filter { $0.contains("request.refused") }
    #expect(refused.contains { $0.contains("Pinning a backup") && $0.contains("by uid 65534") }, "\(ledger)")
    #expect(fixture.daemon.log.contains("Deleting a backup needs the role 'restorer'"))
    // Once an hour, however often they try.
    for _ in 0..<20 { #expect(try fixture.ctl(Self.reader, "unpin", id[0]).status == 3) }
    let again = try fixture.daemon.ctl("log", "--lines", "1000").output
    #expect(
      again.components(separatedBy: "request.refused").count == ledger.components(separatedBy: "request.refused").count)
  }

  private static func become(_ person: Person) -> [String] {
    ["--reuid", person.name, "--regid", person.name == "nobody" ? "nogroup" : person.name, "--groups", person.groups]
  }

  /// A status of 403 with the fault, for whoever has no client of ours; and the paths that no client of ours asks for.
  @Test func theAnswerIsForbidden() throws {
    let fixture = try Fixture(roles: Self.roles)
    func curl(_ arguments: String...) throws -> String {
      try Shell.must(
        "setpriv",
        Self.become(Self.reader)
          + ["curl", "-sS", "--unix-socket", fixture.daemon.socket, "-w", " %{http_code}"] + arguments)
    }
    #expect(try curl("http://x/v1/status").hasSuffix(" 200") && curl("http://x/metrics").hasSuffix(" 200"))
    for path in [
      "v1/restores", "v1/delete", "v1/damaged/delete", "v1/rollback", "v1/swap", "v1/accept", "v1/adoptions",
    ] {
      let reply = try curl("-X", "POST", "--data", "{}", "http://x/\(path)")
      #expect(reply.hasSuffix(" 403") && reply.contains("\"E-NOT-ALLOWED\""), "\(path): \(reply)")
    }
    // Neither another spelling of the path nor another method leads around the table.
    for path in ["v1//delete", "v1/delete/", "V1/delete", "v1/./delete", "v1/%64elete"] {
      let reply = try curl(
        "--path-as-is", "-X", "POST", "--data", #"{"id":"shop/latest","force":true}"#, "http://x/\(path)")
      #expect(reply.hasSuffix(" 403"), "\(path): \(reply)")
    }
    #expect(try curl("-X", "PUT", "http://x/v1/delete").hasSuffix(" 403"))
    #expect(try (fixture.daemon.ctlJSON("list") as? [Any])?.count == 1)
  }

  /// Without roles whoever may open the socket may do everything, as ever; SIGHUP brings roles and takes them away.
  @Test func aReloadChangesRoles() throws {
    let fixture = try Fixture(roles: nil)
    #expect(try fixture.ctl(Self.reader, "pin", "latest").status == 0)
    // Whoever the kernel keeps out stays out.
    #expect(try fixture.ctl(Person(name: "nobody", groups: "games"), "status").status == 3)
    let text = try String(contentsOfFile: fixture.daemon.configuration, encoding: .utf8)
    func reload(_ roles: String?) throws {
      let socket = "socket: \(fixture.daemon.socket)"
      try text.replacing(socket, with: socket + Fixture.text(roles))
        .write(toFile: fixture.daemon.configuration, atomically: false, encoding: .utf8)
      fixture.daemon.forgetNotifications()
      fixture.daemon.signal(SIGHUP)
      try fixture.daemon.waitFor("READY=1")
    }
    try reload("{ reader: [\"group:users\"], restorer: [\"user:games\", \"user:no-such-user\"] }")
    #expect(try fixture.ctl(Self.reader, "status").output.contains("There is no user 'no-such-user'"))
    #expect(try fixture.ctl(Self.reader, "unpin", "latest").status == 3)
    #expect(try fixture.ctl(Self.operator, "unpin", "latest").status == 0)
    let check = try fixture.daemon.ctl("config", "check", fixture.daemon.configuration)
    #expect(check.status == 0 && check.output.contains("warning: E-ACCOUNT-MISSING"), "\(check.output)")
    try reload("{}")
    let nobody = try fixture.ctl(Self.reader, "status")
    #expect(nobody.status == 3 && nobody.errors.contains("root and the daemon's own user alone"), "\(nobody.errors)")
    #expect(try fixture.daemon.ctl("status").status == 0)
    try reload(nil)
    #expect(try fixture.ctl(Self.reader, "pin", "latest").status == 0)
    let log = try fixture.daemon.ctl("log", "--lines", "100").output
    #expect(log.contains("roles are now: reader group users; operator nobody; restorer user games, user no-such-user"))
  }

  /// An operator ends backups, and not what restorers have begun.
  @Test func anOperatorEndsNoRestore() throws {
    let store = TemporaryFolder()
    defer { withExtendedLifetime(store) {} }
    let fixture = try Fixture(
      roles: Self.roles, scale: 20,
      extra: """
        stores: { slow: { path: "\(store.path)", rate_limit: 4MiB/s } }
        backup: { compression: none }
        # It goes on until it is ended.
        hooks: { before_restore: [["/usr/bin/tail", "-f", "/dev/null"]] }
        """)
    let ledger = try fixture.daemon.followLedger()
    func begin(_ person: Person, _ words: String...) throws -> String {
      let text = try Shell.must(
        "setpriv", Self.become(person) + [fixture.client] + words + ["--no-wait", "--json"],
        environment: ["PGBACKUPD_SOCKET": fixture.daemon.socket])
      let runs = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [[String: Any]])
      return try #require(runs.first?["id"] as? String)
    }
    let restore = try begin(Self.restorer, "restore", "latest", "--into", "copy_of_shop")
    try ledger.wait(for: "run.started", restore)
    let refused = try fixture.ctl(Self.operator, "cancel", restore)
    #expect(refused.status == 3 && refused.errors.contains("Cancelling a restore run needs the role 'restorer'"))
    #expect(try fixture.ctl(Self.restorer, "cancel", restore).status == 0)
    let ended = try ledger.wait(for: "run.finished", restore)
    #expect(ended.contains("aborted"), "\(ended)")
    let backup = try begin(Self.restorer, "backup", "shop")
    try ledger.wait(for: "run.started", backup)
    #expect(try fixture.ctl(Self.reader, "cancel", backup).status == 3)
    #expect(try fixture.ctl(Self.operator, "cancel", backup).status == 0)
    #expect(try ledger.wait(for: "run.finished", backup).contains("aborted"))
  }

  // MARK: - Keys of other hosts

  /// Another host writes into the same store, and its key is trusted for `crm`. By the list, which means any database,
  /// its `shop` would be restored; by the mapping it counts for nothing.
  @Test func aKeyIsTrustedForItsDatabasesAlone() throws {
    let (folder, cluster) = (TemporaryFolder(), try PrivateCluster.shared())
    let (shop, evil) = (try cluster.makeDatabase("shop", sample: 1), try cluster.makeDatabase("evil", sample: 1))
    mkdir(folder.file("store"), 0o700)
    func start(_ name: String, _ shop: String, _ more: String) throws -> DaemonProcess {
      let own = TemporaryFolder()
      let daemon = try DaemonProcess(
        """
        databases: { shop: { connect: "\(cluster.conninfo(shop))" }, crm: { connect: "\(cluster.conninfo(evil))" } }
        stores: { shared: { path: \(folder.file("store")) } }
        jobs: { manual: }
        daemon: { state: \(own.file("state")), socket: \(own.file("control.sock")) }
        \(more)
        """, in: own)
      try daemon.waitFor("READY=1")
      return daemon
    }
    let other = try start("other", evil, "")
    #expect(try other.ctl("backup", "shop").status == 0 && other.ctl("backup", "crm").status == 0)
    let text = try String(contentsOfFile: other.folder.file("state/signing.pub"), encoding: .utf8)
    let key = try #require(text.split(separator: "\n").last)

    let daemon = try start("own", shop, "signing: { trusted: [\"\(key)\"] }")
    #expect(try daemon.ctl("restore", "shop/latest", "--into", "shop_copy", "--preview").status == 0)
    let configuration = try String(contentsOfFile: daemon.configuration, encoding: .utf8)
    try configuration.replacing("[\"\(key)\"]", with: "{ \"\(key)\": [crm] }")
      .write(toFile: daemon.configuration, atomically: false, encoding: .utf8)
    #expect(try daemon.ctl("reload").status == 0)

    let forged = try #require((try daemon.ctlJSON("list", "shop") as? [[String: Any]])?.first)
    #expect(forged["isGood"] as? Bool == false && forged["isUnsigned"] as? Bool == true)
    let id = try #require(forged["id"] as? String)
    #expect(try daemon.ctl("restore", "shop/latest", "--into", "shop_copy", "--preview").status == 6)
    let refused = try daemon.ctl("restore", id, "--into", "shop_copy", "--force")
    #expect(refused.status == 9 && refused.errors.contains("E-SIGNATURE-INVALID"), "\(refused.errors)")
    #expect(try daemon.ctl("restore", "crm/latest", "--into", "crm_copy", "--force").status == 0)
    let status = try daemon.ctl("status").output
    #expect(status.contains("E-SIGNATURE-INVALID") && status.contains("does not name 'shop'"), "\(status)")
    // Nor does a client without a daemon believe it, by the same file.
    let alone = try daemon.ctl(
      "restore", id, "--into", "x", "--standalone", "--config", daemon.configuration, "--preview")
    #expect(alone.status == 9, "\(alone.errors)")
    // It is left where it is: whose it is, nobody here can say.
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("restore", "shop/latest", "--into", "shop_copy", "--preview").status == 0)
    #expect(folder.files(below: "store/shop").contains { $0.contains(id.dropFirst("shop/".count)) })
  }
}
