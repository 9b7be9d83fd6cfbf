package import BackupCatalog
package import Faults
package import Foundation
import Units

/// `GET /v1/status`: all that one screen shows.
package struct StatusReport: Codable, Sendable {
  package struct Encryption: Codable, Sendable {
    package var recipients: [String]
    /// Whether an identity on this host opens what is encrypted now.
    package var opensHere: Bool

    package init(recipients: [String], opensHere: Bool) {
      self.recipients = recipients
      self.opensHere = opensHere
    }
  }

  package struct Database: Codable, Sendable {
    package var name: String
    package var newest: BackupSummary?
    /// Seconds since the newest good backup's snapshot.
    package var ageSeconds: Double?
    package var rpoSeconds: Double?
    package var backups: Int
    package var storedBytes: Int64
    package var lastRun: RunReport?
    package var nextJob: String?
    package var nextDue: Date?
    /// The newest backup that was restored whole, with every fingerprint matching.
    package var proved: BackupID?
    /// Seconds since its snapshot.
    package var provedAgeSeconds: Double?
    /// How old the newest proved backup may be.
    package var provedWithinSeconds: Double?
    /// How long a restore may take.
    package var rtoSeconds: Double?
    /// How long one would take now, by scenario.
    package var recovery: [RecoveryEstimate] = []
    /// Objectives (`rpo`, `proved`) that are not met because nothing has come yet that could meet them, and until when nobody is called for it.
    package var graceUntil: [String: Date] = [:]

    package init(
      name: String, newest: BackupSummary?, ageSeconds: Double?, rpoSeconds: Double?, backups: Int, storedBytes: Int64,
      lastRun: RunReport?, nextJob: String?, nextDue: Date?
    ) {
      self.name = name
      self.newest = newest
      self.ageSeconds = ageSeconds
      self.rpoSeconds = rpoSeconds
      self.backups = backups
      self.storedBytes = storedBytes
      self.lastRun = lastRun
      self.nextJob = nextJob
      self.nextDue = nextDue
    }

    /// The scenario that would take the longest, of those that were measured.
    package var slowestRecovery: RecoveryEstimate? {
      recovery.filter { $0.seconds != nil }.max { $0.seconds ?? 0 < $1.seconds ?? 0 }
    }

    /// Whether every scenario keeps to the objective; nil where there is none, or where one that may still break it was not measured.
    package var meetsRTO: Bool? {
      guard let rtoSeconds else { return nil }
      if recovery.contains(where: { $0.seconds.map { $0 > rtoSeconds } ?? false }) { return false }
      return recovery.isEmpty || recovery.contains { $0.seconds == nil } ? nil : true
    }

    /// Whether the newest proved backup is young enough; nil where no objective is set.
    package var meetsProved: Bool? {
      provedWithinSeconds.map { objective in provedAgeSeconds.map { $0 <= objective } ?? false }
    }

    /// That a drill found the newest backup to be something else than what was backed up; nil where none did.
    package var proofFailure: String? { newest?.proofFailed.map { "FAILED \($0.rfc3339)" } }

    /// Whether what is proved is enough: an older proof is no comfort where the newest backup did not hold.
    package var holdsProved: Bool? { proofFailure == nil ? meetsProved : false }

    /// The first scenario that nobody has measured, where one may still break the objective for the recovery time.
    package var unmeasured: String? {
      rtoSeconds == nil ? nil : recovery.first { $0.seconds == nil }?.scenario
    }

    /// Whether the newest backup is young enough; nil where no objective is set.
    package var meetsRPO: Bool? {
      rpoSeconds.map { objective in ageSeconds.map { $0 <= objective } ?? false }
    }
  }

  package struct Store: Codable, Sendable {
    package var name: String
    package var location: String
    package var backups: Int
    package var storedBytes: Int64
    package var freeBytes: Int64?
    package var fault: Fault?

    package init(
      name: String, location: String, backups: Int, storedBytes: Int64, freeBytes: Int64?, fault: Fault?
    ) {
      self.name = name
      self.location = location
      self.backups = backups
      self.storedBytes = storedBytes
      self.freeBytes = freeBytes
      self.fault = fault
    }
  }

  /// A backup on its way from one store into another.
  package struct Copy: Codable, Sendable {
    package var backup: BackupID
    package var store: String
    package var doneBytes: Int64
    package var totalBytes: Int64

    package init(backup: BackupID, store: String, doneBytes: Int64, totalBytes: Int64) {
      self.backup = backup
      self.store = store
      self.doneBytes = doneBytes
      self.totalBytes = totalBytes
    }
  }

  /// A database that a restore or a rollback has put aside.
  package struct Kept: Codable, Sendable {
    /// As it is configured.
    package var database: String
    /// On the server.
    package var name: String
    package var replaced: Date
    package var bytes: Int64?
    /// When it is dropped; nil where it stays until somebody does.
    package var until: Date?
    /// Why its mark is not believed: neither a rollback nor a sweep touches it.
    package var doubt: String?

    package init(database: String, name: String, replaced: Date, bytes: Int64?, until: Date?) {
      self.database = database
      self.name = name
      self.replaced = replaced
      self.bytes = bytes
      self.until = until
    }
  }

  package var version: String
  package var now: Date
  package var started: Date
  package var databases: [Database]
  package var stores: [Store]
  /// Queued and running.
  package var runs: [RunReport]
  /// The copies between stores that are being made now, one for each store at most.
  package var copies: [Copy] = []
  package var kept: [Kept] = []
  /// Nil where backups are not encrypted.
  package var encryption: Encryption?
  package var problems: [Fault]
  /// What is not as safe as it could be, and breaks nothing: shown, and nobody is called for it.
  package var warnings: [Fault]?
  /// Who is told when something is wrong.
  package var alerts: [AlertChannelReport] = []

  package init(
    version: String, now: Date, started: Date, databases: [Database], stores: [Store], runs: [RunReport],
    encryption: Encryption?, problems: [Fault]
  ) {
    self.encryption = encryption
    self.version = version
    self.now = now
    self.started = started
    self.databases = databases
    self.stores = stores
    self.runs = runs
    self.problems = problems
  }
}

