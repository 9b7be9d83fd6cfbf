import ControlAPI
import Dispatch
import Foundation
import Synchronization
import SystemdSupport
import Units

/// The line that `systemctl status` shows: what runs, how far it is and how fast, and what comes next. Sent when something
/// begins, enters its next phase or ends, and at most once a second in between.
final class StatusLine: Sendable {
  private struct State {
    var next = ""
    var sent: UInt64 = 0
    /// Per run, what had passed at the last line, and when.
    var passed: [String: (bytes: Int64, time: UInt64)] = [:]
    var phases: [String: String] = [:]
  }

  private let notifier: ServiceNotifier
  private let state = Mutex(State())
  private static let interval: UInt64 = 1_000_000_000

  init(_ notifier: ServiceNotifier) { self.notifier = notifier }

  /// Something began or ended.
  func changed(_ board: RunBoard, next: String) {
    let time = DispatchTime.now().uptimeNanoseconds
    send(
      state.withLock { state in
        state.next = next
        return Self.text(board.active, &state, time)
      })
  }

  /// A run began or got on. Called often.
  func progressed(_ board: RunBoard, _ id: String, phase: String) {
    let time = DispatchTime.now().uptimeNanoseconds
    let text: String? = state.withLock { state in
      let isNew = state.phases.updateValue(phase, forKey: id) != phase
      guard isNew || time - state.sent >= Self.interval else { return nil }
      return Self.text(board.active, &state, time)
    }
    if let text { send(text) }
  }

  private func send(_ text: String) { notifier.status(text) }

  private static func text(_ active: [RunReport], _ state: inout State, _ time: UInt64) -> String {
    state.sent = time
    state.passed = state.passed.filter { id, _ in active.contains { $0.id == id } }
    state.phases = state.phases.filter { id, _ in active.contains { $0.id == id } }
    var parts: [String] = []
    for run in active where run.state == .running {
      var part = "\(run.job) of \(run.database)"
      if let progress = run.progress {
        part += ": \(progress.phase)"
        if let expected = progress.expectedBytes, expected > 0 {
          part += " \(min(99, progress.archiveBytes * 100 / expected)) %"
        }
        if let last = state.passed[run.id], time > last.time, progress.archiveBytes > last.bytes {
          let rate = Double(progress.archiveBytes - last.bytes) / Double(time - last.time) * 1e9
          part += ", \(ByteCount(Int64(rate)))/s"
        }
        state.passed[run.id] = (progress.archiveBytes, time)
      }
      parts.append(part)
    }
    let queued = active.count { $0.state == .queued }
    if queued > 0 { parts.append("\(queued) queued") }
    return (parts + [state.next]).joined(separator: "; ")
  }
}
