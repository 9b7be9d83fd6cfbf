import BackupCatalog
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Quoting
import Units

/// Reports as text for a terminal. Pure: a report in, its screen out.
enum ReportText {
  static func status(_ report: StatusReport) -> String {
    var sections = [
      "pgbackupd \(report.version), up \(Duration.seconds(report.now.timeIntervalSince(report.started)).spoken); "
        + (report.problems.isEmpty
          ? "no problems" : "\(report.problems.count) problem\(report.problems.count == 1 ? "" : "s")")
        + warningCount(report)
    ]

    var databases = TextTable([
      "DATABASE", "NEWEST BACKUP", "TYPE", .number("AGE"), "RPO", "PROVED", .number("BACKUPS"), .number("STORED"),
      "NEXT",
    ])
    for database in report.databases {
      databases.add([
        database.name, database.newest?.id.time.rfc3339 ?? "none", database.newest?.type ?? "-",
        database.ageSeconds.map { Duration.seconds($0).spoken } ?? "-", rpo(database),
        // What has not been run is never shown as passed.
        proved(database), "\(database.backups)", "\(ByteCount(database.storedBytes))", next(database, report.now),
      ])
    }
    sections.append(databases.text)

    let recoveries = report.databases.flatMap { database in database.recovery.map { (database, $0) } }
    if recoveries.contains(where: { $0.1.seconds != nil }) || report.databases.contains(where: { $0.rtoSeconds != nil })
    {
      var table = TextTable(["RECOVERY OF", "SCENARIO", .number("PREDICTED"), "RTO", "MEASURED"])
      for (database, one) in recoveries {
        let holds = one.seconds.flatMap { seconds in database.rtoSeconds.map { seconds <= $0 } }
        table.add([
          database.name, one.scenario, one.seconds.map { $0 < 1 ? "<1s" : Duration.seconds($0).spoken } ?? "not run",
          database.rtoSeconds.map {
            "\(Duration.seconds($0).spoken) \(holds.map { $0 ? "met" : "MISSED" } ?? "unknown")"
          } ?? "-",
          one.measure.map { "\($0.time.rfc3339)" } ?? "-",
        ])
      }
      sections.append(table.text)
    }

    var stores = TextTable(["STORE", "LOCATION", .number("BACKUPS"), .number("STORED"), .number("FREE"), "STATE"])
    for store in report.stores {
      stores.add([
        store.name, store.location, "\(store.backups)", "\(ByteCount(store.storedBytes))",
        store.freeBytes.map { "\(ByteCount($0))" } ?? "-", store.fault?.code.rawValue ?? "ok",
      ])
    }
    sections.append(stores.text)

    if let encryption = report.encryption {
      let count = encryption.recipients.count
      sections.append(
        "Encrypted to \(count) recipient\(count == 1 ? "" : "s"). "
          + (encryption.opensHere
            ? "An identity here opens it."
            : "No identity here. Only the host that has one can prove (drill, verify --level archive), restore, extract and tell contents, history and diff.")
      )
    }
    if !report.runs.isEmpty {
      sections.append("RUNS\n" + report.runs.map { "  " + run($0, report.now) }.joined(separator: "\n"))
    }
    if !report.copies.isEmpty {
      let lines = report.copies.map { copy in
        let percent = copy.totalBytes > 0 ? copy.doneBytes * 100 / copy.totalBytes : 100
        return
          "  \(line: copy.backup) to '\(line: copy.store)': \(ByteCount(copy.doneBytes)) of \(ByteCount(copy.totalBytes)), \(percent) %"
      }
      sections.append("COPYING\n" + lines.joined(separator: "\n"))
    }
    if !report.kept.isEmpty {
      var kept = TextTable(["REPLACED", "KEPT AS", "SINCE", .number("SIZE"), "UNTIL"])
      for one in report.kept {
        kept.add([
          one.database, one.name, one.replaced.rfc3339, one.bytes.map { "\(ByteCount($0))" } ?? "-",
          one.doubt.map { "NOT TOUCHED: \($0)" } ?? one.until?.rfc3339 ?? "dropped by hand",
        ])
      }
      sections.append(kept.text)
    }
    if !report.alerts.isEmpty {
      var alerts = TextTable(["ALERTS", "KIND", "ON", .number("SENT"), .number("WAITING"), "LAST SENT", "STATE"])
      for one in report.alerts {
        alerts.add([
          one.name, one.kind, one.kind == "ping" ? "runs" : one.topics.joined(separator: ","), "\(one.delivered)",
          "\(one.waiting)", one.lastDelivered?.rfc3339 ?? "-",
          one.condition,
        ])
      }
      sections.append(alerts.text)
    }
    if !report.problems.isEmpty {
      sections.append(
        "PROBLEMS\n" + report.problems.map { "  " + "\($0)".lines.joined(separator: "\n  ") }.joined(separator: "\n"))
    }
    if let warnings = report.warnings, !warnings.isEmpty {
      sections.append(
        "WARNINGS\n" + warnings.map { "  " + "\($0)".lines.joined(separator: "\n  ") }.joined(separator: "\n"))
    }
    return sections.joined(separator: "\n\n")
  }

