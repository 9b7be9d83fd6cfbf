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

/// Dumps of the time before: what lies in a folder, and making backups of it.
extension DaemonCore {
  /// The name that adoptions have in place of a job's.
  static let adoptionJob = "adopt"

  /// What lies at a path, and what has been adopted of it already. The oldest first.
  func adoptable(_ command: AdoptCommand) async throws(Fault) -> [AdoptableDump] {
    let catalog = await keeper.refresh()
    let programs = ClientPrograms(configured: plan.backup.programs)
    var found: [AdoptableDump] = []
    for path in try Self.files(at: command.path) {
      var one = AdoptableDump(path: path)
      do throws(Fault) {
        let dump = try await DumpFile(path, programs: programs, isQuick: true)
        (one.kind, one.bytes, one.taken) = (dump.kind.rawValue, dump.bytes, dump.taken(notAfter: now()))
        one.backup = adopted(dump, path, catalog)
        (one.serverVersion, one.database) = (dump.serverVersion, command.database ?? dump.database)
        one.ownDatabase = dump.database.flatMap { $0.isExactly(one.database) ? nil : $0 }
      } catch {
        one.fault = error
      }
      found.append(one)
    }
    return found.sorted { ($0.taken ?? .distantFuture, $0.path) < ($1.taken ?? .distantFuture, $1.path) }
  }

  /// The backup that this very dump has become; another one may have taken its path since.
  private func adopted(_ dump: DumpFile, _ path: String, _ catalog: Catalog) -> BackupID? {
    let taken = dump.taken(notAfter: now())
    return catalog.backups.first { backup in
      // Backups of one second follow each other by the second.
      backup.manifest.label == Adoption.label(path) && abs(backup.id.time.timeIntervalSince(taken)) < 60
    }?.id
  }

