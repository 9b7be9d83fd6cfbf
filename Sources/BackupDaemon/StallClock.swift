import ControlAPI
import Dispatch
import Synchronization

/// When a run last got on: reported to by the threads that do the work, asked by the run's timer. Running time, which no step of
/// the wall clock moves.
final class StallClock: Sendable {
  private struct State {
    var advanced = DispatchTime.now().uptimeNanoseconds
    var last: RunReport.Progress?
  }

  private let state = Mutex(State())

  /// Notes a report; one that says the same as the last is no progress.
  func note(_ progress: RunReport.Progress) {
    state.withLock { state in
      guard state.last != progress else { return }
      state.last = progress
      state.advanced = DispatchTime.now().uptimeNanoseconds
    }
  }

  /// Notes that the work gets on, although no figure shows it.
  func touch() { state.withLock { $0.advanced = DispatchTime.now().uptimeNanoseconds } }

  /// For how long nothing has changed, and in which phase.
  var standstill: (duration: Duration, phase: String) {
    state.withLock {
      (.nanoseconds(Int64(DispatchTime.now().uptimeNanoseconds - $0.advanced)), $0.last?.phase ?? "preflight")
    }
  }
}
