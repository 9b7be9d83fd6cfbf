import Confinement
import Foundation
import Glibc
import TestSupport

/// What code of a hostile backup is after: a key, a store, a process and sockets, all of the account that drills run
/// as, so that no file mode protects them. And the code.
final class Prey: Sendable {
  let folder = TemporaryFolder()
  private let victim: ChildProcess
  private let (stream, datagram, host): (Int32, Int32, Int32)
  private let port: UInt16

  static let account = Result { try DrillAccount.current() }

  /// Words in front of a program that make it run as the account of drills.
  static var asAccount: [String] {
    get throws {
      let account = try account.get()
      return account.isOwn
        ? ["env"] : ["setpriv", "--reuid=\(account.name)", "--regid=\(account.group)", "--clear-groups", "env"]
    }
  }

  init() throws {
    _ = try folder.write("signing.sec", "the key\n")
    for name in ["store", "tool"] {
      try FileManager.default.createDirectory(atPath: folder.file(name), withIntermediateDirectories: false)
    }
    for name in ["store/backup", "store/moved"] { _ = try folder.write(name, "a backup\n") }
    let library = folder.file("tool/libAttacker.so")
    // By the toolchain's compiler alone: a library that SwiftPM links needs Swift's runtime, which a drill's server
    // can't read.
    try Shell.must("clang", ["-shared", "-fPIC", "-o", library, "\(repositoryRoot)/Tests/Attacker/Attacker.c"])
    try Shell.must("chmod", ["-R", "go=", folder.file("store"), folder.file("signing.sec")])
    let account = try Self.account.get()
    if !account.isOwn {
      try Shell.must(
        "chown",
        [
          "-R", "\(account.user):\(account.group)", folder.file("store"), folder.file("signing.sec"),
          folder.file("tool"),
        ])
      // What it could write to, were it let.
      try Shell.must("chown", ["\(account.user)", folder.path])
    }
    stream = try Self.listen(folder.file("stream"), SOCK_STREAM)
    datagram = try Self.listen(folder.file("datagram"), SOCK_DGRAM)
    (host, port) = try Self.listenByTCP()
    let words = try Self.asAccount + ["ATTACKER_VICTIM=1", "LD_PRELOAD=\(library)", "sleep", "1000"]
    victim = try ChildProcess(words[0], Array(words.dropFirst()))
    let comm = "/proc/\(victim.processIdentifier)/comm"
    try eventually("the victim runs") { try Shell.must("cat", [comm]) == "sleep\n" }
  }

  deinit { for socket in [stream, datagram, host] { close(socket) } }

  /// What the library reads beside itself.
  var targets: [String] {
    [
      "victim=\(victim.processIdentifier)", "port=\(port)", "secret=\(folder.file("signing.sec"))",
      "store=\(folder.file("store"))", "stream=\(folder.file("stream"))", "datagram=\(folder.file("datagram"))",
    ]
  }

  /// What was done to it, a line each; empty where nothing was.
  var harm: [String] {
    get throws {
      var harm: [String] = []
      let key = folder.file("signing.sec")
      if try Shell.must("stat", ["-c", "%a %s", key]) != "600 8\n" { harm.append("the key was changed") }
      if try Shell.must("ls", [folder.file("store")]) != "backup\nmoved\n" { harm.append("the store was changed") }
      if victim.hasEnded { harm.append("the victim is dead") }
      for (name, socket) in [("stream", stream), ("datagram", datagram), ("TCP", host)] {
        var wait = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
        if poll(&wait, 1, 0) > 0 { harm.append("something came to the \(name) socket") }
      }
      return harm
    }
  }

  // MARK: - The code

