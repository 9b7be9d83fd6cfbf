import TestSupport
import Testing

/// What the tests themselves wait for: where it can't come any more, that is said, and at once.
@Suite(.waits) struct SupportTests {
  @Test func aWaitInVain() throws {
    let failure = #expect(throws: Shell.Failure.self) {
      try eventually("the moon is full", within: .milliseconds(20)) { false }
    }
    #expect(failure?.description.contains("the moon is full") == true)
    var answers = [true, false, false].makeIterator()
    try eventually("three were asked") { answers.next() == nil }
  }

  @Test func aServerThatCanNotStart() throws {
    let failure = #expect(throws: (any Error).self) { try PrivateCluster(settings: ["shared_buffers=nonsense"]) }
    let text = failure.map { "\($0)" } ?? ""
    #expect(text.contains("has ended") && text.contains("shared_buffers"), "\(text)")
  }

  @Test func aDaemonThatEnds() throws {
    let daemon = try DaemonProcess("nonsense: 1\n", in: TemporaryFolder())
    let failure = #expect(throws: Shell.Failure.self) { try daemon.waitFor("READY=1") }
    #expect(failure?.description.contains("from the daemon, which ended") == true, "\(failure?.description ?? "")")
  }

  @Test func aLockThatNobodyWaitsFor() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let holder = try LockHolder(cluster, database, "portal.users")
    let failure = #expect(throws: Shell.Failure.self) { try holder.waitForWaiter(rounds: 10) }
    #expect(failure?.description.contains("nobody waits for the lock") == true, "\(failure?.description ?? "")")
    holder.release()
  }
}
