import ArgumentParser
import Confinement
import Faults
import Foundation
import Quoting
import Units

/// The operator's client. Each command is an options struct with one `run`; what it prints is made in `Reports+Text.swift`.
struct Pgbackupctl: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pgbackupctl", abstract: "Operates pgbackupd, the PostgreSQL backup daemon.", version: "0.1.0",
    subcommands: [
      StatusCommand.self, JobsCommand.self, RunCommand.self, BackupCommandLine.self, ScheduleCommand.self,
      ListCommand.self,
      ShowCommand.self, ContentsCommand.self, DeleteCommand.self, PinCommand.self, UnpinCommand.self,
      AcceptCommand.self,
      RestoreCommandLine.self, RollbackCommandLine.self, SwapCommandLine.self, CancelCommand.self, ExtractCommand.self,
      HistoryCommand.self,
      DiffCommand.self, AdoptCommandLine.self,
      VerifyCommandLine.self, DrillCommandLine.self, ReconcileCommandLine.self,
      CheckCommandLine.self, ReportCommand.self, LedgerCommand.self, LogCommand.self, AlertCommand.self,
      ReloadCommand.self,
      ConfigCommand.self, KeyCommand.self,
    ])
}

@main struct Main {
  static func main() async {
    // It may hold an identity, or a password.
    if let reason = PrivateMemory.begin() {
      Terminal.complain("The kernel does not keep this process's memory private: \(reason)")
    }
    do {
      var command = try Pgbackupctl.parseAsRoot()
      if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
    } catch let fault as Fault {
      Terminal.complain("\(fault)")
      exit(fault.code.exitCode.rawValue)
    } catch let ending as Ending {
      exit(ending.code.rawValue)
    } catch let code as ArgumentParser.ExitCode {
      // A plugin's own, which a monitor knows.
      exit(code.rawValue)
    } catch {
      // Help and version come this way too, with status 0. A mistyped command must not look like success.
      let status = Pgbackupctl.exitCode(for: error)
      let text = Pgbackupctl.fullMessage(for: error)
      if status.isSuccess { Terminal.say(text) } else { Terminal.complain(text + Self.suggestion) }
      exit(status.isSuccess ? 0 : Faults.ExitCode.usage.rawValue)
    }
  }
}

extension Main {
  /// For a command that there is not: the nearest one.
  fileprivate static var suggestion: String {
    let names = Pgbackupctl.configuration.subcommands.map { $0._commandName }
    guard let word = CommandLine.arguments.dropFirst().first, !word.starts(withBytes: "-"), !names.contains(word) else {
      return ""
    }
    let near = names.map { ($0, EditDistance.between(word, $0)) }.min { $0.1 < $1.1 }
    guard let near, near.1 <= max(1, word.count / 3) else { return "\nnext: pgbackupctl --help" }
    return "\ndid you mean 'pgbackupctl \(near.0)'?"
  }
}

/// Ends a command that has said all it has to say with a status of its own.
struct Ending: Error {
  let code: Faults.ExitCode
}
