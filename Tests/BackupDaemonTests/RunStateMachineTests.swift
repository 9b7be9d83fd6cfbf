import BackupDaemon
import ControlAPI
import Faults
import Testing

@Suite struct RunStateMachineTests {
  private let fault = Fault(.dumpFailed, "x")

  private func run(_ events: [RunStateMachine.Event]) -> [RunStateMachine.Action] {
    var machine = RunStateMachine()
    return events.map { machine.handle($0) }
  }

  @Test func aRunSucceedsOrFails() {
    #expect(run([.slotGranted, .succeeded]) == [.begin, .conclude(.succeeded, nil)])
    #expect(run([.slotGranted, .failed(fault)]) == [.begin, .conclude(.failed, fault)])
    #expect(run([.failed(fault)]) == [.conclude(.failed, fault)])
  }

  @Test func aStopCancelsOnceAndTellsWhy() {
    let actions = run([.slotGranted, .stop(.shutdown), .stop(.shutdown), .failed(fault)])
    #expect(actions[1] == .cancelWork)
    #expect(actions[2] == .none)
    guard case .conclude(.aborted, let reason?) = actions[3] else {
      Issue.record("a stopped run is aborted")
      return
    }
    #expect(reason.code == .runAborted)
  }

  @Test func aTimeoutIsAFailure() {
    guard case .conclude(.failed, let reason?) = run([.slotGranted, .stop(.timeout(.seconds(60))), .failed(fault)])[2]
    else {
      Issue.record("a run that took too long has failed")
      return
    }
    #expect(reason.code == .runTimeout)
    #expect(reason.message.contains("1m"))
  }

  /// A commit that was faster than the stop stays.
  @Test func aCommitWinsTheRace() {
    #expect(run([.slotGranted, .stop(.shutdown), .succeeded])[2] == .conclude(.succeeded, nil))
  }

  @Test func aQueuedRunCanBeStopped() {
    let actions = run([.stop(.shutdown), .failed(fault), .slotGranted, .succeeded])
    #expect(actions[0] == .cancelWork)
    guard case .conclude(.aborted, _) = actions[1] else {
      Issue.record("a stopped run is aborted")
      return
    }
    #expect(actions[2...] == [.none, .none])
  }
}
