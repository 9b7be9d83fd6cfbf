package import BackupCatalog
package import Faults
package import Foundation

/// Who asked for something, as the kernel knows the other end of the control socket (SO_PEERCRED).
package struct Caller: Codable, Sendable, Equatable {
  package var uid: UInt32
  package var pid: Int32

  package init(uid: UInt32, pid: Int32) {
    self.uid = uid
    self.pid = pid
  }
}

/// One run, from being asked for to its end.
package struct RunReport: Codable, Sendable, Equatable {
  package enum State: String, Codable, Sendable {
    /// Waits until its database and a place are free.
    case queued
    case running
    case succeeded
    case failed
    /// Ended because somebody or something asked for it; nothing was committed.
    case aborted
    /// The daemon died in it.
    case interrupted

    package var isFinal: Bool { self != .queued && self != .running }
  }

  package struct Progress: Codable, Sendable, Equatable {
    package var phase: String
    package var archiveBytes: Int64
    package var storedBytes: Int64
    package var expectedBytes: Int64?
    package var table: String?

    package init(phase: String, archiveBytes: Int64, storedBytes: Int64, expectedBytes: Int64?, table: String?) {
      self.phase = phase
      self.archiveBytes = archiveBytes
      self.storedBytes = storedBytes
      self.expectedBytes = expectedBytes
      self.table = table
    }
  }

  package var id: String
  package var job: String
  package var database: String
  /// `on demand`, or why the schedule began it.
  package var reason: String
  /// The due instant of a scheduled run.
  package var due: Date?
  /// Which try of a scheduled run it is, from 1.
  package var attempt: Int?
  /// When a failed run is tried again.
  package var retry: Date?
  package var by: Caller?
  package var state: State
  package var asked: Date
  package var started: Date?
  package var finished: Date?
  package var progress: Progress?
  package var backup: BackupID?
  package var storedBytes: Int64?
  package var rows: Int64?
  /// What came of a restore.
  package var restore: RestoreOutcome?
  /// What a verify run found, placement by placement.
  package var verified: [Verification]?
  /// What a backup's history does not explain.
  package var anomalies: [Anomaly]?
  /// What came of a drill.
  package var drill: DrillReport?
  /// Stores that get their copy of a backup only afterwards.
  package var later: [String]?
  /// Why it failed or was aborted.
  package var fault: Fault?
  /// What went wrong without failing the run, by store.
  package var warnings: [Fault]

  package init(id: String, job: String, database: String, reason: String, by: Caller?, asked: Date) {
    self.id = id
    self.job = job
    self.database = database
    self.reason = reason
    self.by = by
    state = .queued
    self.asked = asked
    warnings = []
  }
}
