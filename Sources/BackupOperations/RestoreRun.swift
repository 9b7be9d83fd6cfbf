import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresArchive
import PostgresTools
import Quoting
import Storage
import Units

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
  ///
  /// - Parameter live: as it was seen before anything was loaded.
  private func aside(_ live: PostgresSession.DatabaseFacts) -> KeptAside {
    KeptAside(
      name: names.kept, live: names.live, time: restore.context.now(), before: live.comment, key: restore.signingKey,
      identifier: live.identifier)
  }

  ///
  /// - Parameter isAway: the live database was there, and we have taken it away.
  func swap(isAway: Bool = false) async throws -> RestoreOutcome {
    try await building(names.work) { outcome in
      phases.begin(.swap)
      if request.keepsGoing, let incompleteness = outcome.incompleteness {
        guard await restore.acceptsIncomplete(outcome) else { return try await leaveBeside(&outcome, incompleteness) }
      }
      // One that has come since is somebody else's: the name is taken then, and nothing is replaced.
      let seen = isAway || restore.putsBack ? nil : preparation.database(names.live)
      let live = try await preparation.isThere(names.live) ? seen : nil
      let swap = try await DatabaseSwap(maintenance: restore.maintenance).run(
        names.work, to: names.live, keeping: live.map(aside), newComment: .some(preparation.archivedComment))
      outcome.database = names.live
      outcome.kept = live == nil ? nil : names.kept
      await finish(names.live, &outcome)
      outcome.downtimeSeconds = swap.seconds
      outcome.warnings += preparation.ties
    }
  }

  /// What lacks something does not take the live one's place by itself: it stays under a name of its own, with a mark that says what it is.
  private func leaveBeside(_ outcome: inout RestoreOutcome, _ incompleteness: Fault) async throws {
    let mark = preparation.incompleteMark(incompleteness)
    _ = try await DatabaseSwap(maintenance: restore.maintenance).run(
      names.work, to: names.incomplete, keeping: nil, newComment: .some(mark))
    outcome.database = names.incomplete
    outcome.awaitsSwap = try await preparation.identifier(of: names.incomplete)
  }

  func beside() async throws -> RestoreOutcome {
    guard case .beside(let name) = request.target else { preconditionFailure("a restore beside has a name") }
    return try await building(names.work) { outcome in
      phases.begin(.swap)
      _ = try await DatabaseSwap(maintenance: restore.maintenance).run(
        names.work, to: name, keeping: nil, newComment: .some(preparation.archivedComment))
      outcome.database = name
      await finish(name, &outcome)
    }
  }

  /// The live database gets another name, which nobody's client has, is backed up, and makes room. Where the restore then fails, the
  /// safety backup is put back.
  func inPlace() async throws -> RestoreOutcome {
    guard let live = preparation.database(names.live), try await preparation.isThere(names.live) else {
      return try await swap()
    }
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
    let comment = live.comment
    try await swap.putAside(names.live, as: aside(live))
    let safety: (manifest: Manifest, stores: [any ObjectStore])
    do throws(Fault) {
      safety = try await safetyBackup(restore.maintenance.database(names.kept))
      // It must be readable here and now, or there is no way back.
      let source = try await ArchiveSource(safety.manifest, in: safety.stores, identities: restore.identities)
      try await source.check()
      let way = try await Preparation(restore.back(to: safety, isLenient: false), readsGlobals: false)
      // The database is away: what was tried before, and is the same, is not tried again.
      let isTried = request.options == way.request.options && way.toc.definitions == preparation.toc.definitions
      if !isTried { try await way.tryOut() }
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
      var outcome = try await self.swap(isAway: true)
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
    let entries = preparation.entries
    let program = RestoreProgram(
      preparation.program, restore.maintenance.database(name), serverMajor: preparation.server.major, request.options,
      errors: request.errors)
    var unmade = UnmadeObjects(preparation.toc)
    try await preparation.rehearse(name)

    phases.begin(.schema)
    let head = try MemoryFile(preparation.head)
    unmade.add(
      try await program.make(.preData, head: head, entries: entries, jobs: 1, definition: unmade.definition(of:)))

    let session = preparation.session(name)
    let (tables, sequences) = try await present(session, &unmade, &outcome)
    let objects = preparation.isWhole ? contents.largeObjects : []
    var loaded = contents
    (loaded.tables, loaded.largeObjects) = (tables, objects)
    let total = loaded.dataBytes
    let loading = phases.begin(.load, expected: total)
    let refused = try await RestoreLoad(
      source: preparation.source, tables: tables.filter { $0.rows != nil }, session: session, jobs: request.jobs,
      goesOn: request.errors != .stop, progress: loading
    ).run()
    for (table, fault) in refused {
      let name = "\(table.schema).\(table.name)"
      unmade.add(kind: "TABLE DATA", name: name, fault.cause ?? fault.message, sql: nil)
      outcome.unproved.append("\(name): the server did not take its \(table.rows ?? 0) rows")
      loaded.tables.removeAll { $0.dumpID == table.dumpID }
    }
    let others = tables.filter { $0.rows == nil }.map { Block(id: $0.dumpID, range: $0.offset..<$0.offset + $0.length) }
    let blocks = others + objects.map { Block(id: $0.dumpID, range: $0.offset..<$0.offset + $0.length) }
    try await loadBlocks(
      blocks, statements: preparation.isWhole ? preparation.toc.dataStatements : [], program, loading)
    try await preparation.set(sequences, session)

    let watch = ServerWatch(restore.maintenance.database(name), alive: restore.context.alive)
    phases.begin(.indexes)
    let preparation = preparation
    let later = LaterEntries(preparation.toc, chosen: entries)
    let jobs = request.jobs
    let definition = unmade.definition(of:)
    unmade.add(
      try await watch.during {
        try await program.make(.postData, head: head, entries: later.first, jobs: jobs, definition: definition)
      })
    if !later.rowSecurity.isEmpty {
      unmade.add(
        try await program.make(.postData, head: head, entries: later.rowSecurity, jobs: 1, definition: definition))
    }
    let (unrefreshed, refusals) = try await watch.during {
      try await refresh(later.refreshes, program, head, session, definition)
    }
    unmade.add(refusals)
    if request.makesStatistics {
      phases.begin(.statistics)
      let missing = try await watch.during { try await preparation.analyze(name) }
      if let warning = Preparation.warning(withoutStatistics: missing) { outcome.warnings.append(warning) }
    }

    let proving = phases.begin(.proof, expected: tables.compactMap(\.bytes).reduce(0, +))
    let prover = RestoreProof(
      contents: loaded, sequences: sequences, session: session, jobs: request.jobs,
      isWhole: preparation.isWhole, progress: proving)
    var proof = RestoreProof.Result()
    do {
      proof = try await ForcedRowSecurity(session: session).resting { try await prover.run() }
    } catch let fault as Fault where request.isLenient && fault.code != .databaseUnreachable {
      // All the rows that could be put back are better than none.
      proof.unproved.append(fault.message)
    }
    outcome.loadedBytes = total
    outcome.tables = preparation.tables.count
    outcome.isWhole = preparation.isWhole
    outcome.provedTables = proof.tables
    outcome.rows = proof.rows
    outcome.unproved = (outcome.unproved + proof.unproved).sorted()
    outcome.derived = proof.derived + unrefreshed + preparation.leftOut
    // Behind all that they would fire at: a trigger that keeps a log of commands would log ours.
    if !later.eventTriggers.isEmpty {
      unmade.add(
        try await program.make(.postData, head: head, entries: later.eventTriggers, jobs: 1, definition: definition))
    }
    let unsettled = try await preparation.dress(name)
    if request.keepsGoing, !request.isConfined {
      for words in unsettled { unmade.add(kind: "DATABASE", name: names.live, words, sql: nil) }
    } else if !unsettled.isEmpty {
      outcome.derived = (outcome.derived ?? []) + unsettled
    }
    outcome.unmade = unmade.all.isEmpty ? nil : unmade.all
    outcome.objects = unmade.all.isEmpty ? nil : entries?.count ?? preparation.toc.entries.count
    if let incompleteness = outcome.incompleteness { outcome.warnings.append(incompleteness) }
    outcome.warnings += preparation.leftOutSettings
  }

  /// Makes what the database can have under its own name alone (`LateExtensions`). It is in its place by then: what goes
  /// wrong is told with what lacks.
  private func finish(_ database: String, _ outcome: inout RestoreOutcome) async {
    let late = preparation.late
    guard !late.dumpIDs.isEmpty else { return }
    let names = late.names.joined(separator: ", ")
    let isLate = { (id: Int) in late.dumpIDs.contains(id) }
    let tables = preparation.source.contents.tables.filter { isLate($0.dumpID) }
    outcome.tables += tables.count
    do {
      let program = RestoreProgram(
        preparation.program, restore.maintenance.database(database), serverMajor: preparation.server.major,
        request.options)
      let head = try MemoryFile(preparation.head)
      let entries = preparation.toc.entries.map(\.dumpID).filter(isLate)
      let sequences = preparation.toc.sequences.filter { isLate($0.dumpID) }
      let session = preparation.session(database)
      try await program.make(.preData, head: head, entries: entries, jobs: 1)
      try await RestoreLoad(
        source: preparation.source, tables: tables.filter { $0.rows != nil }, session: session, jobs: 1,
        progress: { _, _ in }
      ).run()
      try await preparation.set(sequences, session)
      try await program.make(.postData, head: head, entries: entries, jobs: 1)
      var contents = preparation.source.contents
      (contents.tables, contents.largeObjects) = (tables, [])
      let proof = try await RestoreProof(
        contents: contents, sequences: sequences, session: session, jobs: 1, isWhole: false, progress: { _, _ in }
      ).run()
      outcome.provedTables += proof.tables
      outcome.rows += proof.rows
      outcome.unproved = (outcome.unproved + proof.unproved).sorted()
    } catch {
      let fault = Fault(error)
      outcome.unproved += tables.map { "\($0.schema).\($0.name): it belongs to \(names)" }
      outcome.warnings.append(
        Fault(
          .restoreFailed, "'\(database)' is in its place, and \(names) could not be made in it.",
          cause: [fault.message, fault.cause].compactMap { $0 }.joined(separator: "\n"),
          hint: "mend the cause, then restore its rows: pgbackupctl contents \(shell: restore.manifest.id)"))
    }
  }

  /// The tables and sequences that are there now; those that could not be made are told.
  private func present(
    _ session: LoadSession, _ unmade: inout UnmadeObjects, _ outcome: inout RestoreOutcome
  ) async throws -> ([Contents.Table], [TableOfContents.SequenceState]) {
    let (tables, sequences) = (preparation.tables, preparation.sequences)
    guard !unmade.all.isEmpty else { return (tables, sequences) }
    let present = try await session.connect().use { connection in try await PresentRelations(connection) }
    for table in tables where !present.has(table.schema, table.name) {
      outcome.unproved.append(
        "\(table.schema).\(table.name): the table could not be made, and its \(table.rows ?? 0) rows have no place")
    }
    return (
      tables.filter { present.has($0.schema, $0.name) }, sequences.filter { present.has($0.schema, $0.name) }
    )
  }

  /// Fills the materialized views. Returns those that a server which reaches nobody could not fill, each with the reason; and what was
  /// refused where it goes on after errors.
  private func refresh(
    _ refreshes: [TocEntry], _ program: RestoreProgram, _ head: MemoryFile, _ session: LoadSession,
    _ definition: (Int) -> String?
  ) async throws -> ([String], [RestoreRefusal]) {
    guard !refreshes.isEmpty else { return ([], []) }
    guard request.fillsViews else {
      return (
        refreshes.map {
          "\($0.schema ?? "").\($0.tag ?? "") (materialized view, left empty: filling it would run its code on a server that is not the drill's own)"
        }, []
      )
    }
    let refusals = try await program.make(
      .postData, head: head, entries: refreshes.map(\.dumpID), jobs: request.jobs, definition: definition)
    guard request.isConfined, refusals.contains(where: Self.isOfConfinement) else { return ([], refusals) }
    // One over another that was not filled is not filled either.
    let isLeft = { (one: RestoreRefusal) in
      Self.isOfConfinement(one) || one.words.contains(bytes: "has not been populated")
    }
    let left = refreshes.filter { entry in refusals.contains { $0.entry == entry.dumpID && isLeft($0) } }
    return (
      left.map {
        "\($0.schema ?? "").\($0.tag ?? "") (materialized view, left empty: it asks another server, which a drill does not reach)"
      }, refusals.filter { !isLeft($0) }
    )
  }

  /// Whether it failed because the kernel lets it connect to nobody (EPERM, EAFNOSUPPORT; our servers speak English).
  private static func isOfConfinement(_ refusal: RestoreRefusal) -> Bool {
    let words = refusal.words
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
