import ArgumentParser
import ControlAPI
import Faults

struct AlertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "alert", abstract: "Who is told when something is wrong.", subcommands: [AlertTestCommandLine.self])
}

struct AlertTestCommandLine: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "test", abstract: "Sends a real message to one channel, or to all.",
    discussion: "Tells which channel took it, and why another did not. Ends with 10 where one did not.")

  @Argument(help: "The channel's name (default: all).") var channel: String?
  @OptionGroup var connection: ConnectionOptions
  func run() throws {
    let reports = try connection.client.post(
      [AlertTestReport].self, "/v1/alerts/test", AlertTestCommand(channel: channel))
    try connection.show(reports) { reports in
      reports.map { report in
        "\(report.channel) (\(report.kind)): "
          + (report.fault.map { "DID NOT TAKE IT\n  \($0.cause ?? $0.message)" } ?? "took it")
      }.joined(separator: "\n")
    }
    if reports.contains(where: { $0.fault != nil }) { throw Ending(code: .problemsFound) }
  }
}
