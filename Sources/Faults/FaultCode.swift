/// Every failure the product can report, by its stable code. Scripts match on these: a code is never reused and never
/// renamed. The exit code groups them as `pgbackupctl` documents (see `ExitCode`).
package enum FaultCode: String, Sendable, Codable, CaseIterable {
  // usage and configuration
  case usage = "E-USAGE"
  case configInvalid = "E-CONFIG-INVALID"
  case configUnreadable = "E-CONFIG-UNREADABLE"
  case configExposed = "E-CONFIG-EXPOSED"
  case accountMissing = "E-ACCOUNT-MISSING"

  // the database
  case databaseUnreachable = "E-DB-UNREACHABLE"
  case databaseAuthentication = "E-DB-AUTH"
  case databaseMissing = "E-DB-MISSING"
  case databasePrivilege = "E-DB-PRIVILEGE"
  case databaseRowSecurity = "E-DB-ROW-SECURITY"
  case databaseQuery = "E-DB-QUERY"
  case databaseServer = "E-DB-SERVER"
  case databaseSuperuser = "E-DB-SUPERUSER"
  case databaseUnverified = "E-DB-UNVERIFIED"
  case databaseUntested = "E-DB-UNTESTED"

  // the client programs
  case toolMissing = "E-TOOL-MISSING"
  case toolTooOld = "E-TOOL-TOO-OLD"
  case dumpFailed = "E-DUMP-FAILED"
  case dumpLocks = "E-DUMP-LOCKS"
  case dumpLockTimeout = "E-DUMP-LOCK-TIMEOUT"
  case dumpStalled = "E-DUMP-STALLED"
  case loadExceeded = "E-LOAD-EXCEEDED"
  case globalsFailed = "E-GLOBALS-FAILED"
  case archiveMalformed = "E-ARCHIVE-MALFORMED"

  // keys
  case keyMissing = "E-KEY-MISSING"
  case keyInvalid = "E-KEY-INVALID"
  case keyFailed = "E-KEY-FAILED"

  // stores
  case storeMissing = "E-STORE-MISSING"
  case storeUnreachable = "E-STORE-UNREACHABLE"
  case storeUntrusted = "E-STORE-UNTRUSTED"
  case storeReadOnly = "E-STORE-READ-ONLY"
  case storeFull = "E-STORE-FULL"
  case storeSpace = "E-STORE-SPACE"
  case storeFailed = "E-STORE-FAILED"
  case storeConflict = "E-STORE-CONFLICT"
  case storeStale = "E-STORE-STALE"
  case objectMissing = "E-OBJECT-MISSING"

  // the catalog
  case backupMissing = "E-BACKUP-MISSING"
  case pinUnknown = "E-PIN-UNKNOWN"
  case backupPinned = "E-BACKUP-PINNED"
  case backupLast = "E-BACKUP-LAST"
  case backupDoubtful = "E-BACKUP-DOUBTFUL"
  case backupNewer = "E-BACKUP-NEWER"
  case signatureInvalid = "E-SIGNATURE-INVALID"
  case manifestInvalid = "E-MANIFEST-INVALID"
  case pinUnreadable = "E-PIN-UNREADABLE"
  case formatTooNew = "E-FORMAT-TOO-NEW"
  case artifactDamaged = "E-ARTIFACT-DAMAGED"

  // restores
  case restoreFailed = "E-RESTORE-FAILED"
  case schemaIncomplete = "E-SCHEMA-INCOMPLETE"
  case restoreRefused = "E-RESTORE-REFUSED"
  case restoreNameTaken = "E-RESTORE-NAME-TAKEN"
  case roleMissing = "E-ROLE-MISSING"
  case extensionMissing = "E-EXTENSION-MISSING"
  case tablespaceMissing = "E-TABLESPACE-MISSING"
  case tableMissing = "E-TABLE-MISSING"
  case proofFailed = "E-PROOF-FAILED"
  case drillFailed = "E-DRILL-FAILED"
  case confinementWeak = "E-CONFINEMENT-WEAK"
  case assertionFailed = "E-ASSERTION-FAILED"
  case assertionInvalid = "E-ASSERTION-INVALID"
  case swapFailed = "E-SWAP-FAILED"
  case replicationLeft = "E-REPLICATION-LEFT"
  case statisticsMissing = "E-STATISTICS-MISSING"
  case adoptRefused = "E-ADOPT-REFUSED"
  case rollbackMissing = "E-ROLLBACK-MISSING"
  case rollbackRefused = "E-ROLLBACK-REFUSED"

  // runs
  case jobMissing = "E-JOB-MISSING"
  case runConflict = "E-RUN-CONFLICT"
  case runAborted = "E-RUN-ABORTED"
  case runTimeout = "E-RUN-TIMEOUT"
  case runStalled = "E-RUN-STALLED"
  case runInterrupted = "E-RUN-INTERRUPTED"
  case objectiveMissed = "E-OBJECTIVE-MISSED"
  case objectiveAtRisk = "E-OBJECTIVE-AT-RISK"
  case quorumMissed = "E-QUORUM-MISSED"
  case clockDoubtful = "E-CLOCK-DOUBTFUL"

  // what goes out
  case alertUndelivered = "E-ALERT-UNDELIVERED"
  case hookFailed = "E-HOOK-FAILED"

  // the daemon
  case daemonUnreachable = "E-DAEMON-UNREACHABLE"
  case daemonRunning = "E-DAEMON-RUNNING"
  case notAllowed = "E-NOT-ALLOWED"
  case confirmationNeeded = "E-CONFIRMATION-NEEDED"
  case ledgerDamaged = "E-LEDGER-DAMAGED"
  case ledgerFailed = "E-LEDGER-FAILED"
  case storeSilent = "E-STORE-SILENT"
  case storeReading = "E-STORE-READING"
  case `internal` = "E-INTERNAL"
}

