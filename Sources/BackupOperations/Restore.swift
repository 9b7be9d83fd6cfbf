package import ArtifactFormat
package import BackupCatalog
package import Faults
import Foundation
package import Logging
import PostgresArchive
package import PostgresTools
import Quoting
package import Storage
import Units

/// One restore, from the first check to the swap: the live database serves until the new one is loaded and proved, and whatever goes
/// wrong before the swap leaves it as it was.
package struct Restore: Sendable {
  let request: RestoreRequest
  let manifest: Manifest
  let stores: [any ObjectStore]
  let identities: Keyring
  /// To a database of the server that is always there, such as `postgres`.
  let maintenance: ConnectionSettings
  let programs: [String]
  let context: OperationContext
  let logger: Logger
  /// Makes a backup of a database on the same server and tells where it is. For restores in place.
  let safetyBackup: SafetyBackup?
  /// The database that is restored, by its name on the server.
  let live: String
  /// Why the backup's data is in doubt, where somebody who compares backups has found that.
  package var doubt: Fault?
  /// Signs the mark of the database that is put aside.
  package var signingKey: SigningKey?
  /// What else is to be said of the choice of this backup, in the preview and in the outcome.
  package var cautions: [Fault] = []

  package typealias SafetyBackup =
    @Sendable (ConnectionSettings) async throws(Fault) -> (manifest: Manifest, stores: [any ObjectStore])

  /// - Parameter stores: those that hold the backup whole, the nearest first.
  package init(
    _ request: RestoreRequest, of manifest: Manifest, from stores: [any ObjectStore], identities: Keyring,
    on connection: ConnectionSettings, programs: [String], context: OperationContext, logger: Logger,
    safetyBackup: SafetyBackup? = nil, liveName: String? = nil
  ) {
    live = liveName ?? connection["dbname"] ?? manifest.server.database
    self.request = request
    self.manifest = manifest
    self.stores = stores
    self.identities = identities
    maintenance = connection.database(live).maintenance
    self.programs = programs
    self.context = context
    self.logger = logger
    self.safetyBackup = safetyBackup
  }

  /// The connection with all that libpq takes from the environment and its files: the programs that restore get none of that.
  package static func resolved(_ connection: ConnectionSettings) async throws(Fault) -> ConnectionSettings {
    try await PostgresSession.connect(connection.maintenance).use { session throws(Fault) in
      await session.effectiveSettings()
    }
  }

  /// What would be done, without doing any of it. Throws what would refuse the restore before it begins.
  package func preview() async throws(Fault) -> RestorePreview {
    var preview = try await Preparation(self, readsGlobals: true).preview
    preview.warnings = cautions + preview.warnings
    if let doubt { preview.warnings.insert(doubt, at: 0) }
    return preview
  }

  package func run() async throws(Fault) -> RestoreOutcome {
    do {
      context.report(RunProgress(phase: .preflight))
      let preparation = try await Preparation(self, readsGlobals: request.withGlobals)
      logger.info(
        "restore begins",
        metadata: [
          "backup": "\(manifest.id)", "server": "\(preparation.server.version)", "target": "\(request.database)",
        ]
      )
      let refused = request.withGlobals ? try await preparation.makeGlobals() : []
      var outcome = try await place(preparation)
      if !refused.isEmpty { outcome.derived = (outcome.derived ?? []) + refused }
      outcome.warnings = cautions + outcome.warnings
      if let doubt { outcome.warnings.insert(doubt, at: 0) }
      return outcome
    } catch let error as StorageError {
      throw error.fault
    } catch {
      throw Fault(error)
    }
  }
}

extension Restore {
  /// A quarter of a minute: most restarts and rushes of others are over by then. A daemon goes on trying behind that.
  private static let reconnections = 4
  private static let reconnectEvery = Duration.seconds(5)

