import ArgumentParser
import ControlAPI
import Faults
import Foundation
import Quoting

/// Options that every command which talks to the daemon has.
struct ConnectionOptions: ParsableArguments {
  @Option(
    name: .long, help: "The daemon's control socket (default: $PGBACKUPD_SOCKET, or \(ControlClient.defaultSocket)).")
  var socket: String?

  @Flag(name: .long, help: "Print JSON.")
  var json = false

  var client: ControlClient {
    ControlClient(
      socketPath: socket ?? ProcessInfo.processInfo.environment["PGBACKUPD_SOCKET"] ?? ControlClient.defaultSocket
    ) { Terminal.wait($0.message) }
  }

  /// Prints a report as JSON or as text.
  func show<Report: Encodable>(_ report: Report, text: (Report) -> String) throws {
    guard json else { return Terminal.say(text(report)) }
    print(JSONText.shown(String(decoding: try ControlJSON.encode(report, pretty: true), as: UTF8.self)))
  }
}
