import Foundation
import Glibc
import Synchronization

/// moto, a second S3 server (and an STS), written by other people in another language. Over plain HTTP; it ends with the process that
/// started it.
package final class MotoServer: Sendable {
  private let keeper: ChildProcess
  private let lifeline: Int32
  package let endpoint: String

  package static func shared() throws -> MotoServer { try sharedResult.get() }
  private static let sharedResult = Result { try MotoServer() }

  package init() throws {
    let program = "\(repositoryRoot)/.build/python/bin/moto_server"
    guard FileManager.default.isExecutableFile(atPath: program) else {
      throw Shell.Failure(
        description: "moto is not installed under .build/python: run PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh")
    }
    let port = try FreePorts.take(1)[0]
    endpoint = "http://127.0.0.1:\(port)"
    let (reader, writer) = makePipe()
    lifeline = writer
    keeper = try ChildProcess(
      "/bin/sh",
      [
        "-c", #""$@" >/dev/null 2>&1 </dev/null & server=$!; cat >/dev/null; kill -KILL $server; wait $server"#, "sh",
        program, "-H", "127.0.0.1", "-p", "\(port)",
      ], input: reader)
    close(reader)
    try Shell.must(
      "curl", ["-sS", "--retry", "60", "--retry-delay", "1", "--retry-all-errors", "-o", "/dev/null", endpoint + "/"])
  }

  deinit {
    close(lifeline)
    keeper.wait()
  }

  /// - Parameter locks: whether it takes Object Lock.
  package func makeBucket(locks: Bool = false) throws -> String {
    let name = "bucket-\(UUID().uuidString.prefix(8).lowercased())"
    let header = locks ? ["-H", "x-amz-bucket-object-lock-enabled: true"] : []
    try Shell.must("curl", ["-sS", "-f", "-X", "PUT"] + header + ["\(endpoint)/\(name)"])
    return name
  }

  /// What the server answers, with its headers.
  package func ask(_ method: String, _ path: String) throws -> String {
    try Shell.must(
      "curl",
      ["-sS", "-f", "--user", "k:s", "--aws-sigv4", "aws:amz:us-east-1:s3"]
        + (method == "HEAD" ? ["-I"] : ["-i", "-X", method]) + [endpoint + path])
  }
}
