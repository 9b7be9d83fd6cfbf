import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import PostgresTools
import SystemdSupport

/// After the daemon has died in a restore in place: its database may be gone, and nobody may be there to see it.
extension DaemonCore {
  /// Puts back what was there before, where the database is missing. A server that does not answer is asked again later.
  func putBackWhatWasCut() async {
    // It waits for servers, and beats go on meanwhile.
    guard !isPuttingBack else { return }
    isPuttingBack = true
    defer { isPuttingBack = false }
    for begun in cutInPlace {
      guard !isStopping, !board.active.contains(where: { $0.job == Self.restoreJob && $0.database == begun.database })
      else { continue }
      let problem = "put back \(begun.database ?? "")"
      let fields: Logger.Metadata = ["database": "\(begun.database ?? "")", "run": "\(begun.run ?? "")"]
      do throws(Fault) {
        // One that was begun may fail as well: only the database itself ends this.
        if try await putBack(begun) { cutInPlace.removeAll { $0.run == begun.run } }
        standingProblems[problem] = nil
      } catch {
        if standingProblems[problem]?.message != error.message { logger.error(.runFailed, error, metadata: fields) }
        standingProblems[problem] = Fault(
          error.code,
          "'\(begun.database ?? "")' is not in its place since a restore in place was cut off. \(error.message)",
          cause: error.cause, hint: error.hint ?? "it is tried again each minute")
      }
    }
  }

  /// Whether it is there now.
  private func putBack(_ begun: LedgerRecord) async throws(Fault) -> Bool {
    guard let name = begun.database else { return true }
    let database = try restoreDatabase(name)
    let live = database.connection["dbname"] ?? database.name
    let rollback = rollback(of: database)
    guard try await !rollback.isThere(live) else { return true }
    // It had lost its name, and was not dropped yet.
    if let kept = try await rollback.kept().last(where: { $0.live == live }),
      kept.replaced >= begun.time.addingTimeInterval(-1)
    {
      let outcome = try await rollback.run(live)
      var record = LedgerRecord(.databaseRolledBack, at: now())
      (record.database, record.reason) = (name, "the daemon died in a restore in place")
      record.detail = ["target": outcome.database, "from": kept.name]
      await append(record)
      logger.notice(
        .databaseRolledBack, "a database has its name back, which a cut-off restore in place had taken",
        metadata: ["database": "\(name)", "kept": "\(kept.name)"])
      return true
    }
    let safety = await keeper.refresh().backups.last {
      $0.id.database == name && $0.manifest.type == "pre-restore" && $0.manifest.run == begun.run
    }
    guard let safety else {
      throw Fault(
        .restoreFailed, "'\(name)' is gone, and the safety backup of the restore that was cut off is not there.",
        hint: "psql -l on the server; then: pgbackupctl restore \(shell: name)/latest")
    }
    let run = try await beginRestore(
      RestoreCommand(id: safety.id.description), by: nil,
      reason: "the daemon died in a restore in place; what was there before is put back", isPutBack: true)
    logger.notice(
      "what was there before a restore in place that was cut off is put back",
      metadata: ["database": "\(name)", "backup": "\(safety.id)", "run": "\(run.id)"])
    return false
  }
}