extension FaultCode {
  /// The exit status that a program ends with when this fault ends it.
  package var exitCode: ExitCode {
    switch self {
    case .usage: .usage
    case .configInvalid, .configUnreadable, .objectiveMissed, .objectiveAtRisk, .quorumMissed, .clockDoubtful,
      .backupDoubtful, .confinementWeak, .alertUndelivered, .replicationLeft, .statisticsMissing, .databaseSuperuser,
      .databaseUnverified, .databaseUntested, .configExposed, .accountMissing, .storeStale, .backupNewer,
      .pinUnknown:
      .problemsFound
    case .databaseUnreachable, .storeMissing, .storeUnreachable, .storeUntrusted, .storeSilent, .storeReading,
      .daemonUnreachable:
      .unreachable
    case .databaseAuthentication, .notAllowed, .backupPinned, .backupLast, .confirmationNeeded: .notAllowed
    case .databaseMissing, .objectMissing, .backupMissing, .jobMissing, .tableMissing,
      .rollbackMissing:
      .notFound
    case .databasePrivilege, .databaseRowSecurity, .toolMissing, .toolTooOld, .storeReadOnly, .storeSpace,
      .keyMissing, .keyInvalid, .restoreRefused, .rollbackRefused, .adoptRefused, .roleMissing, .extensionMissing,
      .tablespaceMissing:
      .preflightFailed
    case .runConflict, .storeConflict, .daemonRunning, .restoreNameTaken: .conflict
    case .runAborted, .runInterrupted: .aborted
    case .signatureInvalid, .manifestInvalid, .pinUnreadable, .artifactDamaged, .ledgerDamaged, .proofFailed,
      .assertionFailed, .schemaIncomplete:
      .verificationFailed
    case .databaseQuery, .databaseServer, .assertionInvalid, .dumpFailed, .dumpLocks, .dumpLockTimeout, .dumpStalled,
      .loadExceeded,
      .globalsFailed, .archiveMalformed,
      .storeFull,
      .storeFailed, .formatTooNew, .ledgerFailed, .runTimeout, .runStalled, .restoreFailed, .swapFailed, .drillFailed,
      .hookFailed, .keyFailed, .internal:
      .failed
    }
  }
}

/// The exit statuses of `pgbackupd` and `pgbackupctl`: one table, documented in the README, never reused.
package enum ExitCode: Int32, Sendable, Codable, CaseIterable {
  case done = 0
  case failed = 1
  case usage = 2
  case notAllowed = 3
  /// A check before the work refused it: nothing was changed.
  case preflightFailed = 4
  case aborted = 5
  case notFound = 6
  case conflict = 7
  /// A store, a database or the daemon could not be reached.
  case unreachable = 8
  case verificationFailed = 9
  case problemsFound = 10
  case interrupted = 130
}
