import Quoting

/// One table across backups, from their contents alone; of a partitioned one, all its partitions together.
package struct TableHistory: Codable, Sendable, Equatable {
  package struct Entry: Codable, Sendable, Equatable {
    package enum Change: String, Codable, Sendable {
      /// The oldest that is known.
      case first
      case same
      case changed
      /// So many rows fewer than before that somebody should look.
      case vanished
      case appeared
      case gone
      /// Neither this one nor the one before has it.
      case absent
      /// Nobody can say: its contents are damaged, or encrypted for others.
      case unreadable
    }

    package var backup: BackupID
    package var type: String
    /// Nil where the backup does not have the table.
    package var rows: Int64?
    package var bytes: Int64?
    package var change: Change

    package init(backup: BackupID, type: String, rows: Int64?, bytes: Int64?, change: Change) {
      self.backup = backup
      self.type = type
      self.rows = rows
      self.bytes = bytes
      self.change = change
    }
  }

  package var table: String
  /// The oldest first.
  package var entries: [Entry]

  /// Of the rows that were there before, this share or more is missing.
  package static let vanishingShare = 0.2

  package init(table: String, in backups: [(backup: Catalog.Backup, contents: Contents)]) {
    self.table = table
    entries = []
    var before: Contents.Table?
    var isFirst = true
    for (backup, contents) in backups {
      let now = contents.tables.filter { $0.names.contains { $0.isExactly(table) } }.sum
      let change: Entry.Change =
        switch (before, now) {
        case (nil, nil): .absent
        case (nil, _): isFirst ? .first : .appeared
        case (_, nil): .gone
        case (let before?, let now?): Self.change(before, now)
        }
      entries.append(
        Entry(backup: backup.id, type: backup.manifest.type, rows: now?.rows, bytes: now?.bytes, change: change))
      (before, isFirst) = (now, false)
    }
  }

  static func change(_ before: Contents.Table, _ now: Contents.Table) -> Entry.Change {
    if before.fingerprint == now.fingerprint, before.rows == now.rows, now.fingerprint != nil { return .same }
    guard let old = before.rows, let new = now.rows, old > 0 else { return .changed }
    return Double(old - new) / Double(old) >= vanishingShare ? .vanished : .changed
  }
}

/// What changed between two backups, table by table, from their contents alone.
package struct BackupDifference: Codable, Sendable, Equatable {
  package struct Table: Codable, Sendable, Equatable {
    package var name: String
    package var oldRows: Int64?
    package var newRows: Int64?
    package var oldBytes: Int64?
    package var newBytes: Int64?
    package var change: TableHistory.Entry.Change
  }

  package var old: BackupID
  package var new: BackupID
  package var tables: [Table]

  package init(_ old: Contents, _ new: Contents) {
    (self.old, self.new) = (old.id, new.id)
    let before = Dictionary(old.tables.map { (ExactText($0.fullName), $0) }, uniquingKeysWith: { first, _ in first })
    let after = Dictionary(new.tables.map { (ExactText($0.fullName), $0) }, uniquingKeysWith: { first, _ in first })
    tables = Set(before.keys).union(after.keys).sorted().map { name in
      let change: TableHistory.Entry.Change =
        switch (before[name], after[name]) {
        case (let before?, let after?): TableHistory.change(before, after)
        case (nil, _): .appeared
        case (_, nil): .gone
        }
      return Table(
        name: name.text, oldRows: before[name]?.rows, newRows: after[name]?.rows, oldBytes: before[name]?.bytes,
        newBytes: after[name]?.bytes, change: change)
    }
  }
}
