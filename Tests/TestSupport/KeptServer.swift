import Foundation

/// A server program of the test environment that listens on plain HTTP, on a port of its own. It ends with the process that started it,
/// however that ends.
final class KeptServer: Sendable {
  private let process: ServerProcess
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
    (endpoint, process) = try FreePorts.serve(1) { ports in
      let endpoint = "http://127.0.0.1:\(ports[0])"
      let process = try ServerProcess([path] + arguments(ports[0]), in: TemporaryFolder())
      try process.waitUntilReady(package) {
        try Shell.run("curl", ["-sS", "--max-time", "10", "-o", "/dev/null", endpoint + "/"]).status == 0
      }
      return (endpoint, process)
    }
  }
}
