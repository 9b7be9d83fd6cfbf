import AgeEncryption
import ArtifactFormat
import BackupCatalog
import BackupOperations
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Logging
import Storage
import SystemdSupport
import Units

/// What `status` and `jobs` show.
extension DaemonCore {
  /// - Parameter isFresh: reads the stores; else what was read within the last half minute will do.
  func status(isFresh: Bool = true) async -> StatusReport {
    let catalog = isFresh ? await keeper.refresh() : await keeper.recent()
    let time = now()
    let decisions = plan.retention.decide(catalog, at: time)
    let configured = plan.databases.filter { $0.includes == nil }.map(\.name)
    // Members of a pattern show as soon as they have a backup, or a run that failed.
    let last = board.lastOfEach.filter { run in plan.jobs.contains { $0.name == run.job } }
    let seen = Set(catalog.backups.map(\.id.database) + last.filter(isConfigured).map(\.database))
    let names = configured + seen.subtracting(configured).sorted()
    var databases: [StatusReport.Database] = []
    let proofs = await proofs(catalog)
    for name in names { databases.append(await database(name, decisions, proofs, time)) }
    var stores: [StatusReport.Store] = []
    for store in plan.stores { stores.append(await self.store(store, catalog)) }
    let problems =
      standingProblems.sorted { $0.key < $1.key }.map(\.value) + stores.compactMap(\.fault)
      + catalog.problems.filter { $0.folder != nil }.map(\.fault)
      + catalog.backups.flatMap(Self.forged)
      + catalog.backups.filter { $0.placements.allSatisfy { !$0.missing.isEmpty } }.map(Self.incomplete)
      + last.filter(isConfigured).compactMap(Self.failed) + databases.compactMap(Self.overdue)
      + catalog.backups.compactMap { fromTheFuture($0, time) } + decisions.compactMap(belowQuorum)
      + reconcileProblems + databases.compactMap { doubtful($0, catalog) }
      + databases.flatMap { atRisk($0, time) }
    var report = StatusReport(
      version: Backup.version, now: time, started: started, databases: databases, stores: stores, runs: board.active,
      encryption: encryption, problems: problems)
    report.copy = copies.copy
    report.kept = keptDatabases
    return report
  }

  /// Whether a run's database is one that the configuration still means.
  private func isConfigured(_ run: RunReport) -> Bool {
    plan.databases.contains { $0.name == run.database || $0.includes != nil && run.database.hasPrefix($0.name + ".") }
  }

  /// A job whose last run on a database failed: whatever other jobs have done since.
  private static func failed(_ run: RunReport) -> Fault? {
    run.fault.map { fault in
      Fault(fault.code, "\(run.job) of '\(run.database)': \(fault.message)", cause: fault.cause, hint: fault.hint)
    }
  }

  private var encryption: StatusReport.Encryption? {
    let recipients = plan.backup.encryption.recipients
    guard !recipients.isEmpty else { return nil }
    let own = Set(plan.identities.compactMap { $0.recipient?.description })
    return StatusReport.Encryption(recipients: recipients, opensHere: !own.isDisjoint(with: recipients))
  }

  func jobs() async -> [JobReport] {
    var reports: [JobReport] = []
    for job in plan.jobs {
      let databases = plan.databases(of: job).map(\.name)
      reports.append(
        JobReport(
          name: job.name, expression: job.timing?.schedule.expression.description,
          sentence: job.timing?.schedule.expression.sentence,
          zone: job.timing?.schedule.zone.identifier, next: await scheduler.nextStart(of: job.name),
          keep: job.keepText,
          stores: job.stores, databases: databases,
          lastRuns: databases.compactMap { board.last(job: job.name, database: $0) }))
    }
    return reports
  }

  /// Writes what the daemon is doing to the log, a line per thing (SIGUSR1).
  package func dumpState() async {
    var lines = ["state: up since \(started.rfc3339)\(isStopping ? ", stopping" : "")"]
    for job in plan.jobs {
      let next = await scheduler.nextStart(of: job.name)?.rfc3339 ?? "on demand"
      lines.append("state: job \(job.name), next \(next)")
    }
    for run in board.active {
      lines.append("state: run \(run.id), \(run.job) of \(run.database), \(run.progress?.phase ?? run.state.rawValue)")
    }
    for retry in await scheduler.pendingRetries {
      lines.append("state: retry of \(retry.job) on \(retry.database) at \(retry.start.rfc3339)")
    }
    for store in plan.stores { lines.append("state: store \(store.name) at \(store.location)") }
    for problem in standingProblems.values {
      lines.append("state: problem \(problem.code.rawValue): \(problem.message)")
    }
    for line in lines { logger.notice(.stateDump, "\(line)") }
    await reportStatus()
  }

