import CPlatform
import Dispatch
import Faults
import Glibc
import QueueExecution
import Quoting
import Subprocess
import SystemPackage
package import Units

/// One run of a client program: its own session, a small known environment, no secret on the command line.
///
/// A password goes through an anonymous file that only processes of our user can open (`memfd_create(2)`, mode 0600, read
/// by libpq as PGPASSFILE), other secrets through one that libpq reads as PGSERVICEFILE: never through the environment and never onto a
/// disk. When the calling task is cancelled, or
/// `body` throws, the program and its children get SIGTERM, and SIGKILL ten seconds later.
package struct ClientProcess: Sendable {
  package enum Status: Sendable, Equatable {
    case exited(Int32)
    case signaled(Int32)

    package var isSuccess: Bool { self == .exited(0) }

    package var text: String {
      switch self {
      case .exited(let code): "exit status \(code)"
      case .signaled(let signal): "killed by signal \(signal)"
      }
    }
  }

  package struct Outcome<Value: Sendable>: Sendable {
    package let value: Value
    package let status: Status
    /// The last lines of the program's standard error.
    package let complaint: String
  }

  package struct Captured: Sendable {
    package let standardOutput: [UInt8]
    package let status: Status
    package let complaint: String
  }

  private let path: String
  private let arguments: [String]
  private let login: ConnectionSettings?

  /// - Parameter login: the connection that `programConninfo` among the arguments names; the program gets what that leaves
  ///   out. Its password is for this server and user alone.
  package init(path: String, arguments: [String], login: ConnectionSettings? = nil) {
    self.path = path
    self.arguments = arguments
    self.login = login
  }

  /// Runs the program with `body` reading its standard output, and returns what `body` returned once both have ended.
  package func stream<Value: Sendable>(
    stallDeadline: Duration, _ body: @Sendable (ProgramOutput) async throws -> Value
  ) async throws -> Outcome<Value> {
    let files = try SecretFiles(login)
    defer { files.close() }
    var ends: [Int32] = [0, 0]
    guard cplatform_pipe(&ends, Self.pipeBytes) == 0 else {
      throw Fault(.internal, "No pipe for \(path).", cause: String(cString: strerror(errno)))
    }
    let complaint: ComplaintFile
    let output: ProgramOutput
    do throws(Fault) {
      // Takes the reading end, also where it throws.
      output = try ProgramOutput(descriptor: ends[0], stallDeadline: stallDeadline)
      complaint = try ComplaintFile()
    } catch {
      close(ends[1])
      throw error
    }
    defer { complaint.close() }
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: environment(files),
      platformOptions: Self.options, input: .none,
      output: .fileDescriptor(FileDescriptor(rawValue: ends[1]), closeAfterSpawningProcess: true),
      error: .fileDescriptor(FileDescriptor(rawValue: complaint.descriptor), closeAfterSpawningProcess: false)
    ) { _ in try await body(output) }
    return Outcome(
      value: result.closureResult, status: Status(result.terminationStatus), complaint: Self.lastLines(complaint.tail())
    )
  }

  /// Runs the program and returns what it printed. More than `limit` bytes is a failure.
  package func capture(limit: Int) async throws -> Captured {
    let files = try SecretFiles(login)
    defer { files.close() }
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: environment(files),
      platformOptions: Self.options, input: .none, output: .bytes(limit: limit), error: .string(limit: 1 << 20))
    return Captured(
      standardOutput: result.standardOutput, status: Status(result.terminationStatus),
      complaint: Self.lastLines(result.standardError))
  }

  /// Runs the program with `body` writing its standard input. Where the program ends before it has read all, `body`'s writes fail and
  /// the program's own words tell why.
  package func feed(_ body: @Sendable (ProgramInput) async throws -> Void) async throws -> Outcome<Bool> {
    let files = try SecretFiles(login)
    defer { files.close() }
    var ends: [Int32] = [0, 0]
    // A socket and no pipe: writing to a program that is gone must be an error, and no signal.
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw Fault(.internal, "No socket for \(path).", cause: String(cString: strerror(errno)))
    }
    let input = ProgramInput(descriptor: ends[1])
    let complaint: ComplaintFile
    do throws(Fault) {
      complaint = try ComplaintFile()
    } catch {
      close(ends[0])
      throw error
    }
    defer { complaint.close() }
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: environment(files),
      platformOptions: Self.options,
      input: .fileDescriptor(FileDescriptor(rawValue: ends[0]), closeAfterSpawningProcess: true), output: .discarded,
      error: .fileDescriptor(FileDescriptor(rawValue: complaint.descriptor), closeAfterSpawningProcess: false)
    ) { _ in
      do {
        try await body(input)
      } catch is ProgramInput.Closed {
        return false
      }
      await input.end()
      return true
    }
    return Outcome(
      value: result.closureResult, status: Status(result.terminationStatus), complaint: Self.lastLines(complaint.tail())
    )
  }

  /// Runs the program so that it, and whatever it begins, can make no connection to anybody, and has no more memory than `memory` in each
  /// of its processes (`cplatform_run_confined`). Its output is thrown away. Not for what may have to be ended: it is waited for.
  package func runConfined(memory: ByteCount) async throws -> Captured {
    let complaint = try ComplaintFile()
    defer { complaint.close() }
    var variables = variables(try SecretFiles(nil)).map { "\($0.key)=\($0.value)" }
    variables.sort()
    let (path, words, environment, errors) = (path, [path] + arguments, variables, complaint.descriptor)
    let status = try await DispatchQueue(label: "pgbackupd.confined").blocking {
      var status: Int32 = 0
      let isRun = withCStrings(words) { words in
        withCStrings(environment) { environment in
          cplatform_run_confined(path, words, environment, errors, UInt64(memory.bytes), &status) == 0
        }
      }
      guard isRun else {
        throw Fault(
          .internal, "\(path) could not be run without a way to others.", cause: String(cString: strerror(errno)))
      }
      return status
    }
    // As the macros of <sys/wait.h> take it apart.
    let signal = status & 0x7f
    return Captured(
      standardOutput: [], status: signal == 0 ? .exited((status >> 8) & 0xff) : .signaled(signal),
      complaint: Self.lastLines(complaint.tail()))
  }

  /// The largest pipe that a user other than root may ask for (fs.pipe-max-size): fewer wake-ups on both sides.
  private static let pipeBytes = 1 << 20

  private static var options: PlatformOptions {
    var options = PlatformOptions()
    options.createSession = true
    options.teardownSequence = [.gracefulShutDown(toProcessGroup: true, allowedDurationToNextStep: .seconds(10))]
    return options
  }

  /// What a PostgreSQL client needs and nothing else: the daemon's own environment may hold secrets of others.
  private func environment(_ files: SecretFiles) -> Environment {
    .custom(
      Dictionary(uniqueKeysWithValues: variables(files).map { (Environment.Key(stringLiteral: $0), $1) }))
  }

  private func variables(_ files: SecretFiles) -> [String: String] {
    var variables = ["LC_ALL": "C", "TZ": "UTC"]
    for name in ["PATH", "HOME", "USER", "LD_LIBRARY_PATH", "KRB5CCNAME", "KRB5_CONFIG", "SSL_CERT_FILE"] {
      if let value = getenv(name) { variables[name] = String(cString: value) }
    }
    if let options = login?["options"] { variables["PGOPTIONS"] = options }
    if let password = files.password { variables["PGPASSFILE"] = password.path }
    if let service = files.service { variables["PGSERVICEFILE"] = service.path }
    return variables
  }

  private static func lastLines(_ text: String) -> String {
    let lines = text.lines.filter { !$0.isEmpty }
    // PostgreSQL's programs quote the command behind the error, which may be long.
    let error = lines.lastIndex { $0.contains(bytes: ": error: ") } ?? lines.endIndex
    return (lines.endIndex - error > 8 ? lines[error...].prefix(8) : lines.suffix(8)).joined(separator: "\n")
  }
}