  /// Runs it again where the server can't be reached, or has no connection to give.
  ///
  /// - Parameter clear: takes away what stands in the way, where that can be done; asked before each time, and at the end.
  fileprivate func runWhenReachable(
    _ clear: @Sendable () async -> Void
  ) async throws(Fault) -> RestoreOutcome {
    var attempt = 0
    while true {
      attempt += 1
      await clear()
      do throws(Fault) {
        let outcome = try await run()
        await clear()
        return outcome
      } catch {
        guard error.code == .databaseUnreachable, attempt < Self.reconnections else {
          await clear()
          throw error
        }
        logger.warning(
          "the safety backup is put back as soon as the server gives a connection",
          metadata: ["cause": "\(error.cause ?? error.message)"])
        try? await Task.sleep(for: Self.reconnectEvery)
      }
    }
  }

  /// The way back from a restore in place: its safety backup, to where that was taken from. On one connection at a time: what the server
  /// had too few of must not stand in its way.
  fileprivate func back(to safety: (manifest: Manifest, stores: [any ObjectStore]), isLenient: Bool) -> Restore {
    var request = RestoreRequest(backup: safety.manifest.id, database: request.database)
    request.jobs = 1
    request.isLenient = isLenient
    return Restore(
      request, of: safety.manifest, from: safety.stores, identities: identities, on: maintenance, programs: programs,
      context: context, logger: logger, liveName: live)
  }

  fileprivate func place(_ preparation: Preparation) async throws -> RestoreOutcome {
    let run = RestoreRun(self, preparation)
    if request.isPartial, case .beside = request.target { return try await run.beside() }
    if request.isPartial { return try await TableRestore(self, preparation).run() }
    return switch request.target {
    case .swap: try await run.swap()
    case .beside: try await run.beside()
    case .inPlace: try await run.inPlace()
    }
  }
}

extension ConnectionSettings {
  /// The same server, its database `postgres`; where that is the one that the work is about, `template1`.
  var maintenance: ConnectionSettings { database(self["dbname"] == "postgres" ? "template1" : "postgres") }

  func database(_ name: String) -> ConnectionSettings {
    var copy = self
    copy["dbname"] = name
    return copy
  }
}

/// A restore's work on one new database: made, loaded, proved, and put where it belongs.
struct RestoreRun: Sendable {
  let restore: Restore
  let preparation: Preparation
  private let phases: PhaseClock

  init(_ restore: Restore, _ preparation: Preparation) {
    self.restore = restore
    self.preparation = preparation
    phases = PhaseClock(restore.context)
  }

  private var request: RestoreRequest { restore.request }
  private var names: RestoreNames { preparation.names }

  /// What the live database becomes from now on.
  private var aside: KeptAside {
    KeptAside(
      name: names.kept, live: names.live, time: restore.context.now(),
      before: preparation.database(names.live)?.comment,
      key: restore.signingKey)
  }

  func swap() async throws -> RestoreOutcome {
    try await building(names.work) { outcome in
      phases.begin(.swap)
      let isThere = try await preparation.isThere(names.live)
      let swap = try await DatabaseSwap(maintenance: restore.maintenance).run(
        names.work, to: names.live, keeping: isThere ? aside : nil,
        newComment: .some(preparation.archivedComment))
      outcome.database = names.live
      outcome.kept = isThere ? names.kept : nil
      outcome.downtimeSeconds = swap.seconds
      outcome.warnings += preparation.ties
    }
  }

  func beside() async throws -> RestoreOutcome {
    guard case .beside(let name) = request.target else { preconditionFailure("a restore beside has a name") }
    return try await building(names.work) { outcome in
      phases.begin(.swap)
      _ = try await DatabaseSwap(maintenance: restore.maintenance).run(
        names.work, to: name, keeping: nil, newComment: .some(preparation.archivedComment))
      outcome.database = name
    }
  }

