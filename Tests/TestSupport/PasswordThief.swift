import Foundation

/// A foreign server on PostgreSQL's own port, which takes passwords in plain text and keeps them.
package final class PasswordThief {
  package let address: String
  private let lines = LinePipe()
  private let process: ChildProcess

  package init() throws {
    process = try ChildProcess(
      "timeout", ["600", "python3", "\(repositoryRoot)/Tests/TestSupport/password_thief.py"], output: lines.writer)
    lines.closeWriter()
    guard let address = lines.next() else { throw Shell.Failure(description: "the thief did not start") }
    self.address = address
  }

  deinit { process.signal(SIGTERM) }

  /// Ends it, and returns all that it has heard.
  package func heard() -> [String] {
    process.signal(SIGTERM)
    var heard: [String] = []
    while let line = lines.next() { heard.append(line) }
    return heard
  }
}
