import ArgumentParser
import BackupConfiguration
import BackupDaemon
import BackupOperations
import CPlatform
import Confinement
import ControlAPI
import CoreMetrics
import Faults
import Foundation
import Logging
import MetricsText
import ServiceLifecycle
import SystemdSupport
import UnixSignals

/// The daemon. It stays in the foreground, as systemd wants it.
struct DaemonCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pgbackupd",
    abstract: "Backs up PostgreSQL databases on schedule, and on demand over its control socket.",
    version: Backup.version)

  @Option(name: .long, help: "The configuration file.")
  var config = "/etc/pgbackupd/pgbackupd.yaml"

  @Flag(name: .long, help: "Read the configuration, tell every mistake in it, and end.")
  var checkConfig = false

  @Option(name: .long, help: "trace, debug, info, notice, warning or error.", transform: Self.level)
  var logLevel = Logger.Level.info

  @Option(
    name: .long,
    help: ArgumentHelp("Block a part after so many seconds, to test the watchdog.", visibility: .hidden))
  var debugWedgeAfter: Int?

  @Option(name: .long, help: ArgumentHelp("scheduler, daemon, ledger or job.", visibility: .hidden))
  var debugWedgePart = DaemonCore.Part.scheduler

  private static func level(_ text: String) throws -> Logger.Level {
    guard let level = Logger.Level(rawValue: text) else { throw ValidationError("'\(text)' is no log level") }
    return level
  }

  func run() async throws {
    let configuration = try ConfigurationReader.load(config)
    if checkConfig {
      print(
        "\(config) is valid: \(configuration.databases.count) databases, \(configuration.jobs.count) jobs, \(configuration.stores.count) stores."
      )
      for warning in configuration.warnings { print("warning: \(warning)") }
      return
    }
    let (level, destination) = (logLevel, DaemonLogHandler.Destination.current)
    let tail = LogTail()
    LoggingSystem.bootstrap { _ in DaemonLogHandler(level: level, destination: destination, tail: tail) }
    let logger = Logger(label: "pgbackupd")
    let assembly = Assembly(configuration: configuration)
    try assembly.prepareDirectories()
    try assembly.lockState()

    let registry = MetricsRegistry(help: [
      "pgbackupd_store_requests": "Requests to a store over the network, since the start.",
      "pgbackupd_store_retries": "Requests that were sent again, since the start.",
      "pgbackupd_store_sent_bytes": "Bytes sent to a store over the network, since the start.",
      "pgbackupd_store_received_bytes": "Bytes received from a store over the network, since the start.",
    ])
    MetricsSystem.bootstrap(registry)
    let path = config
    let core = DaemonCore(
      plan: try assembly.plan(), ledger: try Ledger(path: configuration.daemon.state + "/ledger.ndjson"),
      now: SystemClock.now, logger: logger, zone: Assembly.zone,
      namedZone: Assembly.namedZone, registry: registry, logTail: tail
    ) { () throws(Fault) in
      let assembly = Assembly(configuration: try ConfigurationReader.load(path))
      let (old, new) = (configuration.daemon.state, assembly.configuration.daemon.state)
      guard old == new else {
        // Ledger, lock, signing key and default store lie there.
        throw Fault(
          .configInvalid, "'daemon: state:' can't change from '\(old)' to '\(new)' while the daemon runs.",
          hint: "systemctl restart pgbackupd, or put it back")
      }
      try assembly.prepareDirectories()
      return try assembly.plan()
    }
    var servers = [
      try ControlServer(core: core, socketPath: configuration.daemon.socket, access: .operators, logger: logger)
    ]
    if let path = configuration.daemon.monitorSocket {
      servers.append(try ControlServer(core: core, socketPath: path, access: .everybody, logger: logger))
    }
    if let page = configuration.metrics {
      let access = PageAccess(
        host: page.host, port: page.port, names: page.names, user: page.user, password: page.password)
      servers.append(try ControlServer(core: core, page: access, logger: logger))
    }
    let services = ServiceGroup(
      configuration: .init(
        // Stopped in reverse order: the sockets answer until the last run has ended.
        services: servers.map { .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup) } + [
          .init(
            service: DaemonService(
              core: core, wedge: debugWedgeAfter.map { (debugWedgePart, .seconds($0)) }, logger: logger),
            successTerminationBehavior: .gracefullyShutdownGroup)
        ], gracefulShutdownSignals: [.sigterm, .sigint],
        logger: Logger(label: "pgbackupd.services") { _ in
          DaemonLogHandler(level: .warning)
        }))
    try await services.run()
    unlink(configuration.daemon.socket)
    if let path = configuration.daemon.monitorSocket { unlink(path) }
  }
}

@main struct Main {
  static func main() async {
    // Until somebody listens: a reload that comes early must not end the daemon.
    signal(SIGHUP, SIG_IGN)
    signal(SIGUSR1, SIG_IGN)
    cplatform_tune_heap()
    if let reason = PrivateMemory.begin() {
      FileHandle.standardError.write(Data("The kernel does not keep this process's memory private: \(reason)\n".utf8))
    }
    do {
      let command = try DaemonCommand.parse()
      try await command.run()
    } catch let fault as Fault {
      FileHandle.standardError.write(Data("\(fault)\n".utf8))
      exit(fault.code.exitCode.rawValue)
    } catch {
      // Help and version come this way too, with status 0.
      let status = DaemonCommand.exitCode(for: error)
      let handle = status.isSuccess ? FileHandle.standardOutput : FileHandle.standardError
      handle.write(Data((DaemonCommand.fullMessage(for: error) + "\n").utf8))
      exit(status.isSuccess ? ExitCode.done.rawValue : ExitCode.usage.rawValue)
    }
  }

  private typealias ExitCode = Faults.ExitCode
}

extension DaemonCore.Part: ExpressibleByArgument {}