  private static func warningCount(_ report: StatusReport) -> String {
    let count = report.warnings?.count ?? 0
    return count == 0 ? "" : ", \(count) warning\(count == 1 ? "" : "s")"
  }

  static func jobs(_ jobs: [JobReport], now: Date) -> String {
    var table = TextTable(["JOB", "SCHEDULE", "ZONE", "NEXT", "KEEP", "STORES", "DATABASES", "LAST RUN"])
    for job in jobs {
      table.add([
        job.name, job.expression ?? "on demand", job.zone ?? "-", job.next.map { "\($0.rfc3339)" } ?? "-", job.keep,
        job.stores.joined(separator: ","), job.databases.joined(separator: ","), lastRuns(job),
      ])
    }
    let meanings = jobs.compactMap { job in
      job.sentence.map { sentence in
        let wait = job.next.map { ", next in \(Duration.seconds(max(0, $0.timeIntervalSince(now))).spoken)" } ?? ""
        return "  \(line: job.name): \(line: sentence) (\(line: job.zone ?? ""))\(wait)"
      }
    }
    return ([table.text] + (meanings.isEmpty ? [] : ["", "In words:"] + meanings)).joined(separator: "\n")
  }

  static func list(_ backups: [BackupSummary]) -> String {
    if backups.isEmpty { return "No backups yet." }
    var table = TextTable([
      "ID", "TYPE", "LABEL", .number("TOOK"), .number("TABLES"), .number("ROWS"), .number("ARCHIVE"), .number("STORED"),
      "STORES", "STATE", "KEPT BECAUSE",
    ])
    for backup in backups {
      table.add([
        "\(backup.id)", backup.type, backup.label ?? "-", took(backup), "\(backup.tables)",
        "\(backup.rows)", "\(ByteCount(backup.archiveBytes))", "\(ByteCount(backup.storedBytes))",
        backup.stores.joined(separator: ","), state(backup),
        backup.retention,
      ])
    }
    return table.text
  }

