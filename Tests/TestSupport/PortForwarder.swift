import Foundation
import Glibc

/// A port that leads to another one, and can be closed and opened again: a server that goes away and comes back.
package final class PortForwarder {
  package let port: Int
  private let target: String
  private let word: String?
  private let folder: TemporaryFolder
  private var process: ChildProcess?

  package convenience init(to target: Int, in folder: TemporaryFolder) throws {
    try self.init(to: "\(target)", in: folder)
  }

  /// - Parameters:
  ///   - target: a port, or a socket's path.
  ///   - word: a connection falls silent from a request with it on.
  package init(to target: String, silentFrom word: String? = nil, in folder: TemporaryFolder) throws {
    port = try FreePorts.take(1)[0]
    self.target = target
    self.word = word
    self.folder = folder
    try restart()
  }

  package func restart() throws {
    let lines = LinePipe()
    let log = open(folder.file("forward.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    defer { close(log) }
    process = try ChildProcess(
      "\(repositoryRoot)/.build/python/bin/python",
      ["\(repositoryRoot)/Tests/TestSupport/forward.py", "\(port)", target] + (word.map { [$0] } ?? []),
      output: lines.writer,
      errors: log)
    lines.closeWriter()
    // The whole line, and its reader kept until then: print() may write it in two pieces.
    guard lines.next() == "listening" else { throw Shell.Failure(description: report) }
  }

  /// Whether it still runs, and what it has to say; for a test that fails.
  package var report: String {
    let state = process.map { kill($0.processIdentifier, 0) == 0 ? "runs" : "has ended" } ?? "is stopped"
    let log = (try? String(contentsOfFile: folder.file("forward.log"), encoding: .utf8)) ?? ""
    return "the forwarder on port \(port) \(state). \(log)"
  }

  /// Nobody listens any more, and open connections break.
  package func stop() {
    guard let process else { return }
    kill(process.processIdentifier, SIGKILL)
    process.wait()
    self.process = nil
  }
}
