import BackupCatalog
import BackupOperations
import Confinement
import ControlAPI
import Faults
import Foundation
import Quoting
import Storage
import Units

/// What is wrong, each with what it is about: for `status`, for alerts, for metrics.
extension DaemonCore {
  func problems(
    _ catalog: Catalog, _ committed: RunHistory.Committed, _ decisions: [RetentionDecision],
    _ databases: [StatusReport.Database], _ stores: [StatusReport.Store], _ last: [RunReport], _ time: Date
  ) async -> [Problem] {
    var problems = standingProblems.sorted { $0.key < $1.key }.map { Problem($0.value) }
    problems += stores.compactMap { store in store.fault.map { Problem($0, store: store.name) } }
    problems += stores.compactMap { store in nearlyFull(store, databases).map { Problem($0, store: store.name) } }
    problems += catalog.problems.filter { $0.folder != nil }.map { Problem($0.fault, store: $0.store) }
    problems += catalog.backups.flatMap { backup in
      Self.forged(backup).map { Problem($0, database: backup.id.database, backup: backup.id) }
    }
    problems += catalog.backups.filter { $0.placements.allSatisfy { !$0.missing.isEmpty } }
      .map { Problem(Self.incomplete($0), database: $0.id.database, backup: $0.id) }
    problems += last.compactMap { run in
      Self.failed(run).map { fault in
        var problem = Problem(fault, database: run.database, job: run.job)
        // Somebody has ended it, or the daemon was stopped: he knows.
        problem.opensNothing = run.state == .aborted
        return problem
      }
    }
    problems += last.flatMap { run in
      run.warnings.filter { $0.code == .hookFailed }.map {
        Problem(Self.named($0, run), database: run.database, aspect: "hook of \(run.job)")
      }
    }
    problems += cutRestores(catalog).compactMap { run in
      run.fault.map { Problem($0, database: run.database, job: run.job) }
    }
    let history = await ledger.history
    problems += databases.compactMap { database in
      ObjectiveRules.overdue(database).map { fault in
        var problem = Problem(fault, database: database.name, aspect: "rpo")
        // So too before the first backup of a new installation.
        if database.newest == nil, let objective = database.rpoSeconds {
          let begin = history.beginning(of: database.name) ?? started
          let end = begin.addingTimeInterval(objective)
          if !ObjectiveRules.comesTooLate(database.nextDue, end, since: begin, time) { problem.quietUntil = end }
        }
        return problem
      }
    }
    problems += catalog.backups.compactMap { backup in
      fromTheFuture(backup, time).map { Problem($0, database: backup.id.database, backup: backup.id) }
    }
    problems += decisions.compactMap { decision in
      belowQuorum(decision, catalog, time).map {
        Problem($0, database: decision.backup.id.database, aspect: "quorum", backup: decision.backup.id)
      }
    }
    problems += reconcileProblems.map { Problem($0) }
    problems += unconfinedDrills.map { Problem($0) }
    problems += await vanished(catalog, committed)
    problems += await stale(catalog, committed, decisions)
    problems += await returned(catalog)
    problems += strangePins(catalog, history)
    problems += databases.compactMap { database in
      doubtful(database, catalog).map {
        Problem($0, database: database.name, backup: database.newest?.id)
      }
    }
    for database in databases {
      let rules = ObjectiveRules(database, nextDrill: await nextDrill(of: database.name), at: time)
      problems += rules.findings.map { one in
        var problem = Problem(one.fault, database: database.name, aspect: one.aspect)
        // Who has begun to make backups today has no proof yet: `status` says so, and nobody is called for it as long as one may still come
        // in time.
        if one.aspect == "proved", database.proved == nil, let end = firstProofBy(database, catalog, history),
          !ObjectiveRules.comesTooLate(rules.nextDrill, end.end, since: end.begin, time)
        {
          problem.quietUntil = end.end
        }
        return problem
      }
    }
    return Problem.grouped(problems) + Self.undelivered(await courier.reports)
  }

