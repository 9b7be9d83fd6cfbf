import CPlatform
import Dispatch
import Foundation
import Glibc

/// A child process by posix_spawn(3), with no signal blocked or ignored. (Foundation's `Process` hands on the mask of the
/// thread that it is called on, and Dispatch's threads block SIGALRM and SIGTERM: `timeout 5 …` would wait for ever.)
///
/// - Safety: `@unchecked` because of the cached status; tests use a child from one task at a time.
package final class ChildProcess: @unchecked Sendable {
  package let processIdentifier: Int32
  private var status: Int32?

  /// Starts a program, found in PATH. Descriptors that are not given lead to /dev/null.
  ///
  /// - Parameter isGroupLeader: its children are of its process group, which can be killed whole.
  package init(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: Int32? = nil,
    output: Int32? = nil,
    errors: Int32? = nil, isGroupLeader: Bool = false
  ) throws {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (target, source) in [(Int32(0), input), (1, output), (2, errors)] {
      if let source {
        posix_spawn_file_actions_adddup2(&actions, source, target)
      } else {
        posix_spawn_file_actions_addopen(&actions, target, "/dev/null", O_RDWR, 0)
      }
    }

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(
      &attributes,
      Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (isGroupLeader ? POSIX_SPAWN_SETPGROUP : 0)))

    let words = ([program] + arguments).map { strdup($0) }
    let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }.map { strdup("\($0)=\($1)") }
    defer { (words + variables).forEach { free($0) } }
    var child: pid_t = 0
    let outcome = posix_spawnp(&child, program, &actions, &attributes, words + [nil], variables + [nil])
    guard outcome == 0 else { throw Shell.Failure(description: "\(program): \(String(cString: strerror(outcome)))") }
    processIdentifier = child
  }

  deinit {
    guard status == nil else { return }
    if getenv("LLVM_PROFILE_FILE") != nil { endWithCounts() }
    guard status == nil else { return }
    kill(processIdentifier, SIGKILL)
    wait()
  }

  /// What was run is written at a program's own end (scripts/coverage.sh).
  private func endWithCounts() {
    kill(processIdentifier, SIGTERM)
    let deadline = DispatchTime.now() + .seconds(15)
    while !hasEnded, DispatchTime.now() < deadline { poll(nil, 0, 20) }
  }

  /// Waits for the end and returns the exit status, negative for a signal.
  @discardableResult
  package func wait() -> Int32 {
    if let status { return status }
    var raw: Int32 = 0
    while waitpid(processIdentifier, &raw, 0) < 0 && errno == EINTR {}
    return keep(raw)
  }

  /// Whether it has ended by now.
  package var hasEnded: Bool {
    guard status == nil else { return true }
    var raw: Int32 = 0
    guard waitpid(processIdentifier, &raw, WNOHANG) == processIdentifier else { return false }
    keep(raw)
    return true
  }

  @discardableResult
  private func keep(_ raw: Int32) -> Int32 {
    let result = raw & 0x7f == 0 ? raw >> 8 & 0xff : -(raw & 0x7f)
    status = result
    return result
  }

  package func signal(_ number: Int32) { if status == nil { kill(processIdentifier, number) } }
}

/// A pipe that no child inherits by accident: close-on-exec from its first moment.
package func makePipe() -> (reader: Int32, writer: Int32) {
  var ends: [Int32] = [-1, -1]
  precondition(cplatform_pipe(&ends, 65_536) == 0, "no pipe")
  return (ends[0], ends[1])
}

/// A pipe whose reading end hands out lines.
package final class LinePipe: @unchecked Sendable {
  package let writer: Int32
  private let reader: Int32
  private var rest: [UInt8] = []

  package init() {
    (reader, writer) = makePipe()
  }

  deinit { close(reader) }

  /// Call once the child has the writing end: the end of its output is then seen.
  package func closeWriter() { close(writer) }

  /// Waits for the next line; nil at the end.
  package func next() -> String? {
    while true {
      if let end = rest.firstIndex(of: 10) {
        defer { rest.removeFirst(end + 1) }
        return String(decoding: rest[..<end], as: UTF8.self)
      }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = read(reader, &buffer, buffer.count)
      if count <= 0 { return nil }
      rest += buffer[..<count]
    }
  }
}
