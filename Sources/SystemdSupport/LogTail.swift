import Synchronization

/// The last lines of the log, in memory: who hears of a failed run elsewhere wants to read what it said.
package final class LogTail: Sendable {
  private struct Line {
    /// Of the metadata.
    let run: String?
    let text: String
  }

  private let lines = Mutex<[Line]>([])
  private let limit: Int

  package init(limit: Int = 1000) { self.limit = limit }

  func add(_ text: String, run: String?) {
    lines.withLock { lines in
      lines.append(Line(run: run, text: text))
      // Seldom, and then many: the log must not wait for its memory.
      if lines.count > limit * 2 { lines.removeFirst(lines.count - limit) }
    }
  }

  /// The lines of one run, the last `count` of them, the oldest first.
  package func lines(ofRun run: String, count: Int) -> [String] {
    Array(lines.withLock { $0.filter { $0.run == run }.map(\.text) }.suffix(count))
  }
}
