import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import PostgresTools
import Quoting
import Storage
import SystemdSupport
import Units

/// Restores, what they put aside, and the way back.
extension DaemonCore {
  /// The name that restores have in place of a job's.
  static let restoreJob = RunHistory.restoreJob

  func previewRestore(_ command: RestoreCommand) async throws(Fault) -> RestorePreview {
    var preview = try await restore(command, run: "preview") { _ in }.preview()
    preview.seconds = await estimate(preview)
    return preview
  }

  /// Begins a restore; its run is followed like any other's. One at a time for each database.
  ///
  /// - Parameter isPutBack: all the rows that there are, rather than none.
  func beginRestore(
    _ command: RestoreCommand, by caller: Caller?, reason: String = "on demand", isPutBack: Bool = false
  ) async throws(Fault) -> RunReport {
    try refuseWhileStopping()
    let (backup, _) = try await find(command.id, isEnough: true)
    var report = RunReport(
      job: Self.restoreJob, database: backup.id.database, RunOptions(reason: reason, by: caller), asked: now())
    report.backup = backup.id
    let id = report.id
    let (board, status) = (board, status)
    let work = try await restore(command, run: id, isPutBack: isPutBack) { progress in
      let progress = RunReport.Progress(progress)
      board.progress(id, progress)
      status.progressed(board, id, phase: progress.phase)
    }
    try refuseWhileStopping()
    if let other = board.active.first(where: { $0.job == Self.restoreJob && $0.database.isExactly(report.database) }) {
      throw Fault(
        .runConflict, "'\(report.database)' is being restored by run \(other.id).", hint: "pgbackupctl status")
    }
    report.state = .running
    report.started = now()
    board.post(report)
    var record = LedgerRecord(.runStarted, at: now())
    record.describe(report)
    if command.inPlace { record.detail = ["way": RestoreWay.inPlace.rawValue] }
    await append(record)
    restores[id] = Task {
      await self.run(work, report, way: command.inPlace ? .inPlace : isPutBack ? .putBack : nil)
    }
    return report
  }

  private func run(_ restore: Restore, _ begun: RunReport, way: RestoreWay?) async {
    var report = begun
    do throws(Fault) {
      try await plan.hooks.run(.beforeRestore, report, logger: logger)
      let outcome = try await restore.run()
      report.state = .succeeded
      report.restore = outcome
      report.rows = outcome.rows
      report.storedBytes = outcome.storedBytesRead
      report.warnings = outcome.warnings
      if let database = try? restoreDatabase(report.database), outcome.database.isExactly(liveName(of: database)) {
        isInPlace(report.database)
        let id = report.backup.map { "\($0)" } ?? "\(report.database)/latest"
        standingProblems["lacking \(report.database)"] = Self.lacking(outcome).map { lack in
          Fault(
            .restoreFailed, "'\(report.database)' was put back from \(id), and not all of it: \(lack.message)",
            cause: lack.cause, hint: "pgbackupctl restore \(shell: id) puts all of it there, or says why it can't")
        }
      }
    } catch {
      report.state = error.code == .runAborted ? .aborted : .failed
      report.fault = error
    }
    if let complaint = await hookAfter(report) { report.warnings.append(complaint) }
    report.finished = now()
    report.progress = nil
    var record = LedgerRecord(.runFinished, at: now())
    record.describe(report)
    record.detail = report.restore.map(Self.detail)
    if let outcome = report.restore, way == nil, outcome.isWhole, outcome.kept == nil,
      let database = try? restoreDatabase(report.database), outcome.database.isExactly(liveName(of: database))
    {
      record.detail?[RunHistory.replaced] = "nothing"
    }
    if let way { record.detail = (record.detail ?? [:]).merging(["way": way.rawValue]) { $1 } }
    if way == .inPlace, report.state != .succeeded, await isLost(report) {
      // Asked again and again from now on, also after a restart, until it is there.
      record.detail?[RunHistory.lost] = (report.started ?? report.asked).rfc3339
    }
    if let canceller = cancellers.removeValue(forKey: report.id), report.state == .aborted {
      record.detail = (record.detail ?? [:]).merging(RunHistory.cancelled(by: canceller)) { $1 }
    }
    await append(record)
    var fields: Logger.Metadata = ["run": "\(report.id)", "database": "\(report.database)"]
    if let backup = report.backup { fields["backup"] = "\(backup)" }
    if let fault = report.fault {
      logger.error(report.state == .aborted ? .runAborted : .runFailed, fault, metadata: fields)
    } else if let outcome = report.restore {
      for (key, value) in Self.detail(outcome) { fields[key] = "\(value)" }
      logger.notice(.restoreSucceeded, "restore succeeded", metadata: fields)
    }
    restores[report.id] = nil
    await lookForKept(behind: report.id, of: report.database)
    board.post(report)
    await reportStatus()
  }