  static func detail(_ detail: BackupDetail) -> String {
    let manifest = detail.backup.manifest
    var lines: [(String, String)] = [
      ("backup", "\(manifest.id)"), ("type", manifest.type), ("label", manifest.label ?? "-"),
      ("taken", "\(manifest.started.rfc3339) to \(manifest.finished.rfc3339)"),
      (
        "server",
        "PostgreSQL \(manifest.server.version)\(manifest.server.isStandby ? ", a standby" : ""), database \(manifest.server.database), \(ByteCount(manifest.server.databaseBytes)), \(manifest.server.encoding)"
      ),
      ("made by", "\(manifest.software) on \(manifest.host), \(manifest.dumpProgram)"),
      (
        "holds",
        "\(manifest.totals.rows) rows in \(manifest.totals.tables) tables, \(manifest.totals.largeObjects) large objects"
      ),
      (
        "archive",
        "\(ByteCount(manifest.artifact.archiveBytes)), stored as \(ByteCount(manifest.artifact.file.size)) (\(manifest.artifact.compression) \(manifest.artifact.level))"
      ),
      ("proved", proved(detail)), ("kept", detail.retention),
    ]
    if let names = detail.notCompared { lines.insert(("not compared", names), at: lines.count - 1) }
    if let flags = manifest.flags, !flags.isEmpty {
      lines.append(
        (
          "in doubt",
          flags.joined(separator: ", ")
            + (detail.backup.isFlagged
              ? "; where it is right: pgbackupctl accept \(shell: manifest.id)" : "; accepted")
        ))
      for anomaly in detail.anomalies ?? [] { lines.append(("", anomaly.text)) }
    }
    if let pin = detail.backup.pin {
      lines.append(("pinned", "\(pin.since.rfc3339) by \(pin.by)\(pin.note.map { ": \($0)" } ?? "")"))
    }
    for placement in detail.backup.placements {
      let state =
        switch (placement.missing.isEmpty, placement.signature) {
        case (false, _): "LACKS \(placement.missing.joined(separator: ", "))"
        case (_, .missing): "NOT SIGNED: counts for nothing; restore takes it with --accept-untrusted"
        case (_, .invalid): "SIGNED BY NOBODY WHO IS TRUSTED: counts for nothing"
        case (_, .valid), (_, .unchecked): "whole"
        }
      lines.append(("in \(placement.store)", "\(detail.locations[placement.store] ?? "") (\(state))"))
    }
    for file in manifest.files { lines.append(("sha256", "\(file.sha256)  \(file.name)")) }
    let width = lines.map(\.0.count).max() ?? 0
    return lines.map { $0.0 + String(repeating: " ", count: width - $0.0.count + 2) + TerminalText.line($0.1) }.joined(
      separator: "\n")
  }

  static func contents(_ contents: Contents) -> String {
    var table = TextTable(["TABLE", .number("ROWS"), .number("BYTES"), "FINGERPRINT"])
    for entry in contents.tables.sorted(by: { ($0.schema, $0.name) < ($1.schema, $1.name) }) {
      table.add([
        "\(entry.schema).\(entry.name)", entry.rows.map { "\($0)" } ?? "not read",
        entry.bytes.map { "\(ByteCount($0))" } ?? "-",
        entry.fingerprint ?? "-",
      ])
    }
    for block in contents.largeObjects {
      table.add([
        "(large objects)", block.count.map { "\($0)" } ?? "not read", block.bytes.map { "\(ByteCount($0))" } ?? "-",
        block.fingerprint ?? "-",
      ])
    }
    return table.text
  }

  static func reconcile(_ report: ReconcileReport) -> String {
    var lines: [String] = []
    if report.steps.isEmpty {
      lines.append("Nothing to do.")
    } else {
      lines.append(report.applied ? "Done:" : "Would be done (with --apply):")
      for step in report.steps {
        let outcome = step.fault.map { " FAILED: \($0.message)" } ?? ""
        lines.append("  " + TerminalText.line("\(step.action) \(step.what) in \(step.store): \(step.reason)\(outcome)"))
      }
    }
    for fault in report.unread {
      lines.append("Nothing is decided about a store that could not be read:")
      lines += "\(fault)".lines.map { "  \($0)" }
    }
    if !report.kept.isEmpty {
      lines.append("Kept:")
      lines += report.kept.map {
        "  " + TerminalText.line("\($0.id) (\($0.type)): \($0.reasons.joined(separator: "; "))")
      }
    }
    return lines.joined(separator: "\n")
  }

  // MARK: - Cells

