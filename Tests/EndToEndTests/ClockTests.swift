import Foundation
import Glibc
import TestSupport
import Testing

/// The daemon under a clock that is moved for it alone. Its beat is once a second here, so that it looks at the clock as often.
@Suite(.waits) struct ClockTests {
  private func start(
    _ jobs: String, at time: String, folder: TemporaryFolder = TemporaryFolder(), connect: String? = nil
  ) throws -> (DaemonProcess, ShiftedClock) {
    let cluster = try PrivateCluster.shared()
    return try start(
      databases: "shop: { connect: \"\(try connect ?? cluster.conninfo(cluster.makeDatabase()))\" }", jobs: jobs,
      at: time, folder: folder)
  }

  /// Some minutes before the time, which is set when the daemon is ready: to a daemon without a past nothing is due that was so before.
  private func start(
    databases: String, jobs: String, more: String = "", at time: String, folder: TemporaryFolder
  ) throws -> (DaemonProcess, ShiftedClock) {
    let clock = ShiftedClock(in: folder)
    try clock.set(time, sooner: 300)
    let daemon = try DaemonProcess(
      """
      databases: { \(databases) }
      jobs: { \(jobs) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(more)
      """, in: folder, environment: clock.environment().merging(["WATCHDOG_USEC": "3000000"]) { $1 })
    try daemon.waitFor("READY=1")
    try clock.set(time)
    return (daemon, clock)
  }

  private func next(_ job: String, _ daemon: DaemonProcess) throws -> String? {
    let jobs = try #require(try daemon.ctlJSON("jobs") as? [[String: Any]])
    return jobs.first { $0["name"] as? String == job }?["next"] as? String
  }

