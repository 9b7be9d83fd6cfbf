import AgeEncryption
import ArtifactFormat
import BackupCatalog
import BackupOperations
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Logging
import OutsidePrograms
import Quoting
import Storage
import SystemdSupport
import Units

/// What `status` and `jobs` show.
extension DaemonCore {
  /// How new what is told of the stores has to be.
  enum Freshness {
    /// Read now.
    case fresh
    /// Read within the last half minute: for whoever asks often.
    case recent
    /// Read within the last five minutes, and told of all that this daemon has done since: for whoever asks without end.
    case known
    /// The same of what the stores hold; whether they are there is asked now, and with more patience: somebody is called out of bed by it.
    case watched

    var limit: Duration {
      switch self {
      case .fresh: .zero
      case .recent: .seconds(30)
      case .known, .watched: .seconds(300)
      }
    }

    /// How old a store's sign of life may be. A disk is asked in no time.
    func limit(isLocal: Bool) -> Duration {
      self == .watched ? .zero : isLocal ? min(limit, .seconds(30)) : limit
    }

    var patience: Duration { self == .watched ? .seconds(20) : .seconds(5) }
  }

  /// Everything that is known at one moment.
  struct Overview: Sendable {
    var report: StatusReport
    var problems: [Problem]
    var catalog: Catalog
    var decisions: [RetentionDecision]
  }

  func status(_ freshness: Freshness = .fresh) async -> StatusReport { await overview(freshness).report }

  func overview(_ freshness: Freshness) async -> Overview {
    // Before the stores are read: what is made while they are is not missed there.
    let committed = await ledger.history.committed
    let catalog = await keeper.catalog(within: freshness.limit)
    let time = now()
    let decisions = decisions(catalog, at: time)
    let configured = plan.databases.filter { $0.includes == nil }.map(\.name)
    // Members of a pattern show as soon as they have a backup, or a run that failed.
    let last = board.lastOfEach.filter { run in plan.jobs.contains { $0.name == run.job } }
    let seen = (catalog.backups.map(\.id.database) + last.filter(isConfigured).map(\.database)).exact
    let names = configured + seen.subtracting(configured.exact).sortedTexts
    var databases: [StatusReport.Database] = []
    let proofs = await proofs(catalog)
    for name in names { databases.append(await database(name, decisions, proofs, time)) }
    let stores = await stores(catalog, freshness)
    let problems =
      await problems(
        catalog, committed, decisions, databases, stores, last.filter { isTold($0, catalog) }, time)
      + notProved(proofs, decisions, last) + waitingForSwap(await ledger.history)
    var report = StatusReport(
      version: Backup.version, now: time, started: started, databases: databases, stores: stores, runs: board.active,
      encryption: encryption, problems: problems.map(\.fault))
    for problem in problems {
      guard let aspect = problem.aspect, let end = problem.quietUntil, end > time,
        let index = report.databases.firstIndex(where: { $0.name.isExactly(problem.database) })
      else { continue }
      report.databases[index].graceUntil[aspect] = end
    }
    report.copies = copies.copies
    let warnings = plan.configurationWarnings + connectionWarnings
    report.warnings = warnings.isEmpty ? nil : warnings
    report.kept = keptDatabases
    report.alerts = await courier.reports
    return Overview(report: report, problems: problems, catalog: catalog, decisions: decisions)
  }

  private var encryption: StatusReport.Encryption? {
    let holders = plan.backup.holders
    guard !holders.isEmpty else { return nil }
    let own = Set(plan.identities.identities.compactMap { $0.recipient?.description })
    return StatusReport.Encryption(
      recipients: plan.backup.encryption.recipients + (plan.backup.gpg?.recipients ?? []),
      opensHere: opensByGPG || !own.isDisjoint(with: holders))
  }

  /// Asks gpg, where backups' keys are sealed with it: whether it can do so, and whether it could open them here. It may take a minute, and
  /// keys may come, go and expire: asked at the start, after a reload and every hour.
  func lookAtKeys() async {
    keysLookedAt = SystemClock.running()
    guard let gpg = plan.backup.gpg else {
      (opensByGPG, standingProblems["encryption"]) = (false, nil)
      return
    }
    do throws(Fault) {
      opensByGPG = try await gpg.check()
      standingProblems["encryption"] = nil
    } catch {
      opensByGPG = false
      if standingProblems["encryption"] == nil { logger.error("\(error)") }
      standingProblems["encryption"] = error
    }
  }

