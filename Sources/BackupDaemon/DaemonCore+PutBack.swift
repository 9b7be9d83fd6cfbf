import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import PostgresTools
import Quoting
import SystemdSupport

/// After a restore in place that was cut off, or could not put back what it had taken away: its database may be gone, and nobody may be
/// there to see it.
extension DaemonCore {
  /// Puts back what was there before, where the database is missing. A server that does not answer is asked again later.
  func putBackWhatWasCut() async {
    // It waits for servers, and beats go on meanwhile.
    guard !isPuttingBack else { return }
    isPuttingBack = true
    defer { isPuttingBack = false }
    for (database, restores) in Dictionary(grouping: cutInPlace, by: { ExactText($0.database ?? "") })
      .sorted(by: { $0.key < $1.key })
    {
      let name = database.text
      guard !isStopping, !board.active.contains(where: { $0.job == Self.restoreJob && $0.database.isExactly(name) })
      else { continue }
      let problem = Self.absence(name)
      do throws(Fault) {
        // A restore that was begun may fail as well: only the database itself ends this.
        if try await putBack(name, restores) {
          isInPlace(name)
        } else if standingProblems[problem] == nil {
          standingProblems[problem] = Fault(
            .restoreFailed, "'\(name)' is not in its place since \(Self.cause(restores)).",
            hint: "it is being put back: pgbackupctl status")
        }
      } catch {
        if standingProblems[problem]?.message != error.message {
          logger.error(
            .runFailed, error, metadata: ["database": "\(name)", "run": "\(restores.last?.run ?? "")"])
        }
        standingProblems[problem] = Fault(
          error.code, "'\(name)' is not in its place since \(Self.cause(restores)). \(error.message)",
          cause: error.cause, hint: error.hint ?? "it is tried again each minute")
      }
    }
  }

  /// The key of the standing problem that a database is gone.
  static func absence(_ database: String) -> ExactText { "put back \(database)" }

  /// Somebody has seen the database, or put it where it belongs: what restores in place had left open is over, and none of their safety
  /// backups is the way back any more.
  func isInPlace(_ database: String) {
    cutInPlace.removeAll { database.isExactly($0.database) }
    standingProblems[Self.absence(database)] = nil
  }

  /// For people, of restores of one database.
  private static func cause(_ restores: [LedgerRecord]) -> String {
    restores.last?.detail?[RunHistory.lost] == nil
      ? "the daemon died in a restore in place" : "a restore in place failed"
  }

  /// Whether it is there now.
  ///
  /// - Parameter restores: those in place that may have taken it away, in their order. The newest that had something to take away knows
  ///   best what was there.
  private func putBack(_ name: String, _ restores: [LedgerRecord]) async throws(Fault) -> Bool {
    let database = try restoreDatabase(name)
    let live = liveName(of: database)
    let rollback = await rollback(of: database)
    guard let first = restores.first, try await !rollback.isThere(live) else { return true }
    // It had lost its name, and was not dropped yet.
    if let kept = try await rollback.kept().last(where: { $0.live.isExactly(live) && $0.doubt == nil }),
      kept.replaced >= first.time.addingTimeInterval(-1)
    {
      let outcome = try await rollback.run(live, choosing: kept.name)
      var record = LedgerRecord(.databaseRolledBack, at: now())
      (record.database, record.reason) = (name, Self.cause(restores))
      record.detail = ["target": outcome.database, "from": kept.name]
      await append(record)
      logger.notice(
        .databaseRolledBack, "a database has its name back, which a cut-off restore in place had taken",
        metadata: ["database": "\(name)", "kept": "\(kept.name)"])
      return true
    }
    let runs = Set(restores.compactMap(\.run))
    let safety = await keeper.refresh().backups.filter { backup in
      backup.id.database.isExactly(name) && backup.manifest.type == "pre-restore" && runs.contains(backup.manifest.run)
    }.max { $0.id.time < $1.id.time }
    guard let safety else {
      throw Fault(
        .restoreFailed, "'\(name)' is gone, and the safety backup of the restore in place is not there.",
        hint: "psql -l on the server; then: pgbackupctl restore \(shell: name)/latest")
    }
    let run = try await beginRestore(
      RestoreCommand(id: safety.id.description), by: nil,
      reason: "\(Self.cause(restores)); what was there before is put back", isPutBack: true)
    logger.notice(
      "what was there before a restore in place is put back",
      metadata: ["database": "\(name)", "backup": "\(safety.id)", "run": "\(run.id)"])
    return false
  }
}
