import Glibc

/// A server that answers queries as no PostgreSQL does (`strange_server.py`), on a socket in a folder of its own. It
/// ends with the process that started it.
package final class StrangeServer: Sendable {
  package enum Kind: String, Sendable, CaseIterable {
    case narrow, wide, none, null, numbers, copy, endless, hangs
  }

  private let folder = TemporaryFolder()
  private let process: ChildProcess
  private let input: Int32
  private let lines = LinePipe()

  package init(_ kind: Kind, version: String = "15.18") throws {
    let (reader, writer) = makePipe()
    input = writer
    process = try ChildProcess(
      "python3",
      ["\(repositoryRoot)/Tests/TestSupport/strange_server.py", folder.file(".s.PGSQL.5432"), kind.rawValue, version],
      input: reader, output: lines.writer)
    close(reader)
    lines.closeWriter()
    guard lines.next() == "ready" else { throw Shell.Failure(description: "the strange server did not start") }
  }

  deinit {
    close(input)
    _ = process.wait()
  }

  package var conninfo: String { "host=\(folder.path) port=5432 user=postgres dbname=shop" }
}