  /// Whether the database is not there, or nobody can tell.
  private func isLost(_ report: RunReport) async -> Bool {
    guard let database = try? restoreDatabase(report.database) else { return false }
    let isThere = try? await rollback(of: database).isThere(liveName(of: database))
    guard isThere != true else {
      isInPlace(report.database)
      return false
    }
    var begun = LedgerRecord(.runStarted, at: report.started ?? report.asked)
    begun.describe(report)
    begun.detail = [RunHistory.lost: begun.time.rfc3339]
    cutInPlace.append(begun)
    standingProblems[Self.absence(report.database)] = Fault(
      .restoreFailed, "'\(report.database)' is not in its place since a restore in place failed.",
      cause: report.fault?.message, hint: "it is put back by itself as soon as that can be done")
    return true
  }

  private func hookAfter(_ report: RunReport) async -> Fault? {
    let (hooks, logger) = (plan.hooks, logger)
    return await uncancelled { () async -> Fault? in
      do throws(Fault) {
        try await hooks.run(.afterRestore, report, failed: report.fault, logger: logger)
        return nil
      } catch {
        return error
      }
    }
  }

  /// What pg_restore could not make, where the way back went on without it.
  private static func lacking(_ outcome: RestoreOutcome) -> Fault? {
    outcome.warnings.first { [.restoreFailed, .databaseServer, .schemaIncomplete].contains($0.code) }
  }

  private static func detail(_ outcome: RestoreOutcome) -> [String: String] {
    var detail = [
      "target": outcome.database, "tables": "\(outcome.tables)", "proved_tables": "\(outcome.provedTables)",
      "rows": "\(outcome.rows)", "bytes_read": "\(outcome.storedBytesRead)",
    ]
    detail["loaded_bytes"] = "\(outcome.loadedBytes)"
    detail["seconds"] = "\(outcome.phases.map(\.seconds).reduce(0, +))"
    if outcome.isWhole { detail["whole"] = "yes" }
    detail["stores"] = outcome.stores.isEmpty ? nil : outcome.stores.joined(separator: ",")
    // Chosen tables prove nothing of the rest, nor does what came without a part of its schema.
    if outcome.isProved, outcome.provedTables == outcome.tables, outcome.isWhole, lacking(outcome) == nil {
      detail["proof"] = "whole"
    }
    detail["lacking"] = lacking(outcome)?.message
    detail[RunHistory.awaitsSwap] = outcome.awaitsSwap.map { "\($0)" }
    detail["not_compared"] = DrillReport.names(outcome.unproved + (outcome.derived ?? []))
    detail["kept"] = outcome.kept
    detail["schema"] = outcome.schema
    detail["downtime_s"] = outcome.downtimeSeconds.map { "\($0)" }
    for phase in outcome.phases { detail["\(phase.name)_s"] = "\(phase.seconds)" }
    return detail
  }

  /// Asks every restore to end, and waits until it has put things back.
  func stopRestores() async {
    let running = restores.values
    for task in running { task.cancel() }
    for task in running { _ = await withDeadline(plan.windDown) { await task.value } }
  }

  /// Asks a run to end: nothing of it is kept.
  func cancel(_ run: String, by caller: Caller?) async throws(Fault) -> RunReport {
    guard let report = board.active.first(where: { $0.id == run }) else {
      throw Fault(.jobMissing, "There is no run '\(run)' going on.", hint: "pgbackupctl status")
    }
    logger.notice(
      "a run is asked to end", metadata: ["run": "\(run)", "by": "\(caller.map { "uid \($0.uid)" } ?? "")"])
    cancellers[run] = caller
    if let restore = restores[run] { restore.cancel() } else { await runners[report.job]?.cancel(run, by: caller) }
    return report
  }

