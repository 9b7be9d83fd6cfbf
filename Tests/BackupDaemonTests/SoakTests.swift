import BackupDaemon
import CronSchedule
import Foundation
import TestSupport
import Testing
import Units

/// A virtual year of 200 jobs on 20 databases, with crashes, steps of the clock, reloads, failures and runs that take days. The rules
/// are the daemon's own; the shell around them and the clock are made up here. After each step the invariants must hold.
///
/// The seed is printed where one breaks: `SOAK_SEED=… swift test --filter Soak` replays it.
@Suite struct SoakTests {
  fileprivate static var seeds: [UInt64] {
    let named = ProcessInfo.processInfo.environment["SOAK_SEED"].flatMap { UInt64($0) }
    return [1, 2, named ?? .random(in: 3 ... .max)]
  }

  @Test(arguments: seeds) func aYear(_ seed: UInt64) throws {
    var world = try VirtualWorld(seed: seed)
    while world.uptime < 366 * 86400, world.broken == nil { world.step() }
    world.settle()
    #expect(world.broken == nil, "seed \(seed)")
    // The year was eventful, or it has shown nothing.
    #expect(world.count["crash", default: 0] > 20)
    #expect(world.count["correction", default: 0] > 3)
    #expect(world.count["run", default: 0] > 20_000)
    for kind in ["late", "taken over", "skipped", "retry", "interrupted", "failed", "reload", "step"] {
      #expect(world.count[kind, default: 0] > 10, "\(kind), seed \(seed)")
    }
  }
}

/// The world as a value: a clock, a disk (the ledger's history), and a daemon that lives and dies.
private struct VirtualWorld {
  private struct Run {
    var id: String
    var job: String
    var database: String
    var due: Date
    var attempt: Int
    var ticket: Int
    /// Corrections of the clock before its job was due: after one, the wall clock may show the same time again.
    var epoch: Int
  }

  /// What a job was last told of, for the invariants: kept apart from the code under test.
  private struct Witness {
    var schedule: ZonedSchedule
    var last: Date
  }

  private var random: SplitMix
  private(set) var count: [String: Int] = [:]
  private(set) var broken: String?

  // The machine
  private(set) var uptime: Double = 0
  private var clockOffset: Double = 1_780_000_000
  private var wall: Date { Date(timeIntervalSince1970: clockOffset + uptime) }

  // The disk
  private var history = RunHistory()
  private var sequence = 0

  // The daemon, while it is alive
  private var isAlive = false
  private var table = ScheduleTable()
  private var retries = RetryTable()
  private var slots = SlotTable(limit: 4)
  private var runs: [String: Run] = [:]
  /// Runs that wait for their slots, by their tickets.
  private var tickets: [Int: String] = [:]
  /// When the others end.
  private var ends: [String: Double] = [:]

  // The configuration
  private var timings: [String: JobTiming] = [:]
  private var databases: [String: [String]] = [:]

  private var nextEvent: Double = 0
  private var witnesses: [String: Witness] = [:]
  private var succeeded: Set<String> = []
  private var retryEpochs: [String: Int] = [:]
  /// What a job was told to do on a database and has not brought to an end yet.
  private var owed: [Owed: Date] = [:]

  private struct Owed: Hashable {
    let job: String
    let database: String
  }

  init(seed: UInt64) throws {
    random = SplitMix(state: seed)
    let zones = try ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"].map { try ZoneRules.system($0) }
    for number in 0..<200 {
      let name = "job\(number)"
      timings[name] = try Self.timing(&random, zones, order: number)
      databases[name] = (0..<Int.random(in: 1...3, using: &random)).map { "db\((number * 7 + $0 * 11) % 20)" }
    }
    start()
  }

  private static func timing(_ random: inout SplitMix, _ zones: [ZoneRules], order: Int) throws -> JobTiming {
    let (minute, hour) = (Int.random(in: 0...59, using: &random), Int.random(in: 0...23, using: &random))
    let text =
      switch Int.random(in: 0...9, using: &random) {
      case 0: "\(minute) */6 * * *"
      case 1: "\(minute) \(hour) * * \(Int.random(in: 0...6, using: &random))"
      case 2: "\(minute) \(hour) \(Int.random(in: 1...28, using: &random)) * *"
      case 3: "\(minute) \(hour) L * *"
      default: "\(minute) \(hour) * * *"
      }
    let zone = zones[Int.random(in: 0..<zones.count, using: &random)]
    var timing = JobTiming(ZonedSchedule(try CronExpression(parsing: text), in: zone))
    timing.order = order
    timing.catchUp = [nil, .seconds(3600), .seconds(86400), .seconds(7 * 86400)][Int.random(in: 0...3, using: &random)]
    timing.retry = Bool.random(using: &random) ? RetryRule(count: 3, after: .seconds(300)) : nil
    if Int.random(in: 0...4, using: &random) == 0 { timing.jitter = .seconds(1200) }
    if Int.random(in: 0...4, using: &random) == 0 {
      timing.notBetween = [try QuietWindow(parsing: "09:00-18:00", zone: zone) { _ in nil }]
    }
    timing.settleDelay(host: "soak", job: "job\(order)")
    return timing
  }

