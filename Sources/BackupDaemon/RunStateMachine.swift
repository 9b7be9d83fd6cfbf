package import ControlAPI
package import Faults
import Units

/// The life of one run as a pure value: events in, actions out. The job's actor is its shell.
package struct RunStateMachine: Sendable {
  package enum StopReason: Sendable, Equatable {
    case shutdown
    /// Somebody wants it to end.
    case requested
    case timeout(Duration)
    /// No progress in a phase for so long.
    case stalled(phase: String, Duration)
  }

  package enum Event: Sendable {
    /// Database and place are free.
    case slotGranted
    case stop(StopReason)
    case succeeded
    case failed(Fault)
  }

  package enum Action: Sendable, Equatable {
    case none
    case begin
    /// Cancel the work; its end comes as an event.
    case cancelWork
    case conclude(RunReport.State, Fault?)
  }

  private enum State {
    case queued
    case running
    case stopping(StopReason)
    case ended
  }

  private var state = State.queued

  package init() {}

  package mutating func handle(_ event: Event) -> Action {
    switch (state, event) {
    case (.queued, .slotGranted):
      state = .running
      return .begin
    case (.queued, .stop(let reason)), (.running, .stop(let reason)):
      state = .stopping(reason)
      return .cancelWork
    // A commit that won the race against a stop stays: the backup is whole.
    case (.running, .succeeded), (.stopping, .succeeded):
      state = .ended
      return .conclude(.succeeded, nil)
    case (.queued, .failed(let fault)), (.running, .failed(let fault)):
      state = .ended
      return .conclude(fault.code == .runAborted ? .aborted : .failed, fault)
    case (.stopping(let reason), .failed):
      state = .ended
      return Self.conclusion(reason)
    case (.stopping, .slotGranted), (.stopping, .stop), (.running, .slotGranted), (.queued, .succeeded), (.ended, _):
      return .none
    }
  }

  private static func conclusion(_ reason: StopReason) -> Action {
    switch reason {
    case .shutdown:
      .conclude(
        .aborted,
        Fault(
          .runAborted, "The daemon was stopped before the run was done; nothing of it was kept.",
          hint: "a scheduled run is made up for at the next start; any other: pgbackupctl run JOB"))
    case .requested:
      .conclude(
        .aborted, Fault(.runAborted, "Somebody asked the run to end; nothing of it was kept.", hint: "pgbackupctl log"))
    case .timeout(let limit):
      .conclude(
        .failed,
        Fault(
          .runTimeout, "The run took longer than \(limit.configurationText) and was stopped; nothing of it was kept.",
          hint: "look at the server's load, or raise the job's 'timeout'"))
    case .stalled(let phase, let limit):
      .conclude(
        .failed,
        Fault(
          .runStalled,
          "The run made no progress in its phase '\(phase)' for \(limit.configurationText) and was stopped; nothing of it was kept.",
          hint: "look at the server's and the stores' load, or raise 'backup: stall_after:'"))
    }
  }
}
