import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Glibc
import MetricsText
import Quoting
import Storage
import Units

/// What Prometheus reads. Labels are names of the configuration and results; nothing that grows with each backup.
extension DaemonCore {
  func metrics() async -> [MetricFamily] {
    let overview = await overview(.known)
    let history = await ledger.history
    let (report, totals) = (overview.report, history.totals)
    return general(report, records: await ledger.recordCount) + databases(report) + runs(report, history)
      + (await schedules()) + verified(overview, history) + stores(overview, totals) + alerts(overview, report)
      + registry.families
  }

  private func general(_ report: StatusReport, records: Int) -> [MetricFamily] {
    var info = MetricFamily("pgbackupd_build_info", .gauge, "The running version; always 1.")
    info.add(1, ("version", Backup.version))
    var memory = MetricFamily("process_resident_memory_bytes", .gauge, "Resident memory of the daemon.")
    memory.add(ProcessFigures.residentBytes)
    var processor = MetricFamily(
      "process_cpu_seconds", .counter, "Processor time of the daemon, its children not among it.")
    processor.add(ProcessFigures.processorSeconds)
    var start = MetricFamily("process_start_time_seconds", .gauge, "When the daemon started, since 1970.")
    start.add(report.started.timeIntervalSince1970)
    var ledger = MetricFamily("pgbackupd_ledger_records", .gauge, "Records in the ledger.")
    ledger.add(Double(records))
    var reload = MetricFamily(
      "pgbackupd_configuration_valid", .gauge,
      "0 where the configuration file was refused and an older one is in force.")
    reload.add(standingProblems["configuration"] == nil ? 1 : 0)
    return [info, start, memory, processor, ledger, reload]
  }

  private func databases(_ report: StatusReport) -> [MetricFamily] {
    /// One family of one figure for each database; those without it are left out.
    func family(
      _ name: String, _ help: String, _ figure: (StatusReport.Database) -> Double?
    ) -> MetricFamily {
      var family = MetricFamily("pgbackupd_database_\(name)", .gauge, help)
      for database in report.databases { family.add(figure(database), ("database", database.name)) }
      return family
    }
    var recovery = MetricFamily(
      "pgbackupd_database_recovery_seconds", .gauge,
      "How long a restore would take now, as drills and restores have measured it, by scenario.")
    for database in report.databases {
      for one in database.recovery {
        recovery.add(one.seconds, ("database", database.name), ("scenario", one.scenario))
      }
    }
    // With the grace of a new installation, which ages alone don't tell of.
    var missed = MetricFamily(
      "pgbackupd_database_objective_missed", .gauge,
      "1 where the age of a database's newest backup, or proof, is too high.")
    for database in report.databases {
      for (aspect, isMet) in [("rpo", database.meetsRPO), ("proved", database.meetsProved)] {
        missed.add(
          isMet.map { $0 || database.graceUntil[aspect] != nil ? 0 : 1 }, ("database", database.name),
          ("objective", aspect))
      }
    }
    return [
      missed,
      family("last_success_timestamp_seconds", "Snapshot of the newest good backup, since 1970.") {
        $0.newest?.id.time.timeIntervalSince1970
      },
      family("last_proved_timestamp_seconds", "Snapshot of the newest backup that was proved row for row, since 1970.")
      {
        $0.proved?.time.timeIntervalSince1970
      },
      family("rpo_seconds", "The age of the newest good backup; the recovery point if all were lost now.") {
        $0.ageSeconds
      },
      family("rpo_objective_seconds", "What that age must not exceed.") { $0.rpoSeconds },
      family("proved_age_seconds", "The age of the newest proved backup.") { $0.provedAgeSeconds },
      family("proved_objective_seconds", "What that age must not exceed.") { $0.provedWithinSeconds },
      family("rto_objective_seconds", "How long a restore may take.") { $0.rtoSeconds },
      recovery,
      family("backups", "Good backups in all stores.") { Double($0.backups) },
      family("stored_bytes", "Bytes of all its backups, one copy of each.") { Double($0.storedBytes) },
      family("newest_archive_bytes", "Bytes of the newest backup before compression.") {
        $0.newest.map { Double($0.archiveBytes) }
      },
      family("newest_stored_bytes", "Bytes of the newest backup as it is stored.") {
        $0.newest.map { Double($0.storedBytes) }
      },
      family("newest_compression_ratio", "Archive bytes for each stored byte of the newest backup.") {
        $0.newest.flatMap { $0.storedBytes > 0 ? Double($0.archiveBytes) / Double($0.storedBytes) : nil }
      },
      family("newest_rows", "Rows in the newest backup.") { $0.newest.map { Double($0.rows) } },
      family("newest_duration_seconds", "How long the newest backup took.") { $0.newest?.seconds },
      family("newest_in_doubt", "1 where the newest backup lost rows or tables and nobody has said that this is right.")
      {
        $0.newest.map { $0.isFlagged ? 1 : 0 }
      },
    ]
  }

