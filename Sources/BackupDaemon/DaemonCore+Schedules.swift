import BackupCatalog
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Logging
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
    if afterStart {
      // Edited while the daemon was down: what was left of the old schedule is told, and not done.
      for (name, job) in history.jobs.sorted(by: { $0.key < $1.key }) where !job.remaining.isEmpty {
        guard let due = job.lastDue, job.schedule != timings[name]?.schedule.text else { continue }
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
      for dropped in await scheduler.replace(timings) {
        await skip(dropped.job, dropped.instant, "its schedule was changed before it began")
      }
      return
    }
    for skipped in restart.skips { await skip(skipped.job, skipped.due, skipped.reason, databases: skipped.databases) }
    await scheduler.replace(timings, anchors: restart.anchors, retries: restart.retries)
  }

  private func record(_ job: String, _ schedule: String?) async {
    var record = LedgerRecord(.jobScheduled, at: now())
    record.job = job
    record.detail = schedule.map { ["schedule": $0] }
    await append(record)
  }

  /// Runs that a dead daemon began and nobody ended.
  func concludeInterrupted() async {
    for begun in await ledger.history.open.values.sorted(by: { $0.sequence < $1.sequence }) {
      let fault = Fault(
        .runInterrupted, "The daemon died in this run; nothing of it was kept.",
        hint: "journalctl -u pgbackupd, for why it died")
      var record = LedgerRecord(.runFinished, at: now())
      (record.job, record.database, record.run, record.by) = (begun.job, begun.database, begun.run, begun.by)
      (record.reason, record.due, record.attempt) = (begun.reason, begun.due, begun.attempt)
      (record.result, record.fault) = (RunReport.State.interrupted.rawValue, fault)
      await append(record)
      logger.warning(
        .runInterrupted, fault,
        metadata: [
          "job": "\(begun.job ?? "")", "database": "\(begun.database ?? "")", "run": "\(begun.run ?? "")",
        ])
    }
  }

  /// What `status` and `jobs` tell about the last runs survives a restart.
  func showLastRuns() async {
    for record in await ledger.history.last.values {
      if let run = RunReport(record) { board.post(run) }
    }
  }

  /// Where the ledger knows nothing of a job (it was lost, or the machine is new), the newest backups tell when it ran last.
  func catchUpFromCatalog() async {
    guard !unknownJobs.isEmpty else { return }
    let catalog = await keeper.refresh()
    for name in unknownJobs.sorted() {
      guard let job = try? plan.job(name), let timing = job.timing else { continue }
      let newest = plan.databases(of: job).filter { $0.includes == nil }
        .compactMap { catalog.newestGood(of: $0.name, type: name)?.id.time }
      guard let anchor = newest.min(), let missed = timing.schedule.previous(before: now()), missed > anchor,
        timing.start(of: missed) <= now()
      else { continue }
      let lateness = now().timeIntervalSince(missed)
      guard lateness <= timing.catchUp?.inSeconds ?? 0 else { continue }
      await beginScheduled(name, due: missed, reason: Self.catchUp(missed, 0) + ", as the catalog shows")
    }
    unknownJobs = []
  }

  /// Looks at the zone files: the package manager may have brought new rules, or somebody has moved the machine.
  func followZones() async {
    guard !isStopping else { return }
    var changed: [String] = []
    for position in plan.jobs.indices {
      guard let rules = zone(plan.jobs[position]), let timing = plan.jobs[position].timing,
        rules != timing.schedule.zone
      else { continue }
      plan.jobs[position].timing?.schedule = ZonedSchedule(timing.schedule.expression, in: rules)
      changed.append(plan.jobs[position].name)
    }
    guard !changed.isEmpty else { return }
    logger.notice(
      .zonesChanged, "the rules of a time zone have changed; schedules follow",
      metadata: ["jobs": "\(changed.joined(separator: ", "))"])
    await installSchedules(afterStart: false)
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
