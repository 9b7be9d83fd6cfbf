package import ArtifactFormat
package import BackupCatalog
import CPlatform
package import Faults
package import Foundation
import Glibc
package import Logging
package import OutsidePrograms
import PostgresArchive
package import PostgresTools
package import Storage
import Units

/// One backup of one database, from the first check to the manifest: it happens whole or not at all.
///
/// Nothing is committed before pg_dump has ended well, the archive has been read to its end, and the snapshot's transaction
/// has been seen to live still; then the manifest is written, last. Whatever goes wrong before that, what was written is
/// removed again.
package struct Backup: Sendable {
  package struct Request: Sendable {
    /// The name that the configuration gave the database, and that its backups are stored under.
    package var database: String
    package var connection: ConnectionSettings
    package var type: String
    package var label: String?
    package var job: String?
    package var run: String
    /// Overrides the type's `keep`.
    package var keep: Duration?
    /// The due instant of a scheduled run.
    package var due: Date?
    /// Tells stores that can lock objects until when.
    package var retention = RetentionPolicy(rules: [:])

    package init(
      database: String, connection: ConnectionSettings, type: String, label: String?, job: String?, run: String,
      keep: Duration?, due: Date? = nil
    ) {
      self.database = database
      self.connection = connection
      self.type = type
      self.label = label
      self.job = job
      self.run = run
      self.keep = keep
      self.due = due
    }
  }

  package struct Settings: Sendable, Hashable {
    package var compression = Compression.standard
    package var encryption = Encryption.none
    /// Seals each backup's own key, beside the recipients of `encryption`.
    package var gpg: GnuPG?
    /// Signs the manifests.
    package var signingKey: SigningKey?
    /// Threads that compress.
    package var workers = 2
    package var lockWait = Duration.seconds(60)
    package var stallAfter = Duration.seconds(900)
    /// More folders with client programs.
    package var programs: [String] = []
    /// What of a backup is remarkable beside those before it.
    package var anomalyRule = AnomalyRule()
    /// What a dump may cost the server.
    package var load = LoadPolicy()

    package init() {}

    /// Whose keys open the backups, age's and OpenPGP's; empty where they are not encrypted.
    package var holders: Set<String> { Set(encryption.recipients).union(gpg?.recipients ?? []) }
  }

  /// What the catalog knew before the run.
  package struct History: Sendable {
    /// The newest good backup of the same database.
    package var last: Manifest?
    /// Times that ids of the same database have already.
    package var takenTimes: Set<Date>
    /// What the backups before were like, the oldest first.
    package var statistics: [BackupStatistics] = []
    /// Why nobody here knows what they were like; nil where somebody does, or there were none.
    package var unknown: String?
    /// The last line of the ledger, to be signed with the manifest.
    package var ledger: Manifest.LedgerWitness?

    package init(last: Manifest? = nil, takenTimes: Set<Date> = []) {
      self.last = last
      self.takenTimes = takenTimes
    }
  }

  package struct Outcome: Sendable {
    package let manifest: Manifest
    /// The stores that hold the whole backup.
    package let stores: [String]
    /// The wanted stores that don't, and why. Reconcile copies it there later.
    package let dropped: [String: Fault]
    /// Slower stores, which reconcile copies it to: the dump did not wait for them.
    package var later: [String] = []
    /// What its history does not explain.
    package var anomalies: [Anomaly] = []
    /// What the next ones are compared with; nil where nothing was read.
    package var statistics: BackupStatistics?
    /// What it has cost the server; nil where nothing was dumped.
    package var cost: LoadCost?
    /// What it has cost more than it should.
    package var warnings: [Fault] = []
  }

  let request: Request
  let settings: Settings
  let stores: [any ObjectStore]
  let history: History
  let context: OperationContext
  let logger: Logger
  /// Told what a dump has cost the server, whatever came of it.
  package var onCost: @Sendable (LoadCost) -> Void = { _ in }

  /// The `software` of manifests.
  package static let software = "pgbackupd \(version)"
  package static let version = "0.1.0"

  package init(
    _ request: Request, settings: Settings, stores: [any ObjectStore], history: History, context: OperationContext,
    logger: Logger
  ) {
    self.request = request
    self.settings = settings
    self.stores = stores
    self.history = history
    self.context = context
    self.logger = logger
  }

  package func run() async throws(Fault) -> Outcome {
    do {
      defer { cplatform_trim_heap() }
      context.report(RunProgress(phase: .preflight))
      return try await dumpAgainWhereStoresFail()
    } catch let error as StorageError {
      throw error.fault
    } catch {
      throw Fault(error)
    }
  }

  /// A dump holds a snapshot of a live database, so where a disk of this machine takes it, it waits for no line that was told to be slow.
  /// Where that disk fails in the middle, the slow ones get a dump of their own.
  private func dumpAgainWhereStoresFail() async throws -> Outcome {
    do {
      return try await dump(sparingSlow: true)
    } catch let lost as StoresLost {
      guard !Task.isCancelled else { throw lost.fault }
      logger.warning(
        "the dump begins anew, into the stores with a rate_limit", metadata: ["cause": "\(lost.fault.message)"])
      // Another session: the rows of now, under the time of now.
      return try await dump(sparingSlow: false)
    }
  }

  private func dump(sparingSlow: Bool) async throws -> Outcome {
    try await PostgresSession.connect(request.connection).use { session in
      try await run(on: session, sparingSlow: sparingSlow)
    }
  }

  private func run(on session: PostgresSession, sparingSlow: Bool) async throws -> Outcome {
    // Before the snapshot, which would wait for gpg.
    let sealed = try await SealedEncryption(settings.encryption, gpg: settings.gpg)
    let snapshot = try await Snapshot.export(
      on: session, lockWaitMilliseconds: Int64(settings.lockWait.inSeconds * 1000))
    let started = context.now()
    let server = try await session.serverFacts()
    try await session.checkReadability()
    let locks = try await session.lockDemand()
    let doubts = try await session.searchPathDoubts()
    if locks.isTooSmall {
      logger.warning(
        "the dump may run out of locks",
        metadata: [
          "wanted": "\(locks.wanted)", "room": "\(locks.room)", "max_locks_per_transaction": "\(locks.needed)",
        ])
    }
    let programs = ClientPrograms(configured: settings.programs)
    let dumpProgram = try await programs.program("pg_dump", forServer: server.major)
    let globalsProgram = try await programs.program("pg_dumpall", forServer: server.major)
    let (usable, refused) = try await checkStores(server)
    let (layout, failed) = try await BackupLayout.free(
      request.database, request.type, from: started, taken: history.takenTimes, in: usable)
    let answering = usable.filter { failed[$0.name] == nil }
    let (prompt, later) = sparingSlow ? Self.prompt(answering) : (answering, [])

    let connection = await session.effectiveSettings()
    logger.info(
      "backup begins",
      metadata: ["backup": "\(layout.id)", "program": "\(dumpProgram.path)", "server": "\(server.version)"])

    let name = layout.artifactName(suffix: settings.compression.suffix + sealed.encryption.suffix)
    let key = try Self.key(layout, name)
    let written = WrittenObjects()
    let term = RetentionTerm(request, layout)
    let expected =
      history.last.map { UInt64(clamping: $0.artifact.file.size) }
      // A third of the database at most, as a rule: indexes are no part of it, and rows compress. What parts of uploads are sized by.
      ?? UInt64(clamping: server.databaseBytes / 3)
    var fan: FanOut
    do {
      fan = try await FanOut(key, into: prompt, dropped: refused.merging(failed.mapValues(\.fault)) { $1 }) { store in
        UploadOptions(expectedBytes: expected, retainUntil: term.end(in: store))
      }
    } catch {
      throw later.isEmpty ? error : StoresLost(fault: error)
    }
    do {
      let program = DumpProgram(
        dumpProgram, connection, encoding: server.encoding, serverMajor: server.major)
      let dumped = try await dump(
        program, connection, snapshot, server, sealed.encryption, into: &fan)
      context.report(RunProgress(phase: .globals))
      let globals = try await GlobalsProgram(globalsProgram, connection, serverMajor: server.major).dump(
        withRolePasswords: server.canReadRolePasswords)
      // Behind this nothing of the server is needed, and a slow store keeps no old rows alive.
      try await snapshot.end()
      try Task.checkCancellation()
      context.report(RunProgress(phase: .commit))
      try await fan.finish()
      for store in fan.stores { await written.add(key, in: store) }

      var contents = Contents(
        layout.id, try dumped.index, dumped.frames,
        settings: Dictionary(uniqueKeysWithValues: TextSettings.all.map { ($0.name, $0.value) })
          .merging(["client_encoding": program.encoding, TextSettings.ofServer: server.monetaryLocale]) { $1 })
      var statistics = BackupStatistics(
        contents, try dumped.index, storedBytes: dumped.artifact.count,
        seconds: context.now().timeIntervalSince(started))
      let toc = TableOfContents(try dumped.index.entries)
      var anomalies = settings.anomalyRule.compare(statistics, with: history.statistics)
      if let reason = history.unknown {
        anomalies.append(Anomaly(.notCompared, "what the backups before were like is not known here: \(reason)"))
      }
      // It is the measure of the next ones all the same: there is no other.
      statistics.isUncompared = anomalies.contains { $0.kind == .notCompared } ? true : nil
      statistics.isFlagged = anomalies.contains { $0.kind.isAlarming && $0.kind != .notCompared }
      // What is known here alone is no matter of the contents; the manifest tells it.
      let told = anomalies.filter { $0.kind != .notCompared }
      contents.anomalies = told.isEmpty ? nil : told
      let commit = BackupCommit(
        layout: layout, compression: settings.compression, sealed: sealed,
        signingKey: settings.signingKey, artifactName: name, contents: contents, digest: dumped.artifact,
        globals: globals, hasRolePasswords: server.canReadRolePasswords, term: term)
      var outcome = try await commit.run(on: fan.stores, dropped: fan.dropped, written: written) {
        [contents, anomalies] artifact, contentsFile, globals in
        var manifest = manifest(layout, started, server, dumpProgram, artifact, contentsFile, globals, contents)
        let flags = Set(anomalies.map(\.kind).filter(\.isAlarming).map(\.rawValue)).sorted()
        manifest.flags = flags.isEmpty ? nil : flags
        manifest.encryption = sealed.record
        manifest.server.databaseOptions = toc.databaseOptions
        return manifest
      }
      (outcome.anomalies, outcome.statistics) = (anomalies, statistics)
      (outcome.cost, outcome.warnings, outcome.later) = (dumped.cost, dumped.warnings, later)
      if let fault = toc.unreadableNames(of: layout.id) { outcome.warnings.append(fault) }
      if let doubts { outcome.warnings.append(doubts) }
      if locks.isTooSmall { outcome.warnings.append(locks.fault(in: request.database)) }
      return outcome
    } catch {
      let error = Self.explained(error, locks, request.database)
      // Also where the run was cancelled: what it has written must not stay where it costs.
      let wreck = fan
      await uncancelled { await wreck.abort() }
      if let reason = await uncancelled({ await written.remove() }) {
        logger.warning(
          "leftovers of a failed backup stay until they are swept",
          metadata: ["store": "\(reason.store)", "backup": "\(layout.id)", "cause": "\(reason.reason)"])
      }
      let lost = error as? StoresLost ?? (wreck.stores.isEmpty ? StoresLost(fault: Fault(error)) : nil)
      throw later.isEmpty ? lost?.fault ?? error : lost ?? error
    }
  }

  /// With the value that would do, where locks were too few.
  private static func explained(_ error: any Error, _ locks: LockDemand, _ database: String) -> any Error {
    guard let fault = error as? Fault, fault.code == .dumpLocks else { return error }
    let demand = locks.fault(in: database)
    return Fault(
      .dumpLocks, fault.message, cause: "\(demand.cause ?? "")\n\(fault.cause ?? "")", hint: demand.hint)
  }

  /// Dumps through the pipeline into the stores; the uploads are not finished yet.
  private func dump(
    _ program: DumpProgram, _ connection: ConnectionSettings, _ snapshot: Snapshot, _ server: ServerFacts,
    _ encryption: Encryption, into fan: inout FanOut
  ) async throws -> DumpedArchive {
    let gate = PauseGate()
    let pipeline = ArchivePipeline(compression: settings.compression, workers: settings.workers, gate: gate)
    // pg_dump's text is about the size of the tables without indexes; the last archive is the better guess.
    let expected = history.last?.artifact.archiveBytes ?? server.databaseBytes
    var begin = RunProgress(phase: .dump)
    begin.expectedBytes = expected
    context.report(begin)
    let progress = ProgressMeter(expectedBytes: expected, report: context.report)
    let destination = try FrameDestination(fan, encryption)
    let dumped: DumpedArchive
    do {
      let loadGuard = LoadGuard(connection, settings.load, gate: gate, logger: logger, resting: progress.rests)
      dumped = try await watched(by: loadGuard) {
        try await program.dump(snapshot: snapshot, lockWait: settings.lockWait, stallAfter: settings.stallAfter) {
          output in
          let result = try await pipeline.run(output, onRead: progress.read) { bytes in
            try await destination.write(bytes)
            progress.wrote(bytes.count)
          }
          try await destination.finish()
          return DumpedArchive(archive: result.archive, frames: result.frames, artifact: await destination.digest)
        }
      }
    } catch {
      fan = await destination.fan
      throw error
    }
    fan = await destination.fan
    // Last, so that pg_dump's own words come first where it failed.
    _ = try dumped.index
    return dumped
  }

  /// Dumps for as long as the guard lets it; what it has cost goes with what came of it.
  private func watched(
    by loadGuard: LoadGuard, _ dump: @escaping @Sendable () async throws -> DumpedArchive
  ) async throws -> DumpedArchive {
    try await withThrowingTaskGroup(of: DumpedArchive?.self) { group in
      group.addTask { try await dump() }
      group.addTask {
        try await loadGuard.watch()
        return nil
      }
      defer {
        group.cancelAll()
        // In any case, also where the dump has failed.
        if let cost = loadGuard.cost {
          logger.info("what the dump has cost", metadata: cost.metadata)
          onCost(cost)
        }
      }
      while let ended = try await group.next() {
        // The guard may end first, where the server can't be asked.
        guard var dumped = ended else { continue }
        (dumped.cost, dumped.warnings) = (loadGuard.cost, loadGuard.warnings)
        return dumped
      }
      throw CancellationError()
    }
  }

  /// The stores that the dump goes to, and the names of those that get their copy later, from a disk of this machine: a `rate_limit` says
  /// that a line is slow.
  private static func prompt(_ stores: [any ObjectStore]) -> ([any ObjectStore], later: [String]) {
    guard stores.contains(where: \.canLink) else { return (stores, []) }
    func isSlow(_ store: any ObjectStore) -> Bool { store.rateLimit != nil && !store.canLink }
    return (stores.filter { !isSlow($0) }, stores.filter(isSlow).map(\.name))
  }

  /// The stores that can take the backup, and why the others can't. Throws where none can.
  private func checkStores(
    _ server: ServerFacts
  ) async throws(Fault) -> (usable: [any ObjectStore], refused: [String: Fault]) {
    var usable: [any ObjectStore] = []
    var refused: [String: Fault] = [:]
    for store in stores {
      do throws(StorageError) {
        try await store.check()
        // A quarter more than last time, which is what a growing database may need.
        if let last = history.last?.storedBytes, let room = try await store.availableSpace(), room.bytes < last / 4 * 5
        {
          refused[store.name] = Fault(
            .storeSpace, "Store '\(store.name)' has \(room) left; the last backup took \(ByteCount(last)).",
            hint: "free space there, or shorten 'keep' and run: pgbackupctl reconcile --apply")
        } else {
          usable.append(store)
        }
      } catch {
        refused[store.name] = error.fault
      }
    }
    if usable.isEmpty {
      throw refused.sorted { $0.key < $1.key }.first?.value
        ?? Fault(.configInvalid, "The type '\(request.type)' has no store.", hint: "pgbackupctl config check")
    }
    return (usable, refused)
  }

  private func manifest(
    _ layout: BackupLayout, _ started: Date, _ server: ServerFacts, _ program: ClientProgram,
    _ artifact: Manifest.StoredFile, _ contents: Manifest.StoredFile, _ globals: Manifest.Globals,
    _ known: Contents
  ) -> Manifest {
    var manifest = Manifest(
      id: layout.id, type: layout.type, label: request.label, job: request.job, run: request.run,
      keepSeconds: request.keep.map { $0.components.seconds }, started: started.wholeSecond,
      finished: context.now().wholeSecond, host: HostName.current, software: Self.software,
      dumpProgram: program.versionText,
      server: Manifest.Server(
        version: server.version, versionNumber: server.versionNumber, systemIdentifier: server.systemIdentifier,
        database: server.database, encoding: server.encoding, databaseBytes: server.databaseBytes,
        isStandby: server.isStandby),
      artifact: Manifest.Artifact(
        file: artifact, archiveBytes: Int64(clamping: known.archiveBytes),
        compression: settings.compression.algorithm.rawValue,
        level: settings.compression.level),
      contents: contents, globals: globals,
      totals: known.totals)
    manifest.artifact.dataBytes = known.dataBytes
    manifest.due = request.due
    manifest.ledger = history.ledger
    return manifest
  }

  static func key(_ layout: BackupLayout, _ name: String) throws(Fault) -> ObjectKey {
    guard let key = ObjectKey(layout.path(name)) else {
      throw Fault(
        .configInvalid, "The name of \(layout.id) can't be stored: as a file's name it has more than 255 bytes.",
        hint: "shorten the name under 'databases:', or the database's")
    }
    return key
  }
}

/// What came out of pg_dump, as it lies in the stores.
struct DumpedArchive: Sendable {
  let archive: Result<ArchiveIndex, ArchiveError>
  let frames: FrameIndex
  let artifact: Digest
  var cost: LoadCost?
  var warnings: [Fault] = []

  var index: ArchiveIndex {
    get throws(Fault) {
      do {
        return try archive.get()
      } catch {
        throw Fault(
          .archiveMalformed, "pg_dump ended well, but what it wrote is no whole archive.", cause: error.description,
          hint: "run the job again; if it stays, report it with the versions of server and pg_dump")
      }
    }
  }
}