  private func runs(_ report: StatusReport, _ history: RunHistory) -> [MetricFamily] {
    let totals = history.totals
    var count = MetricFamily("pgbackupd_runs", .counter, "Runs that ended, since the ledger's beginning.")
    // A rate needs the zero before the first: a counter that begins with 1 has never risen.
    var known = totals.runs
    for job in plan.jobs {
      for database in plan.databases(of: job) where database.includes == nil {
        for result in ["succeeded", "failed"] {
          known[.init(job: job.name, database: database.name, result: result), default: 0] += 0
        }
      }
    }
    for (key, number) in known.sorted(by: {
      ($0.key.run, $0.key.result) < ($1.key.run, $1.key.result)
    }) {
      count.add(Double(number), ("job", key.run.job), ("database", key.run.database), ("result", key.result))
    }
    var retries = MetricFamily(
      "pgbackupd_run_retries", .counter, "Tries behind the first, since the ledger's beginning.")
    var success = MetricFamily(
      "pgbackupd_run_last_success_timestamp_seconds", .gauge, "When the last run that succeeded ended, since 1970.")
    var seconds = MetricFamily("pgbackupd_run_last_duration_seconds", .gauge, "How long the last run took.")
    var ended = MetricFamily("pgbackupd_run_last_timestamp_seconds", .gauge, "When the last run ended, since 1970.")
    var good = MetricFamily("pgbackupd_run_last_succeeded", .gauge, "Whether the last run succeeded.")
    let keys = history.last.keys.sorted()
    for key in keys where isConfigured(key.database) {
      let labels = [("job", key.job), ("database", key.database)]
      func add(_ family: inout MetricFamily, _ value: Double?) { family.add(value, labels[0], labels[1]) }
      add(&retries, totals.retries[key].map(Double.init))
      add(&success, totals.lastSuccess[key]?.timeIntervalSince1970)
      add(&seconds, totals.lastSeconds[key])
      add(&ended, history.last[key]?.time.timeIntervalSince1970)
      // One that somebody has ended tells nothing of the job.
      let result = history.last[key]?.result
      add(&good, result == RunReport.State.aborted.rawValue ? nil : result == "succeeded" ? 1 : 0)
    }
    var running = MetricFamily("pgbackupd_run_in_progress", .gauge, "Runs that are queued or running now.")
    var done = MetricFamily("pgbackupd_run_progress_bytes", .gauge, "Archive bytes that a running run has behind it.")
    var expected = MetricFamily("pgbackupd_run_expected_bytes", .gauge, "Archive bytes that it expects in all.")
    for run in report.runs {
      running.add(1, ("job", run.job), ("database", run.database), ("state", run.state.rawValue))
      done.add((run.progress?.archiveBytes).map(Double.init), ("job", run.job), ("database", run.database))
      expected.add((run.progress?.expectedBytes).map(Double.init), ("job", run.job), ("database", run.database))
    }
    return [count, retries, ended, success, good, seconds, running, done, expected]
  }

  private func schedules() async -> [MetricFamily] {
    var next = MetricFamily("pgbackupd_job_next_due_timestamp_seconds", .gauge, "When a job runs next, since 1970.")
    for job in plan.jobs { next.add(await scheduler.nextStart(of: job.name)?.timeIntervalSince1970, ("job", job.name)) }
    return [next]
  }

  private func verified(_ overview: Overview, _ history: RunHistory) -> [MetricFamily] {
    var readings = MetricFamily(
      "pgbackupd_verifications", .counter, "Placements that were read back, since the ledger's beginning.")
    for (key, number) in history.totals.verified.sorted(by: {
      ($0.key.store, $0.key.result) < ($1.key.store, $1.key.result)
    }) {
      readings.add(Double(number), ("store", key.store), ("result", key.result))
    }
    var placements = MetricFamily(
      "pgbackupd_placements", .gauge, "Backups in a store, by what their last reading found.")
    for store in plan.stores {
      let held = overview.catalog.backups.flatMap { backup in
        backup.placements.filter { $0.store == store.name }.map { placement -> String in
          guard placement.isWhole else { return "damaged" }
          let known = history.verified[PlacementKey(backup: backup.id, store: store.name)]
          return known.map { $0.isSound ? "sound" : "damaged" } ?? "unread"
        }
      }
      for state in ["sound", "unread", "damaged"] {
        placements.add(Double(held.count { $0 == state }), ("store", store.name), ("state", state))
      }
    }
    return [readings, placements]
  }