  // MARK: - Time

  /// Goes to whatever comes next, and lets it happen.
  mutating func step() {
    if uptime >= nextEvent {
      disturb()
      nextEvent = uptime + Double.random(in: 600...40_000, using: &random)
    }
    var moment = nextEvent
    if isAlive {
      // The timer, and a beat a minute, which matters only after a step of the clock: `disturb` lets one pass.
      if let start = [table.next?.start, retries.next].compactMap({ $0 }).min() {
        moment = min(moment, max(uptime, start.timeIntervalSince1970 - clockOffset))
      }
      if let end = ends.values.min() { moment = min(moment, end) }
    }
    uptime = moment
    guard isAlive else { return }
    for id in ends.filter({ $0.value <= uptime }).keys.sorted() { finish(id) }
    fire()
    check()
  }

  private mutating func disturb() {
    switch Int.random(in: 0...99, using: &random) {
    case 0..<12:
      tell("crash")
      isAlive = false
      (table, retries, slots) = (ScheduleTable(), RetryTable(), SlotTable(limit: 4))
      (runs, tickets, ends, retryEpochs) = ([:], [:], [:], [:])
      // Down for seconds, or over a weekend.
      uptime +=
        Bool.random(using: &random)
        ? Double.random(in: 5...600, using: &random) : Double.random(in: 0...200_000, using: &random)
      start()
    case 12..<40:
      tell("step")
      stepClock(by: Double.random(in: -3500...3500, using: &random))
    case 40..<45:
      stepClock(by: Double.random(in: 3600...400_000, using: &random))
    case 45..<48:
      tell("correction")
      stepClock(by: -Double.random(in: 11_000...400_000, using: &random))
    case 48..<60:
      tell("reload")
      reload()
    default: break
    }
  }

  private mutating func stepClock(by seconds: Double) {
    let before = latest
    clockOffset += seconds
    // The next beat.
    uptime += Double.random(in: 0...60, using: &random)
    if isAlive, let step = table.observe(wall) {
      retries.correct(by: step, at: wall)
      correctClock()
    }
    if wall < before.addingTimeInterval(-ScheduleTable.correction) {
      let time = wall
      for name in witnesses.keys { witnesses[name]?.last = time }
      latest = wall
    }
    latest = max(latest, wall)
  }
  private var latest = Date.distantPast

  // MARK: - The daemon's shell

  private mutating func start() {
    isAlive = true
    if history.isCorrected(at: wall) {
      write(LedgerRecord(.clockCorrected, at: wall))
      let time = wall
      owed = owed.filter { $0.value <= time }
    }
    for open in history.open.values.sorted(by: { $0.sequence < $1.sequence }) {
      var record = LedgerRecord(.runFinished, at: wall)
      (record.job, record.database, record.run) = (open.job, open.database, open.run)
      (record.due, record.attempt, record.result) = (open.due, open.attempt, "interrupted")
      write(record)
      tell("interrupted")
    }
    let plan = RestartPlan(history, timings, at: wall)
    for skip in plan.skips { recordSkip(skip.job, skip.due, skip.databases) }
    for (name, timing) in timings where history.jobs[name]?.schedule != timing.schedule.text {
      schedule(name, timing)
      witnesses[name] = Witness(schedule: timing.schedule, last: wall)
    }
    // A clock that was corrected while the daemon was down: what it was told of lies in the future and does not count.
    let time = wall
    for (name, known) in witnesses where known.last > time.addingTimeInterval(ScheduleTable.correction) {
      witnesses[name]?.last = plan.anchors[name] ?? time
    }
    latest = wall
    table.replace(timings, anchors: plan.anchors, at: wall)
    for retry in plan.retries { retries.add(retry) }
    fire()
  }

  private mutating func correctClock() {
    write(LedgerRecord(.clockCorrected, at: wall))
    // What lies ahead now will be due again; and what waited for a later instant's run waits for that instant anew.
    let (time, carried) = (wall, carried)
    owed = owed.filter { debt, due in due <= time && carried.contains("\(debt.job) \(debt.database) \(due)") }
  }

