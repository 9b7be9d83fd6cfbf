import Faults
import Foundation
import Quoting

/// Reads one HTTP/1.1 reply (RFC 9112) as its bytes arrive: status, then a body by Content-Length, by chunks, or to the end
/// of the connection. It is just what our own server sends; anything else is an error.
struct HTTPReplyParser {
  private enum State {
    case head
    case length(remaining: Int)
    case chunkSize
    case chunk(remaining: Int)
    case chunkEnd
    case complete
  }

  private(set) var status = 0
  private var state = State.head
  private var pending = Data()
  /// Bytes of `pending` that hold no end of a line.
  private var searched = 0

  /// A head line or chunk line longer than this is no reply of ours.
  private static let lineLimit = 65_536

  var isComplete: Bool { if case .complete = state { true } else { false } }

  /// Takes what arrived, and returns the body's part in it.
  mutating func consume(_ data: Data) throws(Fault) -> Data {
    pending.append(data)
    // A slice: what is behind it moves once, however many chunks are in front.
    var rest = pending[...]
    defer { pending = Data(rest) }
    var body = Data()
    while true {
      switch state {
      case .head:
        guard let head = try line(&rest, endingWith: "\r\n\r\n") else { return body }
        try readHead(String(decoding: head, as: UTF8.self))
      case .length(let remaining):
        let piece = rest.prefix(remaining)
        if piece.isEmpty { return body }
        body.append(piece)
        rest = rest.dropFirst(piece.count)
        state = piece.count == remaining ? .complete : .length(remaining: remaining - piece.count)
      case .chunkSize:
        guard let line = try line(&rest, endingWith: "\r\n") else { return body }
        let digits = line.prefix { $0 != UInt8(ascii: ";") }
        guard let size = Self.number(digits, radix: 16) else { throw malformed() }
        state = size == 0 ? .complete : .chunk(remaining: size)
      case .chunk(let remaining):
        let piece = rest.prefix(remaining)
        if piece.isEmpty { return body }
        body.append(piece)
        rest = rest.dropFirst(piece.count)
        state = piece.count == remaining ? .chunkEnd : .chunk(remaining: remaining - piece.count)
      case .chunkEnd:
        guard rest.count >= 2 else { return body }
        guard rest.starts(with: Data("\r\n".utf8)) else { throw malformed() }
        rest = rest.dropFirst(2)
        state = .chunkSize
      case .complete:
        return body
      }
    }
  }

  /// What stands in front of the next `end`, which goes with it; nil where that has not arrived. What was searched is
  /// not searched again.
  private mutating func line(_ rest: inout Data, endingWith end: String) throws(Fault) -> Data? {
    let end = Data(end.utf8)
    let start = rest.index(rest.startIndex, offsetBy: max(0, searched - end.count + 1))
    guard let found = rest[start...].firstRange(of: end) else {
      searched = rest.count
      guard searched < Self.lineLimit + end.count else { throw malformed() }
      return nil
    }
    searched = 0
    guard found.lowerBound - rest.startIndex <= Self.lineLimit else { throw malformed() }
    defer { rest = rest[found.upperBound...] }
    return rest[..<found.lowerBound]
  }

  /// Digits alone: `Int` takes a sign too.
  private static func number(_ digits: some Sequence<UInt8>, radix: Int) -> Int? {
    let text = String(decoding: Array(digits), as: UTF8.self)
    guard text.utf8.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else { return nil }
    return Int(text, radix: radix)
  }

  private mutating func readHead(_ text: String) throws(Fault) {
    let lines = text.lines
    let words = lines[0].split(atByte: 32)
    guard words.count >= 2, words[0].starts(withBytes: "HTTP/1."), let code = Int(words[1]) else { throw malformed() }
    status = code
    var headers: [String: String] = [:]
    for line in lines.dropFirst() {
      guard let colon = line.range(ofBytes: ":") else { throw malformed() }
      headers[line[..<colon.lowerBound].lowercased()] = String(line[colon.upperBound...].withoutBlanks)
    }
    if headers["transfer-encoding"]?.lowercased() == "chunked" {
      state = .chunkSize
    } else if let length = headers["content-length"].flatMap({ Self.number($0.utf8, radix: 10) }) {
      state = length == 0 ? .complete : .length(remaining: length)
    } else {
      throw malformed()
    }
  }

  private func malformed() -> Fault {
    Fault(
      .internal, "What answers on the control socket is not pgbackupd.", hint: "check --socket and PGBACKUPD_SOCKET")
  }
}
