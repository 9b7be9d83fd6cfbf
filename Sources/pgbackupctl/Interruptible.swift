import Dispatch
import Faults
import Glibc

/// Work of this process that somebody may end: by Ctrl-C, `kill`, or by closing the terminal. What was begun is then taken back before the
/// process ends.
enum Interruptible {
  /// - Throws: what `work` throws once it is cancelled.
  static func run<Value: Sendable>(_ work: @escaping @Sendable () async throws -> Value) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
      let signals = signals()
      group.addTask { try await work() }
      group.addTask {
        for await _ in signals { break }
        return nil
      }
      while let result = try await group.next() {
        guard let result else {
          if !Task.isCancelled { Terminal.complain("ending: what was begun is taken back") }
          group.cancelAll()
          continue
        }
        group.cancelAll()
        return result
      }
      throw Fault(.runAborted, "It was ended.")
    }
  }

  private static func signals() -> AsyncStream<Int32> {
    AsyncStream { continuation in
      let sources = Sources { continuation.yield($0) }
      continuation.onTermination = { _ in sources.cancel() }
    }
  }

  /// - Safety: `@unchecked` because Dispatch's sources are not declared Sendable; they are made here, and any thread may cancel them.
  private final class Sources: @unchecked Sendable {
    private let sources: [any DispatchSourceSignal]

    init(_ handler: @escaping @Sendable (Int32) -> Void) {
      sources = [SIGINT, SIGTERM, SIGHUP].map { number in
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler { handler(number) }
        source.resume()
        return source
      }
    }

    func cancel() { for source in sources { source.cancel() } }
  }
}
