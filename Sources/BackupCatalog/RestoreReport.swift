package import Faults
package import Foundation
import Quoting

/// An object of a backup that a server did not take; nothing else of the backup lacks for it.
package struct UnmadeObject: Sendable, Codable, Equatable {
  /// PostgreSQL's name of the kind: `FK CONSTRAINT`.
  package var kind: String
  /// `schema.name`, of constraints with their table's.
  package var name: String
  /// The server's own words.
  package var reason: String
  /// Makes it when the cause is mended. Nil where it is there and lacks something, and where it may hold a password.
  package var sql: String?

  package init(kind: String, name: String, reason: String, sql: String?) {
    self.kind = kind
    self.name = name
    self.reason = reason
    self.sql = sql
  }

  package var label: String { "\(kind) \(name)" }

  /// The words without what they say besides: one line.
  package var sentence: String { "\(label): \(reason.lines.first ?? "")" }
}

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
  /// What the server did not take, where the restore went on without it; nil where it took all.
  package var unmade: [UnmadeObject]?
  /// Of how many objects.
  package var objects: Int?
  /// The OID of `database`, where it lacks objects and waits beside the live one for somebody who says that it may take
  /// its place; nil else.
  package var awaitsSwap: UInt32?
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

  /// Every row is there, and some objects are not; nil where the server took all of them.
  package var incompleteness: Fault? {
    guard let unmade, !unmade.isEmpty else { return nil }
    let rows = provedTables == tables && isProved ? "Every row is proved, and" : "Not every row is proved, and"
    let more = unmade.count > 12 ? "\n… and \(unmade.count - 12) more" : ""
    return Fault(
      provedTables == tables && isProved ? .schemaIncomplete : .restoreFailed,
      "\(rows) \(unmade.count) of \(objects ?? unmade.count) objects could not be made: "
        + unmade.prefix(3).map(\.label).joined(separator: ", ") + (unmade.count > 3 ? ", …" : "") + ".",
      cause: unmade.prefix(12).map(\.sentence).joined(separator: "\n") + more,
      hint: "mend what it says in the live database, and make a backup")
  }

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
