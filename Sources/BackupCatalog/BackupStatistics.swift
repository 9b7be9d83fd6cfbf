/// What of one backup the next ones are compared with.
package struct BackupStatistics: Codable, Sendable, Equatable {
  package var backup: BackupID
  package var archiveBytes: Int64
  package var storedBytes: Int64
  package var seconds: Double
  /// By `schema.name`; rows of partitions count as those of the table at their top, and large objects as those of one.
  package var rows: [String: Int64]
  /// Tables that are in the backup without their rows; nil where there are none.
  package var withoutRows: Set<String>?
  /// Of its largest table, as it lies in the archive.
  package var largestTableBytes: Int64?
  /// Of all definitions; nil where that is not known.
  package var schemaDigest: String?
  /// Of tables that have lost rows since they last grew: what they had then. Nil from a version that did not look so far back.
  package var peaks: [String: Peak]?
  /// Of its larger tables, from a thousandth of the archive on: bytes there, by the same names. Nil from a version that did not look.
  package var bytes: [String: Int64]?
  /// Nobody knew what those before it were like, and nobody has said since that it is right; nor of one that was compared with such a one.
  package var isUncompared: Bool?
  /// It was flagged for more than that, and nobody has said that it is right.
  package var isFlagged = false
  /// Somebody has said that it is right: what came before is no measure any more. Nil as long as nobody has.
  package var isBaseline: Bool?

  package struct Peak: Codable, Sendable, Equatable {
    package var rows: Int64
    /// The first backup that has them.
    package var backup: BackupID
  }

  /// The name that large objects go by.
  package static let largeObjects = "(large objects)"

  package init(
    backup: BackupID, archiveBytes: Int64, storedBytes: Int64, seconds: Double, rows: [String: Int64],
    schemaDigest: String?
  ) {
    self.backup = backup
    self.archiveBytes = archiveBytes
    self.storedBytes = storedBytes
    self.seconds = seconds
    self.rows = rows
    self.schemaDigest = schemaDigest
  }
}

extension BackupStatistics {
  /// Rows of a table; nil where it has none that are counted. No large objects are none.
  func count(_ table: String) -> Int64? { rows[table] ?? (table == Self.largeObjects ? 0 : nil) }

  /// What tables that did not grow since have had, for the backup that comes behind this one.
  func peaks(before new: BackupStatistics) -> [String: Peak] {
    var found: [String: Peak] = [:]
    for table in Set(rows.keys).union(peaks?.keys ?? [:].keys) {
      let peak = peaks?[table] ?? rows[table].map { Peak(rows: $0, backup: backup) }
      // Unlogged, and dumped from a standby: nobody has counted them this time.
      guard let peak, let now = new.count(table) else {
        if new.withoutRows?.contains(table) == true { found[table] = peak }
        continue
      }
      if now <= count(table) ?? peak.rows, now < peak.rows { found[table] = peak }
    }
    return found
  }
}

extension [BackupStatistics] {
  /// The same, each that is in no doubt with its peaks: from what the oldest has kept on, and from an accepted one on anew. So a few that
  /// are kept know of all that have gone.
  package var withPeaks: [BackupStatistics] {
    var last: BackupStatistics?
    return map { one in
      guard !one.isFlagged else { return one }
      var one = one
      if one.isBaseline == true {
        one.peaks = [:]
      } else if let last {
        one.peaks = last.peaks(before: one)
      }
      last = one
      return one
    }
  }
}