  /// The live database gets another name, which keeps everybody out, is backed up, and makes room. Where the restore then fails, the
  /// safety backup is put back.
  func inPlace() async throws -> RestoreOutcome {
    guard try await preparation.isThere(names.live) else { return try await swap() }
    guard let safetyBackup = restore.safetyBackup else {
      throw Fault(
        .restoreRefused, "A restore in place needs a store for its safety backup.", hint: "pgbackupctl status")
    }
    // Before anything is taken away: all of the backup is read, and is what its contents say.
    phases.begin(.check)
    try await preparation.source.check()
    do throws(Fault) {
      try await preparation.tryOut()
    } catch {
      if Task.isCancelled { throw CancellationError() }
      guard [.restoreFailed, .databaseServer].contains(error.code) else { throw error }
      throw Fault(
        .restoreRefused, "Nothing was replaced: '\(preparation.inventory.role)' can't make all that the backup has.",
        cause: "\(error.message)\n\(error.cause ?? "")",
        hint: "set 'restore_connect' of the database to a superuser, or choose --no-owner, --no-privileges")
    }
    let start = ContinuousClock.now
    phases.begin(.safety)
    let swap = DatabaseSwap(maintenance: restore.maintenance)
    let comment = preparation.database(names.live)?.comment
    try await swap.putAside(names.live, as: aside)
    let safety: (manifest: Manifest, stores: [any ObjectStore])
    do throws(Fault) {
      safety = try await safetyBackup(restore.maintenance.database(names.kept))
      // It must be readable here and now, or there is no way back.
      let source = try await ArchiveSource(safety.manifest, in: safety.stores, identities: restore.identities)
      try await source.check()
      try await Preparation(restore.back(to: safety, isLenient: false), readsGlobals: false).tryOut()
      try await preparation.drop(names.kept)
    } catch {
      let swap = swap
      let (kept, live) = (names.kept, names.live)
      do throws(Fault) {
        _ = try await uncancelled { () async throws(Fault) in
          try await swap.run(kept, to: live, keeping: nil, newComment: .some(comment))
        }
      } catch let second {
        throw Fault(
          error.code,
          "The restore stopped before it replaced anything, but '\(live)' is still named '\(kept)'. " + error.message,
          cause: "\(error.cause ?? "")\n\(second.message)",
          hint: restore.signingKey == nil
            ? "pgbackupctl rollback \(shell: live) --standalone --kept \(shell: kept)"
            : "pgbackupctl rollback \(shell: request.database) gives it its name back")
      }
      let fault = Task.isCancelled ? Fault(CancellationError()) : error
      throw Fault(
        fault.code, "Nothing was replaced, and '\(live)' is in its place again. " + fault.message, cause: fault.cause,
        hint: fault.hint)
    }
    do {
      var outcome = try await self.swap()
      outcome.kept = safety.manifest.id.description
      outcome.downtimeSeconds = start.duration(to: .now).inSeconds
      return outcome
    } catch {
      throw await putBack(safety, after: Fault(error))
    }
  }

  /// Restores the safety backup, and tells how that went.
  private func putBack(_ safety: (manifest: Manifest, stores: [any ObjectStore]), after fault: Fault) async -> Fault {
    restore.logger.warning(
      "the restore in place failed; the safety backup is put back", metadata: ["backup": "\(safety.manifest.id)"])
    // Not cancelled with the restore: the database is gone until this is done.
    let again = restore.back(to: safety, isLenient: true)
    let (preparation, unfinished) = (preparation, names.work)
    do throws(Fault) {
      let outcome = try await uncancelled { () async throws(Fault) in
        // What has failed has tried that itself, but perhaps without a connection; and there may be no room for two.
        try await again.runWhenReachable { try? await preparation.drop(unfinished) }
      }
      let lacks = outcome.unproved + outcome.warnings.map { "\($0.message) \($0.cause ?? "")" }
      return Fault(
        fault.code,
        "The restore failed, and '\(names.live)' is back "
          + (lacks.isEmpty ? "as it was before. " : "with its rows, but NOT all of it: see the cause. ")
          + fault.message,
        cause: ([fault.cause].compactMap { $0 } + lacks).joined(separator: "\n"),
        hint: lacks.isEmpty
          ? fault.hint : "as a superuser: pgbackupctl restore \(shell: safety.manifest.id)")
    } catch let second {
      return Fault(
        .restoreFailed,
        "The restore failed, and so did putting back the safety backup \(safety.manifest.id): '\(names.live)' is not there.",
        cause: "\(fault.message)\n\(second.message)\n\(second.cause ?? "")",
        hint: "mend the cause, then: pgbackupctl restore \(shell: safety.manifest.id)")
    }
  }