  // MARK: - Undoing

  func rollback(_ command: RollbackCommand, by caller: Caller?) async throws(Fault) -> RestoreOutcome {
    try refuseWhileStopping()
    let database = try restoreDatabase(command.database)
    try refuseWhileRestored(database.name)
    let live = liveName(of: database)
    if let inPlace = await ledger.history.inPlace[ExactText(database.name)] {
      let newest = try await rollback(of: database).kept().last { $0.live.isExactly(live) && $0.doubt == nil }
      guard command.kept != nil || newest.map({ $0.replaced > inPlace.time }) == true else {
        let own = await keeper.refresh().backups.last {
          $0.id.database.isExactly(database.name) && $0.manifest.type == "pre-restore" && $0.manifest.run == inPlace.run
        }
        let safety = inPlace.detail?["kept"] ?? own.map { "\($0.id)" } ?? "\(database.name)/latest:pre-restore"
        throw Fault(
          .rollbackMissing,
          "The last restore of '\(database.name)' was one in place: what was there before is no database but a backup, \(safety).",
          cause: newest.map { "'\($0.name)' is of a restore before that one, and older" },
          hint: "pgbackupctl restore \(shell: safety)")
      }
    }
    if let restore = await ledger.history.replacedNothing[ExactText(database.name)] {
      let newest = try await rollback(of: database).kept().last { $0.live.isExactly(live) && $0.doubt == nil }
      guard command.kept != nil || newest.map({ $0.replaced > restore.time }) == true else {
        throw Fault(
          .rollbackMissing, "The last restore of '\(database.name)' has replaced nothing: there was no such database.",
          cause: newest.map { "'\($0.name)' is of a restore before that one, and older" },
          hint: "pgbackupctl list \(shell: database.name), and restore another backup")
      }
    }
    let outcome = try await rollback(of: database).run(
      live, choosing: command.kept, command: "pgbackupctl rollback \(shell: database.name)")
    isInPlace(database.name)
    var record = LedgerRecord(.databaseRolledBack, at: now())
    (record.database, record.by, record.detail) = (database.name, caller, Self.detail(outcome))
    record.detail?["from"] = outcome.putBack
    await append(record)
    logger.notice(
      .databaseRolledBack, "a restore was undone",
      metadata: ["database": "\(database.name)", "kept": "\(outcome.kept ?? "none")"])
    await lookForKept()
    return outcome
  }

  /// Puts a database that a restore has left beside another one, because objects were lacking, into its place.
  func swap(_ command: SwapCommand, by caller: Caller?) async throws(Fault) -> RestoreOutcome {
    try refuseWhileStopping()
    let database = try restoreDatabase(command.database)
    try refuseWhileRestored(database.name)
    guard let identifier = await ledger.history.incomplete[ExactText(database.name)]?[ExactText(command.name)] else {
      throw Fault(
        .rollbackMissing, "No restore of '\(database.name)' has left a database '\(command.name)' that lacks objects.",
        hint: "pgbackupctl status")
    }
    let live = liveName(of: database)
    let outcome = try await rollback(of: database).swapIn(command.name, identifier, for: live)
    isInPlace(database.name)
    var record = LedgerRecord(.incompleteSwapped, at: now())
    (record.database, record.by, record.detail) = (database.name, caller, Self.detail(outcome))
    record.detail?["target"] = command.name
    await append(record)
    logger.notice(
      .databaseRolledBack, "a database that lacks objects has taken the live one's place",
      metadata: [
        "database": "\(database.name)", "was": "\(command.name)", "kept": "\(outcome.kept ?? "none")",
      ])
    await lookForKept()
    return outcome
  }

  private func refuseWhileRestored(_ name: String) throws(Fault) {
    guard let other = board.active.first(where: { $0.job == Self.restoreJob && $0.database.isExactly(name) }) else {
      return
    }
    throw Fault(
      .runConflict, "'\(name)' is being restored by run \(other.id).", hint: "pgbackupctl cancel \(shell: other.id)")
  }

