import CPlatform
import Confinement
import Dispatch
import Faults
import Glibc
import QueueExecution
import Synchronization

/// A child process in a session of its own. It has the descriptors that it is given, and none of ours by accident.
final class RunningProgram: Sendable {
  private let process: pid_t
  /// Where the process is reaped its number may be another's: no signal is sent then.
  private let isReaped = Mutex(false)

  /// - Parameters:
  ///   - descriptors: what the child has as 0, 1, 2 and so on. They stay open here too.
  ///   - rules: what it may read; whatever this process may where nil.
  init(
    path: String, arguments: [String], environment: [String: String], descriptors: [Int32], rules: ReadingRules? = nil
  ) throws(Fault) {
    var child: pid_t = 0
    var reason: Int32 = 0
    let begin = {
      reason = withCStrings([path] + arguments) { words in
        withCStrings(environment.map { "\($0.key)=\($0.value)" }.sorted()) { variables in
          cplatform_spawn(path, words, variables, descriptors, Int32(descriptors.count), &child)
        }
      }
    }
    if let rules { try rules.begin(begin) } else { begin() }
    guard reason == 0 else {
      throw Fault(.toolMissing, "\(path) can't be run.", cause: String(cString: strerror(reason)))
    }
    process = child
  }

  /// Runs `body` beside the program, and waits for both. Where the task is cancelled or `body` throws, the program
  /// and its children get SIGTERM, and SIGKILL ten seconds later.
  func during<Value>(_ body: () async throws -> Value) async throws -> (value: Value, status: ClientProcess.Status) {
    try await withTaskCancellationHandler {
      do {
        let value = try await body()
        return (value, await end())
      } catch {
        terminate()
        _ = await end()
        throw error
      }
    } onCancel: {
      terminate()
    }
  }

  private func end() async -> ClientProcess.Status {
    let process = process
    let status = try? await DispatchQueue(label: "pgbackupd.program").blocking {
      var about = siginfo_t()
      // Not reaped yet: its number stays its own until no signal can be sent any more.
      while waitid(P_PID, id_t(process), &about, WEXITED | WNOWAIT) < 0 && errno == EINTR {}
      return self.isReaped.withLock { isReaped in
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        isReaped = true
        return status
      }
    }
    return ClientProcess.Status(waited: status ?? 0)
  }

  private func terminate() {
    send(SIGTERM)
    DispatchQueue.global().asyncAfter(deadline: .now() + 10) { self.send(SIGKILL) }
  }

  private func send(_ signal: Int32) {
    isReaped.withLock { isReaped in
      if !isReaped { kill(-process, signal) }
    }
  }
}
