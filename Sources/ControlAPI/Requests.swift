package import BackupCatalog
package import Faults
package import Foundation

/// `POST /v1/backups`.
package struct BackupCommand: Codable, Sendable {
  package var database: String
  package var type: String?
  package var label: String?
  /// A duration as in the configuration.
  package var keep: String?

  package init(database: String, type: String?, label: String?, keep: String?) {
    self.database = database
    self.type = type
    self.label = label
    self.keep = keep
  }
}

/// `POST /v1/pin`, `POST /v1/unpin`, `POST /v1/delete`: one backup by its selector.
package struct BackupReference: Codable, Sendable {
  package var id: String
  package var note: String?
  /// For `delete`: also the last good backup of its database.
  package var force: Bool?

  package init(id: String, note: String? = nil, force: Bool? = nil) {
    self.id = id
    self.note = note
    self.force = force
  }
}

/// `POST /v1/restores`, and `POST /v1/restores/preview`.
package struct RestoreCommand: Codable, Sendable {
  /// Of the backup, as a person types it.
  package var id: String
  package var tables: [String] = []
  package var schemas: [String] = []
  /// A new database, instead of the live one's place.
  package var into: String?
  package var inPlace = false
  /// Of chosen tables: replaces the live rows.
  package var replace = false
  /// Of chosen tables: the schema that they come into.
  package var intoSchema: String?
  package var owner = true
  package var privileges = true
  package var tablespaces = true
  package var role: String?
  package var globals = false
  package var jobs: Int?
  /// Whether planner statistics are made; true where nil.
  package var analyze: Bool?
  /// Also a backup whose manifest is signed by nobody who is trusted.
  package var acceptUntrusted = false
  /// Whether it goes on where the server does not take an object; false where nil.
  package var keepGoing: Bool?

  package init(id: String) { self.id = id }
}

/// `POST /v1/adoptions/preview`, `POST /v1/adoptions`.
package struct AdoptCommand: Codable, Sendable {
  /// Of a dump, or of a folder with dumps (preview alone), as the daemon sees it.
  package var path: String
  /// The name in the catalog; the dump's own database where nil.
  package var database: String?
  package var type = "adopted"
  /// Of the database: `NAME`, `icu:NAME` or `builtin:NAME`. Where nil: as the dump has it, or the database that it is of.
  package var locale: String?

  package init(path: String) { self.path = path }
}

/// What can be told of a dump that something else made.
package struct AdoptableDump: Codable, Sendable {
  package var path: String
  /// `plain`, `custom`, `tar`, `directory`; nil where it is none.
  package var kind: String?
  package var database: String?
  /// The name that its database had, where that is another one.
  package var ownDatabase: String?
  package var taken: Date?
  package var serverVersion: String?
  package var bytes: Int64?
  /// The backup that it has become already.
  package var backup: BackupID?
  /// Why it can't be adopted.
  package var fault: Fault?

  package init(path: String) { self.path = path }
}

/// `POST /v1/swap`.
package struct SwapCommand: Codable, Sendable {
  package var database: String
  /// The database that a restore has left beside it.
  package var name: String

  package init(database: String, name: String) {
    self.database = database
    self.name = name
  }
}

/// `POST /v1/rollback`.
package struct RollbackCommand: Codable, Sendable {
  package var database: String
  /// The database that is put back, whatever there is against it; the newest that is known where nil.
  package var kept: String?

  package init(database: String, kept: String? = nil) {
    self.database = database
    self.kept = kept
  }
}

/// `POST /v1/verify`.
package struct VerifyCommand: Codable, Sendable {
  /// As a person types them; all where empty.
  package var backups: [String] = []
  /// Only in these; in all where empty.
  package var stores: [String] = []
  /// `checksum` or `archive`; the job's own where nil.
  package var level: String?

  package init() {}
}

/// `POST /v1/drill`.
package struct DrillCommand: Codable, Sendable {
  /// As a person types it; the newest where nil.
  package var backup: String?
  /// The store to read; the nearest where nil.
  package var store: String?
  package init(backup: String?, store: String? = nil) {
    self.backup = backup
    self.store = store
  }
}

/// `POST /v1/reconcile`.
package struct ReconcileCommand: Codable, Sendable {
  package var apply: Bool
  package init(apply: Bool) { self.apply = apply }
}
