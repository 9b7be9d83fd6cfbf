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

  /// A head line or chunk line longer than this is no reply of ours.
  private static let lineLimit = 65_536

  var isComplete: Bool { if case .complete = state { true } else { false } }

  /// Takes what arrived, and returns the body's part in it.
  mutating func consume(_ data: Data) throws(Fault) -> Data {
    pending.append(data)
    var body = Data()
    while true {
      switch state {
      case .head:
        guard let end = pending.firstRange(of: Data("\r\n\r\n".utf8)) else {
          try checkLimit()
          return body
        }
        try readHead(String(decoding: pending[..<end.lowerBound], as: UTF8.self))
        pending = Data(pending[end.upperBound...])
      case .length(let remaining):
        let piece = pending.prefix(remaining)
        body.append(piece)
        pending = Data(pending.dropFirst(piece.count))
        state = piece.count == remaining ? .complete : .length(remaining: remaining - piece.count)
        if piece.isEmpty { return body }
      case .chunkSize:
        guard let end = pending.firstRange(of: Data("\r\n".utf8)) else {
          try checkLimit()
          return body
        }
        let text = String(decoding: pending[..<end.lowerBound].prefix { $0 != UInt8(ascii: ";") }, as: UTF8.self)
        guard let size = Int(text, radix: 16), size >= 0 else { throw malformed() }
        pending = Data(pending[end.upperBound...])
        state = size == 0 ? .complete : .chunk(remaining: size)
      case .chunk(let remaining):
        let piece = pending.prefix(remaining)
        if piece.isEmpty { return body }
        body.append(piece)
        pending = Data(pending.dropFirst(piece.count))
        state = piece.count == remaining ? .chunkEnd : .chunk(remaining: remaining - piece.count)
      case .chunkEnd:
        guard pending.count >= 2 else { return body }
        pending = Data(pending.dropFirst(2))
        state = .chunkSize
      case .complete:
        return body
      }
    }
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
    } else if let length = headers["content-length"].flatMap({ Int($0) }), length >= 0 {
      state = length == 0 ? .complete : .length(remaining: length)
    } else {
      throw malformed()
    }
  }

  private func checkLimit() throws(Fault) { if pending.count > Self.lineLimit { throw malformed() } }

  private func malformed() -> Fault {
    Fault(
      .internal, "What answers on the control socket is not pgbackupd.", hint: "check --socket and PGBACKUPD_SOCKET")
  }
}
