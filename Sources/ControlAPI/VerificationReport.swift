package import BackupCatalog
package import Faults
package import Foundation

/// `GET /v1/report`: what is known of every backup, and what each claim rests on.
package struct VerificationReport: Codable, Sendable {
  package struct Placement: Codable, Sendable {
    package var backup: BackupID
    package var type: String
    package var store: String
    package var storedBytes: Int64
    package var isWhole: Bool
    /// Nil where nobody has read it back yet: never shown as sound.
    package var verified: Date?
    package var level: VerifyLevel?
    package var isSound: Bool?
    /// The ledger's record that says so.
    package var record: Int?

    package init(
      backup: BackupID, type: String, store: String, storedBytes: Int64, isWhole: Bool, verified: Date?,
      level: VerifyLevel?, isSound: Bool?, record: Int?
    ) {
      self.backup = backup
      self.type = type
      self.store = store
      self.storedBytes = storedBytes
      self.isWhole = isWhole
      self.verified = verified
      self.level = level
      self.isSound = isSound
      self.record = record
    }
  }

  package struct Backup: Codable, Sendable {
    package var summary: BackupSummary
    /// The ledger's record of the run that made it; nil where another host's ledger, or a lost one, has that.
    package var madeRecord: Int?
    /// The ledger's record of its proof; nil where the proof beside the backup says so, or nothing does.
    package var proofRecord: Int?
    package var proof: Proof?
    /// What its last drill or restore could not compare, or the server has computed anew.
    package var notCompared: String?

    package init(
      summary: BackupSummary, madeRecord: Int?, proofRecord: Int?, proof: Proof?, notCompared: String? = nil
    ) {
      self.notCompared = notCompared
      self.summary = summary
      self.madeRecord = madeRecord
      self.proofRecord = proofRecord
      self.proof = proof
    }
  }

  /// Something that is wrong, and what says so.
  package struct Finding: Codable, Sendable {
    package var fault: Fault
    /// The ledger's record that it rests on; nil for what was seen when the report was made.
    package var record: Int?

    package init(fault: Fault, record: Int?) {
      self.fault = fault
      self.record = record
    }

    /// In words.
    package var basis: String { record.map { "#\($0)" } ?? "seen when this was made" }
  }

  /// All placements together.
  package struct Totals: Codable, Sendable, Equatable {
    package var placements = 0
    package var storedBytes: Int64 = 0
    /// Read back, at whatever level.
    package var checked = 0
    package var valid = 0
    package var invalid = 0
    /// Of the valid ones, those whose every row was compared with the contents.
    package var validByRow = 0
    package var never = 0

    package init(_ placements: [Placement]) {
      for one in placements {
        self.placements += 1
        storedBytes += one.storedBytes
        let isInvalid = !one.isWhole || one.isSound == false
        if one.verified == nil { never += 1 } else { checked += 1 }
        if isInvalid { invalid += 1 }
        guard !isInvalid, one.isSound == true else { continue }
        valid += 1
        if one.level == .archive { validByRow += 1 }
      }
    }

    package var sentence: String {
      "\(placements) stored backups in all: \(checked) read back, \(valid) valid (\(validByRow) of them row by row), "
        + "\(invalid) invalid, \(never) never read."
    }
  }

  package var now: Date
  package var host: String
  package var version: String
  package var totals: Totals
  package var databases: [StatusReport.Database]
  package var backups: [Backup]
  package var placements: [Placement]
  package var ledger: LedgerReport
  package var problems: [Finding]

  package init(
    now: Date, host: String, version: String, databases: [StatusReport.Database], backups: [Backup],
    placements: [Placement], ledger: LedgerReport, problems: [Finding]
  ) {
    self.now = now
    self.host = host
    self.version = version
    totals = Totals(placements)
    self.databases = databases
    self.backups = backups
    self.placements = placements
    self.ledger = ledger
    self.problems = problems
  }
}

/// `GET /v1/ledger/verify`: whether the ledger is what was written, by its own chain and by the witness of signed manifests.
package struct LedgerReport: Codable, Sendable {
  package var records: Int
  package var lastSequence: Int
  /// Of the last line.
  package var digest: String
  /// The first line that does not fit to the one before it.
  package var brokenLine: Int?
  /// Records that the daemon has written and that are not there any more.
  package var missing: Int
  /// Manifests and proofs that bear witness of a line of this ledger.
  package var witnesses: Int
  /// Those whose line is missing here, or is another one.
  package var contradictions: [BackupID]

  package init(
    records: Int, lastSequence: Int, digest: String, brokenLine: Int?, missing: Int, witnesses: Int,
    contradictions: [BackupID]
  ) {
    self.missing = missing
    self.records = records
    self.lastSequence = lastSequence
    self.digest = digest
    self.brokenLine = brokenLine
    self.witnesses = witnesses
    self.contradictions = contradictions
  }

  package var isWhole: Bool { brokenLine == nil && contradictions.isEmpty }

  /// What was found, for people.
  package var sentences: String {
    var text = "Ledger: \(records) records, the last one #\(lastSequence), SHA-256 \(digest). "
    if missing > 0 {
      text += "Its last \(missing) records are GONE: the daemon has written them. "
    } else if let line = brokenLine {
      text += "Line \(line) does NOT fit to the one before it. "
    } else {
      text += "The chain is whole. "
    }
    if contradictions.isEmpty {
      text +=
        "\(witnesses) signed record\(witnesses == 1 ? " in the stores bears" : "s in the stores bear") witness of it."
    } else {
      text +=
        "\(contradictions.count) of \(witnesses) signed records in the stores CONTRADICT it: "
        + contradictions.prefix(6).map { "\($0)" }.joined(separator: ", ")
    }
    return text
  }
}
