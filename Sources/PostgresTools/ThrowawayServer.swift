package import Confinement
import Dispatch
package import Faults
import Glibc
import QueueExecution
import Quoting

/// A PostgreSQL server of our own, for one drill: made by `initdb`, reached through a unix socket in a folder that
/// only its account can enter, without TCP, and gone afterwards. Code of a backup (a check, a trigger, `COPY … TO
/// PROGRAM`) runs there as a superuser, so its processes are a `Cell`: they write their own folder, read the system's
/// libraries, and reach nothing else.
package struct ThrowawayServer: Sendable {
  private let root: PrivateFolder
  private let folder: PrivateFolder
  private let name: String
  private let cell: Cell
  /// To its database `postgres`, as the superuser.
  package let connection: ConnectionSettings
  package let versionText: String
  /// What this kernel can't refuse to code of the backup, a sentence each; empty from Linux 6.12 on.
  package let gaps: [String]

  private static let socketName = ".s.PGSQL.5432"

  /// Makes and starts a server.
  ///
  /// - Parameters:
  ///   - major: of the server that the backup is from: what is proved on another one is proved for that one.
  ///   - superuser: the name of its first role.
  ///   - root: the folder of all such servers; a stopped or swept one leaves nothing in it.
  ///   - connections: how many will be made at once, about.
  ///   - libraries: to be loaded at its start, where they are here.
  ///   - database: the one that will be made, for libraries that have to know its name.
  ///   - walls: what of this kernel is used.
  package static func start(
    major: Int, superuser: String, programs: ClientPrograms, root: String, name: String, connections: Int,
    libraries: [String] = [], database: String = "postgres", walls: KernelWalls = KernelWalls()
  ) async throws(Fault) -> ThrowawayServer {
    let initdb: ClientProgram
    do throws(Fault) {
      initdb = try await programs.program("initdb", forServer: major)
    } catch {
      throw missing(major, error.cause)
    }
    guard initdb.major == major else { throw missing(major, "there is only \(initdb.versionText)") }
    let account = try DrillAccount.current()
    try account.refuseServers(walls)
    let root = try PrivateFolder(root: root, mode: account.isOwn ? 0o700 : 0o711)
    let name = DrillAccount.folderPrefix + name
    guard "\(root.path)/\(name)/\(socketName)".utf8.count <= 107 else {
      throw Fault(
        .drillFailed, "The folder '\(root.path)/\(name)' is too long for a socket's path (107 bytes).",
        hint: "set 'drill: folder:' to a shorter one")
    }
    let folder = try root.make(name)
    do throws(Fault) {
      // Held for the drill's life, and by the kernel no longer than ours.
      guard folder.lock() else {
        throw Fault(.drillFailed, "The folder '\(folder.path)' is held by another process.", hint: "pgbackupctl log")
      }
      try folder.give(to: account)
      let launch = ServerLaunch(
        binaries: String(initdb.path.dropLast("/initdb".count)), folder: folder, account: account, walls: walls)
      try await launch.make(superuser: superuser)
      try launch.configure(connections: connections, major: major, libraries: libraries, database: database)
      let server = ThrowawayServer(
        root, folder, name, try await launch.begin(), initdb.versionText, superuser, account, walls.gaps(account))
      do throws(Fault) {
        try await server.checkIdentity()
      } catch {
        await server.remove()
        throw error
      }
      return server
    } catch {
      _ = root.remove(name)
      throw error
    }
  }

  private init(
    _ root: PrivateFolder, _ folder: PrivateFolder, _ name: String, _ cell: Cell, _ versionText: String,
    _ superuser: String, _ account: DrillAccount, _ gaps: [String]
  ) {
    (self.root, self.folder, self.name, self.cell, self.gaps) = (root, folder, name, cell, gaps)
    self.versionText = versionText.replacingBytes(of: "initdb (PostgreSQL)", with: "PostgreSQL")
    var connection = ConnectionSettings(socketFolder: folder.path, port: "5432", user: superuser, database: "postgres")
    // The process at the socket must be of the account that the server runs as. It gets no password of another server.
    connection["requirepeer"] = account.name
    connection["passfile"] = "\(folder.path)/no-password"
    self.connection = connection
  }

  /// Whatever the environment makes of our connection (PGHOSTADDR, a service): it must lead to our own server and to
  /// no other.
  private func checkIdentity() async throws(Fault) {
    let place = try await PostgresSession.connect(connection).use { session throws(Fault) in
      try await session.query("SELECT pg_catalog.current_setting('data_directory')").first?[0]
    }
    guard place == "\(folder.path)/data" else {
      throw Fault(
        .drillFailed,
        "The drill's connection leads to another server, at \(place ?? "an unknown place"); nothing was done there.",
        hint: "unset PGHOSTADDR and PGSERVICE in the daemon's environment")
    }
  }

  /// Ends the server with all that code of the backup has begun, and leaves nothing behind. Returns what went wrong
  /// with that, or why the server had ended before.
  @discardableResult
  package func remove() async -> Fault? {
    let ending = await cell.end()
    let isRemoved = root.remove(name)
    switch ending {
    case .hadNoRoom:
      return Fault(
        .drillFailed, "The drill's server was ended: the disk of '\(root.path)' was nearly full.",
        hint: "make room there, or set 'drill: folder:'")
    case .someStay, .lostKeeper:
      return Fault(
        .drillFailed, "Processes of the drill's server may have survived it.",
        hint: "ps -eo pid,user,args | grep postgres")
    case .allEnded, nil:
      return isRemoved
        ? nil
        : Fault(.drillFailed, "The folder '\(folder.path)' could not be removed.", hint: "rm -r \(shell: folder.path)")
    }
  }

  /// Lets go of it as a crash does: the server ends, and its folder is left to a sweep.
  package func abandon() {
    cell.letGo()
    _ = flock(folder.descriptor, LOCK_UN)
  }

  private static func missing(_ major: Int, _ cause: String?) -> Fault {
    Fault(
      .toolMissing, "A drill needs the server programs of PostgreSQL \(major), and they are not here.", cause: cause,
      hint: "apt install postgresql-\(major), or set 'programs' in the configuration")
  }
}

extension ThrowawayServer {
  /// Ends and removes what drills of a dead process have left; returns how many there were.
  ///
  /// - Parameter patience: how long to wait for folders that are held: the processes of a daemon that has just died
  ///   take a moment to end.
  package static func sweep(root: String, patience: Duration = .seconds(10)) async -> Int {
    let swept = try? await DispatchQueue(label: "pgbackupd.sweep").blocking { sweepNow(root, patience) }
    return swept ?? 0
  }

  private static func sweepNow(_ root: String, _ patience: Duration) -> Int {
    // One that isn't there is not made.
    guard access(root, F_OK) == 0, let root = try? PrivateFolder(root: root, mode: 0o700) else { return 0 }
    let account = try? DrillAccount.current()
    let end = ContinuousClock.now + patience
    var swept = 0
    for name in root.names() where name.starts(withBytes: DrillAccount.folderPrefix) {
      // Not what a user has put there.
      guard let folder = root.folder(name), let owner = folder.owner, owner == geteuid() || owner == account?.user
      else {
        continue
      }
      // Nor another daemon's, which may live.
      while !folder.lock(), ContinuousClock.now < end { poll(nil, 0, 50) }
      guard folder.lock(), !folder.isHeld(by: "lock") else { continue }
      swept += 1
      LeftServer(folder, owner: owner)?.end()
      _ = root.remove(name)
    }
    return swept
  }
}
