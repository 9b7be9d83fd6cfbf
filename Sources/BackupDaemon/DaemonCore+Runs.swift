import BackupCatalog
import BackupOperations
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Logging
import PostgresTools
import Quoting
import SystemdSupport
import Units

/// How runs begin: by schedule, on demand, and again.
extension DaemonCore {
  // MARK: - By schedule

  /// Begins what is due, in the order of the due instants.
  func begin(_ batch: Scheduler.Batch) async {
    guard !isStopping else { return }
    if let step = batch.correction { await recordCorrection(by: step) }
    // Both kinds by their instants: what was cut off yesterday goes before what is due today. Each comes in its own order.
    var retries = batch.retries[...]
    for due in batch.due {
      while let retry = retries.first, retry.due < due.instant {
        retries.removeFirst()
        await begin(retry)
      }
      await begin(due)
    }
    for retry in retries { await begin(retry) }
    await reportStatus()
  }

  private func begin(_ due: ScheduleTable.Due) async {
    if await ledger.history.jobs[due.job]?.doneAhead.contains(due.instant) == true {
      await skip(due.job, due.instant, "it was done already, before the clock was corrected")
      return
    }
    switch due.kind {
    case .onTime(let earlier):
      await beginScheduled(
        due.job, due: due.instant, reason: "schedule \(due.instant.rfc3339)" + Self.besides(earlier))
    case .late(let earlier):
      await beginScheduled(due.job, due: due.instant, reason: Self.catchUp(due.instant, earlier))
    case .skipped(let earlier):
      await skip(
        due.job, due.instant,
        "missed by \(Duration.seconds(now().timeIntervalSince(due.instant)).spoken), and 'catch_up' allows less",
        detail: ["earlier": "\(earlier)"])
    }
  }

  func recordCorrection(by step: TimeInterval) async {
    var record = LedgerRecord(.clockCorrected, at: now())
    record.reason = "set back by \(Duration.seconds(step).spoken)"
    await append(record)
    logger.warning(
      .clockCorrected, "the clock was set back; schedules count from now on",
      metadata: ["by": "\(Duration.seconds(step).spoken)"])
  }

  static func catchUp(_ instant: Date, _ earlier: Int) -> String {
    "catch-up of \(instant.rfc3339)" + besides(earlier)
  }

  /// Instants that one run makes up for together with its own.
  private static func besides(_ earlier: Int) -> String { earlier > 0 ? " (and \(earlier) before it)" : "" }

  /// A run that was due and will not be: told, and never silent.
  func skip(
    _ job: String, _ due: Date, _ reason: String, databases: [String]? = nil, detail: [String: String] = [:]
  ) async {
    var record = LedgerRecord(.jobSkipped, at: now())
    (record.job, record.due, record.reason, record.databases) = (job, due, reason, databases)
    record.detail = detail.isEmpty ? nil : detail
    await append(record)
    logger.warning(
      .runSkipped, "a scheduled run is skipped",
      metadata: [
        "job": "\(job)", "database": "\((databases ?? []).joined(separator: ", "))", "due": "\(due.rfc3339)",
        "reason": "\(reason)",
      ])
  }

  /// Runs a job for a due instant on all its databases.
  func beginScheduled(_ name: String, due: Date, reason: String) async {
    let plan = plan
    guard let job = try? plan.job(name) else {
      return await skip(name, due, "the job is not in the configuration any more")
    }
    let options = RunOptions(reason: reason, due: due, attempt: 1)
    let entries = plan.databases(of: job)
    await recordDue(job, options, entries.map(\.name).exact)
    for database in entries where database.includes == nil { await beginScheduled(job, database, plan, options) }
    // A server that does not answer holds up nobody else: its databases are asked for on the side.
    for entry in entries where entry.includes != nil {
      Task { await self.beginScheduled(job, pattern: entry, plan, options) }
    }
    if plan.takesFormer(job) { Task { await self.beginFormer(job, plan, options) } }
  }

  /// Begins a job on what is configured no more, and puts those names on record beside the others.
  private func beginFormer(_ job: DaemonPlan.Job, _ plan: DaemonPlan, _ options: RunOptions) async {
    let former = await former(job, plan)
    guard !former.isEmpty, let history = await ledger.history.jobs[job.name], history.lastDue == options.due else {
      return
    }
    await recordDue(job, options, history.remaining.union(former.map(\.name).exact))
    for database in former { await beginScheduled(job, database, plan, options) }
  }

