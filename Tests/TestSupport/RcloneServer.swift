import Foundation
import Glibc

/// `rclone serve s3`, a third S3 server, over a folder. Over plain HTTP; it ends with the process that started it.
package final class RcloneServer: Sendable {
  private let keeper: ChildProcess
  private let lifeline: Int32
  private let folder = TemporaryFolder()
  package let endpoint: String
  package static let (accessKey, secretKey) = ("test-key", "test-secret")

  package init() throws {
    let program = "\(repositoryRoot)/.build/python/bin/rclone"
    guard FileManager.default.isExecutableFile(atPath: program) else {
      throw Shell.Failure(
        description: "rclone is not installed under .build/python: run PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh")
    }
    let port = try FreePorts.take(1)[0]
    endpoint = "http://127.0.0.1:\(port)"
    mkdir(folder.file("data"), 0o700)
    let (reader, writer) = makePipe()
    lifeline = writer
    keeper = try ChildProcess(
      "/bin/sh",
      [
        "-c", #""$@" >/dev/null 2>&1 </dev/null & server=$!; cat >/dev/null; kill -KILL $server; wait $server"#, "sh",
        program, "serve", "s3", "--config", folder.file("rclone.conf"), "--addr", "127.0.0.1:\(port)", "--auth-key",
        "\(Self.accessKey),\(Self.secretKey)", folder.file("data"),
      ], input: reader)
    close(reader)
    try Shell.must(
      "curl", ["-sS", "--retry", "60", "--retry-delay", "1", "--retry-all-errors", "-o", "/dev/null", endpoint + "/"])
  }

  deinit {
    close(lifeline)
    keeper.wait()
  }

  package func makeBucket() -> String {
    let name = "bucket-\(UUID().uuidString.prefix(8).lowercased())"
    mkdir(folder.file("data/\(name)"), 0o700)
    return name
  }
}
