import ArtifactFormat
import BackupCatalog
import BackupOperations
import Confinement
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Logging
import PostgresTools
import Quoting
import Storage
import Synchronization
import SystemdSupport
import Units

/// What came of a run: for its report, its record and its line in the log.
struct RunOutcome: Sendable {
  var backup: BackupID?
  var storedBytes: Int64?
  var rows: Int64?
  var verified: [Verification]?
  var drill: DrillReport?
  /// What a backup's history does not explain.
  var anomalies: [Anomaly] = []
  /// Stores that get their copy afterwards.
  var later: [String] = []
  /// What went wrong without failing the run.
  var warnings: [Fault] = []
  /// For the ledger.
  var detail: [String: String] = [:]
  /// What it found, where that fails the run; everything was done all the same.
  var fault: Fault?
  let event: JournalEvent
  let sentence: Logger.Message

  init(_ event: JournalEvent, _ sentence: Logger.Message) {
    self.event = event
    self.sentence = sentence
  }
}

/// The work of one run, whatever its job does: with the plan that it began under.
struct RunWork: Sendable {
  let report: RunReport
  let options: RunOptions
  let database: DaemonPlan.Database
  let job: DaemonPlan.Job
  let plan: DaemonPlan
  let surroundings: RunSurroundings
  let clock: StallClock

  func run() async throws -> RunOutcome {
    try Task.checkCancellation()
    let catalog = await surroundings.keeper.refresh()
    // A store may have taken so long that the run was given up meanwhile: it is on record as over.
    try Task.checkCancellation()
    var record = LedgerRecord(.runStarted, at: surroundings.now())
    record.describe(report)
    await surroundings.append(record)
    switch job.action {
    case .backup: return try await hooked(.beforeBackup, .afterBackup) { try await backup(catalog) }
    case .verify(let level, let budget): return try await verify(catalog, level, budget)
    case .drill: return try await hooked(.beforeDrill, .afterDrill) { try await drill(catalog) }
    }
  }

  /// A command that fails before the work keeps it from beginning; one that fails after it is told, and changes nothing. What comes after
  /// runs in any case, also where the run was cancelled: what was stopped for a backup has to go on.
  private func hooked(
    _ before: Hooks.Moment, _ after: Hooks.Moment, _ work: () async throws -> RunOutcome
  ) async throws -> RunOutcome {
    let result: Result<RunOutcome, Fault>
    do {
      try await plan.hooks.run(before, report, logger: logger)
      result = .success(try await work())
    } catch {
      result = .failure(Fault(error))
    }
    switch result {
    case .success(var outcome):
      var report = report
      report.backup = outcome.backup
      if let fault = await complaint(after, report, outcome.fault) { outcome.warnings.append(fault) }
      return outcome
    case .failure(let fault):
      if let second = await complaint(after, report, fault) {
        logger.warning(.runFailed, second, metadata: ["job": "\(job.name)", "run": "\(report.id)"])
      }
      throw fault
    }
  }

  private func complaint(_ after: Hooks.Moment, _ report: RunReport, _ failed: Fault?) async -> Fault? {
    await uncancelled { () async -> Fault? in
      do throws(Fault) {
        try await plan.hooks.run(after, report, failed: failed, logger: logger)
        return nil
      } catch {
        return error
      }
    }
  }

  /// Every line tells the run that it belongs to.
  var logger: Logger {
    var logger = surroundings.logger
    logger[metadataKey: "run"] = "\(report.id)"
    logger[metadataKey: "job"] = "\(job.name)"
    logger[metadataKey: "database"] = "\(database.name)"
    return logger
  }

  var context: OperationContext {
    let (board, status, clock, id) = (surroundings.board, surroundings.status, clock, report.id)
    return OperationContext(
      now: surroundings.now,
      report: { progress in
        let progress = RunReport.Progress(progress)
        clock.note(progress)
        board.progress(id, progress)
        status.progressed(board, id, phase: progress.phase)
      }, alive: { clock.touch() })
  }

  // MARK: - Backup