  /// The time for a first backup, and for a first proof, begins once: no restart gives more of it, and no expiry.
  @Test func noGraceBeginsAnew() throws {
    let folder = TemporaryFolder()
    let connect = try PrivateCluster.shared().conninfo(PrivateCluster.shared().makeDatabase())
    let jobs = "manual: }\nobjectives: { rpo: 24h, proved: 8d"
    func grace(_ daemon: DaemonProcess, _ aspect: String) throws -> String {
      let text = try daemon.ctl("status", "--json").output
      let status = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
      let database = try #require((status["databases"] as? [[String: Any]])?.first)
      return try #require((database["graceUntil"] as? [String: String])?[aspect], "\(text)")
    }
    let (first, _) = try start(jobs, at: "2026-12-01T12:00:00Z", folder: folder, connect: connect)
    let end = try grace(first, "rpo")
    first.signal(SIGTERM)
    _ = first.waitForExit()
    let (daemon, clock) = try start(jobs, at: "2026-12-01T13:00:00Z", folder: folder, connect: connect)
    #expect(try grace(daemon, "rpo") == end)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let proof = try grace(daemon, "proved")
    try clock.set("2026-12-01T14:00:00Z")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("delete", "shop/oldest", "--force").status == 0)
    #expect(try grace(daemon, "proved") == proof)
  }

  /// By schedule, too, what is configured no more is read back.
  @Test func formerDatabasesAreVerified() throws {
    let folder = TemporaryFolder()
    let connect = try PrivateCluster.shared().conninfo(PrivateCluster.shared().makeDatabase())
    let jobs = "manual: , verify: { action: verify, schedule: '0 6 * * *', zone: UTC }"
    let (former, clock) = try start(jobs, at: "2026-12-01T05:00:00Z", folder: folder, connect: connect)
    #expect(try former.ctl("backup", "shop").status == 0)
    let text = try String(contentsOfFile: former.configuration, encoding: .utf8)
    try text.replacing("{ shop:", with: "{ other:").write(
      toFile: former.configuration, atomically: true, encoding: .utf8)
    #expect(try former.ctl("reload").status == 0)
    try clock.set("2026-12-01T06:00:01Z")
    try former.followLedger().wait(for: "backup.verified", "shop/", "sound")
  }

  /// A real timer on a real clock: due in two seconds, and there it is.
  @Test func aDueInstantComes() throws {
    let (daemon, _) = try start("daily: { schedule: '0 2 * * *', zone: UTC }", at: "2026-12-01T01:59:58Z")
    let line = try daemon.followLedger().wait(for: "run.finished")
    #expect(line.contains(#""due":"2026-12-01T02:00:00"#))
    #expect(line.contains("schedule 2026-12-01T02:00:00Z"))
    #expect(try next("daily", daemon)?.hasPrefix("2026-12-02T02:00:00") == true)
  }

  /// Three days forward is one run for all that was missed. An hour back repeats nothing. A year forward and back is a correction:
  /// the schedule goes on from now.
  @Test func stepsOfTheClock() throws {
    let (daemon, clock) = try start("daily: { schedule: '0 2 * * *', zone: UTC }", at: "2026-12-01T12:00:00Z")
    let ledger = try daemon.followLedger()
    try clock.set("2026-12-04T11:00:00Z")
    var line = try ledger.wait(for: "run.finished")
    #expect(line.contains("catch-up of 2026-12-04T02:00:00Z (and 2 before it)"))
    try clock.set("2026-12-04T10:00:00Z")
    #expect(try next("daily", daemon)?.hasPrefix("2026-12-05T02:00:00") == true)
    try clock.set("2027-12-04T12:00:00Z")
    line = try ledger.wait(for: "run.finished")
    #expect(line.contains(#""due":"2027-12-04T02:00:00"#))
    try clock.set("2026-12-04T12:00:00Z")
    try ledger.wait(for: "clock.corrected")
    #expect(try next("daily", daemon)?.hasPrefix("2026-12-05T02:00:00") == true)
    try clock.set("2026-12-05T01:59:59Z")
    line = try ledger.wait(for: "run.finished")
    #expect(line.contains("schedule 2026-12-05T02:00:00Z"))
    #expect(ledger.seen.count { $0.contains("run.finished") } == 3)
  }

  /// kill -9 in a scheduled dump: the run is recorded as interrupted and caught up, and what was missed meanwhile is one run.
  @Test func aKillIsCaughtUp() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let jobs = "daily: { schedule: '0 2 * * *', zone: UTC }, hourly: { schedule: '30 * * * *', zone: UTC }"
    do {
      let holder = try LockHolder(cluster, database, "portal.users")
      let (daemon, _) = try start(
        jobs, at: "2026-12-01T01:59:59Z", folder: folder, connect: cluster.conninfo(database))
      try holder.waitForWaiter()
      daemon.signal(SIGKILL)
      #expect(daemon.waitForExit() == -SIGKILL)
      holder.release()
    }
    let (daemon, _) = try start(jobs, at: "2026-12-01T05:40:00Z", folder: folder, connect: cluster.conninfo(database))
    let ledger = try daemon.followLedger()
    try ledger.wait(for: "run.finished", #""result":"interrupted""#, #""due":"2026-12-01T02:00:00"#)
    // In the order of their due instants.
    let first = try ledger.wait(for: "run.finished", "succeeded")
    #expect(first.contains("catch-up of 2026-12-01T02:00:00Z"))
    let second = try ledger.wait(for: "run.finished", "succeeded")
    #expect(second.contains("catch-up of 2026-12-01T05:30:00Z (and 3 before it)"))
    let status = try daemon.ctl("status")
    #expect(status.output.contains("no problems"), "\(status.output)")
  }

  /// Missed by more than the job's `catch_up`: told, and not run.
  @Test func whatIsTooLateIsSkipped() throws {
    let folder = TemporaryFolder()
    let jobs = "daily: { schedule: '0 2 * * *', zone: UTC, catch_up: 2h }"
    let connect = try PrivateCluster.shared().conninfo(PrivateCluster.shared().makeDatabase())
    do {
      let (daemon, _) = try start(jobs, at: "2026-12-01T12:00:00Z", folder: folder, connect: connect)
      daemon.signal(SIGTERM)
      #expect(daemon.waitForExit() == 0)
    }
    let (daemon, _) = try start(jobs, at: "2026-12-03T12:00:00Z", folder: folder, connect: connect)
    let line = try daemon.followLedger().wait(for: "job.skipped")
    #expect(line.contains(#""due":"2026-12-03T02:00:00"#))
    #expect(line.contains(#""earlier":"1""#))
  }

  /// A schedule that is edited while the daemon is down: what fell due by the old one is made up for, or told; the new one counts from
  /// the start.
  @Test func aScheduleEditedWhileDown() throws {
    let folder = TemporaryFolder()
    let connect = try PrivateCluster.shared().conninfo(PrivateCluster.shared().makeDatabase())
    func jobs(_ daily: String, _ weekly: String, _ monthly: String) -> String {
      "daily: { schedule: '\(daily)', zone: UTC }, weekly: { schedule: '\(weekly)', zone: UTC, catch_up: 1h }, "
        + "monthly: { \(monthly) }"
    }
    do {
      let (daemon, _) = try start(
        jobs("0 2 * * *", "0 3 * * *", "schedule: '0 4 * * *', zone: UTC"), at: "2026-12-01T12:00:00Z", folder: folder,
        connect: connect)
      daemon.signal(SIGTERM)
      #expect(daemon.waitForExit() == 0)
    }
    let (daemon, _) = try start(
      jobs("30 22 * * *", "30 23 * * *", ""), at: "2026-12-02T12:00:00Z", folder: folder, connect: connect)
    let ledger = try daemon.followLedger()
    let run = try ledger.wait(for: "run.finished", "succeeded")
    #expect(run.contains("catch-up of 2026-12-02T02:00:00Z, due by the schedule before"))
    let skipped = ledger.seen.filter { $0.contains("job.skipped") }
    #expect(skipped.contains { $0.contains(#""job":"weekly""#) && $0.contains(#""due":"2026-12-02T03:00:00"#) })
    #expect(skipped.contains { $0.contains(#""job":"monthly""#) && $0.contains("lost its schedule") })
    #expect(skipped.count == 2)
    #expect(try next("daily", daemon)?.hasPrefix("2026-12-02T22:30:00") == true)
  }

  /// A run that a crash cut off is made up for, also where its schedule was edited meanwhile.
  @Test func aCutOffRunOfAnEditedSchedule() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let connect = cluster.conninfo(try cluster.makeDatabase(sample: 1))
    do {
      let holder = try LockHolder(
        cluster, String(connect.split(separator: "'").last ?? ""), "portal.users")
      let (daemon, _) = try start(
        "daily: { schedule: '0 2 * * *', zone: UTC }", at: "2026-12-01T01:59:58Z", folder: folder, connect: connect)
      try holder.waitForWaiter()
      daemon.signal(SIGKILL)
      #expect(daemon.waitForExit() == -SIGKILL)
      holder.release()
    }
    let (daemon, _) = try start(
      "daily: { schedule: '0 3 * * *', zone: UTC }", at: "2026-12-01T02:20:00Z", folder: folder, connect: connect)
    let line = try daemon.followLedger().wait(for: "run.finished", "succeeded")
    #expect(line.contains("catch-up of 2026-12-01T02:00:00Z, due by the schedule before"))
  }

  /// Where the ledger has lost what was done, the catalog still knows it: nothing is done twice.
  @Test func theCatalogKnowsWhatWasDone() throws {
    let folder = TemporaryFolder()
    let connect = try PrivateCluster.shared().conninfo(PrivateCluster.shared().makeDatabase())
    do {
      let (daemon, _) = try start(
        "daily: { schedule: '0 2 * * *', zone: UTC }", at: "2026-12-01T01:59:58Z", folder: folder, connect: connect)
      try daemon.followLedger().wait(for: "run.finished", "succeeded")
      daemon.signal(SIGKILL)
      #expect(daemon.waitForExit() == -SIGKILL)
    }
    let path = folder.file("state/ledger.ndjson")
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    let before = lines.prefix { !$0.contains("job.due") }
    try (before.joined(separator: "\n") + "\n").write(toFile: path, atomically: true, encoding: .utf8)
    let (daemon, _) = try start(
      "daily: { schedule: '0 2 * * *', zone: UTC }", at: "2026-12-01T02:20:00Z", folder: folder, connect: connect)
    let skipped = try daemon.followLedger().wait(for: "job.skipped")
    #expect(skipped.contains("is in the catalog already") && skipped.contains("2026-12-01T02:00:00"))
    #expect((try daemon.ctlJSON("list") as? [Any])?.count == 1)
  }

  /// What waits for its turn does not begin any more once a reload has taken its job away.
  @Test func aQueuedRunOfARemovedJob() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let holder = try LockHolder(cluster, database, "portal.users")
    let (daemon, clock) = try start(
      """
      early: { schedule: '0 8 * * *', zone: UTC, share: false }
      , late: { schedule: '1 8 * * *', zone: UTC, share: false }
      """, at: "2026-12-01T07:59:58Z", folder: folder, connect: cluster.conninfo(database))
    let ledger = try daemon.followLedger()
    try holder.waitForWaiter()
    try clock.set("2026-12-01T08:01:00Z")
    try ledger.wait(for: "job.due", #""job":"late""#)
    let text = try String(contentsOfFile: daemon.configuration, encoding: .utf8)
    try text.replacing(", late: { schedule: '1 8 * * *', zone: UTC, share: false }", with: "").write(
      toFile: daemon.configuration, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("reload").status == 0)
    holder.release()
    try ledger.wait(forAllOf: [
      ["run.finished", #""job":"early""#, "succeeded"], ["job.skipped", "a reload took it out of the configuration"],
    ])
    #expect(!ledger.seen.contains { $0.contains("run.started") && $0.contains(#""job":"late""#) })
  }

  /// A run that fails is tried again, later each time, and the last failure is the run's end.
  @Test func aFailureIsTriedAgain() throws {
    let (daemon, _) = try start(
      "daily: { schedule: '0 2 * * *', zone: UTC, retry: 2 after 1s }", at: "2026-12-01T01:59:59Z",
      connect: "host=/nonexistent dbname=shop")
    let ledger = try daemon.followLedger()
    for attempt in 1...3 {
      let line = try ledger.wait(for: "run.finished", "failed")
      #expect(line.contains(#""attempt":\#(attempt)"#))
      #expect(line.contains(#""retry":"#) == (attempt < 3))
    }
    #expect(try daemon.ctl("status").status == 10)
  }

  /// Daily and weekly fall due together: the database is dumped once, and both are whole backups of their own.
  @Test func oneDumpForTwoTypes() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let (daemon, _) = try start(
      """
      daily: { schedule: '0 2 * * *', zone: UTC, keep: 7d }, weekly: { schedule: '0 2 * * 0', zone: UTC, keep: 30d },
        apart: { schedule: '0 2 * * *', zone: UTC, share: false }
      """, at: "2026-12-06T01:59:58Z", folder: folder, connect: cluster.conninfo(database))
    let ledger = try daemon.followLedger()
    for _ in 1...3 { try ledger.wait(for: "run.finished", "succeeded") }
    #expect(daemon.log.components(separatedBy: "backup begins").count == 3)
    let backups = try #require(try daemon.ctlJSON("list") as? [[String: Any]])
    #expect(Set(backups.compactMap { $0["type"] as? String }) == ["daily", "weekly", "apart"])
    let id = { (type: String) in backups.first { $0["type"] as? String == type }?["id"] as? String ?? "" }
    #expect(try daemon.ctl("contents", id("weekly")).output.contains("portal.users"))
    // It stands alone: without the other one it still is what RECOVER.txt says.
    #expect(try daemon.ctl("delete", id("daily"), "--force").status == 0)
    let weekly = try #require(
      folder.files(below: "state/backups").first { $0.contains("/weekly/") && $0.hasSuffix("RECOVER.txt") })
    let home = "\(folder.file("state/backups"))/\(weekly.dropLast("/RECOVER.txt".count))"
    let text = try String(contentsOfFile: "\(home)/RECOVER.txt", encoding: .utf8)
    let check = try #require(text.range(of: #"(?s)sha256sum -c.*?\nEND\n"#, options: .regularExpression))
    try Shell.must("sh", ["-c", "cd '\(home)' && \(text[check])"])
    #expect(
      try Shell.must("sh", ["-c", "zstd -dc '\(home)'/*.dump.zst | \(cluster.binaries)/pg_restore --list"]).contains(
        "users"))
  }

  /// A queued run whose turn comes in its quiet hours gives it back, and runs when they have ended.
  @Test func aTurnInQuietHoursIsGivenBack() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let holder = try LockHolder(cluster, database, "portal.users")
    let (daemon, clock) = try start(
      """
      early: { schedule: '0 8 * * *', zone: UTC, share: false }
      , late: { schedule: '1 8 * * *', zone: UTC, share: false, not_between: '09:00-18:00 UTC' }
      """, at: "2026-12-01T07:59:58Z", connect: cluster.conninfo(database))
    let ledger = try daemon.followLedger()
    try holder.waitForWaiter()
    try clock.set("2026-12-01T08:01:00Z")
    try ledger.wait(for: "job.due", #""job":"late""#)
    try clock.set("2026-12-01T09:30:00Z")
    holder.release()
    try ledger.wait(forAllOf: [
      ["run.postponed", "quiet hours until 2026-12-01T18:00:00Z"], ["run.finished", #""job":"early""#, "succeeded"],
    ])
    #expect(!ledger.seen.contains { $0.contains("run.started") && $0.contains(#""job":"late""#) })
    try clock.set("2026-12-01T18:00:00Z")
    let line = try ledger.wait(for: "run.finished", #""job":"late""#)
    #expect(line.contains("succeeded"))
    #expect(line.contains(#""due":"2026-12-01T08:01:00"#))
  }

  /// A run that outlasts its job's next due instants: the next queues behind it, once, for the newest of them.
  @Test func aRunThatOutlastsItsNextDue() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let holder = try LockHolder(cluster, database, "portal.users")
    let (daemon, clock) = try start(
      "hourly: { schedule: '0 * * * *', zone: UTC }", at: "2026-12-01T01:59:58Z", connect: cluster.conninfo(database))
    let ledger = try daemon.followLedger()
    try holder.waitForWaiter()
    try clock.set("2026-12-01T03:00:00Z")
    try ledger.wait(for: "job.due", #""due":"2026-12-01T03:00:00"#)
    try clock.set("2026-12-01T04:00:00Z")
    let skipped = try ledger.wait(for: "job.skipped")
    #expect(skipped.contains(#""due":"2026-12-01T03:00:00"#))
    holder.release()
    for due in ["02", "04"] {
      let line = try ledger.wait(for: "run.finished")
      #expect(line.contains("succeeded"))
      #expect(line.contains(#""due":"2026-12-01T\#(due):00:00"#))
    }
  }

  /// Jobs that run more often than daily dump each time: what one takes over from another must not be taken over in turn.
  @Test func oftenIsAlwaysFresh() throws {
    let (daemon, clock) = try start(
      "a: { schedule: '0 * * * *', zone: UTC }, b: { schedule: '30 * * * *', zone: UTC }", at: "2026-12-06T00:59:58Z")
    let ledger = try daemon.followLedger()
    for time in ["01:29:58", "01:59:58", "02:29:58"] {
      try ledger.wait(for: "run.finished", "succeeded")
      try clock.set("2026-12-06T\(time)Z")
    }
    try ledger.wait(for: "run.finished", "succeeded")
    #expect(daemon.log.components(separatedBy: "backup begins").count == 5)
    #expect(!daemon.log.contains("taken over"))
  }

  /// The original is damaged when the second job comes: it dumps anew, and its backup is whole.
  @Test func aDamagedOriginalIsNotTakenOver() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let (daemon, clock) = try start(
      "daily: { schedule: '0 2 * * *', zone: UTC }, weekly: { schedule: '30 2 * * 0', zone: UTC }",
      at: "2026-12-06T01:59:58Z", folder: folder, connect: cluster.conninfo(database))
    let ledger = try daemon.followLedger()
    try ledger.wait(for: "run.finished", "succeeded")
    let dump = try #require(folder.files(below: "state/backups").first { $0.hasSuffix(".dump.zst") })
    let file = open(folder.file("state/backups/\(dump)"), O_RDWR)
    var byte: UInt8 = 0
    #expect(pread(file, &byte, 1, 1000) == 1)
    byte ^= 1
    #expect(pwrite(file, &byte, 1, 1000) == 1)
    close(file)
    try clock.set("2026-12-06T02:29:59Z")
    try ledger.wait(for: "run.finished", "succeeded", #""job":"weekly""#)
    #expect(daemon.log.contains("E-ARTIFACT-DAMAGED"))
    let weekly = try #require(
      folder.files(below: "state/backups").first { $0.contains("/weekly/") && $0.hasSuffix(".dump.zst") })
    try Shell.must("zstd", ["-t", folder.file("state/backups/\(weekly)")])
  }

  /// A pattern whose server is down: told in `status` until it can be asked, and nobody else waits for it.
  @Test func aPatternThatCanNotBeAsked() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let (daemon, _) = try start(
      databases: """
        down: { connect: "host=/nonexistent user=postgres", include: "*" },
          shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase()))" }
        """, jobs: "daily: { schedule: '0 2 * * *', zone: UTC, retry: off }", at: "2026-12-01T01:59:58Z", folder: folder
    )
    let ledger = try daemon.followLedger()
    try ledger.wait(for: "run.finished")
    try ledger.wait(for: "run.finished")
    #expect(ledger.seen.contains { $0.contains(#""database":"shop""#) && $0.contains("succeeded") })
    let status = try daemon.ctl("status")
    #expect(status.status == 10)
    #expect(status.output.contains("daily of 'down'"))
  }

  /// A pattern that matches nothing backs nothing up: that is a failure, and not a success of no runs.
  @Test func aPatternThatMatchesNothing() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let (daemon, _) = try start(
      databases: "main: { connect: \"\(cluster.conninfo("postgres"))\", include: [\"nothing_like_this_*\"] }",
      jobs: "daily: { schedule: '0 2 * * *', zone: UTC, retry: off }", more: "objectives: { rpo: 26h }",
      at: "2026-12-01T01:59:58Z", folder: folder)
    let failed = try daemon.followLedger().wait(for: "run.finished")
    #expect(failed.contains("E-DB-MISSING") && failed.contains(#""database":"main""#), "\(failed)")
    let status = try daemon.ctl("status")
    #expect(status.status == 10 && status.output.contains("nothing is backed up"), "\(status.output)")
    #expect(try daemon.ctl("run", "daily").errors.contains("nothing is backed up"))
    #expect(try daemon.ctl("backup", "main").errors.contains("'main' is a pattern"))
    #expect(try daemon.ctl("check").status != 0)
  }
}
