import Foundation
import Glibc
import Synchronization

/// A real PostgreSQL server of a test's own: a Unix socket in a private folder, no TCP, gone with the process that started
/// it, however that ends.
package final class PrivateCluster: Sendable {
  package let folder = TemporaryFolder()
  private let process: ServerProcess
  private let hasBegunAgain = Atomic(false)

  /// One server for all tests of a process that need nothing special; each makes databases of its own.
  package static func shared() throws -> PrivateCluster { try sharedResult.get() }
  private static let sharedResult = Result { try PrivateCluster() }

  package var host: String { folder.path }
  package static let port = "5432"
  package let binaries: String

  /// Makes and starts a server, with extra lines for pg_hba.conf in front of the trusting default.
  ///
  /// - Parameters:
  ///   - major: of PostgreSQL; Debian's own where nil.
  ///   - diskMayFill: whether `fillDisk` will be asked for.
  package init(
    authentication: [String] = [], settings: [String] = [], major: Int? = nil, diskMayFill: Bool = false
  ) throws {
    binaries = try Self.findBinaries(major, folder)
    let data = folder.file("data")
    let asUser = Self.asUser
    if geteuid() == 0 { try Shell.must("chown", ["postgres", folder.path]) }
    try Shell.must(
      asUser[0],
      asUser.dropFirst() + [
        "\(binaries)/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N",
      ])
    if !authentication.isEmpty {
      let path = "\(data)/pg_hba.conf"
      let old = try String(contentsOfFile: path, encoding: .utf8)
      try (authentication.joined(separator: "\n") + "\n" + old).write(toFile: path, atomically: false, encoding: .utf8)
    }
    var environment: [String] = []
    if diskMayFill {
      // The server's user may have no way to where it was built.
      let library = folder.file("libFullDisk.so")
      try Shell.must("cp", [DaemonProcess.program("libFullDisk.so"), library])
      environment = ["env", "LD_PRELOAD=\(library)", "FULL_SWITCH=\(folder.file("full"))"]
    }
    process = try Self.start(folder, binaries, settings, environment)
  }

  /// From now on the server's databases can't grow: there is no space left.
  package func fillDisk() { close(open(folder.file("full"), O_CREAT | O_WRONLY | O_CLOEXEC, 0o644)) }
  package func emptyDisk() { unlink(folder.file("full")) }

  /// Makes and starts a standby that follows a primary by streaming.
  package init(standbyOf primary: PrivateCluster, settings: [String] = []) throws {
    binaries = primary.binaries
    if geteuid() == 0 { try Shell.must("chown", ["postgres", folder.path]) }
    let asUser = Self.asUser
    try Shell.must(
      asUser[0],
      asUser.dropFirst() + [
        "\(binaries)/pg_basebackup", "-D", folder.file("data"), "-R", "-X", "stream", "-c", "fast", "-h", primary.host,
        "-p", Self.port, "-U", "postgres",
      ])
    process = try Self.start(folder, binaries, settings)
  }

  private static func start(
    _ folder: TemporaryFolder, _ binaries: String, _ settings: [String], _ environment: [String] = []
  ) throws -> ServerProcess {
    let data = folder.file("data")
    let server =
      asUser + environment + ["\(binaries)/postgres", "-D", data, "-k", folder.path, "-p", port]
      + (["listen_addresses=''", "fsync=off", "shared_buffers=32MB", "max_connections=400", "max_wal_size=256MB"]
      + settings)
      .flatMap { ["-c", $0.replacing("''", with: "")] }
    let process = try ServerProcess(
      server, in: folder,
      // One that has crashed is gone, and its number may be another's by now.
      ending: #"! grep -qsF "$folder/data" /proc/$server/cmdline || kill -QUIT $server"#)
    try process.waitUntilReady("the test server") { try isReady(folder, binaries) }
    return process
  }

  /// pg_isready is PostgreSQL's own way to tell.
  private static func isReady(_ folder: TemporaryFolder, _ binaries: String) throws -> Bool {
    try Shell.run("\(binaries)/pg_isready", ["-h", folder.path, "-p", port, "-q"]).status == 0
  }

  deinit { stop() }

  /// Waits until the server takes connections (again).
  package func waitUntilReady() throws {
    try eventually("the test server takes connections") { try Self.isReady(folder, binaries) }
  }

  /// Ends the server at once, as a power cut would.
  package func stop() {
    if hasBegunAgain.exchange(false, ordering: .relaxed) { try? crash() }
    process.stop()
  }

  /// Ends the server as a crash does; `beginAgain` brings it back with its data.
  package func crash() throws {
    let asUser = Self.asUser
    try Shell.must(
      asUser[0],
      asUser.dropFirst() + [
        "\(binaries)/pg_ctl", "-D", folder.file("data"), "-m", "immediate", "-w", "-t", "300", "-s", "stop",
      ])
  }

  package func beginAgain() throws {
    let asUser = Self.asUser
    hasBegunAgain.store(true, ordering: .relaxed)
    try Shell.must(
      asUser[0],
      asUser.dropFirst() + [
        "\(binaries)/pg_ctl", "-D", folder.file("data"), "-l", folder.file("data/log"), "-w", "-t", "300", "-s", "-o",
        "-k \(folder.path) -p \(Self.port) -c listen_addresses= -c fsync=off -c max_connections=400", "start",
      ])
  }

  /// initdb and postgres refuse to run as root.
  package static var asUser: [String] {
    geteuid() == 0 ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] : ["env"]
  }

  /// Of the server, by its programs.
  package var majorVersion: Int {
    let text = (try? Shell.run("\(binaries)/postgres", ["--version"]).output) ?? ""
    return Int(text.split(separator: " ").dropFirst(2).first?.prefix { $0.isNumber } ?? "") ?? 0
  }

  /// `host=… port=… user=…` words for a database.
  package func conninfo(_ database: String, user: String = "postgres") -> String {
    let name = database.replacing("\\", with: "\\\\").replacing("'", with: "\\'")
    return "host=\(host) port=\(Self.port) user=\(user) dbname='\(name)'"
  }

  /// Runs SQL and returns what psql prints, unaligned, without headers.
  @discardableResult
  package func sql(_ database: String, _ statements: String) throws -> String {
    try Shell.must(
      "\(binaries)/psql", ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", conninfo(database), "-f", "-"],
      input: statements)
  }

  /// Makes a database with a name that no other test has.
  package func makeDatabase(
    _ prefix: String = "db", sample scale: Int? = nil, options: String = ""
  ) throws -> String {
    let name = "\(prefix)_\(UUID().uuidString.prefix(8).lowercased())"
    try sql("postgres", "CREATE DATABASE \"\(name)\" TEMPLATE template0 \(options)")
    if let scale {
      try Shell.must(
        "\(binaries)/psql",
        ["-X", "-q", "-v", "scale=\(scale)", "-d", conninfo(name), "-f", "\(repositoryRoot)/etc/demo/sample.sql"])
    }
    return name
  }

  private static func findBinaries(_ major: Int?, _ folder: TemporaryFolder) throws -> String {
    let root = "/usr/lib/postgresql"
    if let major, !FileManager.default.isExecutableFile(atPath: "\(root)/\(major)/bin/initdb") {
      let installed = "\(repositoryRoot)/.build/postgres/\(major)"
      guard FileManager.default.isExecutableFile(atPath: "\(installed)/bin/initdb") else {
        throw Shell.Failure(description: "PostgreSQL \(major) is not installed in \(installed): run make test")
      }
      // The server's user may have no way into the repository's folder.
      let reachable = try Shell.run(asUser[0], asUser.dropFirst() + ["test", "-x", "\(installed)/bin/postgres"])
      if reachable.status == 0 { return "\(installed)/bin" }
      try Shell.must("cp", ["-a", installed, folder.file("postgres")])
      return folder.file("postgres/bin")
    }
    let majors = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    if let major { return "\(root)/\(major)/bin" }
    let newest = majors.compactMap(Int.init).filter {
      FileManager.default.isExecutableFile(atPath: "\(root)/\($0)/bin/initdb")
    }.max()
    guard let newest else {
      throw Shell.Failure(description: "PostgreSQL's server is not installed under \(root): run scripts/setup.sh")
    }
    return "\(root)/\(newest)/bin"
  }
}