  private func database(
    _ name: String, _ decisions: [RetentionDecision], _ proofs: [BackupID: Date], _ time: Date
  ) async -> StatusReport.Database {
    let own = decisions.filter { $0.backup.id.database == name }
    let newest = own.last { $0.backup.wholeCopies >= plan.quorum && !RetentionPolicy.isAhead($0.backup, of: time) }
    var next: (job: String, due: Date)?
    for job in plan.jobs
    where job.action == .backup
      && plan.databases(of: job).contains(where: { $0.name == name || name.hasPrefix($0.name + ".") })
    {
      if let due = await scheduler.nextStart(of: job.name), due < next?.due ?? .distantFuture { next = (job.name, due) }
    }
    var report = StatusReport.Database(
      name: name,
      newest: newest.map { BackupSummary($0.backup, retention: $0.reasons.map(\.description).joined(separator: "; ")) },
      ageSeconds: newest.map { time.timeIntervalSince($0.backup.id.time) }, rpoSeconds: plan.rpo?.inSeconds,
      backups: own.count, storedBytes: own.map(\.backup.manifest.storedBytes).reduce(0, +),
      lastRun: board.last(database: name), nextJob: next?.job, nextDue: next?.due)
    report.recovery = await recovery(of: name, newest?.backup)
    (report.rtoSeconds, report.provedWithinSeconds) = (plan.rto?.inSeconds, plan.provedWithin?.inSeconds)
    report.proved = own.last { proofs[$0.backup.id] != nil }?.backup.id
    report.provedAgeSeconds = report.proved.map { time.timeIntervalSince($0.time) }
    return report
  }

  /// How long a restore of the newest backup would take, as drills and restores have measured it.
  private func recovery(of name: String, _ newest: Catalog.Backup?) async -> [RecoveryEstimate] {
    guard let newest else { return [] }
    let places = newest.placements.filter(\.isWhole).map(\.store)
    let statistics = StatisticsFile(state: plan.state).read(name).last
    return RecoveryEstimate.all(
      await ledger.history.measures[name] ?? [], stores: plan.stores.map(\.name).filter(places.contains),
      bytes: newest.manifest.artifact.archiveBytes, largestTable: statistics?.largestTableBytes)
  }

  private func store(_ store: any ObjectStore, _ catalog: Catalog) async -> StatusReport.Store {
    let held = catalog.backups.filter { $0.placements.contains { $0.store == store.name } }
    var free: Int64?
    // A store that the catalog found silent is not asked again: each question would hang beside the others.
    var fault = catalog.problems.first { $0.store == store.name && $0.fault.code == .storeSilent }?.fault
    if fault == nil { (free, fault) = await ask(store) }
    return StatusReport.Store(
      name: store.name, location: store.location, backups: held.count,
      storedBytes: held.map(\.manifest.storedBytes).reduce(0, +), freeBytes: free, fault: fault)
  }

  /// The room in a store, or why it can't be used; asked for a moment only.
  private func ask(_ store: any ObjectStore) async -> (free: Int64?, fault: Fault?) {
    let answer = await withDeadline(.seconds(5)) { () -> Result<Int64?, StorageError> in
      do throws(StorageError) {
        try await store.check()
        return .success(try await store.availableSpace()?.bytes)
      } catch {
        return .failure(error)
      }
    }
    switch answer {
    case .success(let bytes): return (bytes, nil)
    case .failure(let error): return (nil, error.fault)
    case nil: return (nil, CatalogKeeper.silence(of: store))
    }
  }

  /// A backup whose time has not come: a clock was wrong, and no age can be told.
  private func fromTheFuture(_ backup: Catalog.Backup, _ time: Date) -> Fault? {
    guard RetentionPolicy.isAhead(backup, of: time) else { return nil }
    return Fault(
      .clockDoubtful, "\(backup.id) claims to be from the future: it counts for nothing, and never expires.",
      hint: "pgbackupctl delete \(backup.id)")
  }

  /// A backup in fewer stores than wanted, where more of them should have it.
  private func belowQuorum(_ decision: RetentionDecision) -> Fault? {
    let backup = decision.backup
    guard plan.quorum > 1, backup.isGood, backup.wholeCopies < plan.quorum, decision.isKept,
      let job = try? plan.job(backup.manifest.type),
      job.stores.filter({ decision.expired[$0] == nil }).count >= plan.quorum
    else { return nil }
    return Fault(
      .objectiveMissed,
      "\(backup.id) (\(backup.manifest.type)) is whole in \(backup.wholeCopies) of \(plan.quorum) stores.",
      hint: "pgbackupctl reconcile --apply")
  }