  /// What runs, is queued, or is to be tried again.
  private var carried: Set<String> {
    Set(
      runs.values.map { "\($0.job) \($0.database) \($0.due)" }
        + retries.all.map { "\($0.job) \($0.database) \($0.due)" })
  }

  private mutating func reload() {
    guard isAlive else { return }
    for _ in 0..<3 {
      let name = "job\(Int.random(in: 0..<200, using: &random))"
      guard let old = timings[name] else { continue }
      if Bool.random(using: &random) {
        timings[name]?.catchUp = .seconds(86400)
      } else if let timing = try? Self.timing(&random, [old.schedule.zone], order: old.order) {
        timings[name] = timing
        guard timing.schedule != old.schedule else { continue }
        schedule(name, timing)
        witnesses[name] = Witness(schedule: timing.schedule, last: wall)
      }
    }
    table.replace(timings, at: wall)
    _ = retries.keep(jobs: Set(timings.keys))
    latest = max(latest, wall)
    fire()
  }

  private mutating func schedule(_ name: String, _ timing: JobTiming) {
    var record = LedgerRecord(.jobScheduled, at: wall)
    (record.job, record.detail) = (name, ["schedule": timing.schedule.text])
    write(record)
  }

  private mutating func fire() {
    latest = max(latest, wall)
    let due = table.takeDue(at: wall)
    for due in due { retries.drop(job: due.job) }
    let again = retries.takeDue(at: wall)
    for due in due {
      witness(due)
      if let timing = timings[due.job], timing.afterQuiet(wall) > wall, !due.isSkipped {
        fail("\(due.job) begins in quiet hours")
      }
      switch due.kind {
      case .skipped:
        tell("skipped")
        recordSkip(due.job, due.instant)
      case .late, .onTime:
        if case .late = due.kind { tell("late") }
        var record = LedgerRecord(.jobDue, at: wall)
        (record.job, record.due, record.databases) = (due.job, due.instant, databases[due.job])
        write(record)
        for database in databases[due.job] ?? [] {
          owed[Owed(job: due.job, database: database)] = due.instant
          begin(due.job, database, due.instant, attempt: 1)
        }
      }
    }
    for retry in again {
      tell("retry")
      begin(retry.job, retry.database, retry.due, attempt: retry.attempt)
    }
    grant()
  }

  private mutating func begin(_ job: String, _ database: String, _ due: Date, attempt: Int) {
    let ownEpoch = attempt == 1 ? epoch : retryEpochs[job + database] ?? epoch
    // As the daemon does it: one run in the queue stands for the newest instant.
    if let queued = tickets.values.first(where: { runs[$0]?.job == job && runs[$0]?.database == database }) {
      tell("taken over")
      runs[queued]?.due = due
      runs[queued]?.attempt = attempt
      runs[queued]?.epoch = ownEpoch
      return
    }
    sequence += 1
    let id = "run\(sequence)"
    runs[id] = Run(
      id: id, job: job, database: database, due: due, attempt: attempt, ticket: slots.enter(database), epoch: ownEpoch)
    if let ticket = runs[id]?.ticket { tickets[ticket] = id }
  }

  private mutating func grant() {
    for ticket in slots.grant() {
      guard let id = tickets.removeValue(forKey: ticket), let run = runs[id] else { continue }
      // A minute to half an hour; some stand still for days.
      let isSlow = Int.random(in: 0...2000, using: &random) == 0
      ends[run.id] =
        uptime
        + (isSlow ? Double.random(in: 86_400...300_000, using: &random) : Double.random(in: 5...900, using: &random))
      var record = LedgerRecord(.runStarted, at: wall)
      (record.job, record.database, record.run) = (run.job, run.database, run.id)
      (record.due, record.attempt) = (run.due, run.attempt)
      write(record)
      tell("run")
    }
  }

  private mutating func finish(_ id: String) {
    ends[id] = nil
    guard let run = runs.removeValue(forKey: id) else { return }
    slots.release(run.database)
    conclude(
      run.job, run.database, run.due, run.attempt, succeeded: Int.random(in: 0...9, using: &random) > 0, run: run.id,
      epoch: run.epoch)
    grant()
  }