  private static func rpo(_ database: StatusReport.Database) -> String {
    guard let seconds = database.rpoSeconds, let holds = database.meetsRPO else { return "-" }
    return "\(Duration.seconds(seconds).spoken) \(holds ? "met" : "MISSED")"
  }

  private static func proved(_ database: StatusReport.Database) -> String {
    if database.newest?.proofFailed != nil { return "FAILED" + (database.proved.map { ", \($0.time.rfc3339)" } ?? "") }
    guard let proved = database.proved else { return "not run" }
    return proved == database.newest?.id ? "this one" : proved.time.rfc3339
  }

  private static func proved(_ detail: BackupDetail) -> String {
    if let failed = detail.failedProof { return failed }
    guard let time = detail.proved else { return "not run" }
    // The ledger's own time is that of the run's end.
    guard let proof = detail.backup.proof, proof.failure == nil, time.timeIntervalSince(proof.finished) < 60 else {
      return "\(time.rfc3339), by a restore"
    }
    return "\(time.rfc3339), by a drill on \(proof.host): \(proof.rows) rows in \(proof.provedTables) tables"
  }

  private static func state(_ backup: BackupSummary) -> String {
    guard backup.isGood else { return backup.isUnsigned == true ? "NOT SIGNED" : "DAMAGED" }
    let words = [
      backup.isFlagged ? "IN DOUBT" : nil, backup.isPinned ? "pinned" : nil,
      backup.proofFailed == nil ? nil : "PROOF FAILED", backup.proved == nil ? nil : "proved",
    ]
    return words.compactMap { $0 }.joined(separator: ", ").isEmpty
      ? "ok" : words.compactMap { $0 }.joined(separator: ", ")
  }

  private static func next(_ database: StatusReport.Database, _ now: Date) -> String {
    guard let job = database.nextJob, let due = database.nextDue else { return "-" }
    return "\(job) in \(Duration.seconds(max(0, due.timeIntervalSince(now))).spoken)"
  }

  private static func run(_ run: RunReport, _ now: Date) -> String {
    var parts = ["\(run.id)", "\(run.job) of \(run.database)", run.state.rawValue, "(\(run.reason))"]
    if let started = run.started { parts.append("for \(Duration.seconds(now.timeIntervalSince(started)).spoken)") }
    if let progress = run.progress {
      parts.append("\(progress.phase), \(ByteCount(progress.archiveBytes)) read")
      if let table = progress.table { parts.append(table) }
    }
    return TerminalText.line(parts.joined(separator: "  "))
  }

  /// Manifests know whole seconds only.
  private static func took(_ backup: BackupSummary) -> String {
    backup.seconds < 1 ? "<1s" : Duration.seconds(backup.seconds).spoken
  }

  private static func lastRuns(_ job: JobReport) -> String {
    guard let last = job.lastRuns.max(by: { ($0.finished ?? .distantPast) < ($1.finished ?? .distantPast) }) else {
      return "-"
    }
    let failed = job.lastRuns.count { $0.state != .succeeded }
    let when = last.finished?.rfc3339 ?? ""
    return failed == 0 ? "ok \(when)" : "\(failed) of \(job.lastRuns.count) failed \(when)"
  }
}

/// Times with their zone's offset.
enum LocalTime {
  /// `2026-11-22T02:00:00+01:00` (RFC 3339).
  static func rfc3339(_ date: Date, _ zone: ZoneRules) -> String {
    let offset = zone.offset(at: Int(date.timeIntervalSince1970.rounded(.down)))
    if offset == 0 { return date.rfc3339 }
    let local = date.addingTimeInterval(Double(offset)).rfc3339.dropLast()
    let (hours, minutes) = (abs(offset) / 3600, abs(offset) / 60 % 60)
    return "\(local)\(offset < 0 ? "-" : "+")\(hours < 10 ? "0" : "")\(hours):\(minutes < 10 ? "0" : "")\(minutes)"
  }
}