/// `GET /v1/jobs`.
package struct JobReport: Codable, Sendable {
  package var name: String
  /// The schedule's normal form; nil for a job that only runs on demand.
  package var expression: String?
  package var sentence: String?
  package var zone: String?
  package var next: Date?
  package var keep: String
  package var stores: [String]
  package var databases: [String]
  package var lastRuns: [RunReport]

  package init(
    name: String, expression: String?, sentence: String?, zone: String?, next: Date?, keep: String, stores: [String],
    databases: [String], lastRuns: [RunReport]
  ) {
    self.name = name
    self.expression = expression
    self.sentence = sentence
    self.zone = zone
    self.next = next
    self.keep = keep
    self.stores = stores
    self.databases = databases
    self.lastRuns = lastRuns
  }
}

/// One line of `GET /v1/backups`.
package struct BackupSummary: Codable, Sendable, Equatable {
  package var id: BackupID
  package var type: String
  package var label: String?
  package var started: Date
  package var seconds: Double
  package var archiveBytes: Int64
  package var storedBytes: Int64
  package var tables: Int
  package var rows: Int64
  package var stores: [String]
  package var isGood: Bool
  /// All of it is there, and nobody who is trusted has signed it.
  package var isUnsigned: Bool?
  package var isPinned: Bool
  /// Its data is in doubt, and nobody has said that it is right.
  package var isFlagged: Bool
  /// When it was last proved by a drill or a restore.
  package var proved: Date?
  /// When a drill found it to be something else than what was backed up, where none has proved it since.
  package var proofFailed: Date?
  /// True where its rows are proved, and the drill could not make all of its schema.
  package var isIncomplete: Bool?
  /// Why it is kept, or since when it may go.
  package var retention: String

  package init(_ backup: Catalog.Backup, retention: String) {
    let manifest = backup.manifest
    id = manifest.id
    type = manifest.type
    label = manifest.label
    started = manifest.started
    seconds = manifest.finished.timeIntervalSince(manifest.started)
    archiveBytes = manifest.artifact.archiveBytes
    storedBytes = manifest.storedBytes
    tables = manifest.totals.tables
    rows = manifest.totals.rows
    if !backup.isGood, backup.placements.contains(where: { $0.missing.isEmpty }) { isUnsigned = true }
    stores = backup.placements.map(\.store)
    isGood = backup.isGood
    isPinned = backup.pin != nil
    isFlagged = backup.isFlagged
    proved = backup.proof.flatMap { $0.isWhole || $0.isOfRows ? $0.finished : nil }
    proofFailed = backup.proof.flatMap { $0.failure == nil || $0.isOfRows ? nil : $0.finished }
    isIncomplete = backup.proof?.isOfRows == true ? true : nil
    self.retention = retention
  }
}

