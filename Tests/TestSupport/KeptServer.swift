import Foundation
import Glibc

/// A server program of the test environment that listens on plain HTTP, on a port of its own. It ends with the process that started it,
/// however that ends.
final class KeptServer: Sendable {
  private let keeper: ChildProcess
  private let lifeline: Int32
  let endpoint: String

  /// - Parameters:
  ///   - program: below `.build/python/bin`.
  ///   - arguments: those that make it listen on a port of the loopback address.
  init(_ program: String, of package: String, _ arguments: (_ port: Int) -> [String]) throws {
    let path = "\(repositoryRoot)/.build/python/bin/\(program)"
    guard FileManager.default.isExecutableFile(atPath: path) else {
      throw Shell.Failure(
        description: "\(package) is not installed under .build/python: run PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh")
    }
    let port = try FreePorts.take(1)[0]
    endpoint = "http://127.0.0.1:\(port)"
    let (reader, writer) = makePipe()
    lifeline = writer
    keeper = try ChildProcess(
      "/bin/sh",
      [
        "-c", #""$@" >/dev/null 2>&1 </dev/null & server=$!; cat >/dev/null; kill -KILL $server; wait $server"#, "sh",
        path,
      ] + arguments(port), input: reader)
    close(reader)
    try Shell.must(
      "curl", ["-sS", "--retry", "60", "--retry-delay", "1", "--retry-all-errors", "-o", "/dev/null", endpoint + "/"])
  }

  deinit {
    close(lifeline)
    keeper.wait()
  }
}
