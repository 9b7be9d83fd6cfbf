package import CoreMetrics
import Synchronization

/// Where swift-metrics puts what the rooms below count: counters and gauges by their labels. Timers and recorders have no reader here and
/// are dropped.
package final class MetricsRegistry: MetricsFactory, Sendable {
  private struct Key: Hashable {
    var label: String
    var dimensions: [[String]]
  }

  private let counters = Mutex<[Key: Count]>([:])
  private let help: [String: String]

  /// - Parameter help: a sentence for each label that is shown.
  package init(help: [String: String]) { self.help = help }

  /// What was counted so far.
  package var families: [MetricFamily] {
    let all = counters.withLock { $0 }
    return help.sorted { $0.key < $1.key }.map { label, sentence in
      MetricFamily(
        label, .counter, sentence,
        all.filter { $0.key.label == label }.sorted {
          $0.key.dimensions.joined().joined() < $1.key.dimensions.joined().joined()
        }
        .map { key, count in MetricFamily.Series(key.dimensions.map { ($0[0], $0[1]) }, Double(count.value.load())) })
    }
  }

  package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
    counters.withLock { counters in
      let key = Key(label: label, dimensions: dimensions.map { [$0.0, $0.1] })
      let count = counters[key] ?? Count()
      counters[key] = count
      return count
    }
  }

  package func makeRecorder(
    label: String, dimensions: [(String, String)], aggregate: Bool
  ) -> any RecorderHandler { NOOPMetricsHandler.instance }

  package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    NOOPMetricsHandler.instance
  }

  /// A reload makes a store anew: its counts go on.
  package func destroyCounter(_ handler: any CounterHandler) {}
  package func destroyRecorder(_ handler: any RecorderHandler) {}
  package func destroyTimer(_ handler: any TimerHandler) {}
}

private final class Count: CounterHandler, Sendable {
  let value = Total()

  func increment(by amount: Int64) { value.add(amount) }
  func reset() { value.reset() }
}

/// A sum that many threads add to.
private final class Total: Sendable {
  private let sum = Mutex<Int64>(0)

  func add(_ amount: Int64) { sum.withLock { $0 += amount } }
  func reset() { sum.withLock { $0 = 0 } }
  func load() -> Int64 { sum.withLock { $0 } }
}
