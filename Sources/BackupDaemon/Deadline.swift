import Synchronization

/// The result of `work`, or nil where it takes longer. Then it goes on without anybody waiting: some calls (a file system that does
/// not answer) can't be ended from outside.
func withDeadline<Value: Sendable>(
  _ limit: Duration, _ work: @escaping @Sendable () async -> Value
) async -> Value? {
  await withCheckedContinuation { (continuation: CheckedContinuation<Value?, Never>) in
    let answer = Answer(continuation)
    let timer = Task {
      try? await Task.sleep(for: limit)
      answer.give(nil)
    }
    Task {
      answer.give(await work())
      timer.cancel()
    }
  }
}

/// A continuation that is resumed once, by whoever comes first.
private final class Answer<Value: Sendable>: Sendable {
  private let continuation: Mutex<CheckedContinuation<Value?, Never>?>

  init(_ continuation: CheckedContinuation<Value?, Never>) { self.continuation = Mutex(continuation) }

  func give(_ value: Value?) {
    let waiting = continuation.withLock { continuation in
      defer { continuation = nil }
      return continuation
    }
    waiting?.resume(returning: value)
  }
}

/// Something that happens once.
final class Flag: Sendable {
  private let value = Mutex(false)
  var isSet: Bool { value.withLock { $0 } }
  func set() { value.withLock { $0 = true } }
}