  /// Looks what restores have put aside on the servers, and drops what has been kept long enough. A server that does not answer keeps
  /// nobody waiting.
  ///
  /// - Parameters:
  ///   - run: a restore that has just ended.
  ///   - name: looks only at this database, the one that was restored. The hourly look covers all of them.
  func lookForKept(behind run: String? = nil, of name: String? = nil) async {
    var found: [StatusReport.Kept] = []
    var undroppable: [ExactText: Fault] = [:]
    let keep = standingProblems["clock"] == nil ? plan.keepReplaced : nil
    let looked = plan.databases.filter { entry in name.map { MemberName.isMeant($0, by: entry.name) } ?? true }
    for database in looked {
      let rollback = await rollback(of: database)
      let active = board.active.contains { $0.job == Self.restoreJob && $0.id != run }
      let own = liveName(of: database)
      let lives = database.includes == nil ? [own] : members(of: database)
      let isOurs = database.includes ?? { $0.isExactly(own) }
      let answer = await withDeadline(.seconds(20)) {
        () -> Result<([KeptDatabase], Rollback.Removal, Rollback.Removal), Fault> in
        do throws(Fault) {
          var old = Rollback.Removal()
          if let keep { old = try await rollback.drop(olderThan: keep, of: isOurs) }
          var unfinished = Rollback.Removal()
          for live in active ? [] : lives {
            let removal = try await rollback.sweepUnfinished(of: live)
            unfinished.dropped += removal.dropped
            unfinished.failed.merge(removal.failed) { $1 }
          }
          return .success((try await rollback.kept(), old, unfinished))
        } catch {
          return .failure(error)
        }
      }
      guard case .success(let (kept, old, unfinished))? = answer else { continue }
      await noteGone(of: database, rollback)
      await tell(
        .leftoversSwept, .leftoversSwept, unfinished.dropped, of: database, "a database that a restore left unfinished")
      await tell(.keptDropped, .keptDropped, old.dropped, of: database, "older than keep_replaced")
      undroppable.merge(old.failed.merging(unfinished.failed) { $1 }) { $1 }
      for one in kept where isOurs(one.live) {
        var entry = StatusReport.Kept(
          database: database.includes == nil ? database.name : MemberName.of(one.live, in: database.name),
          name: one.name,
          replaced: one.replaced, bytes: one.bytes,
          until: one.doubt == nil ? plan.keepReplaced.map { one.replaced.addingTimeInterval($0.inSeconds) } : nil)
        entry.doubt = one.doubt?.reason
        // Once, also where a pattern finds what is configured by its name.
        if !found.contains(where: { $0.name.isExactly(entry.name) && $0.replaced == entry.replaced }) {
          found.append(entry)
        }
      }
    }
    if name == nil {
      keptDatabases = found
      standingProblems = standingProblems.filter { !$0.key.text.starts(withBytes: "drop ") }
    } else {
      keptDatabases.removeAll { old in looked.contains { MemberName.isMeant(old.database, by: $0.name) } }
      keptDatabases += found
    }
    for (name, fault) in undroppable { standingProblems["drop \(name)"] = fault }
  }

  /// What restores have left beside a database, and somebody has dropped.
  private func noteGone(of database: DaemonPlan.Database, _ rollback: Rollback) async {
    for (owner, names) in await ledger.history.incomplete where MemberName.isMeant(owner.text, by: database.name) {
      for name in names.keys.sortedTexts {
        guard let isThere = try? await rollback.isThere(name), !isThere else { continue }
        var record = LedgerRecord(.incompleteGone, at: now())
        (record.database, record.detail) = (owner.text, ["target": name])
        await append(record)
      }
    }
  }

  /// Records and logs databases that were dropped on a server.
  private func tell(
    _ kind: LedgerRecord.Kind, _ event: JournalEvent, _ names: [String], of database: DaemonPlan.Database,
    _ reason: String
  ) async {
    for name in names {
      var record = LedgerRecord(kind, at: now())
      (record.database, record.reason) = (database.name, reason)
      record.detail = ["name": name]
      await append(record)
      logger.notice(event, "a database was dropped (\(reason))", metadata: ["name": "\(name)"])
    }
  }