  private func backup(_ catalog: Catalog) async throws -> RunOutcome {
    var request = Backup.Request(
      database: database.name, connection: database.connection, type: job.name, label: options.label, job: job.name,
      run: report.id, keep: options.keep, due: options.due)
    request.retention = plan.retention
    var history = Backup.History(
      last: catalog.newestGood(of: database.name)?.manifest,
      takenTimes: Set(catalog.backups.filter { $0.id.database.isExactly(database.name) }.map(\.id.time)))
    let statistics = surroundings.statistics
    history.statistics = statistics.read(database.name)
    let isLost = history.statistics.isEmpty
    if isLost { (history.statistics, history.unknown) = await rebuilt(catalog) }
    history.ledger = await surroundings.ledgerHead()
    if let due = options.due, job.timing?.share == true, let source = shareable(catalog, due: due) {
      do {
        let shared = SharedBackup(
          request, of: source, from: plan.stores, to: plan.stores(of: job), signingKey: plan.backup.signingKey,
          history: history, context: context, logger: logger)
        return RunOutcome(try await shared.run())
      } catch {
        try Task.checkCancellation()
        // A damaged or vanished original is no reason to have no backup: the database is there to be read.
        logger.warning(
          .storeUnusable, Fault(error),
          metadata: ["job": "\(job.name)", "database": "\(database.name)", "run": "\(report.id)"])
      }
    }
    var backup = Backup(
      request, settings: plan.backup, stores: plan.stores(of: job), history: history, context: context,
      logger: logger)
    let cost = Mutex<LoadCost?>(nil)
    backup.onCost = { one in cost.withLock { $0 = one } }
    let outcome: Backup.Outcome
    do throws(Fault) {
      outcome = try await backup.run()
    } catch {
      // What it has cost is on record also where it was ended for that.
      guard let cost = cost.withLock({ $0 }) else { throw error }
      return RunOutcome(failed: error, cost)
    }
    if let new = outcome.statistics {
      if isLost { for old in history.statistics { statistics.append(old) } }
      statistics.append(new)
    }
    return RunOutcome(outcome)
  }

  /// What the last backup in no doubt was like, by its own contents: the state directory has lost it, or is that of a new machine. Where
  /// nobody here can read that, the reason: a backup that is compared with nothing says so.
  private func rebuilt(_ catalog: Catalog) async -> ([BackupStatistics], unknown: String?) {
    let own = catalog.backups.filter { $0.id.database.isExactly(database.name) && $0.isGood }
    guard !own.isEmpty else { return ([], nil) }
    guard let last = own.last(where: { !$0.isFlagged }) else { return ([], "all of them are in doubt") }
    var reason: Fault?
    for store in (try? plan.places(of: last)) ?? [] {
      do throws(Fault) {
        let contents = try await ContentsReader(store: store, identities: plan.identities).read(last.manifest)
        return ([BackupStatistics(last.manifest, contents)], nil)
      } catch {
        reason = error
      }
    }
    return ([], reason?.message ?? "no store has the contents of \(last.id)")
  }

  /// A backup that another job made of the same database, due within the hour of this one and encrypted to the same recipients:
  /// the database need not be read twice.
  private func shareable(_ catalog: Catalog, due: Date) -> Catalog.Backup? {
    guard let own = job.timing, Self.isDailyAtMost(own, at: due) else { return nil }
    return catalog.backups.last { backup in
      // Only a dump of its own: what was taken over itself may be older than it looks, and a chain would have no end.
      guard backup.manifest.sharedFrom == nil, backup.id.database.isExactly(database.name), backup.isGood,
        backup.manifest.type != job.name,
        (backup.manifest.encryption?.holders ?? []) == plan.backup.holders,
        let other = backup.manifest.due,
        let job = backup.manifest.job, let timing = plan.jobs.first(where: { $0.name == job })?.timing,
        timing.share, Self.isDailyAtMost(timing, at: other)
      else { return false }
      return abs(due.timeIntervalSince(other)) <= 3600
    }
  }

  /// Who wants a backup more often than daily wants each of them fresh. (A day of spring has 23 hours.)
  private static func isDailyAtMost(_ timing: JobTiming, at due: Date) -> Bool {
    guard let next = timing.schedule.next(after: due) else { return true }
    return next.timeIntervalSince(due) >= 23 * 3600
  }

  // MARK: - Verify

