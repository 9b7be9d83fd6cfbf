import BackupCatalog
import Faults
import Foundation
import Glibc
import PostgresTools
import TestSupport
import Testing
import Units

@testable import BackupOperations
@testable import Confinement

/// Code of a backup runs in the drill's server as a superuser: in the server's own processes, and in a shell. It must
/// reach nothing.
@Suite(.waits) struct ConfinementTests {
  private static let walls = KernelWalls()

  /// What works outside a cell, for the same account: so that a refusal inside is the cell's doing.
  private static let worksOutside: Set = [
    "read the key", "write the key", "list the store", "write into the store", "remove from the store",
    "make a folder in the store", "watch the store", "write to /tmp", "list the root",
    "read the key by a symbolic link",
    "read the key by a hard link", "move the backup here", "open the key for all", "empty the key",
    "set the key's time", "leave a set-user-ID file", "write a large file", "run a program of its own", "run python",
    "run from memory", "open its memory", "read its environment", "list its descriptors", "read its status",
    "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "process_vm_readv", "process_vm_writev", "prlimit", "setpriority",
    "ptrace", "connect to a unix socket", "sendmsg to a unix datagram socket", "sendmsg by a pair", "sendto",
    "connect by TCP", "a UDP socket", "a netlink socket", "kill everybody", "kill", "gain privileges",
  ]

  /// What Landlock alone refuses.
  private static let byLandlock: Set = [
    "read the key", "write the key", "list the store", "write into the store", "remove from the store",
    "make a folder in the store", "write to /tmp", "write to /var/tmp", "write to shared memory", "list the root",
    "read the key by a symbolic link", "read the key by a hard link", "move the backup here",
    "run a program of its own",
    "run python", "open its memory", "read its environment", "list its descriptors", "read its status",
    "sh reads the key", "sh writes into the store", "sh writes elsewhere", "sh runs python", "sh runs perl",
    "sh runs cat",
  ]

  @Test func theAttackIsOne() async throws {
    let prey = try Prey()
    let findings = try prey.attackOutside()
    let orphan = try #require(findings.background)
    defer { kill(orphan, SIGKILL) }
    #expect(Self.worksOutside.subtracting(findings.done) == [])
    // The victim's end is the last to be seen.
    try eventually("all six harms are done") { try prey.harm.count == 6 }
    #expect(kill(orphan, 0) == 0)
  }

