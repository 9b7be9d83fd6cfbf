import Foundation

/// moto, a second S3 server (and an STS), written by other people in another language. Over plain HTTP; it ends with the process that
/// started it.
package final class MotoServer: Sendable {
  private let server: KeptServer
  package var endpoint: String { server.endpoint }

  package static func shared() throws -> MotoServer { try sharedResult.get() }
  private static let sharedResult = Result { try MotoServer() }

  package init() throws {
    server = try KeptServer("moto_server", of: "moto") { ["-H", "127.0.0.1", "-p", "\($0)"] }
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
