import CPlatform
package import Faults
import Glibc
import Subprocess
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
    /// The last lines of it and of standard error.
    package let lastLines: [String]
  }

  /// Returns what it printed, the last lines of it.
  ///
  /// - Throws: a fault where it can't be run, ends with anything but 0, or takes longer than it may; it is then killed.
  @discardableResult package func run(input: [UInt8] = []) async throws(Fault) -> [String] {
    try await output(input: input).lastLines
  }

  /// Why a program has given nothing.
  package enum Failure: Error, Sendable {
    case unrunnable(String)
    /// It was killed.
    case late(Duration)
    case ended(status: String, lastLines: [String])
  }

  /// Returns what it printed, up to a mebibyte.
  ///
  /// - Throws: as `run`.
  package func output(input: [UInt8] = []) async throws(Fault) -> Output {
    let program = words.first ?? ""
    do throws(Failure) {
      return try await attempt(input: input)
    } catch {
      switch error {
      case .unrunnable(let reason):
        throw Fault(
          .hookFailed, "'\(program)' can't be run.", cause: reason, hint: "run it by hand, as the daemon's user")
      case .late(let limit):
        throw Fault(.hookFailed, "'\(program)' did not end within \(limit.configurationText), and was killed.")
      case .ended(let status, let lines):
        throw Fault(
          .hookFailed, "'\(program)' ended with \(status).", cause: lines.suffix(8).joined(separator: "\n"),
          hint: "run it by hand, as the daemon's user")
      }
    }
  }

  /// The same, for who tells the reasons in words of his own.
  package func attempt(input: [UInt8] = []) async throws(Failure) -> Output {
    let program = words.first ?? ""
    do {
      return try await withThrowingTaskGroup(of: Output.self) { group in
        group.addTask { try await execute(program, input) }
        group.addTask {
          try await Task.sleep(for: timeout)
          throw Failure.late(timeout)
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

  private func execute(_ program: String, _ input: [UInt8]) async throws -> Output {
    var platform = PlatformOptions()
    platform.createSession = true
    platform.teardownSequence = [.gracefulShutDown(toProcessGroup: true, allowedDurationToNextStep: .seconds(2))]
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
      output: .bytes(limit: 1 << 20), error: .string(limit: 1 << 20))
    let printed = [String(decoding: result.standardOutput, as: UTF8.self), result.standardError].flatMap {
      $0.split(whereSeparator: \.isNewline).suffix(20).map(String.init)
    }
    guard case .exited(0) = result.terminationStatus else {
      throw Failure.ended(status: "\(result.terminationStatus)", lastLines: printed)
    }
    return Output(standardOutput: result.standardOutput, lastLines: printed)
  }
}
