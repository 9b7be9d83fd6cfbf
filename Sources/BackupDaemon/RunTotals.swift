package import Foundation
package import Quoting
import Units

/// What the ledger adds up to: for metrics and for the page. It counts since the ledger's beginning, so that a restart resets nothing.
package struct RunTotals: Sendable, Equatable {
  package struct Result: Sendable, Hashable {
    package let run: RunHistory.JobOnDatabase
    package let result: String

    package init(job: String, database: String, result: String) {
      (run, self.result) = (.init(job: job, database: database), result)
    }
  }

  package struct StoreResult: Sendable, Hashable {
    package var store: String
    package var result: String
  }

  /// The runs of one day (UTC) on a database.
  package struct Day: Sendable, Equatable {
    package var succeeded = 0
    package var failed = 0
  }

  /// What one backup was like.
  package struct Figures: Sendable, Equatable {
    package var time: Date
    package var storedBytes: Int64
    package var rows: Int64
    package var seconds: Double
  }

  package private(set) var runs: [Result: Int] = [:]
  package private(set) var lastSuccess: [RunHistory.JobOnDatabase: Date] = [:]
  /// Seconds of the last run.
  package private(set) var lastSeconds: [RunHistory.JobOnDatabase: Double] = [:]
  /// Tries behind the first.
  package private(set) var retries: [RunHistory.JobOnDatabase: Int] = [:]
  package private(set) var verified: [StoreResult: Int] = [:]
  package private(set) var copied: [StoreResult: Int] = [:]
  package private(set) var deleted: [String: Int] = [:]
  /// By database, then by the day's number since 1970.
  package private(set) var days: [ExactText: [Int: Day]] = [:]

  /// Of each database's backups, the last ones, whether they have expired or not.
  package private(set) var growth: [ExactText: [Figures]] = [:]

  package init() {}

  /// A year, and the rest of its first week.
  private static let daysKept = 380
  private static let figuresKept = 400

  /// - Parameter began: when the run did that this record ends.
  mutating func apply(_ record: LedgerRecord, began: Date?) {
    switch record.kind {
    case .backupVerified:
      if let store = record.store {
        verified[StoreResult(store: store, result: record.result ?? "unread"), default: 0] += 1
      }
    case .backupCopied:
      if let store = record.store {
        copied[StoreResult(store: store, result: record.fault == nil ? "succeeded" : "failed"), default: 0] += 1
      }
    case .backupDeleted where record.fault == nil:
      if let store = record.store { deleted[store, default: 0] += 1 }
    case .runFinished:
      guard let job = record.job, let database = record.database, let result = record.result else { return }
      let key = RunHistory.JobOnDatabase(job: job, database: database)
      runs[Result(job: job, database: database, result: result), default: 0] += 1
      if result == "succeeded" { lastSuccess[key] = record.time }
      lastSeconds[key] = began.map { max(0, record.time.timeIntervalSince($0)) }
      if record.attempt ?? 1 > 1 { retries[key, default: 0] += 1 }
      count(ExactText(database), record.time, result)
      // Only a backup's record tells both.
      if result == "succeeded", let detail = record.detail, let rows = detail["rows"].flatMap({ Int64($0) }),
        detail["archive_bytes"] != nil, let bytes = detail["stored_bytes"].flatMap({ Int64($0) }), record.backup != nil
      {
        let figures = Figures(
          time: record.time, storedBytes: bytes, rows: rows, seconds: lastSeconds[key] ?? 0)
        growth[ExactText(database), default: []].append(figures)
        growth[ExactText(database)] = growth[ExactText(database)]?.suffix(Self.figuresKept)
      }
    default: break
    }
  }

  private mutating func count(_ database: ExactText, _ time: Date, _ result: String) {
    guard result != "aborted" else { return }
    let day = Int((time.timeIntervalSince1970 / 86_400).rounded(.down))
    if result == "succeeded" {
      days[database, default: [:]][day, default: Day()].succeeded += 1
    } else {
      days[database, default: [:]][day, default: Day()].failed += 1
    }
    if let all = days[database], all.count > Self.daysKept + 30 {
      days[database] = all.filter { $0.key > day - Self.daysKept }
    }
  }
}