  private mutating func conclude(
    _ job: String, _ database: String, _ due: Date, _ attempt: Int, succeeded isSuccess: Bool, run: String?,
    epoch: Int
  ) {
    sequence += 1
    var record = LedgerRecord(.runFinished, at: wall)
    (record.job, record.database, record.run) = (job, database, run ?? "unstarted\(sequence)")
    (record.due, record.attempt, record.result) = (due, attempt, isSuccess ? "succeeded" : "failed")
    let debt = Owed(job: job, database: database)
    if isSuccess {
      if owed[debt] == due { owed[debt] = nil }
      let key = "\(job) \(database) \(due.timeIntervalSince1970) \(epoch)"
      if !succeeded.insert(key).inserted { fail("\(key) succeeded twice") }
    } else {
      tell("failed")
      if let rule = timings[job]?.retry, let timing = table.timing(of: job),
        let start = rule.next(after: attempt, endedAt: wall)
      {
        let moment = timing.afterQuiet(start)
        if moment < table.nextStart(of: job) ?? .distantFuture, table.covered(of: job).map({ $0 <= due }) ?? true,
          due <= wall
        {
          record.retry = moment
          retryEpochs[job + database] = epoch
          retries.add(
            .init(job: job, database: database, due: due, attempt: attempt + 1, start: moment, reason: "retry"))
        }
      }
      if record.retry == nil, owed[debt] == due { owed[debt] = nil }
    }
    write(record)
  }

  private mutating func recordSkip(_ job: String, _ due: Date, _ only: [String]? = nil) {
    owed = owed.filter { $0.key.job != job || only?.contains($0.key.database) == false }
    var record = LedgerRecord(.jobSkipped, at: wall)
    (record.job, record.due, record.databases) = (job, due, only)
    write(record)
  }

  private mutating func write(_ record: LedgerRecord) {
    sequence += 1
    var record = record
    record.sequence = sequence
    history.apply(record)
  }

  // MARK: - Invariants

  private var epoch: Int { count["correction", default: 0] }

  /// A due instant is the schedule's next one, or it tells how many were passed over; and none comes twice.
  private mutating func witness(_ due: ScheduleTable.Due) {
    guard let known = witnesses[due.job] else { return fail("\(due.job) is due and was never scheduled") }
    if due.instant <= known.last {
      fail("\(due.job) is due at \(due.instant.rfc3339) again, after \(known.last.rfc3339)")
    }
    if known.schedule.next(after: due.instant.addingTimeInterval(-1)) != due.instant {
      fail("\(due.job) has no due instant \(due.instant.rfc3339)")
    }
    var between = 0
    var instant = known.last
    while let next = known.schedule.next(after: instant), next < due.instant {
      (instant, between) = (next, between + 1)
    }
    switch due.kind {
    case .onTime:
      // Passed over without being late: only quiet hours or a few seconds' delay can do that.
      if between > 0, timings[due.job]?.notBetween.isEmpty == true,
        wall.timeIntervalSince(timings[due.job]?.start(of: instant) ?? wall) > ScheduleTable.grace
      {
        fail("\(due.job) passed over \(between) instants before \(due.instant.rfc3339) and says nothing")
      }
    case .late(let earlier), .skipped(let earlier):
      if earlier != between {
        fail("\(due.job) missed \(between) before \(due.instant.rfc3339) and tells of \(earlier)")
      }
    }
    witnesses[due.job]?.last = due.instant
  }

  private mutating func check() {
    let carried = carried
    for (debt, due) in owed where !carried.contains("\(debt.job) \(debt.database) \(due)") {
      // A later instant has come meanwhile, and quiet hours or a delay hold it back: its run will do for both.
      if let later = table.nextDue(of: debt.job), later > due, later <= wall { continue }
      fail("\(debt.job) was due on \(debt.database) at \(due.rfc3339), and neither runs nor waits nor has ended")
    }
    if ends.count > 4 { fail("\(ends.count) runs at once") }
    if Set(ends.keys.compactMap { runs[$0]?.database }).count != ends.count { fail("two runs on one database") }
    if let start = table.next?.start, start <= wall { fail("a due job was left lying") }
    if history.open.count != ends.count || !ends.keys.allSatisfy({ history.open[$0] != nil }) {
      fail("the ledger knows other open runs than there are")
    }
  }

  /// Lets two quiet days pass: then nothing may be left over.
  mutating func settle() {
    let end = uptime + 2 * 86400
    nextEvent = .infinity
    while uptime < end, broken == nil {
      step()
      if table.next == nil { break }
    }
    for (name, known) in witnesses {
      guard let timing = timings[name], let expected = known.schedule.next(after: known.last) else { continue }
      if timing.start(of: expected) < wall { fail("\(name) was due at \(expected.rfc3339) and nobody came") }
    }
  }

  private mutating func tell(_ what: String) { count[what, default: 0] += 1 }

  private mutating func fail(_ what: String) {
    if broken == nil { broken = "\(wall.rfc3339), after \(Int(uptime)) s: \(what)" }
  }
}

/// Sebastiano Vigna's SplitMix64: small, and the same everywhere.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
    return value ^ (value >> 31)
  }
}

extension ScheduleTable.Due {
  fileprivate var isSkipped: Bool { if case .skipped = kind { true } else { false } }
}