  /// What a job takes of databases that are configured no more.
  private func former(_ job: DaemonPlan.Job, _ plan: DaemonPlan) async -> [DaemonPlan.Database] {
    guard plan.takesFormer(job) else { return [] }
    let catalog = await keeper.recent()
    // Also where nothing but a manifest that can't be read is left.
    let unreadable = catalog.problems.filter { $0.fault.code == .manifestInvalid }.compactMap {
      $0.folder.flatMap(BackupLayout.init(folder:))?.id
    }
    // Another daemon reads its own, and what nobody who is trusted has signed is told as such.
    let others = others(catalog)
    let kept = catalog.backups.filter { $0.isTrusted && !others.contains($0.id) }.map(\.id)
    let names = (kept + unreadable).map(\.database).exact.filter { !isConfigured($0.text) }
    return names.sortedTexts.map(plan.database(inCatalog:))
  }

  /// Begins a job on the databases that a pattern stands for now, and puts their names on record in its place.
  private func beginScheduled(
    _ job: DaemonPlan.Job, pattern entry: DaemonPlan.Database, _ plan: DaemonPlan, _ options: RunOptions
  ) async {
    let found = await resolve([entry], for: job)
    if let fault = found.failed.first?.fault {
      await concludeUnstarted(job.name, entry.name, options, fault)
      return
    }
    guard !found.members.isEmpty || job.action != .backup else {
      return await concludeUnstarted(job.name, entry.name, options, Self.matchesNothing(entry))
    }
    board.forget(job: job.name, database: entry.name)
    guard let history = await ledger.history.jobs[job.name], history.lastDue == options.due else { return }
    await recordDue(
      job, options, history.remaining.subtracting([ExactText(entry.name)]).union(found.members.map(\.name).exact))
    for database in found.members { await beginScheduled(job, database, plan, options) }
  }

  /// Nobody who writes a pattern means that nothing shall be backed up.
  private static func matchesNothing(_ entry: DaemonPlan.Database) -> Fault {
    Fault(
      .databaseMissing, "No database of '\(entry.name)' matches its patterns: nothing is backed up.",
      cause: "it was asked at \(entry.connection.summary)",
      hint: "look at its 'include' and 'exclude', and at what psql -l shows to the same role")
  }

  func recordDue(_ job: DaemonPlan.Job, _ options: RunOptions, _ databases: Set<ExactText>) async {
    var record = LedgerRecord(.jobDue, at: now())
    (record.job, record.due, record.reason) = (job.name, options.due, options.reason)
    record.databases = databases.sortedTexts
    await append(record)
  }

  func beginScheduled(
    _ job: DaemonPlan.Job, _ database: DaemonPlan.Database, _ plan: DaemonPlan, _ options: RunOptions
  ) async {
    if let due = options.due, now().timeIntervalSince(due) > 60, await isThere(due, job, database) {
      // Its record could not be written, or was lost.
      return await skip(
        job.name, due, "a backup of this instant is in the catalog already", databases: [database.name])
    }
    do throws(Fault) {
      try refuseWhileStopping()
      _ = try await runner(job.name).begin(database, plan: plan, options: options)
    } catch {
      await concludeUnstarted(job.name, database.name, options, error)
    }
  }

  private func isThere(_ due: Date, _ job: DaemonPlan.Job, _ database: DaemonPlan.Database) async -> Bool {
    guard job.action == .backup else { return false }
    return await keeper.recent().backups.contains { backup in
      backup.id.database.isExactly(database.name) && backup.manifest.job == job.name && backup.isGood
        && backup.manifest.due.map { abs($0.timeIntervalSince(due)) < 1 } == true
    }
  }

  private func begin(_ retry: RetryTable.Retry) async {
    let plan = plan
    guard let job = try? plan.job(retry.job) else { return }
    let options = RunOptions(reason: retry.reason, due: retry.due, attempt: retry.attempt)
    let entries = plan.databases(of: job).filter { $0.covers(retry.database) }
    if plan.takesFormer(job), !isConfigured(retry.database) {
      return await beginScheduled(job, plan.database(inCatalog: retry.database), plan, options)
    }
    if let pattern = entries.first(where: { $0.name.isExactly(retry.database) && $0.includes != nil }) {
      // It could not be asked before.
      Task { await self.beginScheduled(job, pattern: pattern, plan, options) }
      return
    }
    guard entries.contains(where: { $0.includes != nil }) else {
      return await begin(retry, entries, job, plan, options)
    }
    // A server that does not answer holds up nobody else.
    Task { await self.begin(retry, entries, job, plan, options) }
  }

  private func begin(
    _ retry: RetryTable.Retry, _ entries: [DaemonPlan.Database], _ job: DaemonPlan.Job, _ plan: DaemonPlan,
    _ options: RunOptions
  ) async {
    let found = await resolve(entries, for: job)
    for (_, fault) in found.failed { await concludeUnstarted(job.name, retry.database, options, fault) }
    guard found.failed.isEmpty else { return }
    if let database = found.members.first(where: { $0.name.isExactly(retry.database) }) {
      await beginScheduled(job, database, plan, options)
    } else {
      await concludeUnstarted(
        job.name, retry.database, RunOptions(reason: retry.reason, due: retry.due),
        Fault(.databaseMissing, "'\(retry.database)' is not there any more.", hint: "pgbackupctl status"))
    }
  }

