import ControlAPI
import Faults

/// Reports without what only operators may see.
extension StatusReport {
  var forEverybody: StatusReport {
    var report = self
    for position in report.databases.indices {
      report.databases[position].newest = databases[position].newest?.forEverybody
      report.databases[position].lastRun = databases[position].lastRun?.forEverybody
    }
    for position in report.stores.indices {
      report.stores[position].location = ""
      report.stores[position].fault = stores[position].fault?.forEverybody
    }
    report.runs = runs.map(\.forEverybody)
    report.encryption?.recipients = []
    report.copies = []
    report.kept = []
    for position in report.alerts.indices { report.alerts[position].fault = alerts[position].fault?.forEverybody }
    report.problems = problems.map(\.forEverybody)
    report.warnings = nil
    return report
  }
}

extension JobReport {
  var forEverybody: JobReport {
    var report = self
    report.lastRuns = lastRuns.map(\.forEverybody)
    return report
  }
}

extension BackupSummary {
  var forEverybody: BackupSummary {
    var summary = self
    summary.label = nil
    if isPinned { summary.retention = "pinned" }
    return summary
  }
}

extension RunReport {
  fileprivate var forEverybody: RunReport {
    var report = self
    report.by = nil
    report.progress?.table = nil
    report.restore = nil
    report.fault = fault?.forEverybody
    report.warnings = warnings.map(\.forEverybody)
    return report
  }
}

extension Fault {
  fileprivate var forEverybody: Fault {
    Fault(code, "Only operators see what it is about.", hint: "pgbackupctl status")
  }
}