  /// The files of a folder, or the one file; a folder that is an archive itself is one.
  private static func files(at path: String) throws(Fault) -> [String] {
    guard path.starts(withBytes: "/") else {
      throw Fault(.usage, "'\(path)' is no absolute path.", hint: "the daemon has a working directory of its own")
    }
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
      throw Fault(
        .adoptRefused, "The daemon can't see '\(path)'.",
        hint: "its unit hides /home and /tmp from it: put the dumps below /var, readable for pgbackupd's account")
    }
    let isArchive = FileManager.default.fileExists(atPath: "\(path)/toc.dat")
    guard isFolder.boolValue, !isArchive else { return [path] }
    do {
      return try FileManager.default.contentsOfDirectory(atPath: path).filter { !$0.starts(withBytes: ".") }.sorted()
        .map { path.ends(withBytes: "/") ? path + $0 : "\(path)/\($0)" }
    } catch {
      throw Fault(.adoptRefused, "'\(path)' can't be read.", cause: error.localizedDescription)
    }
  }

  /// Begins to make a backup of one dump; its run is followed like any other's. One at a time: each has a server of its own.
  func beginAdoption(_ command: AdoptCommand, by caller: Caller?) async throws(Fault) -> RunReport {
    try refuseWhileStopping()
    let dump = try await DumpFile(command.path, programs: ClientPrograms(configured: plan.backup.programs))
    guard let database = command.database ?? dump.database else {
      throw Fault(
        .usage, "'\(command.path)' does not tell its database's name.",
        hint: "pgbackupctl adopt \(shell: command.path) --database NAME")
    }
    let catalog = await keeper.refresh()
    if let known = adopted(dump, command.path, catalog) {
      throw Fault(
        .storeConflict, "'\(command.path)' has been adopted already, as \(known).",
        hint: "pgbackupctl show \(shell: known)")
    }
    let creation = try await creation(of: dump, as: database, command.locale, catalog)
    try refuseWhileStopping()
    if let other = board.active.first(where: { $0.job == Self.adoptionJob }) {
      throw Fault(.runConflict, "A dump is being adopted by run \(other.id).", hint: "pgbackupctl status")
    }
    var report = RunReport(
      job: Self.adoptionJob, database: database, RunOptions(reason: "on demand", by: caller), asked: now())
    let (board, status, id) = (board, status, report.id)
    let type = plan.jobs.first { $0.name == command.type }
    let stores =
      type.map { plan.stores(of: $0) } ?? (plan.stores.first { $0 is LocalStore } ?? plan.stores.first).map { [$0] }
      ?? []
    var settings = Adoption.Settings(folder: plan.drill.folder, backup: plan.backup, creation: creation)
    settings.jobs = plan.restoreJobs
    let time = dump.taken(notAfter: now())
    var history = Backup.History(
      takenTimes: Set(catalog.backups.filter { $0.id.database.isExactly(database) }.map(\.id.time)))
    history.statistics = StatisticsFile(state: plan.state).read(database).filter { $0.backup.time < time }
    let work = Adoption(
      dump, as: database, type: command.type, into: stores, settings: settings, time: time,
      history: history, retention: plan.retention,
      run: id,
      logger: logger
    ) { progress in
      let progress = RunReport.Progress(progress)
      board.progress(id, progress)
      status.progressed(board, id, phase: progress.phase)
    }
    (report.state, report.started) = (.running, now())
    board.post(report)
    var record = LedgerRecord(.runStarted, at: now())
    record.describe(report)
    record.detail = ["file": command.path]
    await append(record)
    let begun = report
    restores[id] = Task { await self.run(work, begun, command.path) }
    return report
  }

  /// What the database of a dump was made with: as somebody says, as the dump says, or as the database is that it is of.
  private func creation(
    of dump: DumpFile, as database: String, _ locale: String?, _ catalog: Catalog
  ) async throws(Fault) -> DatabaseCreation {
    if let locale { return try DatabaseCreation(encoding: dump.encoding, locale: locale) }
    if dump.creation.options != nil { return dump.creation }
    let known = catalog.backups.last {
      $0.id.database.isExactly(database) && $0.isGood && $0.manifest.server.databaseOptions != nil
    }
    if let options = known?.manifest.server.databaseOptions { return DatabaseCreation(ofManifest: options) }
    var reason: Fault?
    if let configured = plan.database(database) {
      do throws(Fault) {
        return try await DatabaseCreation(of: configured.connection)
      } catch {
        reason = error
      }
    }
    throw Fault(
      .adoptRefused,
      "'\(dump.path)' does not say what its database's locale was, and without it text would be sorted and compared otherwise.",
      cause: reason?.message ?? "there is no backup of '\(database)' yet, and no database of that name is configured",
      hint:
        "SHOW lc_collate tells it where the database still is; then: pgbackupctl adopt \(shell: dump.path) --locale NAME"
    )
  }

  private func run(_ adoption: Adoption, _ begun: RunReport, _ path: String) async {
    var report = begun
    do throws(Fault) {
      let outcome = try await adoption()
      report.state = .succeeded
      report.backup = outcome.manifest.id
      report.rows = outcome.manifest.totals.rows
      report.storedBytes = outcome.manifest.storedBytes
      report.warnings = outcome.dropped.sorted { $0.key < $1.key }.map(\.value)
    } catch {
      report.state = error.code == .runAborted ? .aborted : .failed
      report.fault = error
    }
    report.finished = now()
    report.progress = nil
    var record = LedgerRecord(.runFinished, at: now())
    record.describe(report)
    record.detail = ["file": path]
    if let canceller = cancellers.removeValue(forKey: report.id), report.state == .aborted {
      record.detail = RunHistory.cancelled(by: canceller)
    }
    await append(record)
    var fields: Logger.Metadata = ["run": "\(report.id)", "database": "\(report.database)", "file": "\(path)"]
    if let fault = report.fault {
      logger.error(report.state == .aborted ? .runAborted : .runFailed, fault, metadata: fields)
    } else {
      if let backup = report.backup { fields["backup"] = "\(backup)" }
      logger.notice(.backupSucceeded, "a dump was adopted", metadata: fields)
    }
    restores[report.id] = nil
    _ = await keeper.refresh()
    board.post(report)
    await reportStatus()
  }
}
