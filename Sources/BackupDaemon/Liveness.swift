import Synchronization

/// Whether the parts of the daemon still answer: each is asked at every beat, and must have answered by the next. What the
/// watchdog hears is decided by it.
final class Liveness: Sendable {
  /// Calls back once the part's queue has come to it.
  typealias Ask = @Sendable (@escaping @Sendable () -> Void) -> Void

  private struct Part {
    let ask: Ask
    var isPending = false
  }

  private let parts = Mutex<[String: Part]>([:])

  init() {}

  func add(_ name: String, _ ask: @escaping Ask) { parts.withLock { $0[name] = Part(ask: ask) } }

  /// Asks all parts again; returns the names of those that have not answered the time before.
  func beat() -> [String] {
    let (silent, asks) = parts.withLock { parts in
      let silent = parts.filter(\.value.isPending).keys.sorted()
      // A part that has not answered is not asked twice: its answer to the first question still counts.
      let asks = parts.filter { !$0.value.isPending }.mapValues(\.ask)
      for name in asks.keys { parts[name]?.isPending = true }
      return (silent, asks)
    }
    for (name, ask) in asks { ask { [weak self] in self?.answered(name) } }
    return silent
  }

  private func answered(_ name: String) { parts.withLock { $0[name]?.isPending = false } }
}
