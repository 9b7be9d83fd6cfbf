import AgeEncryption
import ArgumentParser
import ArtifactFormat
import BackupCatalog
import BackupConfiguration
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import OutsidePrograms
import PostgresTools
import Quoting
import S3Storage
import Storage
import StoreAssembly
import Units

/// Where the backups are, and what opens them, for work without a daemon and without its state: on a new machine after a disaster.
struct StandaloneOptions: ParsableArguments {
  @Flag(name: .long, help: "Work in this process, from the stores alone: no daemon, no state.") var standalone = false
  @Option(
    name: .long,
    help:
      "Standalone: where the backups are: a directory, or s3://BUCKET/PREFIX. Credentials as the AWS tools find them.")
  var store: [String] = []
  @Option(name: .long, help: "Standalone: the S3 server, https://HOST[:PORT] (default: AWS).") var endpoint: String?
  @Option(name: .long, help: "Standalone: the bucket's region.") var region: String?
  @Option(name: .long, help: "Standalone: a file with the authority of the S3 server's certificate.") var caFile:
    String?
  @Option(name: .long, help: "Standalone: a file with the age identity, AGE-SECRET-KEY-1….") var identity: String?
  @Option(name: .long, help: "Standalone: a signing.pub whose signatures are believed.") var trust: [String] = []
  @Option(
    name: .long, help: "Standalone: the server to restore into, as a libpq URI or key=value (default: libpq's own).")
  var connect: String?
  @Option(name: .long, help: "Standalone: a configuration file for all of that, as the daemon has it.")
  var config: String?

  func open() throws -> Standalone { try Standalone(self) }
}

/// The operations that need no daemon, in this process.
struct Standalone: Sendable {
  private let stores: [any ObjectStore]
  private let identities: Keyring
  private let trusted: TrustedKeys
  private let connect: String?
  private let configuration: Configuration?

  init(_ options: StandaloneOptions) throws {
    connect = options.connect
    configuration = try options.config.map { path in try ConfigurationReader.load(path) }
    var stores = try options.store.enumerated().map { number, text in
      Configuration.Store(name: "store\(number + 1)", place: try Self.place(text, options), rateLimit: nil)
    }
    if stores.isEmpty { stores = configuration?.stores ?? [] }
    guard !stores.isEmpty else {
      throw Fault(
        .usage, "--standalone needs --store or --config: where are the backups?",
        hint: "pgbackupctl restore ID --standalone --store /path --identity key.txt")
    }
    self.stores = stores.map(StoreAssembly.make)
    // The operator's own gpg, where a backup's key is sealed with it: somebody is there to be asked.
    var gpg = configuration?.dump.gpg ?? GnuPG(recipients: [])
    gpg.canAsk = isatty(STDIN_FILENO) == 1
    if let path = options.identity {
      do {
        let found = try AgeIdentity.identities(inFile: String(contentsOfFile: path, encoding: .utf8))
        identities = Keyring(found, gpg: gpg)
      } catch let error as AgeError {
        throw Fault(.keyInvalid, "'\(path)' is no identity: \(error).")
      } catch {
        throw Fault(.keyMissing, "'\(path)' can't be read.", cause: error.localizedDescription)
      }
    } else {
      identities = Keyring(configuration?.dump.identities ?? [], gpg: gpg)
    }
    trusted = TrustedKeys(try Self.keys(options.trust)) + (configuration?.dump.trustedKeys ?? [])
  }

  private static func keys(_ paths: [String]) throws -> [VerifyingKey] {
    try paths.map { path throws(Fault) in
      let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? path
      guard let key = VerifyingKey(parsing: text) else {
        throw Fault(.keyInvalid, "'\(path)' is no signing.pub.", hint: "name the file, or its second line")
      }
      return key
    }
  }