  /// Pins that this daemon has not set, on backups that it has made. Pins are not signed, so whoever can write into a
  /// store can keep a backup from expiring.
  private func strangePins(_ catalog: Catalog, _ history: RunHistory) -> [Problem] {
    catalog.backups.compactMap { backup in
      guard let pin = backup.pin, history.made[backup.id] != nil, !history.pinned.contains(backup.id) else {
        return nil
      }
      let fault = Fault(
        .pinUnknown, "\(backup.id) is pinned, and not by this daemon: no retention takes it.",
        cause: "the pin says: by \(line: pin.by), since \(pin.since.rfc3339)",
        hint:
          "pgbackupctl unpin \(shell: backup.id); where it is meant to stay, pgbackupctl pin \(shell: backup.id) after that"
      )
      return Problem(fault, database: backup.id.database, backup: backup.id)
    }
  }

  /// Drills on a kernel that does not keep code of backups from files. Lesser gaps are told by each drill.
  private var unconfinedDrills: [Fault] {
    let walls = KernelWalls()
    guard !walls.keepsFiles, plan.drill.server == nil,
      plan.jobs.contains(where: { $0.action == .drill && $0.timing != nil })
    else { return [] }
    return walls.gaps(try? DrillAccount.current()).prefix(1).map { Fault(.confinementWeak, $0, hint: KernelWalls.hint) }
  }

  /// Backups whose last drill found something else than what was backed up. That of the last run is told as that run's failure already.
  func notProved(_ proofs: KnownProofs, _ decisions: [RetentionDecision], _ last: [RunReport]) -> [Problem] {
    decisions.filter { $0.isKept && isConfigured($0.backup.id.database) }.compactMap { decision in
      let id = decision.backup.id
      if let incomplete = proofs.incomplete[id],
        !last.contains(where: { $0.backup == id && $0.fault?.code == incomplete.fault.code })
      {
        let fault = Fault(
          .schemaIncomplete,
          "The last drill of \(id) proved every row, and could not make all of its schema (\(incomplete.time.rfc3339), \(incomplete.basis)).",
          cause: incomplete.fault.message + (incomplete.fault.cause.map { "\n\($0)" } ?? ""),
          hint: "pgbackupctl drill \(shell: id) tries again; --keep-going restores it without what lacks")
        return Problem(fault, database: id.database, aspect: "proof of \(id)", backup: id)
      }
      guard let failed = proofs.failed[id],
        !last.contains(where: { $0.backup == id && $0.fault?.code == failed.fault.code })
      else { return nil }
      let fault = Fault(
        .proofFailed, "The last drill of \(id) did not prove it (\(failed.time.rfc3339), \(failed.basis)).",
        cause: failed.fault.message,
        hint: "pgbackupctl drill \(shell: id) tries again; where it is no good: pgbackupctl delete \(shell: id)")
      return Problem(fault, database: id.database, aspect: "proof of \(id)", backup: id)
    }
  }

  /// What restores have left beside databases: somebody decides what becomes of it.
  func waitingForSwap(_ history: RunHistory) -> [Problem] {
    history.incomplete.flatMap { database, names in
      names.keys.sortedTexts.map { name in
        let fault = Fault(
          .schemaIncomplete, "'\(name)' waits beside '\(database.text)': its restore could not make all objects.",
          hint: "pgbackupctl swap \(shell: database.text) \(shell: name); or drop it")
        return Problem(fault, database: database.text, aspect: "swap \(name)")
      }
    }
  }

  /// Restores that the daemon has died in: the database may lack its place. A backup that came later shows that it is there.
  private func cutRestores(_ catalog: Catalog) -> [RunReport] {
    board.lastOfEach.filter { run in
      guard run.job == Self.restoreJob, run.state == .interrupted, let finished = run.finished else { return false }
      return !catalog.backups.contains { $0.id.database.isExactly(run.database) && $0.manifest.finished > finished }
    }
  }