  /// A function `attack` that does its work in a drill alone: native code in the server, and then a shell.
  var function: String {
    get throws {
      let library = try Data(contentsOf: URL(filePath: folder.file("tool/libAttacker.so")))
      let hex = library.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      let key = folder.file("signing.sec")
      let store = folder.file("store")
      // A program that does not read its row may end before the server has written it.
      let script = """
        read row
        { read word <\(key) && echo 'sh reads the key: DONE'
        echo x >\(store)/by-shell && echo 'sh writes into the store: DONE'
        echo x >\(folder.path)/by-shell && echo 'sh writes elsewhere: DONE'
        python3 -c pass && echo 'sh runs python: DONE'; perl -e 1 && echo 'sh runs perl: DONE'
        cat /etc/passwd && echo 'sh runs cat: DONE'
        kill -9 \(victim.processIdentifier) && echo 'sh kills: DONE'
        } >>found 2>&1; echo 'sh: refused (it has ended)' >>found
        """
      return """
        CREATE FUNCTION attack(x int) RETURNS bool LANGUAGE plpgsql AS $attack$
        DECLARE folder text := pg_catalog.current_setting('data_directory'); tool oid; BEGIN
          IF pg_catalog.current_setting('cluster_name') <> 'pgbackupd_drill' THEN RETURN true; END IF;
          tool := pg_catalog.lo_from_bytea(0, '\\x\(hex)');
          PERFORM pg_catalog.lo_export(tool, folder || '/tool.so');
          PERFORM pg_catalog.lo_unlink(tool);
          EXECUTE pg_catalog.format('COPY (SELECT pg_catalog.unnest(%L::text[])) TO %L',
            '{\(targets.joined(separator: ","))}', folder || '/targets');
          BEGIN
            EXECUTE pg_catalog.format('LOAD %L', folder || '/tool.so');
          EXCEPTION WHEN OTHERS THEN
            -- That it is no module of PostgreSQL is found when it has run already.
          END;
          COPY (SELECT 1) TO PROGRAM $sh$\(script)$sh$;
          RETURN true;
        END $attack$;
        """
    }
  }

  /// Runs the same native code as a program of the account, without a cell.
  func attackOutside() throws -> Findings {
    try targets.joined(separator: "\n").write(
      toFile: folder.file("tool/targets"), atomically: false, encoding: .utf8)
    let words = try Self.asAccount + ["LD_PRELOAD=\(folder.file("tool/libAttacker.so"))", "/bin/true"]
    _ = try Shell.run(words[0], Array(words.dropFirst()))
    return Findings(try String(contentsOfFile: folder.file("tool/found"), encoding: .utf8))
  }

  // MARK: - Sockets

  private static func listen(_ path: String, _ type: __socket_type) throws -> Int32 {
    let socket = Glibc.socket(AF_UNIX, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let isBound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
      }
    }
    chmod(path, 0o777)
    guard socket >= 0, isBound, type == SOCK_DGRAM || Glibc.listen(socket, 4) == 0 else {
      throw Shell.Failure(description: "no socket at \(path)")
    }
    return socket
  }

  private static func listenByTCP() throws -> (Int32, UInt16) {
    let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket, $0, size) == 0 && Glibc.listen(socket, 4) == 0 && getsockname(socket, $0, &size) == 0
      }
    }
    guard socket >= 0, isBound else { throw Shell.Failure(description: "no TCP socket") }
    return (socket, UInt16(bigEndian: address.sin_port))
  }
}

/// What the attacker has written down.
struct Findings {
  /// By the attack's name; nil is a success.
  private(set) var refusals: [String: String?] = [:]
  /// Asks a drill's server for it, as one line.
  static let query = "SELECT translate(pg_read_file('found'), chr(10), '|')"
  /// A process that it has left behind.
  private(set) var background: pid_t?

  init(_ text: String) {
    for word in text.split(whereSeparator: { $0 == "\n" || $0 == "|" }) {
      // A failed assertion's words stand in front of the first one.
      let line = word.hasPrefix("answered ") ? word.dropFirst("answered ".count) : word
      if line.hasPrefix("background ") {
        background = pid_t(line.dropFirst(11))
      } else if line.hasSuffix(": DONE") {
        refusals.updateValue(nil, forKey: String(line.dropLast(6)))
      } else if let mark = line.firstRange(of: ": refused ("), refusals[String(line[..<mark.lowerBound])] == nil {
        refusals.updateValue(String(line[mark.upperBound...].dropLast()), forKey: String(line[..<mark.lowerBound]))
      }
    }
  }

  /// The attacks that worked.
  var done: Set<String> { Set(refusals.filter { $0.value == nil }.keys) }

  func refusal(_ attack: String) -> String? { refusals[attack] ?? nil }
}