  private static func place(_ text: String, _ options: StandaloneOptions) throws -> Configuration.Store.Place {
    guard text.starts(withBytes: "s3://") else {
      return .local(path: URL(filePath: text).standardizedFileURL.path)
    }
    let parts = text.dropFirst(5).split(separator: "/", maxSplits: 1).map(String.init)
    guard let bucket = parts.first else {
      throw Fault(.usage, "'\(text)' names no bucket: write s3://BUCKET/PREFIX.")
    }
    var settings = S3Settings(bucket: bucket, endpoint: options.endpoint)
    settings.prefix = parts.count > 1 ? parts[1].split(separator: "/").joined(separator: "/") : ""
    if let region = options.region { settings.region = region }
    settings.authorityFile = options.caFile
    return .s3(settings)
  }

  // MARK: - Work

  func catalog() async throws -> Catalog {
    var reader = CatalogReader(trusted: trusted)
    let catalog = await reader.read(stores) { _, reading, store in
      // What is read in a moment needs no word.
      guard reading.total > 50 else { return }
      Terminal.wait("\(store.location) is being read: \(reading.read) of \(reading.total) backups so far.")
    }
    Terminal.endWait()
    if catalog.backups.isEmpty, let problem = catalog.problems.first { throw problem.fault }
    for problem in catalog.problems { Terminal.complain("\(problem.fault)") }
    for (store, newest, has) in catalog.storesBehind() {
      let place = stores.first { $0.name == store }?.location ?? store
      Terminal.complain(
        "note: \(place) does not show \(newest.id) (\(newest.manifest.type)), which another store has; "
          + "its newest is \(has): it is behind, or withholds the other")
    }
    return catalog
  }

  func find(_ id: String, acceptUntrusted: Bool) async throws -> (
    backup: Catalog.Backup, stores: [any ObjectStore], doubt: Fault?, caution: Fault?
  ) {
    let catalog = try await catalog()
    let backup = try catalog.select(
      try BackupSelector(parsing: id), databases: configuration?.databases.map(\.name) ?? [])
    let whole = backup.placements.filter(\.missing.isEmpty)
    guard !whole.isEmpty else { throw Fault(.artifactDamaged, "\(backup.id) lacks files in every store.") }
    if trusted.isEmpty {
      Terminal.complain("note: the signature of \(backup.id) is not checked; --trust signing.pub does that")
    }
    let believed = whole.filter { trusted.isEmpty || acceptUntrusted || $0.signature == .valid }
    guard !believed.isEmpty else {
      throw Fault(
        .signatureInvalid, "The manifest of \(backup.id) is not signed by a key that --trust names.",
        hint: "name the signing.pub of the daemon that made it, or add --accept-untrusted")
    }
    return (
      backup, stores.filter { store in believed.contains { $0.store == store.name } }, backup.doubt(among: catalog),
      catalog.caution(using: backup)
    )
  }

  func source(_ id: String, acceptUntrusted: Bool) async throws -> ArchiveSource {
    let (backup, stores, _, _) = try await find(id, acceptUntrusted: acceptUntrusted)
    return try await ArchiveSource(backup.manifest, in: stores, identities: identities)
  }

