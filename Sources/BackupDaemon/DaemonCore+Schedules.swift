import BackupCatalog
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Logging
import Quoting
import SystemdSupport
import Units

/// How schedules come into force, and what a restart makes up for.
extension DaemonCore {
  /// Puts the plan's schedules into force. Each change of a schedule is a record, so that a restart knows since when its instants
  /// count; after a start, those that were missed since begin at once.
  func installSchedules(afterStart: Bool) async {
    let history = await ledger.history
    let timings = plan.timings
    let restart = RestartPlan(history, timings, at: now())
    let missed = afterStart ? missedByFormer(history, timings) : [:]
    if afterStart {
      // Edited while the daemon was down: what a later instant makes up for is told, and not done besides.
      for (name, job) in history.jobs.sorted(by: { $0.key < $1.key }) where !job.remaining.isEmpty {
        guard let due = job.lastDue, job.schedule != timings[name]?.schedule.text, missed[name] != due else { continue }
        await skip(name, due, "its schedule was changed before it was done")
      }
    }
    for (name, timing) in timings.sorted(by: { ($0.value.order, $0.key) < ($1.value.order, $1.key) })
    where history.jobs[name]?.schedule != timing.schedule.text {
      if afterStart, history.jobs[name] == nil { unknownJobs.insert(name) }
      await record(name, timing.schedule.text)
    }
    for name in history.jobs.keys.sorted() where timings[name] == nil && history.jobs[name]?.schedule != nil {
      await record(name, nil)
    }
    guard afterStart else {
      let (dropped, givenUp) = await scheduler.replace(timings)
      for due in dropped { await skip(due.job, due.instant, "its schedule was changed before it began") }
      for retry in givenUp {
        await skip(
          retry.job, retry.due, "its schedule was taken away before it was tried again", databases: [retry.database])
      }
      return
    }
    for skipped in restart.skips { await skip(skipped.job, skipped.due, skipped.reason, databases: skipped.databases) }
    await scheduler.replace(timings, anchors: restart.anchors, retries: restart.retries)
    for (name, due) in missed.sorted(by: { ($0.value, $0.key) < ($1.value, $1.key) }) { await makeUp(name, due) }
  }

  /// What fell due by a schedule that was edited while the daemon was down.
  private func missedByFormer(_ history: RunHistory, _ timings: [String: JobTiming]) -> [String: Date] {
    var missed: [String: Date] = [:]
    for (name, job) in history.jobs {
      guard let text = job.schedule, text != timings[name]?.schedule.text,
        let former = ZonedSchedule(ledgerText: text, zone: namedZone)
      else { continue }
      missed[name] = RestartPlan.missed(job, by: former, at: now())
      // One that was begun, and cut off.
      if missed[name] == nil, !job.remaining.isEmpty { missed[name] = job.lastDue }
    }
    return missed
  }

  /// Edited or not, the job was wanted: it is made up for where its `catch_up` reaches back so far, and told where not.
  private func makeUp(_ name: String, _ due: Date) async {
    guard let timing = plan.timings[name] else {
      await skip(name, due, "the job lost its schedule while the daemon was down")
      return
    }
    guard now().timeIntervalSince(due) <= timing.catchUp?.inSeconds ?? 0 else {
      await skip(
        name, due, "its schedule was edited while the daemon was down, and 'catch_up' does not reach back so far")
      return
    }
    await beginScheduled(name, due: due, reason: Self.catchUp(due, 0) + ", due by the schedule before")
  }

  private func record(_ job: String, _ schedule: String?) async {
    var record = LedgerRecord(.jobScheduled, at: now())
    record.job = job
    record.detail = schedule.map { ["schedule": $0] }
    await append(record)
  }

  /// Runs that a dead daemon began and nobody ended.
  func concludeInterrupted() async {
    for record in await ledger.history.inPlace.values {
      guard let since = record.detail?[RunHistory.lost].flatMap(Date.init(rfc3339:)) else { continue }
      var begun = record
      begun.time = since
      cutInPlace.append(begun)
    }
    for begun in await ledger.history.open.values.sorted(by: { $0.sequence < $1.sequence }) {
      let fault = Self.interruption(of: begun)
      var record = LedgerRecord(.runFinished, at: now())
      (record.job, record.database, record.run, record.by) = (begun.job, begun.database, begun.run, begun.by)
      (record.reason, record.due, record.attempt) = (begun.reason, begun.due, begun.attempt)
      (record.result, record.fault, record.detail) = (RunReport.State.interrupted.rawValue, fault, begun.detail)
      await append(record)
      if begun.detail?["way"] == RestoreWay.inPlace.rawValue { cutInPlace.append(begun) }
      logger.warning(
        .runInterrupted, fault,
        metadata: [
          "job": "\(begun.job ?? "")", "database": "\(begun.database ?? "")", "run": "\(begun.run ?? "")",
        ])
    }
  }

