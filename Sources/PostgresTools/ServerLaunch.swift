import Confinement
import Faults
import Foundation
import Glibc
import Quoting
import Units

/// How a throw-away server comes into being: the cell that its programs run in, and its settings.
struct ServerLaunch {
  let binaries: String
  let folder: PrivateFolder
  let account: DrillAccount
  let walls: KernelWalls

  /// What a process of the server may have for itself, whatever settings come with a backup: room for a row of 1 GB,
  /// which PostgreSQL has twice while it is read, and once more as text.
  private static let processMemory = ByteCount(4 << 30)
  /// PostgreSQL's largest files are segments of 1 GB.
  private static let fileSize = ByteCount(2 << 30)
  /// What a drill leaves free on its disk, at most.
  private static let reserve: Int64 = 1 << 30

  /// Places of libraries, of the dynamic loader, and of what they read; Nix and Guix have theirs in stores.
  private static let libraries = [
    "/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store", "/gnu/store",
  ]
  /// Programs that PostgreSQL runs: pg_ctl and COPY … PROGRAM a shell, initdb `locale -a`.
  private static let helpers = ["/bin/sh", "/usr/bin/locale"]
  private static let data = [
    // Time zones, locales, dictionaries, extensions
    "/usr/share", "/usr/local/share", "/etc/localtime", "/etc/timezone", "/etc/locale.alias",
    "/var/cache/postgresql/dicts",
    // The dynamic loader, the name of the account, OpenSSL
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies",
    "/dev/urandom", "/dev/random", "/dev/zero",
  ]

  private func program(_ name: String, _ arguments: [String]) -> Cell.Program {
    var environment = ["LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"]
    let ownLibraries = getenv("LD_LIBRARY_PATH").map { String(cString: $0) }
    environment["LD_LIBRARY_PATH"] = ownLibraries
    // Beside the programs, as `make install` of PostgreSQL lays them; not the folder above, which may hold anything.
    let beside = ["lib", "lib64", "share"].map { "\(binaries)/../\($0)" }
    let added = (ownLibraries ?? "").split(atByte: UInt8(ascii: ":")).map(String.init).filter {
      $0.starts(withBytes: "/")
    }
    return Cell.Program(
      path: "\(binaries)/\(name)", arguments: arguments, environment: environment,
      readable: Self.data + beside + added, executable: Self.libraries + Self.helpers + [binaries],
      folder: folder, account: account, memory: Self.processMemory, fileSize: Self.fileSize, reserve: reserve,
      walls: walls)
  }

  /// At most half of what is free now, so that a disk that is nearly full is no reason not to begin.
  private var reserve: ByteCount {
    var about = statvfs()
    guard fstatvfs(folder.descriptor, &about) == 0 else { return ByteCount(0) }
    let free = Int64(clamping: about.f_bavail) * Int64(clamping: about.f_frsize)
    return ByteCount(min(Self.reserve, free / 2))
  }

  /// Makes the data directory.
  func make(superuser: String) async throws(Fault) {
    let cell = try await run(
      "initdb",
      ["-D", "\(folder.path)/data", "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
    await cell.end()
  }

  /// Nothing of it has to survive anything: no fsync, no WAL beyond what a load needs. One gigabyte of memory at
  /// most, about.
  ///
  /// - Parameters:
  ///   - libraries: to be loaded at the start; those that are not here are left out.
  ///   - database: the one that it is all about.
  func configure(connections: Int, major: Int, libraries: [String], database: String) throws(Fault) {
    var settings = [
      "listen_addresses=", "unix_socket_directories=\(folder.path)", "unix_socket_permissions=0700", "port=5432",
      "fsync=off", "full_page_writes=off", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0",
      "max_wal_size=4GB", "checkpoint_timeout=1h", "autovacuum=off", "jit=off", "shared_buffers=128MB",
      "maintenance_work_mem=128MB", "work_mem=16MB", "max_connections=\(connections + 16)",
      "max_prepared_transactions=0",
      "dynamic_shared_memory_type=mmap", "logging_collector=off", "max_locks_per_transaction=512", "huge_pages=off",
      // One that has lost a process is gone for good: who asks for it afterwards learns that.
      "cluster_name=pgbackupd_drill", "restart_after_crash=off",
    ]
    let libraries = libraries.filter(isHere)
    if !libraries.isEmpty { settings.append("shared_preload_libraries=\(libraries.joined(separator: ","))") }
    if libraries.contains("pg_cron") {
      // It takes the rows of its jobs, and begins none of them.
      settings += ["cron.database_name=\(database)", "cron.max_running_jobs=0", "cron.launch_active_jobs=off"]
    }
    // One that fires at each login would have a say in every connection of the proof.
    if major >= 17 { settings.append("event_triggers=off") }
    let lines = settings.map { line in
      let parts = line.split(atByte: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
      return "\(parts[0]) = \(ServerFileValue.quoted(parts[1]))"
    }
    let text = "\n" + lines.joined(separator: "\n") + "\n"
    guard folder.folder("data")?.append(text, to: "postgresql.conf", owner: account.user) == true else {
      throw Fault(
        .drillFailed, "The drill's server could not be configured.", cause: String(cString: strerror(errno)),
        hint: "look at the disk of '\(folder.path)'")
    }
  }

  /// Where `make install` and distributions put libraries that a server loads (`$libdir`).
  private func isHere(_ library: String) -> Bool {
    guard !library.contains(byte: UInt8(ascii: "/")) else { return false }
    return ["lib", "lib/postgresql", "lib64", "lib64/postgresql", "lib64/pgsql"].contains {
      access("\(binaries)/../\($0)/\(library).so", R_OK) == 0
    }
  }

  /// Starts the server; it runs until its cell ends.
  func begin() async throws(Fault) -> Cell {
    do throws(Fault) {
      return try await run(
        "pg_ctl", ["-D", "\(folder.path)/data", "-l", "\(folder.path)/log", "-w", "-s", "-t", "120", "start"])
    } catch {
      let log = folder.tail(of: "log", owner: account.user)
      throw Fault(
        .drillFailed, "The drill's server did not start.",
        cause: ([error.cause ?? ""] + log.lines.filter { !$0.isEmpty }.suffix(6).map(String.init)).joined(
          separator: "\n"),
        hint: "look at the memory and the disk of this machine")
    }
  }

  /// Runs one of PostgreSQL's programs to its end. What it leaves running is the cell's.
  private func run(_ name: String, _ arguments: [String]) async throws(Fault) -> Cell {
    let complaint = try ComplaintFile()
    let program = program(name, arguments)
    let (cell, status) = try await Cell.begin(program, errors: complaint.descriptor)
    guard status == 0 else {
      await cell.end()
      let words = ClientProcess.lastLines(complaint.tail())
      throw Fault(
        .drillFailed, "\(program.path) failed (\(ClientProcess.Status(waited: status).text)).",
        cause: words.isEmpty ? nil : words, hint: "pgbackupctl log")
    }
    return cell
  }
}
