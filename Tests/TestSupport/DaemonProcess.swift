import Foundation
import Glibc

/// The built pgbackupd as a process, with the notify socket that systemd would give it: so a test waits for what it waits for.
package final class DaemonProcess: Sendable {
  package let folder: TemporaryFolder
  package let configuration: String
  private let process: ChildProcess
  private let notifySocket: Int32

  /// - Parameter prefix: a program and its arguments to run the daemon under, such as `prlimit`.
  package init(
    _ configuration: String, in folder: TemporaryFolder, prefix: [String] = [], arguments: [String] = [],
    environment: [String: String] = [:]
  ) throws {
    self.folder = folder
    self.configuration = try folder.write("pgbackupd.yaml", configuration)
    notifySocket = try Self.makeNotifySocket(folder.file("notify"))
    let log = open(folder.file("daemon.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    defer { close(log) }
    let words =
      prefix + [Self.program("pgbackupd"), "--config", self.configuration, "--log-level", "debug"] + arguments
    process = try ChildProcess(
      words[0], Array(words.dropFirst()),
      environment: ["NOTIFY_SOCKET": folder.file("notify")].merging(environment) { $1 }, output: log, errors: log)
  }

  deinit { close(notifySocket) }

  package var processIdentifier: Int32 { process.processIdentifier }
  package var log: String { (try? String(contentsOfFile: folder.file("daemon.log"), encoding: .utf8)) ?? "" }
  package var socket: String { folder.file("control.sock") }

  /// Waits for a notification with this line; fails where the daemon ends or says nothing for two minutes.
  package func waitFor(_ line: String) throws {
    while try !receive("'\(line)'").split(separator: "\n").contains(Substring(line)) {}
  }

  private func receive(_ what: String) throws -> String {
    for _ in 0..<120 {
      // Asked before the queue is: what it said last is there then.
      let isOver = process.hasEnded
      var buffer = [UInt8](repeating: 0, count: 8192)
      let count = recv(notifySocket, &buffer, buffer.count, isOver ? Int32(MSG_DONTWAIT) : 0)
      if count > 0 { return String(decoding: buffer[..<count], as: UTF8.self) }
      guard !isOver else {
        throw Shell.Failure(description: "no \(what) from the daemon, which ended; its log:\n\(log)")
      }
    }
    throw Shell.Failure(description: "no \(what) from the daemon within two minutes; its log:\n\(log)")
  }

  /// Waits for a notification that begins so, and returns it whole.
  package func waitFor(prefix: String) throws -> String {
    while true {
      let lines = try receive("a notification like '\(prefix)…'").split(separator: "\n")
      if let line = lines.first(where: { $0.hasPrefix(prefix) }) { return String(line) }
    }
  }

  /// Whether the daemon falls silent: no notification with this line for so many seconds, after what is queued already.
  package func fallsSilent(about line: String, for seconds: Int) throws -> Bool {
    var patience = pollfd(fd: notifySocket, events: Int16(POLLIN), revents: 0)
    for _ in 0..<100 {
      guard poll(&patience, 1, Int32(seconds) * 1000) > 0 else { return true }
      _ = try receive(line)
    }
    return false
  }

  /// Drops the notifications that have come so far, so that `waitFor` waits for a new one.
  package func forgetNotifications() {
    var buffer = [UInt8](repeating: 0, count: 8192)
    while recv(notifySocket, &buffer, buffer.count, Int32(MSG_DONTWAIT)) > 0 {}
  }

  package func signal(_ number: Int32) { process.signal(number) }

  /// Waits for the process's end and returns its status, negative for a signal.
  package func waitForExit() -> Int32 { process.wait() }

  /// Runs pgbackupctl against this daemon.
  package func ctl(_ arguments: String...) throws -> Shell.Result {
    try Shell.run(Self.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": socket])
  }

  /// Runs pgbackupctl at a terminal (script(1)), and returns all that it shows there.
  package func ctlAtTerminal(_ arguments: String..., typing answers: String) throws -> String {
    let words = [Self.program("pgbackupctl")] + arguments
    return try Shell.run(
      "script", ["-qec", words.map { "'\($0)'" }.joined(separator: " "), "/dev/null"],
      environment: ["PGBACKUPD_SOCKET": socket], input: answers
    ).output
  }

  /// Follows the ledger from its beginning.
  package func followLedger() throws -> LedgerFollower { try LedgerFollower(socket: socket) }

  /// Runs pgbackupctl, which must succeed, and decodes its JSON.
  package func ctlJSON(_ arguments: String...) throws -> Any {
    let text = try Shell.must(
      Self.program("pgbackupctl"), arguments + ["--json"], environment: ["PGBACKUPD_SOCKET": socket])
    return try JSONSerialization.jsonObject(with: Data(text.utf8))
  }

  /// A program of this package, from the folder that the tests were built into.
  package static func program(_ name: String) -> String {
    let bundle = Bundle.allBundles.first { $0.bundlePath.hasSuffix(".xctest") }?.bundlePath ?? CommandLine.arguments[0]
    return URL(filePath: bundle).deletingLastPathComponent().appending(path: name).path
  }

  private static func makeNotifySocket(_ path: String) throws -> Int32 {
    unlink(path)
    let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard descriptor >= 0, bound == 0 else { throw Shell.Failure(description: "no notify socket at \(path)") }
    chmod(path, 0o777)
    // So often it is seen whether the daemon still lives.
    var limit = timeval(tv_sec: 1, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    return descriptor
  }
}

/// `pgbackupctl log --follow`, for ten minutes at most: so that a test waits for what is done, and not for a while.
package final class LedgerFollower {
  private let lines = LinePipe()
  private let process: ChildProcess
  /// What has passed by.
  package private(set) var seen: [String] = []

  init(socket: String) throws {
    process = try ChildProcess(
      "timeout",
      [
        "600", DaemonProcess.program("pgbackupctl"), "log", "--follow", "--lines", "10000", "--json", "--socket",
        socket,
      ], output: lines.writer)
    lines.closeWriter()
  }

  deinit { process.signal(SIGTERM) }

  /// Waits for a record that holds all of these texts, and returns it.
  @discardableResult
  package func wait(for texts: String...) throws -> String {
    while let line = lines.next() {
      seen.append(line)
      if texts.allSatisfy(line.contains) { return line }
    }
    throw Shell.Failure(description: "the ledger ended without \(texts):\n\(seen.joined(separator: "\n"))")
  }

  /// Waits for a record of each kind, in whatever order they come.
  package func wait(forAllOf kinds: [[String]]) throws {
    var missing = kinds
    while !missing.isEmpty {
      guard let line = lines.next() else {
        throw Shell.Failure(description: "the ledger ended without \(missing):\n\(seen.joined(separator: "\n"))")
      }
      seen.append(line)
      missing.removeAll { $0.allSatisfy(line.contains) }
    }
  }
}