  /// The databases of a pattern that restores were made of.
  private func members(of database: DaemonPlan.Database) -> [String] {
    board.lastOfEach.filter { $0.job == Self.restoreJob }.compactMap {
      MemberName.database($0.database, in: database.name)
    }
  }

  /// Its name on the server.
  func liveName(of database: DaemonPlan.Database) -> String { database.connection["dbname"] ?? database.name }

  func rollback(of database: DaemonPlan.Database) async -> Rollback {
    let putAside = await ledger.history.putAside
    let recorded = putAside.filter { database.covers($0.key.text) }.values.reduce(into: Set<ExactText>()) {
      $0.formUnion($1)
    }
    return Rollback(
      on: database.restoreConnection ?? database.connection, context: OperationContext(now: now, report: { _ in }),
      witnesses: KeptWitnesses(keys: plan.trustedKeys, recorded: recorded), signingKey: plan.backup.signingKey)
  }

  // MARK: - Making one

  private func restore(
    _ command: RestoreCommand, run: String, isPutBack: Bool = false, report: @escaping @Sendable (RunProgress) -> Void
  ) async throws(Fault) -> Restore {
    let history = await ledger.history
    let (backup, catalog) = try await find(command.id, isEnough: true)
    let database = try restoreDatabase(backup.id.database)
    var request = try RestoreRequest(command, backup.id, database.name, jobs: plan.restoreJobs)
    request.isLenient = isPutBack
    if isPutBack { request.jobs = 1 }
    let context = OperationContext(now: now, report: report)
    var restore = Restore(
      request, of: backup.manifest, from: try plan.places(of: backup, acceptUntrusted: command.acceptUntrusted),
      identities: plan.identities,
      on: database.restoreConnection ?? database.connection, programs: plan.backup.programs, context: context,
      logger: logger, safetyBackup: safetyBackup(database, run, context),
      liveName: database.connection["dbname"] ?? backup.manifest.server.database)
    restore.doubt = isPutBack ? nil : backup.doubt(among: catalog)
    restore.signingKey = plan.backup.signingKey
    restore.putsBack = isPutBack
    restore.cautions = isPutBack ? [] : await cautions(using: backup, in: catalog, before: history)
    return restore
  }

  /// Also a database that is not there any more: that is what restores are for.
  func restoreDatabase(_ name: String) throws(Fault) -> DaemonPlan.Database {
    if let database = plan.database(name) { return database }
    throw Fault(
      .databaseMissing, "No database '\(name)' is configured, so it is not known where to restore to.",
      hint: "add it to 'databases:', then: pgbackupctl reload")
  }

  /// For restores in place: a backup of type `pre-restore` in a store on this machine, where there is one, kept as long as what restores
  /// replace.
  private func safetyBackup(
    _ database: DaemonPlan.Database, _ run: String, _ context: OperationContext
  ) -> Restore.SafetyBackup? {
    guard let store = plan.stores.first(where: \.canLink) ?? plan.stores.first else { return nil }
    let (settings, keep, logger, keeper) = (plan.backup, plan.keepReplaced, logger, keeper)
    return { connection throws(Fault) in
      let catalog = await keeper.refresh()
      let taken = Set(catalog.backups.filter { $0.id.database.isExactly(database.name) }.map(\.id.time))
      let request = Backup.Request(
        database: database.name, connection: connection, type: "pre-restore", label: nil, job: nil, run: run, keep: keep
      )
      let outcome = try await Backup(
        request, settings: settings, stores: [store], history: .init(takenTimes: taken), context: context,
        logger: logger
      ).run()
      return (outcome.manifest, [store])
    }
  }

  /// From the last restore or drill of all of the same database.
  private func estimate(_ preview: RestorePreview) async -> Double? {
    let measures = await ledger.history.measures[ExactText(preview.backup.database)] ?? []
    let places = await keeper.catalog.backups.first { $0.id == preview.backup }?.placements.filter(\.isWhole) ?? []
    let stores = plan.stores.map(\.name).filter { name in places.contains { $0.store == name } }
    let estimates = RecoveryEstimate.all(measures, stores: stores, bytes: preview.bytes, largestTable: nil)
    // It is read from the nearest; what others have taken is a hint where that one was never measured.
    return estimates.first?.seconds ?? estimates.compactMap(\.seconds).max()
  }
}