  /// A table's CHECK is called while its rows are loaded.
  @Test(.enabled(if: walls.keepsSignals, "The kernel's Landlock is too old.")) func aHostileBackupReachesNothing()
    async throws
  {
    let prey = try Prey()
    let fixture = try await RestoreFixture(
      sql: try prey.function + "CREATE TABLE bait (x int CHECK (attack(x))); INSERT INTO bait VALUES (1)")
    let folder = TemporaryFolder()
    let fault = await #expect(throws: Fault.self) {
      try await DrillTests.drill(fixture, assertions: [Findings.query], folder: folder)()
    }
    let words = try #require(fault?.cause)
    let findings = Findings(words)
    #expect(findings.done == [])
    #expect(findings.refusals.count > 65 && findings.refusal("sh") == "it has ended", "\(words)")
    for (attack, reason) in [
      ("read the key", "EACCES"), ("write into the store", "EACCES"), ("open its memory", "EACCES"),
      ("run python", "EACCES"), ("pidfd_getfd", "EPERM"), ("ptrace", "EPERM"), ("process_vm_readv", "EPERM"),
      ("connect to a unix socket", "EPERM"), ("sendmsg to a unix datagram socket", "EAFNOSUPPORT"), ("sendto", "EPERM"),
      ("connect by TCP", "EAFNOSUPPORT"), ("io_uring_setup", "ENOSYS"), ("keyctl", "EPERM"), ("bpf", "EPERM"),
      ("userfaultfd", "EPERM"), ("unshare", "EPERM"), ("mount", "EPERM"), ("kill", "EPERM"),
      ("write a large file", "EFBIG"), ("a call of i386", "EPERM"),
    ] {
      #expect(findings.refusal(attack) == reason, "\(attack)")
    }
    #expect(try prey.harm == [])
    // Neither the server nor what has left its session and ignores signals outlives the drill.
    let orphan = try #require(findings.background)
    #expect(kill(orphan, 0) != 0 && errno == ESRCH)
    #expect(folder.files(below: "drills") == [])
    // The rows are those that were backed up, and nothing was harmed on the way to that.
    let report = try await DrillTests.drill(fixture, assertions: ["SELECT count(*) = 1 FROM bait"], folder: folder)()
    #expect(report.proof.isWhole && report.unproved == [] && report.gaps == nil)
    #expect(try prey.harm == [])
  }

  /// As older kernels are: what Landlock lacks there, the filter refuses, but for what the drill then tells.
  @Test(arguments: 0...7) func everyKernel(_ abi: Int) async throws {
    let walls = KernelWalls(limit: abi)
    let prey = try Prey()
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let server = try await ThrowawayServer.start(
      major: try #require(Int(try cluster.sql("postgres", "SHOW server_version_num").prefix(2))), superuser: "boss",
      programs: ClientPrograms(configured: [cluster.binaries]), root: folder.file("drills"), name: "one",
      connections: 4,
      walls: walls)
    let findings: Findings
    do {
      let text = try await PostgresSession.connect(server.connection).use { session throws(Fault) in
        // Sessions of ours have an empty path.
        try await session.execute("SET search_path = public")
        do { try await session.execute(try prey.function) } catch { throw Fault(error) }
        try await session.execute("SELECT attack(1)")
        return try await session.query(Findings.query).first?[0]
      }
      findings = Findings(try #require(text))
    } catch {
      await server.remove()
      throw error
    }
    var expected: Set<String> = walls.keepsFiles ? [] : Self.byLandlock
    if !walls.keepsSignals { expected.formUnion(["kill", "sh kills"]) }
    // /tmp may be no file system that has O_TMPFILE; perl and others may not be installed.
    let optional: Set = ["write to /var/tmp", "write to shared memory", "sh runs perl", "sh runs python", "run python"]
    #expect(findings.refusals.count > 65)
    #expect(findings.done.subtracting(expected) == [])
    #expect(expected.subtracting(optional).subtracting(findings.done) == [])
    let fault = await server.remove()
    #expect(fault == nil)
    let orphan = try #require(findings.background)
    #expect(kill(orphan, 0) != 0 && errno == ESRCH)
    #expect(folder.files(below: "drills") == [])
    if walls.keepsSignals { #expect(try prey.harm == []) }
  }

  @Test func whatAKernelCanNotDoIsTold() throws {
    let own = DrillAccount(name: "pgbackupd", user: 900, group: 900, isOwn: true)
    let dedicated = DrillAccount(name: "pgbackupd-drill", user: 901, group: 901, isOwn: false)
    #expect(KernelWalls(limit: 0).gaps(own).count == 2 && KernelWalls(limit: 0).gaps(dedicated).count == 1)
    for abi in 1...5 where Self.walls.landlock >= abi {
      #expect(KernelWalls(limit: abi).gaps(own).allSatisfy { $0.contains("signals") && $0.contains("ABI \(abi)") })
      #expect(KernelWalls(limit: abi).gaps(own).count == 1 && KernelWalls(limit: abi).gaps(dedicated).isEmpty)
    }
    if Self.walls.keepsSignals { #expect(Self.walls.gaps(own).isEmpty) }
    #expect(KernelWalls.hint.utf8.count <= 100)
  }

  // MARK: - Cells

  private func program(
    _ script: String, _ folder: TemporaryFolder, _ root: PrivateFolder, reserve: ByteCount = ByteCount(0)
  ) throws -> Cell.Program {
    let account = try DrillAccount.current()
    let own = try root.make("pgbackupd-drill-\(UUID().uuidString)")
    try own.give(to: account)
    return Cell.Program(
      path: "/bin/sh", arguments: ["-c", script], environment: ["PATH": "/usr/bin:/bin"],
      readable: ["/etc/ld.so.cache"],
      executable: ["/bin/sh", "/lib", "/lib64", "/usr/lib", "/usr/bin/sleep"], folder: own, account: account,
      memory: ByteCount(1 << 30), fileSize: ByteCount(1 << 20), reserve: reserve, walls: Self.walls)
  }

  private func isGone(_ mark: String) throws -> Bool {
    try Shell.run("pgrep", ["-f", "^sleep \(mark)$"]).output.isEmpty
  }

  /// Also orphans, and those that ignore signals.
  @Test(arguments: ["end", "let go", "no room"]) func everyProcessEnds(_ way: String) async throws {
    let folder = TemporaryFolder()
    let root = try PrivateFolder(root: folder.file("drills"), mode: 0o711)
    let mark = "1\(Int.random(in: 1_000_000...9_999_999))"
    let script = "trap '' QUIT TERM; (sleep \(mark) &) ; (sleep \(mark) & sleep \(mark)) & exit 3"
    let request = try program(script, folder, root, reserve: ByteCount(way == "no room" ? .max : 0))
    let errors = open("/dev/null", O_WRONLY | O_CLOEXEC)
    defer { close(errors) }
    let (cell, status) = try await Cell.begin(request, errors: errors)
    #expect(status == 3 << 8)
    switch way {
    case "end":
      #expect(try !isGone(mark))
      #expect(await cell.end() == .allEnded)
      #expect(try isGone(mark))
      #expect(await cell.end() == nil)
    case "let go":
      cell.letGo()
      try eventually("they are gone") { try isGone(mark) }
    default:
      try eventually("they are gone") { try isGone(mark) }
      #expect(await cell.end() == .hadNoRoom)
    }
  }

  /// None of ours: not the descriptor that a library may have left open.
  @Test func noDescriptorGoesAlong() async throws {
    let folder = TemporaryFolder()
    let root = try PrivateFolder(root: folder.file("drills"), mode: 0o711)
    let secret = open(try folder.write("secret", "x"), O_RDONLY)
    let target = fcntl(secret, F_DUPFD, 9)
    defer {
      close(secret)
      close(target)
    }
    let errors = open("/dev/null", O_WRONLY | O_CLOEXEC)
    defer { close(errors) }
    let (cell, status) = try await Cell.begin(
      try program("(: <&\(secret)) 2>/dev/null && exit 1; exit 0", folder, root), errors: errors)
    #expect(status == 0)
    await cell.end()
  }

  // MARK: - Folders and accounts

  /// What another user has made, or could exchange, is no place for a drill.
  @Test func aForeignFolderIsRefused() throws {
    let folder = TemporaryFolder()
    func refusal(_ name: String) -> String? {
      do throws(Fault) {
        _ = try PrivateFolder(root: folder.file(name), mode: 0o700)
        return nil
      } catch {
        #expect(error.code == .drillFailed && error.hint?.utf8.count ?? 101 <= 100)
        return error.cause
      }
    }
    #expect(refusal("fresh") == nil && refusal("fresh") == nil)
    try Shell.must("ln", ["-s", folder.file("fresh"), folder.file("link")])
    #expect(refusal("link") == "it is no folder")
    try Shell.must("mkdir", ["-m", "0777", folder.file("open")])
    #expect(refusal("open")?.contains("others may write") == true)
    #expect(refusal("open/inner")?.contains("others may write") == true)
    try Shell.must("mkdir", ["-p", folder.file("above/inner")])
    #expect(refusal("no/such")?.contains("No such file") == true)
    guard geteuid() == 0 else { return }
    try Shell.must("chown", ["nobody", folder.file("above")])
    #expect(refusal("above")?.contains("belongs to user") == true)
    #expect(refusal("above/inner")?.contains("belongs to user") == true)
  }

  /// The server's account could put a link where a file of its is to be written or read.
  @Test func filesAreNotReachedThroughLinks() throws {
    let folder = TemporaryFolder()
    let own = try PrivateFolder(root: folder.file("drills"), mode: 0o700).make("pgbackupd-drill-x")
    let outside = try folder.write("outside", "outside\n")
    try Shell.must("ln", ["-s", outside, "\(own.path)/soft"])
    try Shell.must("ln", [outside, "\(own.path)/hard"])
    try Shell.must("mkfifo", ["\(own.path)/pipe"])
    try "plain\n".write(toFile: "\(own.path)/plain", atomically: false, encoding: .utf8)
    for name in ["soft", "hard", "pipe", "missing"] {
      #expect(!own.append("x", to: name, owner: geteuid()), "\(name)")
      #expect(own.tail(of: name, owner: geteuid()) == "", "\(name)")
    }
    #expect(own.append("more\n", to: "plain", owner: geteuid()))
    #expect(own.tail(of: "plain", owner: geteuid()) == "plain\nmore\n")
    #expect(!own.append("x", to: "plain", owner: geteuid() + 1))
    #expect(try String(contentsOfFile: outside, encoding: .utf8) == "outside\n")
  }

  /// A removal follows no link, needs no rights, and few descriptors, however deep folders are nested.
  @Test func removalStaysInside() throws {
    let folder = TemporaryFolder()
    let root = try PrivateFolder(root: folder.file("drills"), mode: 0o700)
    let own = try root.make("pgbackupd-drill-x")
    try Shell.must("mkdir", [folder.file("outside")])
    let kept = try folder.write("outside/kept", "kept\n")
    try Shell.must("ln", ["-s", folder.file("outside"), "\(own.path)/link"])
    try Shell.must(
      "sh",
      [
        "-c", "cd \"$0\"; for n in $(seq 2000); do mkdir d; ln -s \"$1\" l; cd d; done", own.path,
        folder.file("outside"),
      ])
    try Shell.must("mkdir", ["-p", "\(own.path)/closed/inner"])
    try Shell.must("chmod", ["0", "\(own.path)/closed"])
    #expect(root.remove("pgbackupd-drill-x"))
    #expect(root.names() == [])
    #expect(try String(contentsOfFile: kept, encoding: .utf8) == "kept\n")
  }

  @Test func aSweepLeavesWhatIsNotOurs() async throws {
    let folder = TemporaryFolder()
    try Shell.must(
      "mkdir", [folder.file("drills"), folder.file("outside"), folder.file("drills/pgbackupd-drill-theirs")])
    let kept = try folder.write("outside/kept", "kept\n")
    try Shell.must("ln", ["-s", folder.file("outside"), folder.file("drills/pgbackupd-drill-link")])
    if geteuid() == 0 { try Shell.must("chown", ["nobody", folder.file("drills/pgbackupd-drill-theirs")]) }
    let swept = await ThrowawayServer.sweep(root: folder.file("drills"), patience: .zero)
    #expect(swept == (geteuid() == 0 ? 0 : 1))
    #expect(try String(contentsOfFile: kept, encoding: .utf8) == "kept\n")
    #expect(try Shell.must("ls", [folder.file("drills")]).contains("pgbackupd-drill-link"))
  }

  /// An account that owns a server's files owns them for code of a backup too.
  @Test func anAccountThatRunsAServerIsRefused() async throws {
    let cluster = try PrivateCluster.shared()
    let owner = try Shell.must("stat", ["-c", "%u %g", cluster.folder.file("data")]).split(
      whereSeparator: \.isWhitespace)
    let numbers = try owner.map { try #require(UInt32($0)) }
    let account = DrillAccount(name: "someone", user: numbers[0], group: numbers[1], isOwn: false)
    let fault = #expect(throws: Fault.self) { try account.refuseServers(Self.walls) }
    #expect(fault?.code == .drillFailed && fault?.cause?.contains("data directory") == true)
    // Our own account may go on where its files are out of reach, and not else.
    let own = DrillAccount(name: "someone", user: numbers[0], group: numbers[1], isOwn: true)
    if Self.walls.keepsFiles { try own.refuseServers(Self.walls) }
    #expect(throws: Fault.self) { try own.refuseServers(KernelWalls(limit: 0)) }
  }
}
