import Glibc

/// An HTTP proxy that tunnels for who knows its password. It ends with the process that started it.
package final class TunnelProxy {
  package let port: Int
  private let process: ChildProcess
  private let lifeline: Int32
  private let lines = LinePipe()
  private var hasEnded = false

  package init(user: String, password: String) throws {
    let (reader, writer) = makePipe()
    lifeline = writer
    process = try ChildProcess(
      "\(repositoryRoot)/.build/python/bin/python",
      ["\(repositoryRoot)/Tests/TestSupport/tunnels.py", "\(user):\(password)"], input: reader, output: lines.writer)
    close(reader)
    lines.closeWriter()
    guard let line = lines.next(), let number = Int(line) else {
      throw Shell.Failure(description: "the proxy did not start")
    }
    port = number
  }

  deinit {
    if !hasEnded { close(lifeline) }
    process.wait()
  }

  /// Ends it, and returns the requests that nobody has waited for.
  package func end() -> [String] {
    close(lifeline)
    hasEnded = true
    process.wait()
    return Array(sequence(state: ()) { _ in self.lines.next() })
  }

  /// Waits for the next request: method, where to, status. Nil once it has ended.
  package func next() -> String? { lines.next() }
}
