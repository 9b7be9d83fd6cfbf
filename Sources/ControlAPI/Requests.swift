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

/// `POST /v1/reconcile`.
package struct ReconcileCommand: Codable, Sendable {
  package var apply: Bool
  package init(apply: Bool) { self.apply = apply }
}
