import CPlatform
package import Faults
import Glibc
import Quoting
import Subprocess
import Synchronization
import SystemPackage
import Units

/// A program of the operator's: an alert's, a hook, or `gpg`. It has a session of its own, a known environment and a time limit, and what it
/// prints is kept, the end of it.
package struct OutsideCommand: Sendable {
  private let words: [String]
  private let environment: [String: String]
  private let timeout: Duration

  /// - Parameter words: a program by its path or a name in PATH, and its arguments. No shell reads them.
  package init(_ words: [String], environment: [String: String] = [:], timeout: Duration) {
    self.words = words
    self.environment = environment
    self.timeout = timeout
  }

  /// What a program has printed.
  package struct Output: Sendable {
    package let standardOutput: [UInt8]
    /// False where there was more of it than is taken.
    fileprivate let isWhole: Bool
    /// The last lines of it and of standard error.
    package let lastLines: [String]
  }

  /// Returns what it printed, the last lines of it.
  ///
  /// - Throws: a fault where it can't be run, ends with anything but 0, or takes longer than it may; it is then killed.
  @discardableResult package func run(input: [UInt8] = []) async throws(Fault) -> [String] {
    do throws(Failure) {
      return try await perform(input).lastLines
    } catch {
      throw told(error)
    }
  }

  /// Why a program has given nothing.
  package enum Failure: Error, Sendable {
    case unrunnable(String)
    /// It was killed.
    case late(Duration, lastLines: [String])
    /// Its standard output is longer than is taken.
    case overlong
    case ended(status: String, lastLines: [String])
  }

  /// Returns what it printed, up to a mebibyte.
  ///
  /// - Throws: as `run`.
  package func output(input: [UInt8] = []) async throws(Fault) -> Output {
    do throws(Failure) {
      return try await attempt(input: input)
    } catch {
      throw told(error)
    }
  }

  /// The same, for who tells the reasons in words of his own.
  package func attempt(input: [UInt8] = []) async throws(Failure) -> Output {
    let output = try await perform(input)
    guard output.isWhole else { throw .overlong }
    return output
  }

  private func told(_ failure: Failure) -> Fault {
    let program = words.first ?? ""
    let byHand = "run it by hand, as the daemon's user"
    return switch failure {
    case .unrunnable(let reason): Fault(.hookFailed, "'\(program)' can't be run.", cause: reason, hint: byHand)
    case .late(let limit, let lines):
      Fault(
        .hookFailed, "'\(program)' did not end within \(limit.configurationText), and was killed.",
        cause: lines.isEmpty ? nil : lines.suffix(8).joined(separator: "\n"), hint: byHand)
    case .overlong: Fault(.hookFailed, "'\(program)' printed more than 1 MiB.", hint: byHand)
    case .ended(let status, let lines):
      Fault(
        .hookFailed, "'\(program)' ended with \(status).", cause: lines.suffix(8).joined(separator: "\n"), hint: byHand)
    }
  }

  /// Runs it for as long as it may.
  private func perform(_ input: [UInt8]) async throws(Failure) -> Output {
    let program = words.first ?? ""
    let printed = Printed()
    do {
      return try await withThrowingTaskGroup(of: Output.self) { group in
        group.addTask { try await execute(program, input, printed) }
        group.addTask {
          try await Task.sleep(for: timeout)
          throw Failure.late(timeout, lastLines: printed.lastLines)
        }
        defer { group.cancelAll() }
        guard let output = try await group.next() else { throw CancellationError() }
        return output
      }
    } catch let failure as Failure {
      throw failure
    } catch let fault as Fault {
      throw .unrunnable([fault.message, fault.cause].compactMap { $0 }.joined(separator: " "))
    } catch {
      throw .unrunnable(String(describing: error))
    }
  }

  private func execute(_ program: String, _ input: [UInt8], _ printed: Printed) async throws -> Output {
    var platform = PlatformOptions()
    platform.createSession = true
    platform.teardownSequence = [
      .gracefulShutDown(toProcessGroup: true, allowedDurationToNextStep: .seconds(2)),
      .send(signal: .kill, toProcessGroup: true, allowedDurationToNextStep: .seconds(1)),
    ]
    let additions = Dictionary(
      uniqueKeysWithValues: environment.map { (Environment.Key(stringLiteral: $0.key), Optional($0.value)) })
    // A file and no pipe: a program that does not read its input must be no signal to us.
    let file = cplatform_memory_file("pgbackupd-input")
    guard file >= 0 else {
      throw Fault(.internal, "No memory file for a command's input.", cause: String(cString: strerror(errno)))
    }
    defer { close(file) }
    guard input.withUnsafeBytes({ write(file, $0.baseAddress, $0.count) }) == input.count, lseek(file, 0, SEEK_SET) == 0
    else {
      throw Fault(.internal, "A command's input could not be handed over.", cause: String(cString: strerror(errno)))
    }
    let result = try await Subprocess.run(
      program.contains("/") ? .path(FilePath(program)) : .name(program), arguments: Arguments(Array(words.dropFirst())),
      environment: .inherit.updating(additions), platformOptions: platform,
      input: .fileDescriptor(FileDescriptor(rawValue: file), closeAfterSpawningProcess: false),
      output: .sequence, error: .sequence
    ) { execution in
      // Both are read to their ends, or a program that prints much would wait for us.
      async let complaints: Void = printed.take(execution.standardError, isComplaint: true)
      try await printed.take(execution.standardOutput, isComplaint: false)
      try await complaints
    }
    guard case .exited(0) = result.terminationStatus else {
      throw Failure.ended(status: "\(result.terminationStatus)", lastLines: printed.lastLines)
    }
    return printed.output
  }
}

/// What a program has printed so far: the beginning of its standard output, and the ends of both.
private final class Printed: Sendable {
  private struct State {
    var begin: [UInt8] = []
    var isWhole = true
    var ends: [[UInt8]] = [[], []]
  }

  private static let most = 1 << 20
  private static let kept = 16 << 10
  private let state = Mutex(State())

  func take(_ stream: SubprocessOutputSequence, isComplaint: Bool) async throws {
    for try await buffer in stream {
      let bytes = buffer.withUnsafeBytes { Array($0) }
      state.withLock { state in
        if !isComplaint {
          state.isWhole = state.isWhole && state.begin.count + bytes.count <= Self.most
          if state.isWhole { state.begin += bytes }
        }
        let index = isComplaint ? 1 : 0
        state.ends[index] += bytes
        let excess = state.ends[index].count - Self.kept
        if excess > Self.kept { state.ends[index].removeFirst(excess) }
      }
    }
  }

  /// Of standard output, then of standard error.
  var lastLines: [String] {
    state.withLock(\.ends).flatMap {
      String(decoding: $0.suffix(Self.kept), as: UTF8.self).lines.filter { !$0.isEmpty }.suffix(20).map(
        String.init)
    }
  }

  var output: OutsideCommand.Output {
    let (begin, isWhole) = state.withLock { ($0.begin, $0.isWhole) }
    return .init(standardOutput: begin, isWhole: isWhole, lastLines: lastLines)
  }
}