  private func verify(_ catalog: Catalog, _ level: VerifyLevel, _ budget: VerifyBudget) async throws -> RunOutcome {
    let chosen = options.selection
    let stores = plan.stores(of: job).filter { chosen?.stores?.contains($0.name) ?? true }
    let catalogOfAll = catalog
    var catalog = catalog
    if let wanted = chosen?.backups { catalog = catalog.keeping { wanted.contains($0.id) } }
    let items = VerifyPlan(
      catalog, of: database.name, stores: stores.map(\.name), last: await surroundings.lastVerified(),
      budget: chosen == nil ? budget : .everything
    ).items
    let context = context
    var results: [Verification] = []
    var progress = RunProgress(phase: .verify)
    progress.expectedBytes = items.map(\.manifest.storedBytes).reduce(0, +)
    context.report(progress)
    for item in items {
      guard let store = stores.first(where: { $0.name == item.store }) else { continue }
      let meter = ByteMeter(progress, "\(item.manifest.id) in \(item.store)", context.report)
      let result = try await Verify(
        item.manifest, in: store, level: chosen?.level ?? level, identities: plan.identities,
        trusted: plan.trustedKeys, now: surroundings.now, progress: meter.add
      ).run()
      progress.archiveBytes += item.manifest.storedBytes
      // Expired or deleted meanwhile: nothing is wrong with what nobody wants any more.
      if result.isDamaged, await !isStillThere(item) { continue }
      results.append(result)
      await surroundings.verified(result, report.id)
    }
    // What has no manifest that can be read is no item of the plan, but no less damaged.
    for result in unreadable(catalogOfAll, stores.map(\.name)) {
      results.append(result)
      await surroundings.verified(result, report.id)
    }
    let missed = unread(catalogOfAll, stores.map(\.name), results)
    return RunOutcome(results, of: database.name, missed: missed)
  }

  /// What was to be read, and is not there to be read: never passed over as if it were sound.
  private func unread(_ catalog: Catalog, _ stores: [String], _ results: [Verification]) -> [Fault] {
    let away = catalog.problems.filter { $0.folder == nil && stores.contains($0.store) }
    var missed = away.map(\.fault)
    guard let chosen = options.selection, let wanted = chosen.backups else { return missed }
    // Named stores are all meant; else it is enough that the backup was read somewhere.
    let asked = stores.filter { store in !away.contains { $0.store == store } }
    for id in wanted.sorted() where id.database.isExactly(database.name) {
      let read = Set(results.filter { $0.backup == id }.map(\.store))
      let lacking =
        chosen.stores == nil ? (read.isEmpty && away.isEmpty ? asked : []) : asked.filter { !read.contains($0) }
      missed += lacking.map { store in
        Fault(
          .objectMissing, "\(id) is not in store '\(store)'.", hint: "pgbackupctl show \(shell: id)")
      }
    }
    return missed
  }

  private func unreadable(_ catalog: Catalog, _ stores: [String]) -> [Verification] {
    catalog.problems.compactMap { problem in
      guard stores.contains(problem.store), let layout = problem.folder.flatMap(BackupLayout.init(folder:)),
        layout.id.database.isExactly(database.name), options.selection?.backups?.contains(layout.id) ?? true
      else { return nil }
      var result = Verification(
        backup: layout.id, type: layout.type, store: problem.store, level: .checksum, finished: surroundings.now(),
        seconds: 0)
      result.fault = problem.fault
      return result
    }
  }

  // MARK: - Drill

  private func drill(_ catalog: Catalog) async throws -> RunOutcome {
    let wanted = options.selection?.backups
    let backup = catalog.backups.last { backup in
      backup.id.database.isExactly(database.name) && backup.isGood && wanted?.contains(backup.id) ?? true
        && !RetentionPolicy.isAhead(backup, of: surroundings.now())
    }
    guard let backup else {
      throw Fault(
        .backupMissing, "There is no good backup of '\(database.name)' to drill with.",
        hint: "pgbackupctl backup \(shell: database.name)")
    }
    let names = options.selection?.stores ?? Set(job.stores)
    var stores = try plan.places(of: backup).filter { names.contains($0.name) }
    if plan.drillsInTurn, options.selection == nil {
      // How long a restore from another store takes is known when one was made from there.
      let order = RecoveryEstimate.inTurn(stores.map(\.name), await surroundings.measures(database.name))
      stores = order.compactMap { name in stores.first { $0.name == name } }
    }
    guard !stores.isEmpty else {
      throw Fault(
        .objectMissing, "\(backup.id) is whole in none of the stores that this drill reads.",
        hint: "pgbackupctl show \(shell: backup.id)")
    }
    let drill = Drill(
      backup.manifest, from: stores, identities: plan.identities, settings: plan.drill,
      programs: plan.backup.programs, assertions: database.assertions, run: report.id,
      production: plan.drill.server == nil ? nil : await production(catalog), context: context,
      logger: logger)
    let report: DrillReport
    do throws(Fault) {
      report = try await drill()
    } catch {
      guard RunOutcome.isVerdict(error), !Task.isCancelled else { throw error }
      // Beside the backup too: another host must not take it for proved by a drill of before.
      let record = Proof(
        failed: error.code, backup.manifest, finished: surroundings.now().wholeSecond, host: HostName.current,
        software: Backup.software, stores: stores.map(\.name))
      return RunOutcome(notProved: backup.id, error, await write(record, backup))
    }
    return RunOutcome(report, await write(report.proof, backup))
  }

