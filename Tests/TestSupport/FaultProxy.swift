import Foundation
import Glibc
import Synchronization

/// A line to an S3 server on which one HTTP request meets a fault: counted, so that a test can go through all of them in turn. It ends
/// with the process that started it.
package final class FaultProxy: Sendable {
  package enum Fault: String, Sendable, CaseIterable {
    case none
    /// The line is cut before the request reaches the server.
    case refuse
    /// The request is carried out, and its answer lost.
    case lose
    /// The line is cut in the middle of the answer.
    case truncate
    /// `503 SlowDown`.
    case slow
    /// A bit of the answer's body is another.
    case lie
    /// The request waits until it is told to go on.
    case hold
    /// And so does every later one of the plan's, such as the repetitions of whoever has waited long enough.
    case stall
    /// White space comes for some seconds, and then the answer.
    case drip
    /// `403 AccessDenied`, to this request and every later one of the plan's.
    case deny
    /// The server is away from this request on.
    case die
    /// The request is carried out, its answer lost, and the server is away from then on.
    case cut

    /// Whether whoever repeats the request, and knows an object of his own when he sees it, hides it.
    package var isHarmless: Bool { [.none, .refuse, .lose, .truncate, .slow, .hold].contains(self) }
  }

  package let port: Int
  private let process: ChildProcess
  private let commands: Int32
  private let answers = LinePipe()
  private let events = LinePipe()
  private let turn = Mutex(())

  package var endpoint: String { "https://localhost:\(port)" }

  package init(to server: S3Server) throws {
    let (reader, writer) = makePipe()
    commands = writer
    process = try ChildProcess(
      "\(repositoryRoot)/.build/python/bin/python",
      ["\(repositoryRoot)/Tests/TestSupport/faults.py", server.folder.path, "\(server.port)"], input: reader,
      output: answers.writer, errors: events.writer)
    close(reader)
    answers.closeWriter()
    events.closeWriter()
    guard let line = answers.next(), let number = Int(line) else {
      throw Shell.Failure(description: "the proxy did not start: \(events.next() ?? "")")
    }
    port = number
  }

  deinit {
    close(commands)
    process.wait()
  }

  /// From now on requests are counted anew, and the one at `position` (from 0) meets the fault.
  ///
  /// - Parameters:
  ///   - place: where in its answer, from 0 to 1; of what drips, the seconds.
  ///   - pattern: a regular expression; only requests whose method and path it is found in are counted.
  package func plan(_ fault: Fault, at position: Int = 0, place: Double = 0.5, of pattern: String = "") throws {
    _ = try ask("plan \(fault.rawValue) \(position) \(place) \(pattern)")
  }

  /// The requests since the plan: method and path.
  package func requests() throws -> [String] {
    try JSONDecoder().decode([String].self, from: Data(try ask("requests").utf8))
  }

  /// Waits for the request that is held; nil where another plan comes before it does.
  package func waitUntilHeld() throws -> String? {
    guard let line = events.next() else { throw Shell.Failure(description: "the proxy has ended") }
    if line == "over" { return nil }
    guard line.hasPrefix("held ") else { throw Shell.Failure(description: "the proxy: \(line)") }
    return String(line.dropFirst(5))
  }

  /// The same, without a thread of Swift's.
  package func held() async throws -> String? {
    try await withCheckedThrowingContinuation { continuation in
      DispatchQueue.global().async { @Sendable in continuation.resume(with: Result { try self.waitUntilHeld() }) }
    }
  }

  /// The held request goes on, whether anybody still waits for its answer or not.
  package func release() throws { _ = try ask("release") }
  /// It does not, and its line is cut.
  package func drop() throws { _ = try ask("drop") }

  private func ask(_ command: String) throws -> String {
    try turn.withLock { _ in
      let line = command + "\n"
      guard write(commands, line, line.utf8.count) == line.utf8.count, let answer = answers.next() else {
        throw Shell.Failure(description: "the proxy does not answer '\(command)': \(events.next() ?? "")")
      }
      return answer
    }
  }
}