  private func isWanted(_ name: String, _ database: String) -> Bool {
    guard let job = try? plan.job(name) else { return false }
    return plan.takes(job, database) || plan.takesFormer(job) && !isConfigured(database)
  }

  private func quietUntil(_ job: String) -> Date? {
    let time = now()
    guard let end = plan.timings[job]?.afterQuiet(time), end > time else { return nil }
    return end
  }

  /// When a failed scheduled run is tried again; nil where it is not.
  func retry(_ run: RunReport) async -> Date? {
    guard run.state == .failed, let due = run.due, let attempt = run.attempt, !isStopping,
      let rule = (try? plan.job(run.job))?.timing?.retry,
      let start = rule.next(after: attempt, endedAt: run.finished ?? now())
    else { return nil }
    return await scheduler.retry(
      RetryTable.Retry(
        job: run.job, database: run.database, due: due, attempt: attempt + 1, start: start,
        reason: "retry \(attempt) of \(rule.count) for \(due.rfc3339)",
        order: (try? plan.job(run.job))?.timing?.order ?? 0))
  }

  /// A scheduled run that could not even begin is a failed run, and must not be silent.
  private func concludeUnstarted(_ job: String, _ database: String, _ options: RunOptions, _ fault: Fault) async {
    var run = RunReport(job: job, database: database, options, asked: now())
    (run.state, run.fault, run.finished) = (isStopping ? .aborted : .failed, fault, now())
    run.retry = await retry(run)
    board.post(run)
    var record = LedgerRecord(.runFinished, at: now())
    record.describe(run)
    await append(record)
    logger.error(.runFailed, fault, metadata: ["job": "\(job)", "database": "\(database)", "run": "\(run.id)"])
    await watch()
  }

  /// The databases that entries of the configuration stand for now, and those that can't be asked.
  private func resolve(
    _ entries: [DaemonPlan.Database], for job: DaemonPlan.Job
  ) async -> (members: [DaemonPlan.Database], failed: [(name: String, fault: Fault)]) {
    var members: [DaemonPlan.Database] = []
    var failed: [(String, Fault)] = []
    let catalog = job.action == .backup ? nil : await keeper.recent()
    for entry in entries {
      if let catalog, entry.includes != nil {
        // A check is of what there are backups of, whatever the server has now.
        members += catalog.backups.map(\.id.database).exact.sortedTexts.compactMap(entry.named)
        continue
      }
      do throws(Fault) {
        members += try await entry.resolve()
      } catch {
        failed.append((entry.name, error))
      }
    }
    return (members, failed)
  }

  /// Puts a deed on record. Where the ledger can't be written, the deed is done all the same: a full state directory must not stop
  /// backups, but `status` tells until a record is written again.
  func append(_ record: LedgerRecord) async {
    // First: who knows of the record and reads the catalog then finds there what it tells of.
    if record.backup != nil, record.kind != .runStarted, record.kind != .backupVerified { await keeper.outdate() }
    do throws(Fault) {
      if let harm = try await ledger.append(record) { doubtLedger(harm) }
      standingProblems["ledger.write"] = nil
      if let (count, since) = lost {
        lost = nil
        var gap = LedgerRecord(.ledgerRepaired, at: now())
        gap.reason = "\(count) records since \(since.rfc3339) could not be written, and are lost"
        _ = try await ledger.append(gap)
        logger.warning(.ledgerRepaired, "records of the ledger are lost", metadata: ["what": "\(gap.reason ?? "")"])
      }
    } catch {
      lost = ((lost?.count ?? 0) + 1, lost?.since ?? record.time)
      if standingProblems["ledger.write"] == nil { logger.error(.ledgerDamaged, error) }
      standingProblems["ledger.write"] = error
    }
    if record.kind == .runStarted || record.kind == .runFinished { await announce(record) }
    if record.kind == .runFinished, plan.jobs.contains(where: { $0.name == record.job && $0.action.name == "verify" }) {
      await lookAtLedger()
    }
  }

  // MARK: - On demand