  private static func interruption(of begun: LedgerRecord) -> Fault {
    let database = begun.database ?? "DB"
    guard begun.job == restoreJob else {
      return Fault(
        .runInterrupted, "The daemon died in this run; nothing of it was kept.",
        hint: "journalctl -u pgbackupd, for why it died")
    }
    guard begun.detail?["way"] == RestoreWay.inPlace.rawValue else {
      return Fault(
        .runInterrupted,
        "The daemon died in this restore; the live database is as it was, and what was made beside it is dropped.",
        hint: "pgbackupctl restore \(shell: database)/latest")
    }
    return Fault(
      .runInterrupted,
      "The daemon died in this restore in place; where '\(database)' is gone, what was there before is put back by itself.",
      hint: "pgbackupctl status; where it stays away: pgbackupctl restore \(shell: database)/latest:pre-restore")
  }

  /// What `status` and `jobs` tell about the last runs survives a restart.
  func showLastRuns() async {
    for record in await ledger.history.last.values {
      if let run = RunReport(record) { board.post(run) }
    }
  }

  /// Where the ledger knows nothing of a job (it was lost, or the machine is new), the newest backups tell when it ran last on each
  /// database.
  func catchUpFromCatalog() async {
    guard !unknownJobs.isEmpty else { return }
    let catalog = await keeper.refresh()
    for name in unknownJobs.sorted() {
      guard let job = try? plan.job(name), job.action == .backup, let timing = job.timing,
        let missed = timing.schedule.previous(before: now()),
        timing.start(of: missed) <= now(),
        now().timeIntervalSince(missed) <= timing.catchUp?.inSeconds ?? 0
      else { continue }
      var stale: [DaemonPlan.Database] = []
      for entry in plan.databases(of: job) {
        // A pattern that can't be asked now has its next run.
        for database in (try? await entry.resolve()) ?? [] {
          guard let newest = catalog.newestGood(of: database.name, type: name)?.id.time, newest < missed else {
            continue
          }
          stale.append(database)
        }
      }
      guard !stale.isEmpty else { continue }
      let options = RunOptions(
        reason: Self.catchUp(missed, 0) + ", as the catalog shows", due: missed, attempt: 1)
      await recordDue(job, options, stale.map(\.name).exact)
      for database in stale { await beginScheduled(job, database, plan, options) }
    }
    unknownJobs = []
  }

  /// Looks at the zone files: the package manager may have brought new rules, or somebody has moved the machine.
  func followZones() async {
    guard !isStopping else { return }
    var changed: [String] = []
    for position in plan.jobs.indices {
      guard let timing = plan.jobs[position].timing else { continue }
      var new = timing
      if let rules = zone(plan.jobs[position]), rules != timing.schedule.zone {
        new.schedule = ZonedSchedule(timing.schedule.expression, in: rules)
      }
      // Hours without a zone of their own are the schedule's.
      new.notBetween = timing.notBetween.map { window in
        let rules =
          window.zone.identifier == timing.schedule.zone.identifier
          ? new.schedule.zone : namedZone(window.zone.identifier) ?? window.zone
        return window.zone == rules ? window : window.moved(to: rules)
      }
      guard new != timing else { continue }
      plan.jobs[position].timing = new
      changed.append(plan.jobs[position].name)
    }
    guard !changed.isEmpty else { return }
    logger.notice(
      .zonesChanged, "the rules of a time zone have changed; schedules follow",
      metadata: ["jobs": "\(changed.joined(separator: ", "))"])
    // In turn with reloads: who comes later has the newer schedules.
    try? await reloads.run { () async throws(Fault) in await self.installSchedules(afterStart: false) }
    await reportStatus()
  }
}

extension RunReport {
  /// A finished run, as the ledger remembers it.
  fileprivate init?(_ record: LedgerRecord) {
    guard let id = record.run, let job = record.job, let database = record.database,
      let state = record.result.flatMap(State.init(rawValue:))
    else { return nil }
    self.init(
      id: id, job: job, database: database, reason: record.reason ?? "", by: record.by, asked: record.time)
    (self.state, finished, backup, fault) = (state, record.time, record.backup, record.fault)
    (due, attempt, retry) = (record.due, record.attempt, record.retry)
    storedBytes = record.detail?["stored_bytes"].flatMap { Int64($0) }
    rows = record.detail?["rows"].flatMap { Int64($0) }
  }
}