  private func stores(_ overview: Overview, _ totals: RunTotals) -> [MetricFamily] {
    func family(_ name: String, _ help: String, _ figure: (StatusReport.Store) -> Double?) -> MetricFamily {
      var family = MetricFamily("pgbackupd_store_\(name)", .gauge, help)
      for store in overview.report.stores { family.add(figure(store), ("store", store.name)) }
      return family
    }
    let missing = ReconcilePlan(
      overview.catalog, policy: plan.retention, stores: plan.stores.map(\.name), at: overview.report.now,
      others: others(overview.catalog)
    ).copies.compactMap { step -> (store: String, bytes: Int64)? in
      if case .copy(let manifest, _, let target) = step.action { (target, manifest.storedBytes) } else { nil }
    }
    var copies = MetricFamily("pgbackupd_copies", .counter, "Copies between stores, since the ledger's beginning.")
    for (key, number) in totals.copied.sorted(by: { ($0.key.store, $0.key.result) < ($1.key.store, $1.key.result) }) {
      copies.add(Double(number), ("store", key.store), ("result", key.result))
    }
    var deleted = MetricFamily(
      "pgbackupd_deletions", .counter, "Placements that were deleted, since the ledger's beginning.")
    for (store, number) in totals.deleted.sorted(by: { $0.key < $1.key }) {
      deleted.add(Double(number), ("store", store))
    }
    return [
      family("up", "Whether the store can be used.") { $0.fault == nil ? 1 : 0 },
      family("free_bytes", "Room that is left, where the store can tell.") { $0.freeBytes.map(Double.init) },
      family("round_bytes", "Bytes of the newest backup of each database that it has: what one more of each will take.")
      {
        store in
        let newest = overview.report.databases.compactMap(\.newest).filter { $0.stores.contains(store.name) }
        return Double(newest.map(\.storedBytes).reduce(0, +))
      },
      family("backups", "Backups in it.") { Double($0.backups) },
      family("stored_bytes", "Bytes of its backups.") { Double($0.storedBytes) },
      family("objects", "Files of its backups.") { store in
        Double(
          overview.catalog.backups.filter { $0.placements.contains { $0.store == store.name } }
            .map { $0.manifest.files.count + 3 }.reduce(0, +))
      },
      family("backlog_backups", "Backups that are still to be copied into it.") { store in
        Double(missing.count { $0.store == store.name })
      },
      family("backlog_bytes", "Bytes that are still to be copied into it.") { store in
        Double(missing.filter { $0.store == store.name }.map(\.bytes).reduce(0, +))
      },
      copies, deleted,
    ]
  }

  private func alerts(_ overview: Overview, _ report: StatusReport) -> [MetricFamily] {
    var problems = MetricFamily("pgbackupd_problems", .gauge, "What is wrong now, by its code.")
    for (code, all) in Dictionary(grouping: overview.problems, by: \.fault.code.rawValue).sorted(by: { $0.key < $1.key }
    ) {
      problems.add(Double(all.count), ("code", code))
    }
    if overview.problems.isEmpty { problems.add(0, ("code", "")) }
    var open = MetricFamily("pgbackupd_alerts_open", .gauge, "Incidents that people were told of and that last.")
    if !plan.alerts.isEmpty { open.add(Double(incidents.open.values.count { !$0.told.isEmpty })) }
    func family(_ name: String, _ kind: MetricFamily.Kind, _ help: String, _ figure: (AlertChannelReport) -> Double)
      -> MetricFamily
    {
      var family = MetricFamily("pgbackupd_alert_\(name)", kind, help)
      for channel in report.alerts { family.add(figure(channel), ("channel", channel.name)) }
      return family
    }
    return [
      problems, open,
      family("messages_waiting", .gauge, "Messages that wait for a channel.") { Double($0.waiting) },
      family("messages_sent", .counter, "Messages that a channel took, since the start.") { Double($0.delivered) },
      family("messages_dropped", .counter, "Messages that were given up, since the start.") { Double($0.dropped) },
    ]
  }
}

/// What the kernel says of this process.
enum ProcessFigures {
  /// proc(5), `statm`: pages.
  static var residentBytes: Double? {
    let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 200)
    let count = read(file, &bytes, bytes.count)
    let fields = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).split(separator: " ")
    guard fields.count > 1, let pages = Double(fields[1]) else { return nil }
    return pages * Double(sysconf(Int32(_SC_PAGESIZE)))
  }

  /// POSIX has a million of clock(3)'s units in a second, whatever the machine.
  static var processorSeconds: Double { Double(clock()) / 1e6 }
}