  /// Makes a database, loads and proves it, and hands it to `finish`. Where anything fails, it is dropped again.
  private func building(
    _ name: String, _ finish: (inout RestoreOutcome) async throws -> Void
  ) async throws -> RestoreOutcome {
    var outcome = RestoreOutcome(database: name)
    phases.begin(.prepare)
    // Outside: what this restore has not made it must not drop.
    let hold = try await preparation.create(name)
    do {
      try await hold.use { _ in try await build(name, &outcome) }
      try await finish(&outcome)
    } catch {
      // A program that was ended because of that says something else.
      let fault = Task.isCancelled ? Fault(CancellationError()) : Fault(error)
      do throws(Fault) {
        try await uncancelled { () async throws(Fault) in try await preparation.drop(name) }
      } catch let second {
        restore.logger.warning(
          "the unfinished database could not be dropped",
          metadata: ["database": "\(name)", "cause": "\(second.message)"])
      }
      throw fault
    }
    outcome.close(phases, preparation.source)
    return outcome
  }

  private func build(_ name: String, _ outcome: inout RestoreOutcome) async throws {
    let contents = preparation.source.contents
    let program = RestoreProgram(
      preparation.program, restore.maintenance.database(name), serverMajor: preparation.server.major, request.options,
      isLenient: request.isLenient)
    let entries = preparation.entries
    try await preparation.rehearse(name)

    phases.begin(.schema)
    let head = try MemoryFile(preparation.head)
    var complaints = [try await program.make(.preData, head: head, entries: entries, jobs: 1)]

    let session = preparation.session(name)
    let tables = preparation.tables
    let objects = entries == nil ? contents.largeObjects : []
    var loaded = contents
    (loaded.tables, loaded.largeObjects) = (tables, objects)
    let total = loaded.dataBytes
    let loading = phases.begin(.load, expected: total)
    try await RestoreLoad(
      source: preparation.source, tables: tables.filter { $0.rows != nil }, session: session, jobs: request.jobs,
      progress: loading
    ).run()
    let others = tables.filter { $0.rows == nil }.map { Block(id: $0.dumpID, range: $0.offset..<$0.offset + $0.length) }
    let blocks = others + objects.map { Block(id: $0.dumpID, range: $0.offset..<$0.offset + $0.length) }
    try await loadBlocks(blocks, statements: entries == nil ? preparation.toc.dataStatements : [], program, loading)
    try await preparation.setSequences(session)

    let watch = ServerWatch(restore.maintenance.database(name), alive: restore.context.alive)
    phases.begin(.indexes)
    let preparation = preparation
    let later = LaterEntries(preparation.toc, chosen: entries)
    let jobs = request.jobs
    complaints.append(
      try await watch.during { try await program.make(.postData, head: head, entries: later.first, jobs: jobs) })
    if !later.rowSecurity.isEmpty {
      complaints.append(try await program.make(.postData, head: head, entries: later.rowSecurity, jobs: 1))
    }
    let (unrefreshed, complaint) = try await watch.during {
      try await refresh(later.refreshes, program, head, session)
    }
    complaints.append(complaint)
    if request.makesStatistics {
      phases.begin(.statistics)
      let missing = try await watch.during { try await preparation.analyze(name) }
      complaints.append(Preparation.warning(withoutStatistics: missing))
    }

    let proving = phases.begin(.proof, expected: tables.compactMap(\.bytes).reduce(0, +))
    let prover = RestoreProof(
      contents: loaded, sequences: preparation.sequences, session: session, jobs: request.jobs,
      isWhole: entries == nil, progress: proving)
    var proof = RestoreProof.Result()
    do {
      proof = try await ForcedRowSecurity(session: session).resting { try await prover.run() }
    } catch let fault as Fault where request.isLenient && fault.code != .databaseUnreachable {
      // All the rows that could be put back are better than none.
      proof.unproved.append(fault.message)
    }
    outcome.loadedBytes = total
    outcome.tables = tables.count
    outcome.isWhole = entries == nil
    outcome.provedTables = proof.tables
    outcome.rows = proof.rows
    outcome.unproved = proof.unproved.sorted()
    outcome.derived = proof.derived + unrefreshed + preparation.leftOut
    // Behind all that they would fire at: a trigger that keeps a log of commands would log ours.
    if !later.eventTriggers.isEmpty {
      complaints.append(try await program.make(.postData, head: head, entries: later.eventTriggers, jobs: 1))
    }
    outcome.warnings += complaints.compactMap { $0 }
    let refused = try await preparation.dress(name)
    if !refused.isEmpty { outcome.derived = (outcome.derived ?? []) + refused }
    outcome.warnings += preparation.leftOutSettings
  }

