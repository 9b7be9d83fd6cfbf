import Units

/// Something about a backup that its history does not explain.
package struct Anomaly: Codable, Sendable, Equatable {
  package enum Kind: String, Codable, Sendable, CaseIterable {
    case rowsLost = "rows-lost"
    case tableVanished = "table-vanished"
    case small
    case tableAppeared = "table-appeared"
    case schemaChanged = "schema-changed"
    case slow

    /// Whether it casts doubt on the data: such a backup is flagged. The others are worth a line.
    package var isAlarming: Bool {
      switch self {
      case .rowsLost, .tableVanished, .small: true
      case .tableAppeared, .schemaChanged, .slow: false
      }
    }
  }

  package let kind: Kind
  /// `schema.name`; nil where it is about all of it.
  package let table: String?
  package let message: String

  package init(_ kind: Kind, table: String? = nil, _ message: String) {
    self.kind = kind
    self.table = table
    self.message = message
  }

  package var text: String { "\(kind.rawValue)\(table.map { " of \($0)" } ?? ""): \(message)" }
}

/// What of one backup the next ones are compared with.
package struct BackupStatistics: Codable, Sendable, Equatable {
  package var backup: BackupID
  package var archiveBytes: Int64
  package var storedBytes: Int64
  package var seconds: Double
  /// By `schema.name`; rows of partitions count as those of the table at their top.
  package var rows: [String: Int64]
  /// Tables that are in the backup without their rows; nil where there are none.
  package var withoutRows: Set<String>?
  /// Of its largest table, as it lies in the archive.
  package var largestTableBytes: Int64?
  /// Of all definitions; nil where that is not known.
  package var schemaDigest: String?
  /// It was flagged, and nobody has said that it is right.
  package var isFlagged = false
  /// Somebody has said that it is right: what came before is no measure any more. Nil as long as nobody has.
  package var isBaseline: Bool?

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

/// Compares a backup with the ones before it: a pure function. The measure is the last one that nobody doubts, so that a loss does not
/// become the norm by being backed up twice.
package struct AnomalyRule: Sendable, Hashable {
  /// In percent of a table's rows.
  package var lostPercent: Int
  /// Tables that come and go, and empty and fill: as a person writes them, `queue.*`.
  package var ignored: [String]

  /// Of a table that keeps some of its rows, so many must be missing to be worth a word.
  package static let fewRows: Int64 = 10
  /// How many backups make a norm of size and duration.
  package static let normCount = 7

  package init(lostPercent: Int = 20, ignored: [String] = []) {
    self.lostPercent = lostPercent
    self.ignored = ignored
  }

  /// - Parameter history: of the same database, the oldest first.
  package func compare(_ new: BackupStatistics, with history: [BackupStatistics]) -> [Anomaly] {
    let undoubted = history.filter { !$0.isFlagged }
    let trusted = undoubted.lastIndex { $0.isBaseline == true }.map { Array(undoubted[$0...]) } ?? undoubted
    guard let last = trusted.last else { return [] }
    return rows(new, last) + slowLosses(new, trusted) + size(new, trusted) + schema(new, last) + duration(new, trusted)
  }

  private func rows(_ new: BackupStatistics, _ last: BackupStatistics) -> [Anomaly] {
    let patterns = ignored.map(Wildcard.init)
    var found: [Anomaly] = []
    for (table, before) in last.rows.sorted(by: { $0.key < $1.key })
    where !patterns.contains(where: { $0.matches(table) }) {
      guard let now = new.rows[table] else {
        // Unlogged, and dumped from a standby: told where it was dumped, and no loss.
        if new.withoutRows?.contains(table) == true { continue }
        found.append(Anomaly(.tableVanished, table: table, "the table is gone; it had \(before) rows"))
        continue
      }
      let lost = before - now
      guard isLost(now, before) else { continue }
      found.append(
        Anomaly(.rowsLost, table: table, "\(now) rows, \(before) before: \(lost * 100 / before) % are gone"))
    }
    let appeared = new.rows.keys.filter { last.rows[$0] == nil }.sorted()
    return found
      + appeared.map { Anomaly(.tableAppeared, table: $0, "the table is new, with \(new.rows[$0] ?? 0) rows") }
  }

  /// A table that never grows and loses a little each time is as empty in the end. One that has grown in between comes and goes.
  private func slowLosses(_ new: BackupStatistics, _ trusted: [BackupStatistics]) -> [Anomaly] {
    let patterns = ignored.map(Wildcard.init)
    return new.rows.sorted { $0.key < $1.key }.compactMap { table, now in
      let before = trusted.compactMap { $0.rows[table] }
      guard before.count > 1, let last = before.last, !isLost(now, last), let most = before.max(),
        let peak = before.lastIndex(of: most), !patterns.contains(where: { $0.matches(table) })
      else { return nil }
      let since = before[peak...] + [now]
      guard zip(since, since.dropFirst()).allSatisfy(>=), isLost(now, most) else { return nil }
      return Anomaly(
        .rowsLost, table: table,
        "\(now) rows, \(most) some backups before: \((most - now) * 100 / most) % have gone little by little")
    }
  }

  private func isLost(_ now: Int64, _ before: Int64) -> Bool {
    before > 0 && (now == 0 || before - now >= Self.fewRows && (before - now) * 100 > before * Int64(lostPercent))
  }

  private func size(_ new: BackupStatistics, _ trusted: [BackupStatistics]) -> [Anomaly] {
    let norm = Self.median(trusted.suffix(Self.normCount).map { Double($0.archiveBytes) })
    // Below that, a database is hardly more than its definitions.
    guard norm >= 65_536, Double(new.archiveBytes) < norm / 2 else { return [] }
    return [
      Anomaly(
        .small, "the archive has \(ByteCount(new.archiveBytes)), less than half of the usual \(ByteCount(Int64(norm)))")
    ]
  }

  private func schema(_ new: BackupStatistics, _ last: BackupStatistics) -> [Anomaly] {
    guard let before = last.schemaDigest, let now = new.schemaDigest, before != now else { return [] }
    return [Anomaly(.schemaChanged, "definitions have changed since \(last.backup)")]
  }

  private func duration(_ new: BackupStatistics, _ trusted: [BackupStatistics]) -> [Anomaly] {
    let norm = Self.median(trusted.suffix(Self.normCount).map(\.seconds))
    guard new.seconds > norm * 3, new.seconds > norm + 60 else { return [] }
    return [
      Anomaly(
        .slow,
        "it took \(Duration.seconds(new.seconds).spoken), more than three times the usual \(Duration.seconds(norm).spoken)"
      )
    ]
  }

  private static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
  }
}
