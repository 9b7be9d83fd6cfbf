package import Faults
import Foundation
import Glibc
import Quoting
import Units

/// A PostgreSQL server of our own, for one drill: made by `initdb`, reached through a Unix socket in a folder that only its account
/// can enter, without TCP, and gone afterwards. It knows no other server, and none knows it: whatever code lies in a backup (a foreign
/// server, dblink, a trigger), the kernel refuses its processes every connection to anybody.
package struct ThrowawayServer: Sendable {
  private let folder: String
  private let lock: Int32
  private let binaries: String
  /// To its database `postgres`, as the superuser.
  package let connection: ConnectionSettings
  package let versionText: String

  /// Nothing else in the folder of drills is ever touched: it may be a shared one.
  private static let prefix = "pgbackupd-drill-"
  private static let socketName = ".s.PGSQL.5432"
  /// What a process of the server may have for itself, whatever settings come with a backup: room for a row of 1 GB, which PostgreSQL
  /// has twice while it is read, and once more as text.
  private static let processMemory = ByteCount(4 << 30)

  /// Makes and starts a server.
  ///
  /// - Parameters:
  ///   - major: of the server that the backup is from: what is proved on another one is proved for that one.
  ///   - superuser: the name of its first role.
  ///   - root: the folder of all such servers; a stopped or swept one leaves nothing in it.
  ///   - connections: how many will be made at once, about.
  package static func start(
    major: Int, superuser: String, programs: ClientPrograms, root: String, name: String, connections: Int
  ) async throws(Fault) -> ThrowawayServer {
    let initdb: ClientProgram
    do throws(Fault) {
      initdb = try await programs.program("initdb", forServer: major)
    } catch {
      throw missing(major, error.cause)
    }
    guard initdb.major == major else { throw missing(major, "there is only \(initdb.versionText)") }
    let folder = "\(root)/\(Self.prefix)\(name)"
    guard "\(folder)/\(socketName)".utf8.count <= 107 else {
      throw Fault(
        .drillFailed, "The folder '\(folder)' is too long for a socket's path (107 bytes).",
        hint: "set 'drill: folder:' to a shorter one")
    }
    try makeFolder(root, folder)
    // Held for the drill's life, and by the kernel no longer than ours.
    let lock = hold("\(folder)/lock") ?? -1
    let server = ThrowawayServer(
      folder, lock, String(initdb.path.dropLast("/initdb".count)),
      initdb.versionText.replacingBytes(of: "initdb (PostgreSQL)", with: "PostgreSQL"), superuser)
    do throws(Fault) {
      try await server.begin(connections, major)
      try await server.checkIdentity()
    } catch {
      await server.remove()
      throw error
    }
    return server
  }

  private init(_ folder: String, _ lock: Int32, _ binaries: String, _ versionText: String, _ superuser: String) {
    self.folder = folder
    self.lock = lock
    self.binaries = binaries
    self.versionText = versionText
    connection = ConnectionSettings(socketFolder: folder, port: "5432", user: superuser, database: "postgres")
  }

  private func begin(_ connections: Int, _ major: Int) async throws(Fault) {
    let data = "\(folder)/data"
    try await Self.run(
      "\(binaries)/initdb",
      ["-D", data, "-U", connection["user"] ?? "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
    // Nothing of it has to survive anything: no fsync, no WAL beyond what a load needs. One gigabyte of memory at most, about.
    var settings = [
      "listen_addresses=", "unix_socket_directories=\(folder)", "unix_socket_permissions=0700", "port=5432",
      "fsync=off", "full_page_writes=off", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0",
      "max_wal_size=4GB", "checkpoint_timeout=1h", "autovacuum=off", "jit=off", "shared_buffers=128MB",
      "maintenance_work_mem=128MB", "work_mem=16MB", "max_connections=\(connections + 16)",
      "max_prepared_transactions=0",
      "dynamic_shared_memory_type=mmap", "logging_collector=off", "max_locks_per_transaction=512", "huge_pages=off",
      // One that has lost a process is gone for good: who asks for it afterwards learns that.
      "cluster_name=pgbackupd_drill", "restart_after_crash=off",
    ]
    // One that fires at each login would have a say in every connection of the proof.
    if major >= 17 { settings.append("event_triggers=off") }
    let lines = settings.map { line in
      let parts = line.split(atByte: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
      return "\(parts[0]) = \(ServerFileValue.quoted(parts[1]))"
    }
    do {
      let path = "\(data)/postgresql.conf"
      let old = try String(contentsOfFile: path, encoding: .utf8)
      try (old + "\n" + lines.joined(separator: "\n") + "\n").write(toFile: path, atomically: false, encoding: .utf8)
    } catch {
      throw Fault(.drillFailed, "The drill's server could not be configured.", cause: error.localizedDescription)
    }
    do throws(Fault) {
      try await Self.run(
        "\(binaries)/pg_ctl", ["-D", data, "-l", "\(folder)/log", "-w", "-s", "-t", "120", "start"], isConfined: true)
    } catch {
      let log = (try? String(contentsOfFile: "\(folder)/log", encoding: .utf8)) ?? ""
      throw Fault(
        .drillFailed, "The drill's server did not start.",
        cause: ([error.cause ?? ""] + log.lines.filter { !$0.isEmpty }.suffix(6).map(String.init)).joined(
          separator: "\n"),
        hint: "look at the memory and the disk of this machine")
    }
  }

  /// Whatever the environment makes of our connection (PGHOSTADDR, a service): it must lead to our own server and to no other.
  private func checkIdentity() async throws(Fault) {
    let place = try await PostgresSession.connect(connection).use { session throws(Fault) in
      try await session.query("SELECT pg_catalog.current_setting('data_directory')").first?[0]
    }
    guard place == "\(folder)/data" else {
      throw Fault(
        .drillFailed,
        "The drill's connection leads to another server, at \(place ?? "an unknown place"); nothing was done there.",
        hint: "unset PGHOSTADDR and PGSERVICE in the daemon's environment")
    }
  }

  /// Ends the server and leaves nothing behind.
  package func remove() async {
    await Self.remove(folder, binaries)
    if lock >= 0 { close(lock) }
  }

  /// Lets go of it as a crash does: it runs on, and is anybody's to sweep.
  package func abandon() { if lock >= 0 { close(lock) } }

  /// Ends and removes what drills of a dead process have left; returns how many there were.
  package static func sweep(root: String, programs: ClientPrograms) async -> Int {
    let names = ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).filter {
      $0.starts(withBytes: prefix)
    }
    var swept = 0
    for name in names {
      let folder = "\(root)/\(name)"
      // Another daemon's, which may live.
      guard let lock = hold("\(folder)/lock") else { continue }
      defer { close(lock) }
      swept += 1
      let version = (try? String(contentsOfFile: "\(folder)/data/PG_VERSION", encoding: .utf8)) ?? ""
      let major = Int(version.prefix { $0.isNumber }) ?? 0
      let program = try? await programs.program("pg_ctl", forServer: major)
      await remove(folder, program.map { String($0.path.dropLast("/pg_ctl".count)) } ?? "")
    }
    return swept
  }

  /// The lock of a drill's folder: whoever has it may end what is in there. Nil where a living process has it.
  private static func hold(_ path: String) -> Int32? {
    let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else { return nil }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      close(file)
      return nil
    }
    return file
  }

  private static func remove(_ folder: String, _ binaries: String) async {
    if isRunning("\(folder)/data") {
      _ = try? await run("\(binaries)/pg_ctl", ["-D", "\(folder)/data", "-m", "immediate", "-w", "-s", "stop"])
    }
    try? FileManager.default.removeItem(atPath: folder)
  }

  /// Whether the server of a data directory runs: it was begun with that in its words. pg_ctl would end whatever process has got the number
  /// that is written there, also behind a crash or a reboot.
  private static func isRunning(_ data: String) -> Bool {
    guard let text = try? String(contentsOfFile: "\(data)/postmaster.pid", encoding: .utf8),
      let process = text.split(separator: "\n").first.flatMap({ Int32($0) })
    else { return false }
    // As proc_pid_cmdline(5) has it; everybody may read it, which is not so of a working directory.
    let file = open("/proc/\(process)/cmdline", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return false }
    defer { close(file) }
    var words = [UInt8](repeating: 0, count: 8192)
    let count = read(file, &words, words.count)
    return words.prefix(max(0, count)).split(separator: 0).contains { $0.elementsEqual(data.utf8) }
  }

  // MARK: - Programs

  /// PostgreSQL refuses to run as root: then its own account runs it.
  private static let account: (uid: uid_t, gid: gid_t)? = {
    guard geteuid() == 0, let entry = getpwnam("postgres") else { return nil }
    return (entry.pointee.pw_uid, entry.pointee.pw_gid)
  }()

  private static func run(
    _ program: String, _ arguments: [String], isConfined: Bool = false
  ) async throws(Fault) {
    do {
      let prefix = account.map { ["--reuid=\($0.uid)", "--regid=\($0.gid)", "--clear-groups", program] } ?? []
      let process = ClientProcess(
        path: prefix.isEmpty ? program : "/usr/bin/setpriv", arguments: prefix + arguments)
      let output = try await isConfined ? process.runConfined(memory: processMemory) : process.capture(limit: 1 << 20)
      guard output.status.isSuccess else {
        throw Fault(
          .drillFailed, "\(program) failed (\(output.status.text)).",
          cause: output.complaint.isEmpty ? nil : output.complaint, hint: "pgbackupctl log")
      }
    } catch {
      throw Fault(error)
    }
  }

  private static func makeFolder(_ root: String, _ folder: String) throws(Fault) {
    if geteuid() == 0, account == nil {
      throw Fault(
        .drillFailed, "PostgreSQL does not run as root, and there is no account 'postgres' to run it.",
        hint: "run pgbackupd as a user of its own, as its systemd unit does")
    }
    let mode: mode_t = account == nil ? 0o700 : 0o711
    guard mkdir(root, mode) == 0 || errno == EEXIST, mkdir(folder, 0o700) == 0 else {
      throw Fault(
        .drillFailed, "The folder '\(folder)' can't be made.", cause: String(cString: strerror(errno)),
        hint: "set 'drill: folder:' to one where pgbackupd may write")
    }
    if let account, chown(folder, account.uid, account.gid) != 0 {
      throw Fault(
        .drillFailed, "The folder '\(folder)' can't be given to 'postgres'.", cause: String(cString: strerror(errno)))
    }
  }

  private static func missing(_ major: Int, _ cause: String?) -> Fault {
    Fault(
      .toolMissing, "A drill needs the server programs of PostgreSQL \(major), and they are not here.", cause: cause,
      hint: "apt install postgresql-\(major), or set 'programs' in the configuration")
  }
}
