import BackupOperations
import Faults
import PostgresTools
import TestSupport
import Testing
import Units

@Suite(.waits) struct LoadJudgeTests {
  private static func sample(_ blocked: Int = 0, age: Double = 1, lag: Double? = nil) -> LoadSample {
    LoadSample(snapshotAge: age, xminAge: 7, blocked: blocked, replicaLag: lag)
  }

  private static func policy(
    age: LoadPolicy.Rule? = nil, blocked: LoadPolicy.Rule? = nil, lag: LoadPolicy.Rule? = nil
  ) -> LoadPolicy {
    var policy = LoadPolicy()
    (policy.snapshotAge, policy.blocked, policy.replicaLag) = (age, blocked, lag)
    return policy
  }

  /// Waiting counts from the first look that saw it, and anew after one that did not.
  @Test func waitingIsCounted() {
    var judge = LoadJudge(Self.policy(blocked: .init(.abort, after: .seconds(60))))
    for (time, blocked) in [(0.0, 0), (10, 2), (60, 1), (69, 1), (70, 0), (80, 3), (139, 3)] {
      #expect(judge.judge(Self.sample(blocked), at: time) == .goOn, "\(time)")
    }
    guard case .abort(let fault) = judge.judge(Self.sample(3), at: 140) else {
      Issue.record("not ended")
      return
    }
    #expect(fault.message == "The dump was ended: 3 sessions waited for its locks for 1m.")
    #expect(judge.cost.blocked == 3 && judge.cost.blockedSeconds == 50 + 9 + 59 + 1)
  }

  @Test func warningsAreToldOnce() {
    var judge = LoadJudge(
      Self.policy(age: .init(.warn, after: .seconds(100)), lag: .init(.warn, after: .seconds(50))))
    for time in stride(from: 0.0, to: 300, by: 10) {
      #expect(judge.judge(Self.sample(age: time, lag: time / 2), at: time) == .goOn)
    }
    #expect(
      judge.warnings.map(\.message) == [
        "The dump went on although its snapshot is 1m 40s old.",
        "The dump went on although the standby's replay is behind by 50s.",
      ])
    #expect(judge.cost.detail["replica_lag_s"] == "145.0" && judge.cost.detail["blocked_s"] == nil)
  }

  /// A pause ends when its reason does; an end comes before it.
  @Test func pauses() {
    var judge = LoadJudge(
      Self.policy(age: .init(.abort, after: .seconds(90)), lag: .init(.pause, after: .seconds(50))))
    #expect(judge.judge(Self.sample(lag: 49), at: 0) == .goOn)
    #expect(judge.judge(Self.sample(lag: 50), at: 10) == .pause("the standby's replay is behind by 50s"))
    #expect(judge.judge(Self.sample(lag: 60), at: 20) == .pause("the standby's replay is behind by 1m"))
    #expect(judge.judge(Self.sample(lag: 3), at: 30) == .goOn)
    #expect(judge.judge(Self.sample(lag: nil), at: 40) == .goOn)
    #expect(judge.cost.pausedSeconds == 20)
    guard case .abort = judge.judge(Self.sample(age: 91, lag: 90), at: 50) else {
      Issue.record("not ended")
      return
    }
  }

  /// A dump that rests says so, and can be stopped.
  @Test func aPauseIsToldAndEnds() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("live", sample: 1)
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    settings.load.every = .milliseconds(20)
    // Only the judge's rule counts here; a configuration can't say this.
    settings.load.snapshotAge = .init(.pause, after: .zero)
    let (paused, told) = AsyncStream<Void>.makeStream()
    let workshop = Workshop()
    let backup = workshop.backup(try connection(cluster, database), database: database, settings: settings) {
      progress in
      if progress.table?.hasPrefix("paused: its snapshot is") == true { told.yield() }
    }
    // Held, so that the dump does not end before the first look.
    let holder = try LockHolder(cluster, database, "portal.users")
    let work = Task { try await backup.run() }
    for await _ in paused { break }
    holder.release()
    work.cancel()
    let ended = await work.result
    #expect(throws: Fault.self) { try ended.get() }
  }
}
