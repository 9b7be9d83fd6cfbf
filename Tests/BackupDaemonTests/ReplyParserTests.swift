import Faults
import Foundation
import Testing

@testable import ControlAPI

/// Replies on the control socket, as they arrive in pieces.
@Suite struct ReplyParserTests {
  private func read(_ text: String, pieces size: Int) throws -> (status: Int, body: String, isComplete: Bool) {
    var parser = HTTPReplyParser()
    var body = Data()
    let bytes = Array(text.utf8)
    for start in stride(from: 0, to: bytes.count, by: size) {
      body += try parser.consume(Data(bytes[start..<min(bytes.count, start + size)]))
    }
    return (parser.status, String(decoding: body, as: UTF8.self), parser.isComplete)
  }

  @Test(arguments: [1, 2, 3, 7, 1000]) func aReplyIsTheSameInPiecesOfAnySize(_ size: Int) throws {
    let plain = try read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", pieces: size)
    #expect(plain == (200, "hello", true))
    let empty = try read("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", pieces: size)
    #expect(empty == (204, "", true))
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    #expect(
      try read(head + "5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", pieces: size) == (200, "hello0123456789", true))
    #expect(try read(head + "5\r\nhel", pieces: size) == (200, "hel", false))
  }

  @Test(arguments: [
    "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 x OK\r\nContent-Length: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX5\r\n", String(repeating: "x", count: 70_000),
  ])
  func whatIsNoReplyOfOursIsRefused(_ text: String) {
    for size in [1000, 70_001] { #expect(throws: Fault.self) { try read(text, pieces: size) } }
  }
}