  /// Puts what a drill found beside the backup, in each store that has it. Returns what stores failed with.
  private func write(_ proof: Proof, _ backup: Catalog.Backup) async -> [String: Fault] {
    var proof = proof
    proof.ledger = await surroundings.ledgerHead()
    return await ProofRecord.write(
      proof, of: backup.manifest, signingKey: plan.backup.signingKey, policy: plan.retention,
      to: plan.stores.filter { store in backup.placements.contains { $0.store == store.name && $0.isWhole } })
  }

  /// The system identifiers of all servers that are backed up, as their backups tell, and they themselves; nil where one of them is not
  /// known.
  private func production(_ catalog: Catalog) async -> Set<String>? {
    var known = Set(catalog.backups.compactMap(\.manifest.server.systemIdentifier))
    for entry in plan.databases {
      if let own = await Self.systemIdentifier(of: entry.connection) {
        known.insert(own)
        continue
      }
      let isKnown = catalog.backups.contains { backup in
        entry.covers(backup.id.database)
          && backup.manifest.server.systemIdentifier != nil
      }
      if !isKnown { return nil }
    }
    return known
  }

  private static func systemIdentifier(of connection: ConnectionSettings) async -> String? {
    try? await PostgresSession.connect(connection).use { session in try await session.serverFacts().systemIdentifier }
  }

  private func isStillThere(_ item: VerifyPlan.Item) async -> Bool {
    let catalog = await surroundings.keeper.refresh()
    let isKnown = catalog.backups.contains { backup in
      backup.id == item.manifest.id && backup.placements.contains { $0.store == item.store }
    }
    // One whose manifest can't be read any more is no backup now, but it did not expire.
    return isKnown || catalog.problems.contains { $0.folder == item.manifest.layout.folder }
  }
}

extension RunOutcome {
  init(_ outcome: Backup.Outcome) {
    self.init(.backupSucceeded, "backup succeeded")
    backup = outcome.manifest.id
    storedBytes = outcome.manifest.storedBytes
    rows = outcome.manifest.totals.rows
    warnings = outcome.dropped.sorted { $0.key < $1.key }.map(\.value) + outcome.warnings
    anomalies = outcome.anomalies
    later = outcome.later
    detail = [
      "stores": outcome.stores.joined(separator: ","), "archive_bytes": "\(outcome.manifest.artifact.archiveBytes)",
      "stored_bytes": "\(outcome.manifest.storedBytes)", "rows": "\(outcome.manifest.totals.rows)",
    ].merging(outcome.dropped.map { ("dropped." + $0.key, $0.value.code.rawValue) }) { $1 }
    if !outcome.later.isEmpty { detail["stores_later"] = outcome.later.joined(separator: ",") }
    if let cost = outcome.cost { detail.merge(cost.detail) { $1 } }
    // A hundred thousand tables may have vanished; the contents have them all.
    for (number, anomaly) in anomalies.prefix(20).enumerated() {
      detail["anomaly.\(number + 1)"] = anomaly.text
    }
  }

  /// Whether a drill that failed so says something about the backup, and not about the machine that it ran on.
  fileprivate static func isVerdict(_ fault: Fault) -> Bool {
    [.proofFailed, .assertionFailed, .restoreFailed, .artifactDamaged, .databaseQuery].contains(fault.code)
  }

  fileprivate init(failed fault: Fault, _ cost: LoadCost) {
    self.init(.backupSucceeded, "backup failed")
    self.fault = fault
    detail = cost.detail
  }

  fileprivate init(notProved id: BackupID, _ fault: Fault, _ failed: [String: Fault]) {
    self.init(.drillSucceeded, "drill failed")
    backup = id
    warnings = failed.sorted { $0.key < $1.key }.map(\.value)
    self.fault = fault
    detail = ["proof": "failed"]
  }