  private static func forged(_ backup: Catalog.Backup) -> [Fault] {
    backup.placements.filter { $0.signature == .invalid || $0.signature == .missing }.map { placement in
      Fault(
        .signatureInvalid,
        "The manifest of \(backup.id) in store '\(placement.store)' is "
          + (placement.signature == .missing
            ? "not signed: it counts for nothing." : "signed by no trusted key, or was changed since."),
        hint:
          "if another daemon of yours made it, add its signing.pub to 'signing: trusted:'; else look into that store")
    }
  }

  private static func incomplete(_ backup: Catalog.Backup) -> Fault {
    let missing = Set(backup.placements.flatMap(\.missing)).sorted().joined(separator: ", ")
    return Fault(
      .artifactDamaged, "\(backup.id) lacks files in every store, or they have another size: \(missing).",
      hint: "pgbackupctl show \(backup.id)")
  }

  /// Objectives of proof and recovery that are missed, and those that are about to be.
  private func atRisk(_ database: StatusReport.Database, _ time: Date) -> [Fault] {
    var faults: [Fault] = []
    if database.meetsProved == false, let objective = database.provedWithinSeconds {
      let age = database.provedAgeSeconds.map { "is \(Duration.seconds($0).spoken) old" } ?? "does not exist"
      faults.append(
        Fault(
          .objectiveMissed,
          "The newest proved backup of '\(database.name)' \(age); the objective is \(Duration.seconds(objective).spoken).",
          hint: "pgbackupctl drill \(database.name)"))
    }
    if let objective = database.rtoSeconds,
      let slowest = database.recovery.max(by: { $0.seconds ?? 0 < $1.seconds ?? 0 }), let seconds = slowest.seconds,
      seconds > objective * 0.9
    {
      faults.append(
        Fault(
          seconds > objective ? .objectiveMissed : .objectiveAtRisk,
          "A restore of '\(database.name)' would take \(Duration.seconds(seconds).spoken) (\(slowest.scenario)); the objective is \(Duration.seconds(objective).spoken).",
          cause: slowest.measure.map { "measured \($0.time.rfc3339) with \($0.backup), scaled to today's size" },
          hint: "raise 'restore: jobs:', keep a copy in a nearer store, or raise 'objectives: rto:'"))
    }
    // Before it happens: the next backup comes too late even if all goes well.
    if database.meetsRPO == true, let objective = database.rpoSeconds, let newest = database.newest {
      let end = newest.id.time.addingTimeInterval(objective)
      let next = database.nextDue.map { $0.addingTimeInterval(newest.seconds) }
      if next.map({ $0 > end }) ?? false {
        faults.append(
          Fault(
            .objectiveAtRisk,
            "The newest backup of '\(database.name)' will be older than \(Duration.seconds(objective).spoken) from \(end.rfc3339) on, and the next one is due at \(database.nextDue?.rfc3339 ?? "").",
            hint: "schedule it more often, or: pgbackupctl backup \(database.name)"))
      }
    }
    return faults
  }

  private func doubtful(_ database: StatusReport.Database, _ catalog: Catalog) -> Fault? {
    guard let newest = database.newest, newest.isFlagged else { return nil }
    let undoubted = catalog.backups.last { $0.id.database == database.name && $0.isGood && !$0.isFlagged }
    return Fault(
      .backupDoubtful,
      "The newest backup of '\(database.name)' is in doubt: compared with "
        + (undoubted.map { "\($0.id)" } ?? "those before it") + ", rows or tables are missing.",
      cause: (catalog.backups.last { $0.id == newest.id }?.manifest.flags ?? []).joined(separator: ", "),
      hint: "pgbackupctl show \(newest.id); where it is right: pgbackupctl accept \(newest.id)")
  }

  private static func overdue(_ database: StatusReport.Database) -> Fault? {
    guard database.meetsRPO == false, let objective = database.rpoSeconds else { return nil }
    let age = database.ageSeconds.map { "is \(Duration.seconds($0).spoken) old" } ?? "does not exist"
    return Fault(
      .objectiveMissed,
      "The newest backup of '\(database.name)' \(age); the objective is \(Duration.seconds(objective).spoken).",
      hint: "pgbackupctl backup \(database.name)")
  }
}