  /// Fills the materialized views. Returns those that a server which reaches nobody could not fill, each with the reason; and what went
  /// wrong where it goes on after errors.
  private func refresh(
    _ refreshes: [TocEntry], _ program: RestoreProgram, _ head: MemoryFile, _ session: LoadSession
  ) async throws -> ([String], Fault?) {
    guard !refreshes.isEmpty else { return ([], nil) }
    guard request.fillsViews else {
      return (
        refreshes.map {
          "\($0.schema ?? "").\($0.tag ?? "") (materialized view, left empty: filling it would run its code on a server that is not the drill's own)"
        }, nil
      )
    }
    do throws(Fault) {
      return (
        [], try await program.make(.postData, head: head, entries: refreshes.map(\.dumpID), jobs: request.jobs)
      )
    } catch {
      guard request.isConfined, Self.isOfConfinement(error) else { throw error }
    }
    // In the archive's order, which is that of what needs what.
    let left = try await session.connect().use { connection throws(Fault) in
      var failed: [String] = []
      for entry in refreshes {
        do throws(Fault) {
          try await connection.execute(entry.definition ?? "")
        } catch {
          // One over another that was not filled.
          let isBehind = !failed.isEmpty && error.cause?.contains(bytes: "has not been populated") == true
          guard Self.isOfConfinement(error) || isBehind else { throw error }
          failed.append(
            "\(entry.schema ?? "").\(entry.tag ?? "") (materialized view, left empty: it asks another server, which a drill does not reach)"
          )
        }
      }
      return failed
    }
    return (left, nil)
  }

  /// Whether it failed because the kernel lets it connect to nobody (EPERM, EAFNOSUPPORT; our servers speak English).
  private static func isOfConfinement(_ fault: Fault) -> Bool {
    let words = fault.cause ?? ""
    return words.contains(bytes: "Operation not permitted") || words.contains(bytes: "Address family not supported")
  }

  private struct Block {
    let id: Int
    let range: Range<UInt64>
  }

  /// What of the data only `pg_restore` can load: large objects, and tables whose data is no COPY text.
  private func loadBlocks(
    _ blocks: [Block], statements: [Int], _ program: RestoreProgram,
    _ loading: @escaping @Sendable (Int64, String) -> Void
  ) async throws {
    let wanted = Set(blocks.map(\.id) + statements)
    guard !wanted.isEmpty else { return }
    let (source, head) = (preparation.source, preparation.head)
    // In the archive's order, which is that of its blocks too.
    try await program.load(preparation.toc.entries.map(\.dumpID).filter(wanted.contains)) { input in
      try await input.write(head)
      for block in blocks.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
        try await source.read(block.range) { bytes in
          try await input.write(Array(bytes))
          loading(Int64(bytes.count), "large objects")
        }
      }
    }
  }
}
