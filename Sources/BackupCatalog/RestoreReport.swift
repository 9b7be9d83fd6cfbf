package import Faults
package import Foundation

/// What came of a restore, with what it rests on.
package struct RestoreOutcome: Sendable, Codable, Equatable {
  package struct Phase: Sendable, Codable, Equatable {
    package var name: String
    package var seconds: Double

    package init(name: String, seconds: Double) {
      self.name = name
      self.seconds = seconds
    }
  }

  /// Where the data is now.
  package var database: String
  package var schema: String?
  /// What was replaced: a database, or a schema that holds the rows.
  package var kept: String?
  package var phases: [Phase] = []
  package var tables = 0
  /// Whether it was all of the backup, and not a choice of tables.
  package var isWhole = false
  package var rows: Int64 = 0
  /// Tables whose rows and fingerprints were compared and are those of the backup.
  package var provedTables = 0
  /// What could not be compared, and why: never counted as proved.
  package var unproved: [String] = []
  /// What the server has computed anew, from rows that are proved; nil from a version that did not look.
  package var derived: [String]?
  /// Of the archive.
  package var loadedBytes: Int64 = 0
  /// Of the artifact, of which so many were needed.
  package var storedBytesRead: Int64 = 0
  package var storedBytes: Int64 = 0
  /// Of a rollback: when what is back now was replaced.
  package var replaced: Date?
  /// Of a rollback: the name under which that was kept.
  package var putBack: String?
  /// From the first connection that was ended to the last rename.
  package var downtimeSeconds: Double?
  /// The stores that it was read from, the nearest first.
  package var stores: [String] = []
  /// The digests of what was read; nil from a version that did not say.
  package var evidence: ReadEvidence?
  /// Placements that failed on the way.
  package var warnings: [Fault] = []

  package init(database: String) { self.database = database }

  package var isProved: Bool { unproved.isEmpty }

  /// The same as a sentence.
  package static func sentence(derived: [String]?) -> String? {
    guard let derived, !derived.isEmpty else { return nil }
    let rest = derived.count > 12 ? " and \(derived.count - 12) more" : ""
    return "not compared (computed anew, or not in the backup): \(derived.prefix(12).joined(separator: ", "))\(rest)"
  }
}

/// What a restore would do, step by step, before any of it is done.
package struct RestorePreview: Sendable, Codable, Equatable {
  package var backup: BackupID
  package var type: String
  package var taken: Date
  package var server: String
  /// In order, a sentence each.
  package var steps: [String]
  package var tables: [String]
  package var rows: Int64
  /// Plain bytes to load.
  package var bytes: Int64
  /// Bytes of the artifact to read, about, and all that it has.
  package var readBytes: Int64
  package var storedBytes: Int64
  /// SQL that makes roles and tablespaces, without passwords.
  package var globals: [String]
  /// What somebody has to see to afterwards.
  package var warnings: [Fault]
  /// About, from the last restore of the same database; nil where there was none.
  package var seconds: Double?

  package init(
    backup: BackupID, type: String, taken: Date, server: String, steps: [String], tables: [String], rows: Int64,
    bytes: Int64, readBytes: Int64, storedBytes: Int64, globals: [String], warnings: [Fault] = []
  ) {
    self.backup = backup
    self.type = type
    self.taken = taken
    self.server = server
    self.steps = steps
    self.tables = tables
    self.rows = rows
    self.bytes = bytes
    self.readBytes = readBytes
    self.storedBytes = storedBytes
    self.globals = globals
    self.warnings = warnings
  }
}
