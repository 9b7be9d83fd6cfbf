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

/// Reading backups back: on demand, and what follows from it.
extension DaemonCore {
  /// Begins a verification of the chosen backups, a run for each of their databases.
  func verify(_ command: VerifyCommand, by caller: Caller?) async throws(Fault) -> [RunReport] {
    var selection = CheckSelection()
    if let level = command.level {
      guard let level = VerifyLevel(rawValue: level) else {
        throw Fault(
          .usage, "'\(level)' is no level: there are \(VerifyLevel.allCases.map(\.rawValue).joined(separator: ", ")).",
          hint: "pgbackupctl verify --help")
      }
      selection.level = level
    }
    if !command.stores.isEmpty {
      for name in command.stores { try checkStore(name) }
      selection.stores = Set(command.stores)
    }
    let catalog: Catalog
    var chosen: Set<BackupID> = []
    if command.backups.isEmpty {
      catalog = try await keeper.whole()
    } else {
      for text in command.backups { chosen.insert(try await find(text).0.id) }
      catalog = await keeper.catalog
      selection.backups = chosen
    }
    // Also where nothing but a manifest that can't be read is left.
    let unreadable = catalog.problems.compactMap { $0.folder.flatMap(BackupLayout.init(folder:))?.id }
    let names = (catalog.backups.map(\.id) + unreadable).filter { chosen.isEmpty || chosen.contains($0) }
      .map(\.database).exact.sortedTexts
    guard !names.isEmpty else {
      throw Fault(.backupMissing, "There is no backup to verify.", hint: "pgbackupctl backup DATABASE")
    }
    return try await check(.verify(.archive, .everything), names, selection, by: caller)
  }

  /// Begins a drill of one backup.
  func drill(_ command: DrillCommand, by caller: Caller?) async throws(Fault) -> [RunReport] {
    if let store = command.store { try checkStore(store) }
    let (backup, _) = try await find(command.backup ?? "latest")
    let selection = CheckSelection(backups: [backup.id], stores: command.store.map { [$0] })
    return try await check(.drill, [backup.id.database], selection, by: caller)
  }

  private func checkStore(_ name: String) throws(Fault) {
    guard plan.stores.contains(where: { $0.name == name }) else {
      throw Fault(
        .storeMissing, "There is no store '\(name)'; there are \(plan.stores.map(\.name).joined(separator: ", ")).",
        hint: "pgbackupctl status")
    }
  }

  private func check(
    _ action: JobAction, _ names: [String], _ selection: CheckSelection, by caller: Caller?
  ) async throws(Fault) -> [RunReport] {
    try refuseWhileStopping()
    let plan = plan
    guard let job = plan.jobs.first(where: { $0.action.name == action.name }) else {
      throw Fault(.jobMissing, "There is no \(action.name) job.", hint: "pgbackupctl jobs")
    }
    var onDemand = job
    // Whatever the schedule's own runs leave out: somebody has asked for this.
    onDemand.stores = plan.stores.map(\.name)
    var begun: [RunReport] = []
    for name in names {
      let options = RunOptions(reason: "on demand", by: caller, selection: selection)
      begun.append(
        try await runner(job.name).begin(plan.database(inCatalog: name), job: onDemand, plan: plan, options: options))
    }
    return begun
  }

  /// Takes what a backup was flagged for, and what those before it were, for explained: it is what the next ones are compared with.
  func accept(_ reference: BackupReference, by caller: Caller?) async throws(Fault) -> BackupDetail {
    let (backup, catalog) = try await find(reference.id)
    let explained = catalog.backups.filter {
      $0.id.database.isExactly(backup.id.database) && $0.id <= backup.id && $0.isFlagged
    }
    guard backup.isFlagged else {
      throw Fault(
        .usage, "\(backup.id) is not flagged: there is nothing to accept.", hint: "pgbackupctl show \(shell: backup.id)"
      )
    }
    for one in explained {
      var record = LedgerRecord(.backupAccepted, at: now())
      (record.backup, record.database, record.by, record.reason) = (
        one.id, one.id.database, caller, reference.note
      )
      await append(record)
    }
    await keeper.accept(Set(explained.map(\.id)))
    StatisticsFile(state: plan.state).accept(backup.id)
    return try await self.backup(backup.id.description)
  }

  /// Ends the servers of drills that a dead daemon has left. Before the first drill of this one may begin.
  func sweepDrills() async {
    guard !board.active.contains(where: { run in plan.jobs.contains { $0.name == run.job && $0.action == .drill } })
    else {
      return
    }
    let swept = await ThrowawayServer.sweep(root: plan.drill.folder)
    guard swept > 0 else { return }
    var record = LedgerRecord(.leftoversSwept, at: now())
    record.reason = "servers of drills that a dead daemon left"
    record.detail = ["servers": "\(swept)", "folder": plan.drill.folder]
    await append(record)
    logger.notice(.leftoversSwept, "servers of dead drills were swept", metadata: ["servers": "\(swept)"])
  }

  /// Puts on record what a placement turned out to be. A damaged one counts for nothing from now on, and is mended from another store.
  func note(_ verification: Verification, run: String) async {
    let layout = BackupLayout(id: verification.backup, type: verification.type)
    var record = LedgerRecord(.backupVerified, at: verification.finished)
    (record.backup, record.database, record.store) = (
      verification.backup, verification.backup.database, verification.store
    )
    (record.run, record.fault, record.reason) = (run, verification.fault, verification.note)
    record.result = verification.fault == nil ? "sound" : verification.isDamaged ? "damaged" : "unread"
    record.detail = [
      "level": verification.level.rawValue, "folder": layout.folder, "seconds": "\(verification.seconds)",
      "stored_bytes": "\(verification.storedBytes)", "archive_bytes": "\(verification.archiveBytes)",
      "rows": "\(verification.rows)",
    ]
    await append(record)
    if verification.isDamaged, let fault = verification.fault {
      await keeper.markDamaged(layout.folder, in: verification.store)
      logger.error(
        .placementDamaged, fault,
        metadata: ["backup": "\(verification.backup)", "store": "\(verification.store)", "run": "\(run)"])
    } else if verification.fault == nil {
      await keeper.mend(layout.folder, in: verification.store)
    }
  }
}

extension DaemonPlan {
  /// A database that there are backups of, also where it is not configured any more.
  func database(inCatalog name: String) -> Database {
    database(name)
      ?? Database(
        name: name, connection: .init(socketFolder: "", port: "", user: "", database: name), includes: nil)
  }
}
