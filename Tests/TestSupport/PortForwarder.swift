import Foundation
import Glibc

/// A port that leads to another one, and can be closed and opened again: a server that goes away and comes back.
package final class PortForwarder {
  package let port: Int
  private let target: Int
  private let folder: TemporaryFolder
  private var process: ChildProcess?

  package init(to target: Int, in folder: TemporaryFolder) throws {
    port = try FreePorts.take(1)[0]
    self.target = target
    self.folder = folder
    try restart()
  }

  package func restart() throws {
    let (reader, writer) = makePipe()
    process = try ChildProcess(
      "\(repositoryRoot)/.build/python/bin/python",
      ["\(repositoryRoot)/Tests/TestSupport/forward.py", "\(port)", "\(target)"], output: writer)
    close(writer)
    var byte: UInt8 = 0
    let count = read(reader, &byte, 1)
    close(reader)
    guard count == 1 else { throw Shell.Failure(description: "the port forwarder did not start") }
  }

  /// Nobody listens any more, and open connections break.
  package func stop() {
    guard let process else { return }
    kill(process.processIdentifier, SIGKILL)
    process.wait()
    self.process = nil
  }
}
