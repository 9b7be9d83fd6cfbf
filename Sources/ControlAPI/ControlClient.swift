package import Faults
package import Foundation
import Glibc

/// The operator's end of the control socket. It blocks: a command-line program has nothing else to do.
package struct ControlClient: Sendable {
  package static let defaultSocket = "/run/pgbackupd/control.sock"

  private let socketPath: String
  /// Told while a request waits for the reading of a store. The daemon refuses it after a second, with how far it is
  /// and nothing done, and it is made again.
  private let waiting: @Sendable (Fault) -> Void

  package init(socketPath: String, waiting: @escaping @Sendable (Fault) -> Void = { _ in }) {
    self.socketPath = socketPath
    self.waiting = waiting
  }

  package func get<Reply: Decodable>(_ type: Reply.Type, _ path: String, _ query: [String: String] = [:]) throws(Fault)
    -> Reply
  {
    try decode(type, try exchange("GET", path, query, body: nil))
  }

  package func post<Reply: Decodable>(_ type: Reply.Type, _ path: String, _ body: (some Encodable)?) throws(Fault)
    -> Reply
  {
    let data: Data?
    do {
      data = try body.map { try ControlJSON.encode($0) }
    } catch {
      throw Fault(error)
    }
    return try decode(type, try exchange("POST", path, [:], body: data))
  }

  /// Reads a stream of JSON lines until its end, or until `line` returns false.
  package func stream<Line: Decodable>(
    _ type: Line.Type, _ path: String, _ query: [String: String] = [:], _ line: (Line) throws -> Bool
  ) throws {
    try streamLines(path, query) { try line(ControlJSON.decode(type, from: $0)) }
  }

  /// The same, each line as the daemon sent it.
  package func streamLines(_ path: String, _ query: [String: String] = [:], _ line: (Data) throws -> Bool) throws {
    var rest = Data()
    _ = try exchange("GET", path, query, body: nil) { piece in
      rest.append(piece)
      while let end = rest.firstIndex(of: 10) {
        let text = rest[rest.startIndex..<end]
        rest = Data(rest[rest.index(after: end)...])
        if !text.isEmpty, try !line(Data(text)) { return false }
      }
      return true
    }
  }

  /// Reads a reply's body piece by piece, as the daemon sends it.
  package func pour(_ path: String, _ query: [String: String], _ piece: (Data) throws -> Void) throws {
    try exchange("GET", path, query, body: nil) { data in
      try piece(data)
      return true
    }
  }

  private func decode<Reply: Decodable>(_ type: Reply.Type, _ data: Data) throws(Fault) -> Reply {
    do {
      return try ControlJSON.decode(type, from: data)
    } catch {
      throw Fault(
        .internal, "The daemon's answer can't be read.", cause: String(describing: error),
        hint: "pgbackupctl and pgbackupd should be of one version")
    }
  }

  /// A request whose reply is one value.
  private func exchange(_ method: String, _ path: String, _ query: [String: String], body: Data?) throws(Fault) -> Data
  {
    var reply = Data()
    do {
      try exchange(method, path, query, body: body) { piece in
        reply.append(piece)
        return true
      }
    } catch {
      throw Fault(error)
    }
    return reply
  }

  /// One request, as often as the daemon asks to wait.
  private func exchange(
    _ method: String, _ path: String, _ query: [String: String], body: Data?, receive: (Data) throws -> Bool
  ) throws {
    while true {
      do {
        return try exchangeOnce(method, path, query, body: body, receive: receive)
      } catch let fault as Fault where fault.code == .storeReading {
        waiting(fault)
      }
    }
  }

  /// One request on a connection of its own. The reply's body goes to `receive` as it arrives, until that returns false; a
  /// reply that is no success is thrown as the fault that it holds.
  private func exchangeOnce(
    _ method: String, _ path: String, _ query: [String: String], body: Data?, receive: (Data) throws -> Bool
  ) throws {
    let socket = try connect()
    defer { close(socket) }
    try send(socket, Self.request(method, path, query, body))
    var parser = HTTPReplyParser()
    var failure = Data()
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while !parser.isComplete {
      let count = read(socket, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { break }
      let piece = try parser.consume(Data(buffer[..<count]))
      if parser.status >= 400 { failure.append(piece) } else if !piece.isEmpty, try !receive(piece) { return }
    }
    guard parser.isComplete else {
      throw Fault(
        .daemonUnreachable, "The daemon hung up in the middle of its answer.", hint: "journalctl -u pgbackupd -n 50")
    }
    if parser.status >= 400 {
      throw (try? ControlJSON.decode(Fault.self, from: failure))
        ?? Fault(
          .internal, "The daemon answered with HTTP status \(parser.status).",
          cause: String(decoding: failure, as: UTF8.self))
    }
  }

  private static func request(_ method: String, _ path: String, _ query: [String: String], _ body: Data?) -> Data {
    var allowed = CharacterSet.alphanumerics
    allowed.insert(charactersIn: "-._~")
    let pairs = query.sorted { $0.key < $1.key }
      .map { "\($0.key)=\($0.value.addingPercentEncoding(withAllowedCharacters: allowed) ?? "")" }
    let target = pairs.isEmpty ? path : path + "?" + pairs.joined(separator: "&")
    var head = "\(method) \(target) HTTP/1.1\r\nHost: pgbackupd\r\nConnection: close\r\n"
    if let body { head += "Content-Type: application/json\r\nContent-Length: \(body.count)\r\n" }
    return Data((head + "\r\n").utf8) + (body ?? Data())
  }

  private func connect() throws(Fault) -> Int32 {
    let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw unreachable(errno) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let path = Array(socketPath.utf8)
    guard path.count < MemoryLayout.size(ofValue: address.sun_path) else { throw unreachable(ENAMETOOLONG) }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
    let outcome = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard outcome == 0 else {
      let reason = errno
      close(descriptor)
      throw unreachable(reason)
    }
    return descriptor
  }

  private func unreachable(_ code: Int32) -> Fault {
    if code == EACCES {
      return Fault(
        .notAllowed, "You may not use the control socket '\(socketPath)'.", cause: String(cString: strerror(code)),
        hint: "join the group that owns it: usermod -aG pgbackupd $USER, then log in again")
    }
    return Fault(
      .daemonUnreachable, "No daemon answers on '\(socketPath)'.", cause: String(cString: strerror(code)),
      hint: "systemctl status pgbackupd; another socket: --socket PATH or PGBACKUPD_SOCKET")
  }

  private func send(_ socket: Int32, _ data: Data) throws(Fault) {
    let bytes = Array(data)
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.send(socket, $0.baseAddress?.advanced(by: done), bytes.count - done, Int32(MSG_NOSIGNAL))
      }
      if count > 0 { done += count } else if errno != EINTR { throw unreachable(errno) }
    }
  }
}