  /// Backups that were made and that nobody has deleted, and that no store knows any more: somebody took away their manifests.
  ///
  /// - Parameter committed: those that were made before the catalog was read.
  private func vanished(
    _ catalog: Catalog, _ committed: RunHistory.Committed
  ) async -> [Problem] {
    let unread = catalog.unread
    let readable = Set(plan.stores.map(\.name)).subtracting(unread)
    let known = Set(catalog.backups.map(\.id)).union(
      catalog.problems.compactMap { $0.folder.flatMap(BackupLayout.init(folder:))?.id })
    // Which of them are deleted meanwhile is asked in this order: a deletion that ends between the two is on record then.
    let leaving = removing
    let history = await ledger.history
    let (staying, cutOff) = (history.committed, Set(history.deleting.keys.map(\.backup)))
    return committed.filter { id, stores in
      guard staying[id] != nil, !leaving.contains(id), !cutOff.contains(id) else { return false }
      // Where a store can't be read, or is configured no more, nobody knows.
      return !known.contains(id) && stores.isSubset(of: readable)
    }.keys.sorted().map { id in
      let fault = Fault(
        .backupMissing, "\(id) was made, nobody has deleted it, and no store has it any more.",
        cause: "its manifest is gone from every store; what is left of its files is kept",
        hint:
          "bring manifest.json and manifest.json.sig back from a copy of the store; or: pgbackupctl log, for what happened"
      )
      return Problem(fault, database: id.database, backup: id)
    }
  }

  /// Channels that have taken nothing for some tries.
  private static func undelivered(_ channels: [AlertChannelReport]) -> [Problem] {
    channels.filter { $0.failures >= 3 || $0.fault != nil && $0.waiting == 0 }.compactMap { report in
      report.fault.map { Problem($0, channel: report.name) }
    }
  }

  /// A store that has no room for two more backups of everything.
  private func nearlyFull(_ store: StatusReport.Store, _ databases: [StatusReport.Database]) -> Fault? {
    let newest = databases.compactMap(\.newest).filter { $0.stores.contains(store.name) }
    let need = newest.map(\.storedBytes).reduce(0, +)
    guard store.fault == nil, let free = store.freeBytes, need > 0, free < 2 * need else { return nil }
    return Fault(
      .storeSpace,
      "Store '\(store.name)' has \(ByteCount(free)) left; one more backup of each database needs about \(ByteCount(need)).",
      hint: "make room there, or keep less: pgbackupctl reconcile shows what will expire")
  }

  /// A job whose last run on a database failed: whatever other jobs have done since.
  private static func failed(_ run: RunReport) -> Fault? {
    run.fault.map { named($0, run) }
  }

  private static func named(_ fault: Fault, _ run: RunReport) -> Fault {
    Fault(fault.code, "\(run.job) of '\(run.database)': \(fault.message)", cause: fault.cause, hint: fault.hint)
  }

  /// A backup whose time has not come: a clock was wrong, and no age can be told.
  private func fromTheFuture(_ backup: Catalog.Backup, _ time: Date) -> Fault? {
    guard RetentionPolicy.isAhead(backup, of: time) else { return nil }
    return Fault(
      .clockDoubtful, "\(backup.id) claims to be from the future: it counts for nothing, and never expires.",
      hint: "pgbackupctl delete \(shell: backup.id)")
  }