extension ClientProcess.Status {
  fileprivate init(_ status: TerminationStatus) {
    switch status {
    case .exited(let code): self = .exited(code)
    case .signaled(let signal): self = .signaled(signal)
    }
  }
}

/// The texts as C has lists of them, ended by a null pointer, for as long as `body` runs.
private func withCStrings<Value>(
  _ texts: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) throws -> Value
) rethrows -> Value {
  let copies = texts.map { strdup($0) } + [nil]
  defer { for copy in copies { free(copy) } }
  return try copies.withUnsafeBufferPointer { list in
    // Never empty: the null pointer is in it.
    guard let base = list.baseAddress else { preconditionFailure("a list of at least one") }
    return try body(base)
  }
}

/// What a program says on standard error, in memory: nobody has to read along while it runs, and its end never waits for a
/// reader.
private struct ComplaintFile {
  let descriptor: Int32

  init() throws(Fault) {
    descriptor = cplatform_memory_file("pgbackupd-stderr")
    guard descriptor >= 0 else {
      throw Fault(.internal, "No memory file for a program's messages.", cause: String(cString: strerror(errno)))
    }
  }

  /// The last 32 KiB.
  func tail() -> String {
    let size = lseek(descriptor, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: Int(min(max(size, 0), 32_768)))
    let count = pread(descriptor, &bytes, bytes.count, max(size, 0) - off_t(bytes.count))
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
  }

  func close() { Glibc.close(descriptor) }
}

/// What a program gets of a connection by files in memory.
private struct SecretFiles {
  let password: PasswordFile?
  let service: ServiceFile?

  init(_ connection: ConnectionSettings?) throws(Fault) {
    service = try ServiceFile(connection?.secrets ?? [:])
    do throws(Fault) {
      password = try PasswordFile(connection)
    } catch {
      service?.close()
      throw error
    }
  }

  func close() {
    password?.close()
    service?.close()
  }
}

/// A pgpass file in memory.
private struct PasswordFile {
  private let descriptor: Int32

  /// Our own descriptor, opened by the child through /proc: a fresh open, at the beginning of the file.
  var path: String { "/proc/\(getpid())/fd/\(descriptor)" }

  init?(_ login: ConnectionSettings?) throws(Fault) {
    guard let login, login.password != nil else { return nil }
    let line = Array(try login.passwordFile().utf8)
    descriptor = cplatform_memory_file("pgbackupd-pgpass")
    guard descriptor >= 0 else {
      throw Fault(.internal, "No memory file for a password.", cause: String(cString: strerror(errno)))
    }
    guard write(descriptor, line, line.count) == line.count else {
      Glibc.close(descriptor)
      throw Fault(.internal, "A password could not be handed over.", cause: String(cString: strerror(errno)))
    }
  }

  func close() { Glibc.close(descriptor) }
}