  /// Begins a job on all its databases. A database that can't be listed or is busy does not stop the others: its report is that of a run
  /// that failed before it began. Where nothing could be begun, the first reason is thrown.
  func run(job name: String, options: RunOptions) async throws(Fault) -> [RunReport] {
    try refuseWhileStopping()
    let plan = plan
    let job = try plan.job(name)
    let found = await resolve(plan.databases(of: job), for: job)
    var begun: [RunReport] = []
    var faults = found.failed
    for database in found.members + (await former(job, plan)) {
      do throws(Fault) {
        try refuseWhileStopping()
        begun.append(try await runner(name).begin(database, plan: plan, options: options))
      } catch {
        faults.append((database.name, error))
      }
    }
    if begun.isEmpty, faults.isEmpty, job.action == .backup,
      let entry = plan.databases(of: job).first(where: { $0.includes != nil })
    {
      throw Self.matchesNothing(entry)
    }
    if let first = faults.first?.fault, begun.isEmpty { throw first }
    for (database, fault) in faults {
      logger.warning(.runFailed, fault, metadata: ["job": "\(name)", "database": "\(database)"])
      var report = RunReport(job: name, database: database, options, asked: now())
      (report.state, report.fault, report.finished) = (.failed, fault, now())
      begun.append(report)
    }
    return begun
  }

  func backup(_ command: BackupCommand, by caller: Caller?) async throws(Fault) -> RunReport {
    try refuseWhileStopping()
    let plan = plan
    var keep: Duration?
    if let text = command.keep {
      guard let duration = Duration(parsing: text) else {
        throw Fault(.usage, "'\(text)' is no duration: write 90m, 36h or 7d.", hint: "pgbackupctl backup --help")
      }
      guard duration >= .seconds(3600), duration <= .seconds(31_556_952_000) else {
        throw Fault(
          .usage, "A backup is kept for an hour at least, and a thousand years at most.",
          hint: "pgbackupctl pin keeps one for ever")
      }
      keep = duration
    }
    try Self.check(label: command.label)
    let job = try plan.backupJob(command.type ?? "manual")
    let database = try await database(named: command.database)
    try refuseWhileStopping()
    return try await runner(job.name).begin(
      database, plan: plan, options: RunOptions(reason: "on demand", by: caller, label: command.label, keep: keep))
  }

  /// A label ends up in listings and terminals: short, and nothing that moves a cursor.
  private static func check(label: String?) throws(Fault) {
    guard let label else { return }
    guard label.count <= 200, label.unicodeScalars.allSatisfy({ $0.value >= 32 && !(127..<160).contains($0.value) })
    else {
      throw Fault(
        .usage, "A label has 200 characters at most, and no control characters.", hint: "pgbackupctl backup --help")
    }
  }

  func refuseWhileStopping() throws(Fault) {
    if isStopping {
      throw Fault(.runAborted, "The daemon is stopping and begins nothing new.", hint: "systemctl status pgbackupd")
    }
  }

  private func database(named name: String) async throws(Fault) -> DaemonPlan.Database {
    if let database = plan.databases.first(where: { $0.name.isExactly(name) && $0.includes == nil }) { return database }
    // `server.database`, of a pattern.
    for entry in plan.databases where entry.named(name) != nil {
      if let member = try await entry.resolve().first(where: { $0.name.isExactly(name) }) { return member }
    }
    if let entry = plan.databases.first(where: { $0.name.isExactly(name) && $0.includes != nil }) {
      throw Fault(
        .databaseMissing, "'\(entry.name)' is a pattern, which stands for databases of one server.",
        hint: "name one of them: pgbackupctl backup \(shell: entry.name).DATABASE")
    }
    throw Fault(
      .databaseMissing,
      "No database '\(name)' is configured; there are \(plan.databases.map(\.name).joined(separator: ", ")).",
      hint: "pgbackupctl status")
  }

  func runner(_ job: String) -> JobRunner {
    if let runner = runners[job] { return runner }
    let runner = JobRunner(
      job: job,
      surroundings: RunSurroundings(
        slots: slots, checkSlots: checkSlots, board: board, append: { [weak self] in await self?.append($0) },
        keeper: keeper, now: now,
        logger: logger, status: status,
        retry: { [weak self] in await self?.retry($0) },
        skip: { [weak self] in await self?.skip($0, $1, $2, databases: [$3]) },
        statistics: StatisticsFile(state: plan.state),
        ledgerHead: { [ledger] in await ledger.head },
        verified: { [weak self] in await self?.note($0, run: $1) },
        lastVerified: { [weak self] in await self?.ledger.history.looked ?? [:] },
        measures: { [weak self] in await self?.ledger.history.measures[ExactText($0)] ?? [] },
        quietUntil: { [weak self] in await self?.quietUntil($0) },
        isWanted: { [weak self] in await self?.isWanted($0, $1) ?? false },
        afterRun: { [weak self] in
          await self?.watch(.recent)
          await self?.settleStores()
          await self?.reportStatus()
        }))
    runners[job] = runner
    liveness.add("job \(job)") { [weak runner] answer in
      Task {
        _ = await runner?.pulse()
        answer()
      }
    }
    return runner
  }
}
