import CPlatform
package import Confinement
import Dispatch
import Faults
import Glibc
import QueueExecution
import Quoting

/// One run of a client program: its own session, a small known environment, no secret on the command line.
///
/// A password goes through an anonymous file that only this program has open (`memfd_create(2)`, read by libpq as
/// PGPASSFILE), other secrets through one that libpq reads as PGSERVICEFILE: never through the environment and never
/// onto a disk. When the calling task is cancelled, or `body` throws, the program and its children get SIGTERM, and
/// SIGKILL ten seconds later.
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
    /// All of it, up to 16 MiB from its beginning on.
    let everyComplaint: @Sendable () -> String
  }

  package struct Captured: Sendable {
    package let standardOutput: [UInt8]
    package let status: Status
    package let complaint: String
    let everyComplaint: @Sendable () -> String
  }

  private let path: String
  private let arguments: [String]
  private let files: [any ProgramFile]
  private let login: ConnectionSettings?
  private let rules: ReadingRules?

  /// - Parameters:
  ///   - files: what the program may read besides, each at `path(ofFile:)`.
  ///   - login: the connection that `programConninfo` among the arguments names; the program gets what that leaves out.
  ///     Its password is for this server and user alone.
  ///   - rules: what it may read, where it works on what a stranger wrote.
  package init(
    path: String, arguments: [String], files: [any ProgramFile] = [], login: ConnectionSettings? = nil,
    rules: ReadingRules? = nil
  ) {
    self.rules = rules
    self.path = path
    self.arguments = arguments
    self.files = files
    self.login = login
  }

  /// What the program calls a file that it was given: a fresh open of its own descriptor, at the beginning of the
  /// file. Our own descriptors are closed to it (PR_SET_DUMPABLE).
  package static func path(ofFile index: Int) -> String { "/proc/self/fd/\(index + 3)" }

  /// Runs the program with `body` reading its standard output, and returns what `body` returned once both have ended.
  package func stream<Value: Sendable>(
    stallDeadline: Duration, _ body: @Sendable (ProgramOutput) async throws -> Value
  ) async throws -> Outcome<Value> {
    var ends: [Int32] = [0, 0]
    guard cplatform_pipe(&ends, Self.pipeBytes) == 0 else {
      throw Fault(.internal, "No pipe for \(path).", cause: String(cString: strerror(errno)))
    }
    let (complaint, running): (ComplaintFile, RunningProgram)
    let output: ProgramOutput
    do throws(Fault) {
      // Takes the reading end, also where it throws.
      output = try ProgramOutput(descriptor: ends[0], stallDeadline: stallDeadline)
      complaint = try ComplaintFile()
      running = try begin(output: ends[1], errors: complaint)
    } catch {
      close(ends[1])
      throw error
    }
    close(ends[1])
    let result = try await running.during { try await body(output) }
    return Outcome(
      value: result.value, status: result.status, complaint: Self.lastLines(complaint.tail()),
      everyComplaint: { complaint.head() })
  }

  /// Runs the program and returns what it printed. More than `limit` bytes is a failure.
  package func capture(limit: Int) async throws -> Captured {
    // It may be silent for as long as it likes.
    let outcome = try await stream(stallDeadline: .seconds(1 << 30)) { output in
      try await withTaskCancellationHandler {
        try await DispatchQueue(label: "pgbackupd.program.output").blocking { try Self.all(of: output, limit) }
      } onCancel: {
        output.interrupt()
      }
    }
    return Captured(
      standardOutput: outcome.value, status: outcome.status, complaint: outcome.complaint,
      everyComplaint: outcome.everyComplaint)
  }

  private static func all(of output: ProgramOutput, _ limit: Int) throws(Fault) -> [UInt8] {
    var all: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 1)
    defer { buffer.deallocate() }
    while true {
      let count = try output.read(into: buffer)
      if count == 0 { return all }
      guard all.count + count <= limit else {
        throw Fault(.internal, "A program printed more than \(limit) bytes, and was ended.")
      }
      all += buffer[..<count]
    }
  }

  /// Runs the program with `body` writing its standard input. Where the program ends before it has read all, `body`'s
  /// writes fail and the program's own words tell why.
  package func feed(_ body: @Sendable (ProgramInput) async throws -> Void) async throws -> Outcome<Bool> {
    var ends: [Int32] = [0, 0]
    // A socket and no pipe: writing to a program that is gone must be an error, and no signal.
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw Fault(.internal, "No socket for \(path).", cause: String(cString: strerror(errno)))
    }
    let input = ProgramInput(descriptor: ends[1])
    let (complaint, running): (ComplaintFile, RunningProgram)
    do throws(Fault) {
      complaint = try ComplaintFile()
      running = try begin(input: ends[0], errors: complaint)
    } catch {
      close(ends[0])
      throw error
    }
    close(ends[0])
    let result = try await running.during {
      do {
        try await body(input)
      } catch is ProgramInput.Closed {
        return false
      }
      await input.end()
      return true
    }
    return Outcome(
      value: result.value, status: result.status, complaint: Self.lastLines(complaint.tail()),
      everyComplaint: { complaint.head() })
  }

  private func begin(
    input: Int32? = nil, output: Int32? = nil, errors: ComplaintFile
  ) throws(Fault) -> RunningProgram {
    let secrets = try secretFiles()
    let nothing = open("/dev/null", O_RDWR | O_CLOEXEC)
    guard nothing >= 0 else {
      throw Fault(.internal, "No /dev/null for \(path).", cause: String(cString: strerror(errno)))
    }
    defer { close(nothing) }
    var descriptors = [input ?? nothing, output ?? nothing, errors.descriptor] + files.map(\.descriptor)
    var environment = variables
    for (position, secret) in secrets.enumerated() {
      environment[secret.variable] = Self.path(ofFile: files.count + position)
      descriptors.append(secret.file.descriptor)
    }
    return try withExtendedLifetime(secrets) { () throws(Fault) in
      try RunningProgram(
        path: path, arguments: arguments, environment: environment, descriptors: descriptors, rules: rules)
    }
  }

  /// What the program gets of the connection by files in memory, each with the variable that libpq finds it by.
  private func secretFiles() throws(Fault) -> [(variable: String, file: MemoryFile)] {
    guard let login else { return [] }
    var files: [(variable: String, file: MemoryFile)] = []
    if login.password != nil { files.append(("PGPASSFILE", try MemoryFile(Array(try login.passwordFile().utf8)))) }
    if let service = ServiceFile.bytes(login.secrets) { files.append(("PGSERVICEFILE", try MemoryFile(service))) }
    return files
  }

  /// The largest pipe that a user other than root may ask for (fs.pipe-max-size): fewer wake-ups on both sides.
  private static let pipeBytes = 1 << 20

  /// What a PostgreSQL client needs and nothing else: the daemon's own environment may hold secrets of others.
  private var variables: [String: String] {
    var variables = ["LC_ALL": "C", "TZ": "UTC"]
    for name in ["PATH", "HOME", "USER", "LD_LIBRARY_PATH", "KRB5CCNAME", "KRB5_CONFIG", "SSL_CERT_FILE"] {
      if let value = getenv(name) { variables[name] = String(cString: value) }
    }
    if let options = login?["options"] { variables["PGOPTIONS"] = options }
    return variables
  }

  static func lastLines(_ text: String) -> String {
    let lines = text.lines.filter { !$0.isEmpty }
    // PostgreSQL's programs quote the command behind the error, which may be long.
    let error = lines.lastIndex { $0.contains(bytes: ": error: ") } ?? lines.endIndex
    return (lines.endIndex - error > 8 ? lines[error...].prefix(8) : lines.suffix(8)).joined(separator: "\n")
  }
}

