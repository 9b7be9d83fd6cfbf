import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Logging
import OutsidePrograms
import SystemdSupport
import Units

/// Commands of the operator's around runs.
package struct Hooks: Sendable, Hashable {
  package enum Moment: String, Sendable, CaseIterable {
    case beforeBackup = "before_backup"
    case afterBackup = "after_backup"
    case beforeRestore = "before_restore"
    case afterRestore = "after_restore"
    case beforeDrill = "before_drill"
    case afterDrill = "after_drill"
  }

  /// Of each moment, in their order: programs with their arguments.
  package var commands: [Moment: [[String]]]
  /// Of each command.
  package var timeout: Duration

  package init(commands: [Moment: [[String]]] = [:], timeout: Duration = .seconds(60)) {
    self.commands = commands
    self.timeout = timeout
  }

  /// Runs a moment's commands one after the other; what they print goes to the journal.
  ///
  /// - Throws: the fault of the first that fails; those behind it do not run.
  func run(_ moment: Moment, _ run: RunReport, failed: Fault? = nil, logger: Logger) async throws(Fault) {
    for words in commands[moment] ?? [] {
      let lines: [String]
      do throws(Fault) {
        lines = try await OutsideCommand(words, environment: variables(moment, run, failed), timeout: timeout).run()
      } catch {
        // It was ended with its run.
        if Task.isCancelled { throw Fault(CancellationError()) }
        throw Fault(
          .hookFailed, "The hook '\(moment.rawValue)' failed: \(error.message)", cause: error.cause, hint: error.hint)
      }
      logger.info(
        .hookRan, "a hook has run",
        metadata: [
          "hook": "\(moment.rawValue)", "command": "\(words.first ?? "")", "run": "\(run.id)", "job": "\(run.job)",
          "database": "\(run.database)", "printed": "\(lines.suffix(20).joined(separator: "; "))",
        ])
    }
  }

  private func variables(_ moment: Moment, _ run: RunReport, _ failed: Fault?) -> [String: String] {
    var variables = [
      "PGBACKUPD_HOOK": moment.rawValue, "PGBACKUPD_RUN": run.id, "PGBACKUPD_JOB": run.job,
      "PGBACKUPD_DATABASE": run.database, "PGBACKUPD_REASON": run.reason,
    ]
    if moment.isAfter {
      variables["PGBACKUPD_RESULT"] = failed == nil ? "succeeded" : "failed"
      variables["PGBACKUPD_ERROR"] = failed?.code.rawValue ?? ""
      variables["PGBACKUPD_BACKUP"] = run.backup?.description ?? ""
    }
    return variables
  }
}

extension Hooks.Moment {
  fileprivate var isAfter: Bool { [.afterBackup, .afterRestore, .afterDrill].contains(self) }
}
