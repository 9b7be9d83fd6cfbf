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
  /// Also a backup whose manifest is signed by nobody who is trusted.
  package var acceptUntrusted = false

  package init(id: String) { self.id = id }
}

/// `POST /v1/rollback`.
package struct RollbackCommand: Codable, Sendable {
  package var database: String
  package init(database: String) { self.database = database }
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
  package init(backup: String?) { self.backup = backup }
}

/// `POST /v1/reconcile`.
package struct ReconcileCommand: Codable, Sendable {
  package var apply: Bool
  package init(apply: Bool) { self.apply = apply }
}