extension ClientProcess.Status {
  /// A status as waitpid(2) gives it, taken apart as the macros of <sys/wait.h> do.
  init(waited status: Int32) {
    let signal = status & 0x7f
    self = signal == 0 ? .exited((status >> 8) & 0xff) : .signaled(signal)
  }
}

/// What a program says on standard error, in memory: nobody has to read along while it runs, and its end never waits
/// for a reader.
final class ComplaintFile: Sendable {
  let descriptor: Int32

  init() throws(Fault) {
    descriptor = cplatform_memory_file("pgbackupd-stderr")
    guard descriptor >= 0 else {
      throw Fault(.internal, "No memory file for a program's messages.", cause: String(cString: strerror(errno)))
    }
  }

  /// The last 32 KiB.
  func tail() -> String {
    let count = min(size, 32_768)
    return text(at: size - count, count)
  }

  /// The first 16 MiB.
  func head() -> String { text(at: 0, min(size, 16 << 20)) }

  private var size: Int { max(0, Int(lseek(descriptor, 0, SEEK_END))) }

  private func text(at offset: Int, _ length: Int) -> String {
    var bytes = [UInt8](repeating: 0, count: length)
    let count = pread(descriptor, &bytes, length, off_t(offset))
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
  }

  deinit { close(descriptor) }
}
