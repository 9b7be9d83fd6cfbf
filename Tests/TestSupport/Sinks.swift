import Foundation
import Glibc

/// A real mail server with TLS and AUTH, and an HTTP server that behaves as its paths say; what they take is handed out one by one.
package final class Sinks {
  package struct Item: Sendable, Decodable {
    package var kind: String
    // http
    package var path: String?
    package var headers: [String: String]?
    package var body: String?
    // mail
    package var sender: String?
    package var to: [String]?
    package var tls: Bool?
    package var user: String?
    /// The message, in base 64.
    package var data: String?
  }

  private struct Ports: Decodable {
    var http: Int
    var starttls: Int
    var tls: Int
    var plain: Int
  }

  package let http: Int
  package let startTLS: Int
  package let tls: Int
  package let plain: Int
  package let authorityFile: String
  private let folder = TemporaryFolder()
  private let lines = LinePipe()
  private let process: ChildProcess

  package init() throws {
    try TestAuthority.make(in: folder)
    authorityFile = folder.file("ca.crt")
    process = try ChildProcess(
      // An end of all waiting: a test that hangs says so.
      "timeout",
      [
        "900", "\(repositoryRoot)/.build/python/bin/python", "\(repositoryRoot)/Tests/TestSupport/sinks.py",
        folder.file("server.crt"), folder.file("server.key"),
      ], output: lines.writer)
    lines.closeWriter()
    guard let line = lines.next() else { throw Shell.Failure(description: "the sinks did not start") }
    let ports = try JSONDecoder().decode(Ports.self, from: Data(line.utf8))
    (http, startTLS, tls, plain) = (ports.http, ports.starttls, ports.tls, ports.plain)
  }

  deinit { process.signal(SIGTERM) }

  /// A URL whose first part says how it is answered, and whose second is a secret.
  package func url(_ mode: String, _ token: String = "T0KEN-of-the-hook") -> String {
    "http://127.0.0.1:\(http)/\(mode)/\(token)"
  }

  /// Waits for the next thing that was taken.
  package func next() throws -> Item {
    guard let line = lines.next() else {
      throw Shell.Failure(description: "nothing more came within a quarter of an hour")
    }
    return try JSONDecoder().decode(Item.self, from: Data(line.utf8))
  }

  /// The next one of the mode.
  package func next(_ mode: String) throws -> Item {
    while true {
      let item = try next()
      if item.path?.hasPrefix("/\(mode)/") == true { return item }
    }
  }
}