  func restore(
    _ command: RestoreCommand, report: @escaping @Sendable (RunProgress) -> Void
  ) async throws -> Restore {
    let (backup, stores, doubt, caution) = try await find(command.id, acceptUntrusted: command.acceptUntrusted)
    let known = configuration?.databases.first { $0.name.isExactly(backup.id.database) }
    var connection =
      try connect.map { text throws(Fault) in try ConnectionSettings(parsing: text) }
      ?? known?.restoreConnection ?? known?.connection ?? ConnectionSettings(parsing: "")
    let live = known?.connection["dbname"] ?? backup.manifest.server.database
    // A maintenance database is how people write a server; any other name means something.
    if connect != nil, let named = connection["dbname"], !named.isExactly(live),
      !["postgres", "template1"].contains(named),
      command.into == nil
    {
      throw Fault(
        .usage, "--connect names the database '\(named)', and this is a restore of '\(live)'.",
        hint:
          "write --into \(named) for a new database of that name, or leave the name out of --connect to restore '\(live)'"
      )
    }
    connection = try await Restore.resolved(connection)
    connection["dbname"] = live
    let swept = try? await Rollback(on: connection, context: OperationContext(now: SystemClock.now, report: report))
      .sweepUnfinished(of: live)
    for name in swept?.dropped ?? [] {
      Terminal.complain("note: '\(name)', which a restore had left unfinished, is dropped")
    }
    let request = try RestoreRequest(
      command, backup.id, backup.id.database, jobs: configuration?.restores.jobs ?? 4)
    let context = OperationContext(now: SystemClock.now, report: report)
    let programs = configuration?.dump.programs ?? []
    var restore = Restore(
      request, of: backup.manifest, from: stores, identities: identities, on: connection, programs: programs,
      context: context, logger: Logger(label: "pgbackupctl") { _ in SwiftLogNoOpLogHandler() },
      safetyBackup: safetyBackup(backup.manifest, stores[0], programs, context), liveName: live)
    restore.doubt = doubt
    restore.cautions = caution.map { [$0] } ?? []
    return restore
  }

  private func safetyBackup(
    _ manifest: Manifest, _ store: any ObjectStore, _ programs: [String], _ context: OperationContext
  ) -> Restore.SafetyBackup {
    { connection throws(Fault) in
      var settings = Backup.Settings()
      settings.programs = programs
      // Somebody has to open it: the keys that opened the other one.
      let own = identities.identities.compactMap(\.recipient)
      settings.encryption = own.isEmpty ? .none : .age(own)
      if let key = manifest.encryption?.key, own.isEmpty {
        settings.gpg = identities.gpg
        settings.gpg?.recipients = key.recipients
      }
      let request = Backup.Request(
        database: manifest.id.database, connection: connection, type: "pre-restore", label: nil, job: nil,
        run: "standalone",
        keep: nil)
      let outcome = try await Backup(
        request, settings: settings, stores: [store], history: .init(), context: context,
        logger: Logger(label: "pgbackupctl") { _ in SwiftLogNoOpLogHandler() }
      ).run()
      return (outcome.manifest, [store])
    }
  }

  /// Puts back what a restore has replaced. There is no ledger here: a daemon's signature says what that is, or `kept`
  /// does.
  static func rollback(
    _ database: String, kept: String?, connect: String?, config: String?, trust: [String]
  ) async throws -> RestoreOutcome {
    let configuration = try config.map { path in try ConfigurationReader.load(path) }
    let known = configuration?.databases.first { $0.name.isExactly(database) }
    let connection =
      try connect.map { text throws(Fault) in try ConnectionSettings(parsing: text) }
      ?? known?.restoreConnection ?? known?.connection ?? ConnectionSettings(parsing: "")
    var trusted = TrustedKeys(try keys(trust)) + (configuration?.dump.trustedKeys ?? [])
    if let state = configuration?.daemon.state,
      let text = try? String(contentsOfFile: state + "/signing.pub", encoding: .utf8)
    {
      trusted = trusted + TrustedKeys([VerifyingKey(parsing: text)].compactMap { $0 })
    }
    let rollback = Rollback(
      on: connection, context: OperationContext(now: SystemClock.now, report: { _ in }),
      witnesses: KeptWitnesses(keys: trusted))
    return try await Interruptible.run {
      try await rollback.run(
        known?.connection["dbname"] ?? database, choosing: kept,
        command: "pgbackupctl rollback \(shell: database) --standalone")
    }
  }

  /// A restore from begin to end, with its progress shown.
  func run(_ restore: Restore, _ progress: StandaloneProgress) async throws -> RunReport {
    var report = progress.report
    let outcome = try await restore.run()
    progress.finish()
    (report.restore, report.rows, report.warnings) = (outcome, outcome.rows, outcome.warnings)
    (report.state, report.finished) = (.succeeded, SystemClock.now())
    return report
  }
}
