package import BackupCatalog
import ControlAPI
package import Faults
package import Foundation
package import Quoting

/// What the ledger says about schedules: which due instant each job was last told of, which of its databases still lack their
/// run, and which runs never ended. The same rule reads an old ledger and follows the growing one.
package struct RunHistory: Sendable {
  package struct Job: Sendable, Equatable {
    /// The schedule in force, in its normal form, and since when it is.
    package var schedule: String?
    package var since: Date?
    package var lastDue: Date?
    /// Databases whose run for `lastDue` has neither succeeded nor failed for good.
    package var remaining: Set<ExactText> = []
    /// The last due instants that were done, the newest at the end.
    package var done: [Date] = []
    /// Due instants that were done before the clock was corrected to a time before them: they are not done twice.
    package var doneAhead: Set<Date> = []
    /// Those whose runs had begun then, with the databases that still lacked theirs.
    package var beganAhead: [Date: Set<ExactText>] = [:]
    /// Of those, the ones to be tried again, and when.
    package var retries: [ExactText: Retry] = [:]

    package init() {}
  }

  package struct Retry: Sendable, Equatable {
    package var attempt: Int
    package var start: Date
  }

  /// The job's name in records of restores, which belong to no configured job.
  static let restoreJob = "restore"

  package private(set) var jobs: [String: Job] = [:]
  /// Runs that began and did not end, by their ids.
  package private(set) var open: [String: LedgerRecord] = [:]
  /// How the last run of a job on a database ended.
  package private(set) var last: [JobOnDatabase: LedgerRecord] = [:]

  package struct JobOnDatabase: Sendable, Hashable, Comparable {
    package let job: String
    private let name: ExactText

    package var database: String { name.text }

    package init(job: String, database: String) { (self.job, name) = (job, ExactText(database)) }

    package static func < (left: Self, right: Self) -> Bool { (left.job, left.name) < (right.job, right.name) }
  }

  /// The latest time of a record since the last correction of the clock.
  package private(set) var newest: Date?

  /// Since when each database is configured without a break, a pattern's by their own names too, as far back as there are records.
  private var configured: [ExactText: Date] = [:]
  /// Whether a record has told which databases are configured.
  private var isConfigurationTold = false
  /// The time of the first backup that was committed of each since then.
  package private(set) var firstBackups: [ExactText: Date] = [:]
  /// The first record's time.
  private var began: Date?

  /// How the clock was set forward, where nobody has confirmed that yet.
  package private(set) var clockDoubt: String?

  /// Backups whose flags somebody has explained.
  package private(set) var accepted: Set<BackupID> = []

  /// When a backup was last restored whole, with every fingerprint matching.
  package private(set) var proofs: [BackupID: Date] = [:]
  /// What could not be compared, or was computed anew, in the last drill or restore of each.
  package private(set) var notCompared: [BackupID: String] = [:]
  /// The numbers of the records that say so.
  package private(set) var proofRecords: [BackupID: Int] = [:]

  package struct FailedProof: Sendable, Equatable {
    package var time: Date
    /// The number of the record that says so; nil where the signed record beside the backup does.
    package var record: Int?
    package var fault: Fault
  }

  /// Backups that a drill, or the comparison behind a restore, found to be something else than what was backed up, and that none has
  /// proved since.
  package private(set) var failedProofs: [BackupID: FailedProof] = [:]
  /// Backups whose last drill proved every row, and could not make all of the schema.
  package private(set) var incompleteProofs: [BackupID: FailedProof] = [:]
  /// The numbers of the records of the runs that made each backup.
  package private(set) var made: [BackupID: Int] = [:]
  /// By database, from restores and drills of all of it, the last few.
  private static let measuresKept = 10
  package private(set) var measures: [ExactText: [RecoveryMeasure]] = [:]

  package struct Verified: Sendable, Equatable {
    package var time: Date
    package var level: VerifyLevel
    package var isSound: Bool
    /// Of the backup, in every store.
    package var folder: String
    /// The number of the record that says so.
    package var record: Int
  }

  /// What the last look at each placement found.
  package private(set) var verified: [PlacementKey: Verified] = [:]

  /// When each placement was last tried to be read, with whatever outcome: one that can't be read must not keep the others from their
  /// turn.
  package private(set) var looked: [PlacementKey: Date] = [:]

  /// The last restore in place of each database, done or cut off, that no rollback has undone: what was there before is a backup, and none
  /// of the databases that were kept.
  package private(set) var inPlace: [ExactText: LedgerRecord] = [:]

  /// The last restore of each database, that no rollback has undone, for which there was nothing to replace: the database was gone.
  package private(set) var replacedNothing: [ExactText: LedgerRecord] = [:]

  /// What restores and rollbacks of each database have put aside on its server, by the names that are not known to be
  /// gone.
  package private(set) var putAside: [ExactText: Set<ExactText>] = [:]

  /// What restores have left beside each database because objects were lacking: OIDs by names.
  package private(set) var incomplete: [ExactText: [ExactText: UInt32]] = [:]

  package typealias Committed = [BackupID: Set<String>]

  /// Backups that were made, and not deleted since, with the stores that have them.
  package private(set) var committed: Committed = [:]
  /// Their types: the names of the jobs that made them.
  package private(set) var types: [BackupID: String] = [:]
  /// Placements whose deletion was begun and has not ended, with their folders.
  package private(set) var deleting: [PlacementKey: String] = [:]

  /// Backups that are pinned, by this daemon.
  package private(set) var pinned: Set<BackupID> = []

  /// Backups that somebody has deleted on demand, by store, and when. A store that shows one again answers with an old
  /// state, or the files were put back.
  package private(set) var dismissed: [PlacementKey: Date] = [:]

  /// The folders of placements that turned out damaged and were not mended since.
  package var damaged: [PlacementKey: String] { verified.filter { !$0.value.isSound }.mapValues(\.folder) }

  /// What it all adds up to.
  package private(set) var totals = RunTotals()

  package init() {}

  package mutating func apply(_ record: LedgerRecord) {
    totals.apply(record, began: record.run.flatMap { open[$0]?.time })
    noteDismissed(record)
    newest = record.kind == .clockCorrected ? record.time : max(newest ?? record.time, record.time)
    noteBeginnings(record)
    notePutAside(record)
    switch record.kind {
    case .clockAdvanced: clockDoubt = record.reason ?? "set forward"
    case .clockConfirmed: clockDoubt = nil
    case .clockCorrected:
      for (name, old) in jobs where old.schedule != nil {
        var job = old
        job.since = record.time
        if let due = job.lastDue, due > record.time {
          if job.remaining.isEmpty { job.doneAhead.insert(due) } else { job.beganAhead[due] = job.remaining }
          job.doneAhead.formUnion(job.done.filter { $0 > record.time })
          (job.lastDue, job.remaining, job.retries) = (nil, [], [:])
        }
        jobs[name] = job
      }
    case .backupVerified:
      if let backup = record.backup, let store = record.store {
        looked[PlacementKey(backup: backup, store: store)] = record.time
      }
      guard record.result != "unread", let backup = record.backup, let store = record.store, let detail = record.detail,
        let level = detail["level"].flatMap(VerifyLevel.init(rawValue:))
      else { return }
      verified[PlacementKey(backup: backup, store: store)] = Verified(
        time: record.time, level: level, isSound: record.result == "sound", folder: detail["folder"] ?? "",
        record: record.sequence)
    case .backupDeleting:
      guard let backup = record.backup, let store = record.store else { return }
      deleting[PlacementKey(backup: backup, store: store)] = record.detail?["folder"] ?? ""
    case .backupDeleted where record.result == LedgerRecord.deletionFailed:
      // With a fault it may have come half-way.
      if record.fault == nil, let backup = record.backup, let store = record.store {
        deleting[PlacementKey(backup: backup, store: store)] = nil
      }
    case .backupCopied where record.fault == nil, .backupDeleted where record.fault == nil:
      // It is another one now, or none.
      guard let backup = record.backup, let store = record.store else { return }
      verified[PlacementKey(backup: backup, store: store)] = nil
      looked[PlacementKey(backup: backup, store: store)] = nil
      deleting[PlacementKey(backup: backup, store: store)] = nil
      if record.kind == .backupCopied { committed[backup, default: []].insert(store) } else { forget(backup, store) }
    case .backupDeleted:
      // Of a damaged one the record tells what was wrong with it.
      if let backup = record.backup, let store = record.store { forget(backup, store) }
    case .databaseRolledBack:
      if let database = record.database.map(ExactText.init(_:)) {
        (inPlace[database], replacedNothing[database]) = (nil, nil)
      }
    case .backupAccepted:
      if let backup = record.backup { accepted.insert(backup) }
    case .jobScheduled:
      guard let name = record.job else { return }
      jobs[name, default: Job()].schedule = record.detail?["schedule"]
      jobs[name, default: Job()].since = record.time
    case .jobDue:
      guard let name = record.job, let due = record.due, due >= jobs[name]?.lastDue ?? due else { return }
      var job = jobs[name] ?? Job()
      let databases = (record.databases ?? []).exact
      // Told twice for one instant: a pattern's databases are known now, and the others go on.
      if job.lastDue != due { job.retries = [:] }
      (job.lastDue, job.remaining) = (due, databases)
      jobs[name] = job
      // A pattern that could not be asked stood for its databases until they were known.
      last = last.filter { key, _ in
        key.job != name || !databases.contains { MemberName.database($0.text, in: key.database) != nil }
      }
    case .jobSkipped:
      guard let name = record.job, let due = record.due else { return }
      var job = jobs[name] ?? Job()
      guard due >= job.lastDue ?? due else { return }
      job.lastDue = due
      // Given up for some databases, or for all.
      job.remaining = record.databases.map { job.remaining.subtracting($0.exact) } ?? []
      job.retries = record.databases == nil ? [:] : job.retries.filter { job.remaining.contains($0.key) }
      jobs[name] = job
    case .runStarted:
      if let run = record.run { open[run] = record }
    case .runFinished:
      if let run = record.run { open[run] = nil }
      if let job = record.job, let database = record.database {
        last[JobOnDatabase(job: job, database: database)] = record
        let database = ExactText(database)
        if record.detail?["way"] == RestoreWay.inPlace.rawValue,
          record.result == "succeeded" || record.result == "interrupted" || record.detail?[Self.lost] != nil
        {
          inPlace[database] = record
        }
        if record.result == "succeeded", record.detail?[Self.replaced] == "nothing" {
          replacedNothing[database] = record
        }
        if record.detail?["way"] == RestoreWay.putBack.rawValue, record.result == "succeeded" {
          inPlace[database] = nil
        }
        if record.result == "failed", record.detail?["proof"] == "rows", let backup = record.backup,
          let fault = record.fault
        {
          (proofs[backup], proofRecords[backup], failedProofs[backup]) = (record.time, record.sequence, nil)
          incompleteProofs[backup] = FailedProof(time: record.time, record: record.sequence, fault: fault)
          notCompared[backup] = record.detail?["not_compared"]
        }
        if record.result == "succeeded", record.detail?["proof"] == "whole", let backup = record.backup,
          // A restore asks no assertions: what one of them has said, only a drill takes back.
          record.job != Self.restoreJob || failedProofs[backup]?.fault.code != .assertionFailed
        {
          proofs[backup] = record.time
          proofRecords[backup] = record.sequence
          failedProofs[backup] = nil
          incompleteProofs[backup] = nil
        }
        if record.result == "succeeded", record.detail?["whole"] != nil, record.detail?["proved_tables"] != nil,
          let backup = record.backup
        {
          notCompared[backup] = record.detail?["not_compared"]
        }
        if record.result == "failed", let backup = record.backup, let fault = record.fault,
          record.detail?["proof"] == "failed" || fault.code == .proofFailed
        {
          failedProofs[backup] = FailedProof(time: record.time, record: record.sequence, fault: fault)
        }
        if record.result == "succeeded", let backup = record.backup, let detail = record.detail,
          detail["archive_bytes"] != nil, let stores = detail["stores"]
        {
          committed[backup] = Set(stores.split(separator: ",").map(String.init))
          types[backup] = record.job
          if firstBackups[database] == nil { firstBackups[database] = backup.time }
          made[backup] = record.sequence
        }
        if record.result == "succeeded", let measure = RecoveryMeasure(record) {
          measures[database, default: []].append(measure)
          // Of each store: one that is seldom read must not be forgotten over the others.
          let same = measures[database, default: []].indices.filter {
            measures[database]?[$0].stores.first == measure.stores.first
          }
          if same.count > Self.measuresKept, let oldest = same.first { measures[database]?.remove(at: oldest) }
        }
      }
      conclude(record)
    default:
      break
    }
  }

  private mutating func notePutAside(_ record: LedgerRecord) {
    guard let database = record.database.map(ExactText.init(_:)), let detail = record.detail else { return }
    switch record.kind {
    case .runFinished where record.job == Self.restoreJob && detail[Self.awaitsSwap] != nil:
      guard let name = detail["target"], let identifier = detail[Self.awaitsSwap].flatMap(UInt32.init) else { return }
      incomplete[database, default: [:]][ExactText(name)] = identifier
    case .incompleteSwapped, .incompleteGone:
      if let name = detail["target"] { incomplete[database]?[ExactText(name)] = nil }
      if let name = detail["kept"] { putAside[database, default: []].insert(ExactText(name)) }
    case .runFinished where record.job == Self.restoreJob && record.result == "succeeded":
      // Of a restore in place it is a backup, and of tables a schema.
      if let name = detail["kept"], detail["schema"] == nil { putAside[database, default: []].insert(ExactText(name)) }
    case .databaseRolledBack:
      if let name = detail["from"] { putAside[database]?.remove(ExactText(name)) }
      if let name = detail["kept"] { putAside[database, default: []].insert(ExactText(name)) }
    case .keptDropped:
      // By the entry of the configuration, which may stand for many.
      guard let name = detail["name"] else { return }
      for key in putAside.keys where MemberName.isMeant(key.text, by: database.text) {
        putAside[key]?.remove(ExactText(name))
      }
    default: break
    }
  }

  private mutating func noteBeginnings(_ record: LedgerRecord) {
    began = began ?? record.time
    switch record.kind {
    case .clockCorrected:
      // What began in a time that was none began now at the latest.
      began = began.map { min($0, record.time) }
      configured = configured.mapValues { min($0, record.time) }
      firstBackups = firstBackups.mapValues { min($0, record.time) }
    case .daemonStarted, .configurationReloaded:
      // Versions before did not say which.
      guard let databases = record.databases else { return }
      isConfigurationTold = true
      // What was taken out and comes back begins anew.
      func isThere(_ name: ExactText) -> Bool { databases.contains { MemberName.isMeant(name.text, by: $0) } }
      configured = configured.filter { isThere($0.key) }
      firstBackups = firstBackups.filter { isThere($0.key) }
      for name in databases.exact where configured[name] == nil { configured[name] = record.time }
    case .jobDue:
      // Members of a pattern. A job may take what is configured no more, too.
      for name in (record.databases ?? []).exact where configured[name] == nil {
        guard
          !isConfigurationTold
            || configured.keys.contains(where: { MemberName.database(name.text, in: $0.text) != nil })
        else {
          continue
        }
        configured[name] = record.time
      }
    default: break
    }
  }

  /// Since when a database is configured; a restart does not move it. Where no record names it, since the first one; nil where there is
  /// none.
  package func beginning(of database: String) -> Date? { configured[ExactText(database)] ?? began }

  private mutating func noteDismissed(_ record: LedgerRecord) {
    guard let backup = record.backup else { return }
    if record.kind == .backupPinned { pinned.insert(backup) }
    if record.kind == .backupUnpinned { pinned.remove(backup) }
    switch record.kind {
    case .backupDeleted where record.fault == nil && record.result != LedgerRecord.deletionFailed:
      guard let store = record.store, record.reason == LedgerRecord.onDemand else { return }
      dismissed[PlacementKey(backup: backup, store: store)] = record.time
    // A pin takes the deletion back.
    case .backupPinned: dismissed = dismissed.filter { $0.key.backup != backup }
    // It was made anew.
    case .runFinished where record.result == "succeeded" && record.detail?["archive_bytes"] != nil:
      dismissed = dismissed.filter { $0.key.backup != backup }
    default: break
    }
  }

  private mutating func forget(_ backup: BackupID, _ store: String) {
    committed[backup]?.remove(store)
    deleting[PlacementKey(backup: backup, store: store)] = nil
    if committed[backup]?.isEmpty == true { committed[backup] = nil }
    if committed[backup] == nil { (failedProofs[backup], incompleteProofs[backup], types[backup]) = (nil, nil, nil) }
  }

  /// A clock that is put right by more runs than that has done none of them twice in any case that was seen.
  private static let remembered = 100
  /// The detail of a restore in place that failed and left no database: since when it ran.
  static let lost = "lost"
  /// The detail of a restore that left a database beside the live one: its OID.
  static let awaitsSwap = "awaits_swap"
  /// The detail of a restore that says what it has replaced.
  static let replaced = "replaced"
  private static let cancelledBy = "cancelled_by"

  /// The detail of a run's last record that says who has ended it.
  static func cancelled(by caller: Caller) -> [String: String] {
    [cancelledBy: "uid \(caller.uid), pid \(caller.pid)"]
  }

  private mutating func conclude(_ record: LedgerRecord) {
    guard let name = record.job, let database = record.database.map(ExactText.init(_:)), let due = record.due,
      var job = jobs[name]
    else { return }
    if record.result == "succeeded", job.beganAhead[due] != nil {
      job.beganAhead[due]?.remove(database)
      if job.beganAhead[due]?.isEmpty == true {
        job.beganAhead[due] = nil
        job.doneAhead.insert(due)
      }
      jobs[name] = job
    }
    guard job.lastDue == due else { return }
    switch record.result {
    case "succeeded":
      job.remaining.remove(database)
      job.retries[database] = nil
      if job.remaining.isEmpty { job.done = (job.done + [due]).suffix(Self.remembered) }
    case "aborted" where record.detail?[Self.cancelledBy] != nil:
      // Whoever has stopped it does not want it to come back by itself.
      job.remaining.remove(database)
      job.retries[database] = nil
    case "failed":
      if let start = record.retry {
        job.retries[database] = Retry(attempt: (record.attempt ?? 1) + 1, start: start)
      } else {
        job.remaining.remove(database)
        job.retries[database] = nil
      }
    case "interrupted":
      // Still to be done, but not for ever: it may be what kills the daemon.
      job.retries[database] = Retry(attempt: (record.attempt ?? 1) + 1, start: record.time)
    default:
      // Aborted: still to be done.
      break
    }
    jobs[name] = job
  }

  /// Whether the clock shows hours less than it did when the last record was written.
  package func isCorrected(at now: Date) -> Bool {
    newest.map { now < $0.addingTimeInterval(-ScheduleTable.correction) } ?? false
  }

  /// From when on a job's instants count after a restart: the last one it was told of, or since when its schedule is in force.
  package func anchor(of name: String, schedule: String) -> Date? {
    guard let job = jobs[name], job.schedule == schedule else { return nil }
    return [job.lastDue, job.since].compactMap { $0 }.max()
  }
}

extension RecoveryMeasure {
  /// What a record tells of a restore or a drill of all of a backup; nil where it is of something else.
  fileprivate init?(_ record: LedgerRecord) {
    guard let detail = record.detail, let backup = record.backup, detail["whole"] == "yes",
      let bytes = detail["loaded_bytes"].flatMap({ Int64($0) }), bytes > 0
    else { return nil }
    let phases = detail.compactMap { key, value -> (String, Double)? in
      guard key.ends(withBytes: "_s"), let seconds = Double(value), key != "downtime_s" else { return nil }
      return (String(key.dropLast(2)), seconds)
    }
    self.init(
      time: record.time, backup: backup, stores: (detail["stores"] ?? "").split(separator: ",").map(String.init),
      bytes: bytes, phases: Dictionary(phases, uniquingKeysWith: +), record: record.sequence)
  }
}

/// How a restore puts its database into place, as the ledger has it.
enum RestoreWay: String {
  case inPlace = "in-place"
  /// What was there before one of those that failed.
  case putBack = "put-back"
}