extension BackupSummary {
  /// When it was proved, that it was not, or that a drill was made and failed.
  package var proofText: String {
    proofFailed.map { "FAILED \($0.rfc3339)" }
      ?? proved.map { $0.rfc3339 + (isIncomplete == true ? ", rows alone: objects lack" : "") } ?? "not run"
  }
}

/// `GET /v1/backup?id=…`.
package struct BackupDetail: Codable, Sendable {
  package var backup: Catalog.Backup
  package var retention: String
  /// Where its files lie, by store.
  package var locations: [String: String]
  /// When it was last restored whole, with every fingerprint matching.
  package var proved: Date?
  /// What the last drill or restore of it could not compare, or the server has computed anew; nil where there is nothing.
  package var notCompared: String?
  /// What the last drill of it says, where that did not prove it.
  package var failedProof: String?
  /// What its history does not explain; nil where there is nothing, or nobody here can read it.
  package var anomalies: [Anomaly]?

  package init(backup: Catalog.Backup, retention: String, locations: [String: String]) {
    self.backup = backup
    self.retention = retention
    self.locations = locations
  }
}

/// `POST /v1/reconcile`.
package struct ReconcileReport: Codable, Sendable {
  package struct Step: Codable, Sendable {
    /// `copy`, `delete` or `sweep`.
    package var action: String
    package var what: String
    package var store: String
    package var reason: String
    package var fault: Fault?

    package init(action: String, what: String, store: String, reason: String, fault: Fault?) {
      self.action = action
      self.what = what
      self.store = store
      self.reason = reason
      self.fault = fault
    }
  }

  package struct Kept: Codable, Sendable {
    package var id: BackupID
    package var type: String
    package var reasons: [String]

    package init(id: BackupID, type: String, reasons: [String]) {
      self.id = id
      self.type = type
      self.reasons = reasons
    }
  }

  /// False for a preview: nothing was changed.
  package var applied: Bool
  /// Why stores could not be read: nothing is decided about them.
  package var unread: [Fault] = []
  package var steps: [Step]
  package var kept: [Kept]

  package init(applied: Bool, steps: [Step], kept: [Kept]) {
    self.applied = applied
    self.steps = steps
    self.kept = kept
  }
}

/// `POST /v1/reload`: what changed, job by job.
package struct ReloadReport: Codable, Sendable {
  package var changes: [String]
  package init(changes: [String]) { self.changes = changes }
}

/// A folder in a store that is a backup's, with a manifest that can't be read.
package struct DamagedBackup: Codable, Sendable {
  package var id: BackupID
  package var type: String
  package var store: String
  package var folder: String
  package var fault: Fault

  package init(id: BackupID, type: String, store: String, folder: String, fault: Fault) {
    self.id = id
    self.type = type
    self.store = store
    self.folder = folder
    self.fault = fault
  }
}