  fileprivate init(_ report: DrillReport, _ failed: [String: Fault]) {
    self.init(.drillSucceeded, report.incompleteness == nil ? "drill succeeded" : "drill failed")
    let proof = report.proof
    backup = proof.backup
    storedBytes = proof.storedBytesRead
    rows = proof.rows
    drill = report
    warnings = failed.sorted { $0.key < $1.key }.map(\.value)
    warnings += (report.gaps ?? []).map { Fault(.confinementWeak, $0, hint: KernelWalls.hint) }
    detail = [
      "tables": "\(proof.tables)", "proved_tables": "\(proof.provedTables)", "unproved": "\(proof.unproved)",
      "rows": "\(proof.rows)", "bytes_read": "\(proof.storedBytesRead)", "loaded_bytes": "\(proof.archiveBytes)",
      "seconds": "\(proof.seconds)", "assertions": "\(proof.assertions)", "stores": proof.stores.joined(separator: ","),
      "whole": "yes",
    ]
    fault = report.incompleteness
    if let unmade = report.unmade { detail["unmade"] = "\(unmade.count)" }
    // Names stay on this host: a proof in a store tells no more than numbers.
    detail["not_compared"] = DrillReport.names(report.unproved + (report.derived ?? []))
    if let relations = proof.checkedRelations { detail["checked_relations"] = "\(relations)" }
    if proof.isWhole { detail["proof"] = "whole" }
    if proof.isOfRows { detail["proof"] = "rows" }
    if report.incompleteness?.code == .restoreFailed { detail["proof"] = "failed" }
    for phase in proof.phases { detail["\(phase.name)_s"] = "\(phase.seconds)" }
  }

  fileprivate init(_ results: [Verification], of database: String, missed: [Fault]) {
    self.init(.backupsVerified, "verification succeeded")
    verified = results
    storedBytes = results.map(\.storedBytes).reduce(0, +)
    rows = results.map(\.rows).reduce(0, +)
    let bad = results.filter(\.isDamaged)
    let unread = results.filter { $0.fault != nil && !$0.isDamaged }
    detail = [
      "placements": "\(results.count)", "sound": "\(results.count - bad.count - unread.count)",
      "damaged": "\(bad.count)", "unread": "\(unread.count)", "stored_bytes": "\(storedBytes ?? 0)",
      "archive_bytes": "\(results.map(\.archiveBytes).reduce(0, +))",
    ]
    if !missed.isEmpty { detail["missed"] = missed.map(\.message).joined(separator: "; ") }
    guard let first = (bad + unread).first?.fault else {
      if let one = missed.first {
        fault = Fault(
          one.code, "Not all that was to be verified of '\(database)' was there to be read: \(one.message)",
          cause: missed.dropFirst().map(\.message).joined(separator: "\n"), hint: one.hint)
      }
      return
    }
    let counts = [
      bad.isEmpty ? nil : "\(bad.count) damaged", unread.isEmpty ? nil : "\(unread.count) that could not be read",
    ]
    let sentence =
      "Of \(results.count) placements of '\(database)', "
      + counts.compactMap { $0 }.joined(separator: " and ") + "."
    fault = Fault(
      first.code, sentence,
      cause: (bad + unread).prefix(12).map { result in
        TerminalText.line(
          "\(result.backup) in '\(result.store)': \(result.fault?.message ?? "") \(result.fault?.cause ?? "")")
      }.joined(separator: "\n"),
      hint: bad.isEmpty ? first.hint : "pgbackupctl reconcile: what another store has whole is mended from there")
  }
}

/// Adds up the bytes of one thing among several.
private struct ByteMeter: Sendable {
  private let base: RunProgress
  private let label: String
  private let report: @Sendable (RunProgress) -> Void
  private let counter = Counter()

  private final class Counter: Sendable {
    let value = Mutex<Int64>(0)
  }

  init(_ base: RunProgress, _ label: String, _ report: @escaping @Sendable (RunProgress) -> Void) {
    (self.base, self.label, self.report) = (base, label, report)
  }

  func add(_ bytes: Int64) {
    var progress = base
    progress.archiveBytes += counter.value.withLock { value in
      value += bytes
      return value
    }
    progress.table = label
    report(progress)
  }
}