  /// A backup in fewer stores than wanted, where more of them should have it. A fresh one whose copies are being made is none yet.
  private func belowQuorum(_ decision: RetentionDecision, _ catalog: Catalog, _ time: Date) -> Fault? {
    let backup = decision.backup
    guard plan.quorum > 1, backup.isGood, backup.wholeCopies < plan.quorum, decision.isKept,
      let job = try? plan.job(backup.manifest.type),
      job.stores.filter({ decision.expired[$0] == nil }).count >= plan.quorum
    else { return nil }
    let age = time.timeIntervalSince(backup.manifest.finished)
    // The first minute is the run's end, after which the copies begin.
    if age < 60 || copyWalks > 0 && age < 86_400 {
      let coming = job.stores.filter { store in
        !backup.placements.contains { $0.store == store && $0.isWhole }
          && !catalog.problems.contains { $0.store == store && $0.folder == nil }
          && failedSteps["copy \(backup.manifest.layout.folder) to \(store)"] == nil
      }
      if backup.wholeCopies + coming.count >= plan.quorum { return nil }
    }
    return Fault(
      .quorumMissed,
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
        cause: placement.outsider.map { key in
          "the key \(key) has signed it; 'signing: trusted:' does not name '\(backup.id.database)' among its databases"
        },
        hint:
          "if another daemon of yours made it, add its signing.pub to 'signing: trusted:'; else look into that store")
    }
  }

  private static func incomplete(_ backup: Catalog.Backup) -> Fault {
    let missing = Set(backup.placements.flatMap(\.missing)).sorted().joined(separator: ", ")
    return Fault(
      .artifactDamaged, "\(backup.id) lacks files in every store, or they have another size: \(missing).",
      hint: "pgbackupctl show \(shell: backup.id)")
  }

  /// When a drill that takes this database begins next by itself.
  private func nextDrill(of database: String) async -> Date? {
    var next: Date?
    for job in plan.drills(of: database) {
      if let start = await scheduler.nextStart(of: job.name) { next = min(next ?? start, start) }
    }
    return next
  }

  /// Of a database without any proof: from its first backup on, also where that has expired, so long as the objective says.
  private func firstProofBy(
    _ database: StatusReport.Database, _ catalog: Catalog, _ history: RunHistory
  ) -> (begin: Date, end: Date)? {
    guard let objective = database.provedWithinSeconds else { return nil }
    let oldest = catalog.backups.first { $0.id.database.isExactly(database.name) && $0.isGood }?.id.time
    let begin =
      [history.firstBackups[ExactText(database.name)], oldest].compactMap { $0 }.min()
      ?? history.beginning(of: database.name) ?? started
    return (begin, begin.addingTimeInterval(objective))
  }

  private func doubtful(_ database: StatusReport.Database, _ catalog: Catalog) -> Fault? {
    guard let newest = database.newest, newest.isFlagged else { return nil }
    let undoubted = catalog.backups.last { $0.id.database.isExactly(database.name) && $0.isGood && !$0.isFlagged }
    let backup = catalog.backups.last { $0.id == newest.id }
    let isOnlyUncompared = backup?.isOnlyUncompared == true
    return Fault(
      .backupDoubtful,
      "The newest backup of '\(database.name)' is in doubt: "
        + (isOnlyUncompared
          ? "what those before it were like is not known here, and nobody has said that it is right."
          : "compared with " + (undoubted.map { "\($0.id)" } ?? "those before it") + ", rows or tables are missing."),
      cause: (backup?.manifest.flags ?? []).joined(separator: ", "),
      hint: "pgbackupctl show \(shell: newest.id); where it is right: pgbackupctl accept \(shell: newest.id)")
  }

  /// Whether how a run ended matters still: of a database that is configured, or of backups that are only kept and were read back.
  func isTold(_ run: RunReport, _ catalog: Catalog) -> Bool {
    isConfigured(run)
      || plan.jobs.contains { $0.name == run.job && $0.action.name == "verify" }
        && catalog.backups.contains { $0.id.database.isExactly(run.database) }
  }

  /// Whether a run's database is one that the configuration still means.
  func isConfigured(_ run: RunReport) -> Bool { isConfigured(run.database) }

  func isConfigured(_ database: String) -> Bool {
    plan.databases.contains { $0.covers(database) }
  }
}

extension Problem {
  /// So many of one kind are told one by one; a store that was emptied has hundreds of them, among which nobody would find another.
  private static let fewEnough = 5

  private var group: [ExactText] {
    [fault.code.rawValue, database ?? "", store ?? ""].map(ExactText.init(_:))
  }

  /// Many of one kind, of the same database or store, as one.
  fileprivate static func grouped(_ problems: [Problem]) -> [Problem] {
    let kinds = Dictionary(grouping: problems) { $0.group }
    var told: Set<[ExactText]> = []
    return problems.compactMap { problem in
      let kind = problem.group
      guard problem.job == nil, let all = kinds[kind], all.count > fewEnough else { return problem }
      guard told.insert(kind).inserted else { return nil }
      var one = problem
      (one.aspect, one.backup) = (nil, nil)
      one.fault = Fault(
        problem.fault.code, "\(all.count) of this kind; the first: \(problem.fault.message)",
        cause: all.dropFirst().prefix(9).map(\.fault.message).joined(separator: "\n")
          + (all.count > 10 ? "\nand \(all.count - 10) more" : ""), hint: problem.fault.hint)
      return one
    }
  }
}
