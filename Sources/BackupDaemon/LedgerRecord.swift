import ArtifactFormat
package import BackupCatalog
package import ControlAPI
package import Faults
package import Foundation

/// One line of the ledger: something that was done, when, by whom and why. Each carries the SHA-256 of the line before it, so
/// that a changed or missing line is seen.
package struct LedgerRecord: Codable, Sendable, Equatable {
  package enum Kind: String, Codable, Sendable {
    case daemonStarted = "daemon.started"
    case daemonStopped = "daemon.stopped"
    case configurationReloaded = "configuration.reloaded"
    case configurationRejected = "configuration.rejected"
    /// A job's schedule is in force from now on.
    case jobScheduled = "job.scheduled"
    /// A job is due, for the `databases` named.
    case jobDue = "job.due"
    /// A job was due and does not run: it was missed by more than its `catch_up`.
    case jobSkipped = "job.skipped"
    /// The clock was set back by hours: what it showed since counts no more.
    case clockCorrected = "clock.corrected"
    /// The clock was set forward by more than can be believed: nothing expires before that is confirmed.
    case clockAdvanced = "clock.advanced"
    /// Somebody has confirmed the clock, or it was set back.
    case clockConfirmed = "clock.confirmed"
    case runStarted = "run.started"
    /// Its turn came in its job's quiet hours; `reason` says until when it waits.
    case runPostponed = "run.postponed"
    case runFinished = "run.finished"
    /// A database that a restore had replaced was dropped: it was older than `keep_replaced`.
    case keptDropped = "kept.dropped"
    case databaseRolledBack = "database.rolled_back"
    /// What a restore had left beside a database, because objects were lacking, has taken its place: somebody said so.
    case incompleteSwapped = "incomplete.swapped"
    /// It is not on the server any more.
    case incompleteGone = "incomplete.gone"
    case backupCopied = "backup.copied"
    case proofCopied = "proof.copied"
    /// RECOVER.txt was written anew where it was missing.
    case recoverWritten = "recover.written"
    case backupLocked = "backup.locked"
    /// A placement was read back; `fault` says what is wrong with it.
    case backupVerified = "backup.verified"
    /// It is about to be deleted from a store: what is left of it there from now on is no backup.
    case backupDeleting = "backup.deleting"
    case backupDeleted = "backup.deleted"
    /// What it was flagged for is right, somebody says.
    case backupAccepted = "backup.accepted"
    case backupPinned = "backup.pinned"
    case backupUnpinned = "backup.unpinned"
    case leftoversSwept = "leftovers.swept"
    case ledgerRepaired = "ledger.repaired"
    /// A request on the control socket was refused: `by` has not the role that it needs.
    case requestRefused = "request.refused"
  }

  package var sequence: Int
  package var time: Date
  package var kind: Kind
  package var job: String?
  package var database: String?
  /// The databases that a job is due for; of a start or a reload, those that are configured.
  package var databases: [String]?
  package var run: String?
  package var backup: BackupID?
  package var store: String?
  package var by: Caller?
  package var reason: String?
  /// The due instant of a scheduled run.
  package var due: Date?
  /// Which try of a scheduled run it was, from 1.
  package var attempt: Int?
  /// `succeeded`, `failed`, `aborted`, or `interrupted` where the daemon died in it.
  package var result: String?
  /// When a failed run is tried again.
  package var retry: Date?
  package var fault: Fault?
  package var detail: [String: String]?
  /// SHA-256 of the line before, without its newline; 64 zeros in the first line.
  package var previous: String

  package init(_ kind: Kind, at time: Date) {
    sequence = 0
    self.time = time
    self.kind = kind
    previous = Self.noDigest
  }

  /// The `result` of a deletion that was not done: with a fault, some of it may have gone.
  package static let deletionFailed = "failed"
  /// The reason of a deletion that a command asked for.
  package static let onDemand = "on demand"

  /// No ledger has more lines: numbers beyond it are damage, and what counts on from them would overflow.
  static let largestSequence = 1 << 53

  package static let noDigest = String(repeating: "0", count: 64)

  /// The record as its line, without the newline.
  package func line() throws -> Data { try ControlJSON.encode(self) }

  package static func digest(ofLine line: some DataProtocol) -> String {
    Digest.hexadecimal(of: [UInt8](line))
  }
}

/// What reading a ledger from its beginning finds.
package struct LedgerExamination: Sendable {
  /// Whole lines that form the chain.
  package var records = 0
  package var lastDigest = LedgerRecord.noDigest
  package var lastSequence = 0
  /// Bytes up to the end of the last whole line.
  package var wholeBytes = 0
  /// Bytes behind it: a record whose writing a crash cut off.
  package var tornBytes = 0
  /// The first line (from 1) that does not fit to the one before it, where there is one.
  package var brokenLine: Int?
  /// Records that this process has written and that are not there any more.
  package var missing = 0
  package var history = RunHistory()

  /// Digests of the lines that somebody bears witness of, by their numbers.
  package var witnessed: [Int: String] = [:]

  /// - Parameter wanted: numbers of lines whose digests are asked for.
  package init(_ data: Data, witnessing wanted: Set<Int> = []) {
    var rest = data[...]
    while let end = rest.firstIndex(of: 10) {
      let line = rest[rest.startIndex..<end]
      rest = rest[rest.index(after: end)...]
      records += 1
      wholeBytes += line.count + 1
      let record = try? ControlJSON.decode(LedgerRecord.self, from: Data(line))
      if brokenLine == nil, record?.previous != lastDigest || record?.sequence != lastSequence + 1 {
        brokenLine = records
      }
      lastDigest = LedgerRecord.digest(ofLine: line)
      let number = record.map(\.sequence).flatMap { (0...LedgerRecord.largestSequence).contains($0) ? $0 : nil }
      lastSequence = number ?? lastSequence + 1
      if wanted.contains(lastSequence) { witnessed[lastSequence] = lastDigest }
      if let record { history.apply(record) }
    }
    tornBytes = rest.count
  }
}
