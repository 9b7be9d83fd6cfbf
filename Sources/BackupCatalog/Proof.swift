package import Faults
package import Foundation
import Units

/// That a backup was restored and compared, with what that rests on; or that a drill found it to be something else. It lies beside the backup,
/// signed, and names no table: whoever can read the store learns no more than the manifest tells.
package struct Proof: VersionedRecord, Equatable {
  package static let format = "pgbackupd-proof"
  package static let majorVersion = 1

  package var backup: BackupID
  package var finished: Date
  package var host: String
  package var software: String
  /// The server that it was restored into: `15.18`.
  package var server: String
  /// The stores that it was read from.
  package var stores: [String]
  package var tables: Int
  /// Tables whose rows and fingerprints were compared and are those of the backup.
  package var provedTables: Int
  /// Tables, and large objects, that could not be compared.
  package var unproved: Int
  package var rows: Int64
  package var archiveBytes: Int64
  package var storedBytesRead: Int64
  package var phases: [RestoreOutcome.Phase]
  /// The user's own statements that held; all that there were.
  package var assertions: Int
  /// Indexes and tables that amcheck found sound; nil where it is not installed.
  package var checkedRelations: Int?
  /// The SHA-256 of the artifact, where all of it was read in one go; nil where its frames were checked one by one, and
  /// from a version that did not say.
  package var artifact: String?
  /// What was read, by the digests that were checked. Nil from a version that did not say.
  package var read: ReadEvidence?
  /// The code of what a drill failed with; nil where it proved the backup. What reads no such field finds nothing proved either.
  package var failure: String?
  /// How many objects could not be made, where every row is proved all the same; `failure` says so too.
  package var unmade: Int?
  /// The ledger's last line when it was signed: the store is its witness.
  package var ledger: Manifest.LedgerWitness?

  package init(
    backup: BackupID, finished: Date, host: String, software: String, server: String, stores: [String],
    outcome: RestoreOutcome, assertions: Int, checkedRelations: Int?
  ) {
    self.backup = backup
    self.finished = finished
    self.host = host
    self.software = software
    self.server = server
    self.stores = stores
    tables = outcome.tables
    provedTables = outcome.provedTables
    unproved = outcome.unproved.count
    rows = outcome.rows
    archiveBytes = outcome.loadedBytes
    storedBytesRead = outcome.storedBytesRead
    phases = outcome.phases
    self.assertions = assertions
    self.checkedRelations = checkedRelations
    failure = outcome.incompleteness?.code.rawValue
    unmade = outcome.unmade?.count
    read = outcome.evidence
    artifact = outcome.evidence?.artifact
  }

  /// That a drill did not prove the backup.
  package init(
    failed code: FaultCode, _ manifest: Manifest, finished: Date, host: String, software: String, stores: [String]
  ) {
    self.init(
      backup: manifest.id, finished: finished, host: host, software: software, server: "", stores: stores,
      outcome: RestoreOutcome(database: ""), assertions: 0, checkedRelations: nil)
    tables = manifest.totals.tables
    unproved = max(1, tables)
    failure = code.rawValue
  }

  package var seconds: Double { phases.map(\.seconds).reduce(0, +) }

  /// All of it was compared, and is what was backed up.
  package var isWhole: Bool { failure == nil && hasAllRows }

  /// All rows were compared, and are those that were backed up; of the rest of the schema something could not be made.
  package var isOfRows: Bool { failure == FaultCode.schemaIncomplete.rawValue && hasAllRows }

  private var hasAllRows: Bool { unproved == 0 && provedTables == tables }

  package var flaw: String? {
    let counts = [Int64(tables), Int64(provedTables), Int64(unproved), rows, archiveBytes, storedBytesRead]
    guard counts.allSatisfy({ (0...1 << 60).contains($0) }), provedTables <= tables else { return "its counts" }
    guard phases.allSatisfy({ (0...1e9).contains($0.seconds) }), phases.count < 100 else { return "its times" }
    guard (failure ?? "").utf8.count <= 100 else { return "what it failed with" }
    guard (0...1 << 30).contains(unmade ?? 0) else { return "its counts" }
    if let read, !(0...read.allFrames).contains(read.frames) { return "what it read" }
    return nil
  }

  /// One for each drill: a proof is never overwritten.
  package static func name(at time: Date) -> String { "\(prefix)\(time.stamp).json" }
  package static let prefix = "proof-"
}

/// What a restore has read of a backup, by the digests that it has computed over the bytes that it used.
package struct ReadEvidence: Codable, Sendable, Equatable {
  /// SHA-256 of the contents, as they are stored.
  package var contents: String
  /// SHA-256 of the artifact, where it was read whole before it was used; nil where frames were checked one by one.
  package var artifact: String?
  /// How many of the artifact's frames were read and had the digest that the contents name.
  package var frames: Int
  package var allFrames: Int
  /// SHA-256 over the hexadecimal digests of these frames, one behind the other, in their order; nil where the contents
  /// have none.
  package var digest: String?

  package init(contents: String, artifact: String?, frames: Int, allFrames: Int, digest: String?) {
    self.contents = contents
    self.artifact = artifact
    self.frames = frames
    self.allFrames = allFrames
    self.digest = digest
  }
}

/// What came of a drill, for who asked for it.
package struct DrillReport: Codable, Sendable, Equatable {
  package var proof: Proof
  /// What could not be compared, and why.
  package var unproved: [String]
  /// What the server has computed anew, from rows that are proved.
  package var derived: [String]?
  /// What the server did not take; nil where it took all.
  package var unmade: [UnmadeObject]?
  /// Of how many objects.
  package var objects: Int?
  /// The same as what the drill failed with.
  package var incompleteness: Fault?
  /// What the kernel could not refuse to code of the backup, a sentence each; nil where it refuses all.
  package var gaps: [String]?

  package init(proof: Proof, unproved: [String], derived: [String]? = nil) {
    self.proof = proof
    self.unproved = unproved
    self.derived = derived
  }
}

extension DrillReport {
  /// A list that fits into a record; nil where it is empty.
  package static func names(_ all: [String]) -> String? {
    guard !all.isEmpty else { return nil }
    return all.prefix(30).joined(separator: "; ") + (all.count > 30 ? "; and \(all.count - 30) more" : "")
  }
}
