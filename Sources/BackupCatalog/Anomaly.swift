import Quoting
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
    case notCompared = "not-compared"

    /// Whether it casts doubt on the data: such a backup is flagged. The others are worth a line.
    package var isAlarming: Bool {
      switch self {
      case .rowsLost, .tableVanished, .small, .notCompared: true
      case .tableAppeared, .schemaChanged, .slow: false
      }
    }
  }

  package let kind: Kind
  /// `schema.name`, or the name of large objects; nil where it is about all of it.
  package let table: String?
  package let message: String

  package init(_ kind: Kind, table: String? = nil, _ message: String) {
    self.kind = kind
    self.table = table
    self.message = message
  }

  package var text: String { "\(kind.rawValue)\(table.map { " of \($0)" } ?? ""): \(message)" }
}

/// Compares a backup with the ones before it: a pure function. The measure is the last one that nobody doubts, so that a loss does not
/// become the norm by being backed up twice.
package struct AnomalyRule: Sendable, Hashable {
  /// In percent of a table's rows.
  package var lostPercent: Int
  /// Tables that come and go, and empty and fill: as a person writes them, `queue.*`, or `sessions` in whatever schema.
  package var ignored: [String]

  /// So many rows of a table must be missing to be worth a word.
  package static let fewRows: Int64 = 10
  /// How many backups make a norm of size and duration.
  package static let normCount = 7

  package init(lostPercent: Int = 20, ignored: [String] = []) {
    self.lostPercent = lostPercent
    self.ignored = ignored
  }

  /// - Parameter history: of the same database, the oldest first.
  package func compare(_ new: BackupStatistics, with history: [BackupStatistics]) -> [Anomaly] {
    let undoubted = history.withPeaks.filter { !$0.isFlagged }
    let trusted = undoubted.lastIndex { $0.isBaseline == true }.map { Array(undoubted[$0...]) } ?? undoubted
    guard let last = trusted.last else { return [] }
    return rows(new, last) + slowLosses(new, last) + size(new, trusted) + schema(new, last) + duration(new, trusted)
      + comparison(last)
  }

  /// A chain of comparisons that begins with a backup of which nobody knows whether it was right.
  private func comparison(_ last: BackupStatistics) -> [Anomaly] {
    guard last.isUncompared == true, last.isBaseline != true else { return [] }
    return [
      Anomaly(
        .notCompared, "\(last.backup), which it was compared with, was itself compared with nothing, and not accepted")
    ]
  }

  private var isIgnored: (String) -> Bool {
    let full = ignored.map(Wildcard.init)
    let bare = ignored.filter { !$0.contains(byte: UInt8(ascii: ".")) }.map(Wildcard.init)
    return { table in
      let name = table.range(ofBytes: ".").map { String(table[$0.upperBound...]) }
      return full.contains { $0.matches(table) } || bare.contains { pattern in name.map(pattern.matches) ?? false }
    }
  }

  private func rows(_ new: BackupStatistics, _ last: BackupStatistics) -> [Anomaly] {
    let isIgnored = isIgnored
    var found: [Anomaly] = []
    for (table, before) in last.rows.sorted(by: { $0.key < $1.key }) where !isIgnored(table) {
      guard let now = new.count(table) else {
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
    let appeared = new.rows.keys.filter { last.count($0) == nil }.sorted()
    return found
      + appeared.map { Anomaly(.tableAppeared, table: $0, "the table is new, with \(new.rows[$0] ?? 0) rows") }
  }

  /// A table that never grows and loses a little each time is as empty in the end, however many backups that takes. One that has grown in
  /// between comes and goes.
  private func slowLosses(_ new: BackupStatistics, _ last: BackupStatistics) -> [Anomaly] {
    let isIgnored = isIgnored
    return last.peaks(before: new).sorted { $0.key < $1.key }.compactMap { table, peak in
      guard let now = new.count(table), isLost(now, peak.rows), !isIgnored(table),
        !(last.count(table).map { isLost(now, $0) } ?? false)
      else { return nil }
      return Anomaly(
        .rowsLost, table: table,
        "\(now) rows, \(peak.rows) in \(peak.backup): \((peak.rows - now) * 100 / peak.rows) % have gone little by little"
      )
    }
  }

  private func isLost(_ now: Int64, _ before: Int64) -> Bool {
    before - now >= Self.fewRows && (before - now) * 100 > before * Int64(lostPercent)
  }

  private func size(_ new: BackupStatistics, _ trusted: [BackupStatistics]) -> [Anomaly] {
    var recent = trusted.suffix(Self.normCount)
    // What empties and fills says nothing, where it is known how much that is.
    let leavesOut = !ignored.isEmpty && new.bytes != nil && recent.contains { $0.bytes != nil }
    if leavesOut { recent = recent.filter { $0.bytes != nil } }
    let isIgnored = isIgnored
    func size(_ one: BackupStatistics) -> Int64 {
      guard leavesOut else { return one.archiveBytes }
      return one.archiveBytes - (one.bytes ?? [:]).filter { isIgnored($0.key) }.values.reduce(0, +)
    }
    let (now, norm) = (size(new), Self.median(recent.map { Double(size($0)) }))
    // Below that, a database is hardly more than its definitions.
    guard norm >= 65_536, Double(now) < norm / 2 else { return [] }
    let besides = leavesOut ? " besides ignored tables" : ""
    return [
      Anomaly(
        .small, "the archive has \(ByteCount(now))\(besides), less than half of the usual \(ByteCount(Int64(norm)))")
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
