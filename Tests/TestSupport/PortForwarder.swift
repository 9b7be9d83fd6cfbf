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
    self.target = target
    self.word = word
    self.folder = folder
    (port, process) = try FreePorts.serve(1) { ports in (ports[0], try Self.start(ports[0], target, word, folder)) }
  }

  package func restart() throws { process = try Self.start(port, target, word, folder) }

  private static func start(
    _ port: Int, _ target: String, _ word: String?, _ folder: TemporaryFolder
  ) throws -> ChildProcess {
    let lines = LinePipe()
    let output = open(folder.file("forward.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    defer { close(output) }
    let process = try ChildProcess(
      "\(repositoryRoot)/.build/python/bin/python",
      ["\(repositoryRoot)/Tests/TestSupport/forward.py", "\(port)", target] + (word.map { [$0] } ?? []),
      output: lines.writer,
      errors: output)
    lines.closeWriter()
    // The whole line, and its reader kept until then: print() may write it in two pieces.
    guard lines.next() == "listening" else {
      throw ServerProcess.HasEnded(description: "the forwarder to \(target) has ended. \(log(folder))")
    }
    return process
  }

  /// Whether it still runs, and what it has to say; for a test that fails.
  package var report: String {
    let state = process.map { kill($0.processIdentifier, 0) == 0 ? "runs" : "has ended" } ?? "is stopped"
    return "the forwarder on port \(port) \(state). \(Self.log(folder))"
  }

  private static func log(_ folder: TemporaryFolder) -> String {
    (try? String(contentsOfFile: folder.file("forward.log"), encoding: .utf8)) ?? ""
  }

  /// Nobody listens any more, and open connections break.
  package func stop() {
    guard let process else { return }
    kill(process.processIdentifier, SIGKILL)
    process.wait()
    self.process = nil
  }
}