  /// Called at each beat.
  func lookAtKeysWhenDue() async {
    guard plan.backup.gpg != nil, SystemClock.running() - keysLookedAt >= 3600 else { return }
    await lookAtKeys()
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
    _ name: String, _ decisions: [RetentionDecision], _ proofs: KnownProofs, _ time: Date
  ) async -> StatusReport.Database {
    let own = decisions.filter { $0.backup.id.database.isExactly(name) }
    let newest = own.last { $0.backup.wholeCopies >= plan.quorum && !RetentionPolicy.isAhead($0.backup, of: time) }
    // Nothing is promised of what is only kept.
    let isConfigured = isConfigured(name)
    var next: (job: String, due: Date)?
    for job in plan.jobs where job.action == .backup && plan.takes(job, name) {
      if let due = await scheduler.nextStart(of: job.name), due < next?.due ?? .distantFuture { next = (job.name, due) }
    }
    var report = StatusReport.Database(
      name: name,
      newest: newest.map { BackupSummary($0.backup, retention: $0.reasons.map(\.description).joined(separator: "; ")) },
      ageSeconds: newest.map { time.timeIntervalSince($0.backup.id.time) },
      rpoSeconds: isConfigured ? plan.rpo?.inSeconds : nil,
      backups: own.count, storedBytes: own.map(\.backup.manifest.storedBytes).reduce(0, +),
      lastRun: board.last(database: name), nextJob: next?.job, nextDue: next?.due)
    report.newest?.note(proofs)
    report.recovery = await recovery(of: name, newest?.backup)
    if isConfigured {
      report.rtoSeconds = plan.rto?.inSeconds
      report.provedWithinSeconds = plan.provedWithin(name, at: time)?.inSeconds
    }
    report.proved =
      own.last {
        $0.backup.isGood && !RetentionPolicy.isAhead($0.backup, of: time) && proofs[$0.backup.id] != nil
      }?.backup.id
    report.provedAgeSeconds = report.proved.map { time.timeIntervalSince($0.time) }
    return report
  }

  /// How long a restore of the newest backup would take, as drills and restores have measured it.
  private func recovery(of name: String, _ newest: Catalog.Backup?) async -> [RecoveryEstimate] {
    guard let newest else { return [] }
    let places = newest.placements.filter(\.isWhole).map(\.store)
    let statistics = StatisticsFile(state: plan.state).read(name).last
    let artifact = newest.manifest.artifact
    return RecoveryEstimate.all(
      await ledger.history.measures[ExactText(name)] ?? [], stores: plan.stores.map(\.name).filter(places.contains),
      bytes: artifact.dataBytes ?? artifact.archiveBytes, largestTable: statistics?.largestTableBytes)
  }

  /// All at once: a silent one does not keep the others waiting.
  private func stores(_ catalog: Catalog, _ freshness: Freshness) async -> [StatusReport.Store] {
    let stores = plan.stores
    return await withTaskGroup(of: (Int, StatusReport.Store).self) { group in
      for (position, store) in stores.enumerated() {
        group.addTask { (position, await self.store(store, catalog, freshness)) }
      }
      var reports: [(Int, StatusReport.Store)] = []
      for await report in group { reports.append(report) }
      return reports.sorted { $0.0 < $1.0 }.map(\.1)
    }
  }

  private func store(
    _ store: any ObjectStore, _ catalog: Catalog, _ freshness: Freshness
  ) async -> StatusReport.Store {
    let held = catalog.backups.filter { $0.placements.contains { $0.store == store.name } }
    var free: Int64?
    // A store that the catalog found silent is not asked again: each question would hang beside the others.
    var fault = catalog.problems.first { $0.store == store.name && $0.fault.code == .storeSilent }?.fault
    let running = SystemClock.running()
    if fault == nil {
      let limit = freshness.limit(isLocal: store is LocalStore)
      if let answer = storeAnswers[store.name], running - answer.at < limit.inSeconds {
        (free, fault) = (answer.free, answer.fault)
      } else {
        (free, fault) = await ask(store, freshness.patience)
        storeAnswers[store.name] = (free, fault, running)
      }
    }
    return StatusReport.Store(
      name: store.name, location: store.location, backups: held.count,
      storedBytes: held.map(\.manifest.storedBytes).reduce(0, +), freeBytes: free, fault: fault)
  }

  /// The room in a store, or why it can't be used; asked for a moment only, and not again while a question that nobody waits for any more
  /// hangs there.
  private func ask(_ store: any ObjectStore, _ patience: Duration) async -> (free: Int64?, fault: Fault?) {
    let place = "\(store.name) \(store.location)"
    if let ended = hangingQuestions[place], !ended.isSet { return (nil, CatalogKeeper.silence(of: store)) }
    let ended = Flag()
    let answer = await withDeadline(patience) { () -> Result<Int64?, StorageError> in
      defer { ended.set() }
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
    case nil:
      hangingQuestions[place] = ended
      return (nil, CatalogKeeper.silence(of: store))
    }
  }
}
