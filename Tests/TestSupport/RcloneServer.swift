import Foundation
import Glibc

/// `rclone serve s3`, a third S3 server, over a folder. Over plain HTTP; it ends with the process that started it.
package final class RcloneServer: Sendable {
  private let server: KeptServer
  private let folder = TemporaryFolder()
  package var endpoint: String { server.endpoint }
  package static let (accessKey, secretKey) = ("test-key", "test-secret")

  package init() throws {
    let folder = folder
    mkdir(folder.file("data"), 0o700)
    server = try KeptServer("rclone", of: "rclone") { port in
      [
        "serve", "s3", "--config", folder.file("rclone.conf"), "--addr", "127.0.0.1:\(port)", "--auth-key",
        "\(Self.accessKey),\(Self.secretKey)", folder.file("data"),
      ]
    }
  }

  package func makeBucket() -> String {
    let name = "bucket-\(UUID().uuidString.prefix(8).lowercased())"
    mkdir(folder.file("data/\(name)"), 0o700)
    return name
  }
}
