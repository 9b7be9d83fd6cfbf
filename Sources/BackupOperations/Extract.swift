import BackupCatalog
package import Faults
import PostgresArchive

/// One table's rows out of a backup, with no PostgreSQL involved: only that table's frames are read.
package struct Extract {
  package enum Format: String, Sendable, CaseIterable {
    /// COPY's text format, as it lies in the archive.
    case copy
    /// With a header.
    case csv
    /// JSON lines.
    case json
  }

  private let source: ArchiveSource
  private let table: Contents.Table
  private let format: Format
  /// Which of the columns are wanted, by their places; all of them where nil.
  private let places: [Int]?
  private let columns: [String]
  private var block: CopyBlock
  private var position: UInt64
  private var rest: [UInt8] = []
  private var isBegun = false
  private var isChecked = false

  /// - Parameters:
  ///   - table: `NAME` where only one schema has it, or `SCHEMA.NAME`.
  ///   - columns: the ones that are wanted, in their order; all where empty.
  package init(_ table: String, columns wanted: [String], format: Format, from source: ArchiveSource) throws(Fault) {
    let first = try source.contents.tables.one(
      named: table,
      or: "\(source.manifest.id) has no data of a table \(table). (A partitioned table's rows are in its partitions.)",
      hint: "pgbackupctl contents \(shell: source.manifest.id)")
    guard let statement = first.copyStatement, first.rows != nil else {
      throw Fault(.tableMissing, "The data of \(table) in \(source.manifest.id) is no COPY text.")
    }
    self.source = source
    self.format = format
    self.table = first
    let columns = CopyStatement.columnNames(statement)
    var places: [Int] = []
    for name in wanted {
      guard let place = columns.firstIndex(of: name) else {
        throw Fault(
          .tableMissing, "\(table) has no column \(name); it has \(columns.joined(separator: ", ")).",
          hint: "pgbackupctl contents \(shell: source.manifest.id)")
      }
      places.append(place)
    }
    self.places = wanted.isEmpty ? nil : places
    self.columns = wanted.isEmpty ? columns : wanted
    block = CopyBlock(dumpID: first.dumpID, at: first.offset)
    position = first.offset
  }

  /// The next rows; nil at the end. Throws where they are not those that were backed up: what came before is then not to be used.
  package mutating func next() async throws -> [UInt8]? {
    if !isBegun {
      isBegun = true
      if format == .csv, !columns.isEmpty { return CopyText.csv(columns.map { Array($0.utf8) }) }
    }
    let end = table.offset + table.length
    while position < end {
      let piece = position..<min(end, position + Self.step)
      position = piece.upperBound
      var rows = rest
      try await source.read(piece) { bytes in try take(bytes, &block, &rows) }
      // Whole rows only; the last one may go on in the next piece.
      let whole = rows.lastIndex(of: 10).map { $0 + 1 } ?? 0
      rest = Array(rows[whole...])
      if whole > 0 { return format == .copy && places == nil ? Array(rows[..<whole]) : converted(rows[..<whole]) }
    }
    guard !isChecked else { return nil }
    isChecked = true
    let summary: ArchiveIndex.RowSummary
    do throws(ArchiveError) {
      summary = try block.finish()
    } catch {
      throw damaged(error.description)
    }
    guard summary.fingerprint.description == table.fingerprint else {
      throw damaged("its rows are not those that the contents tell")
    }
    return nil
  }

  /// Bytes of the archive that are read at once: some frames.
  private static let step: UInt64 = 16 << 20

  private func take(_ bytes: ArraySlice<UInt8>, _ block: inout CopyBlock, _ rows: inout [UInt8]) throws(Fault) {
    do throws(ArchiveError) {
      try block.consume(bytes, appendingTo: &rows)
    } catch {
      throw damaged(error.description)
    }
  }

  private func converted(_ rows: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(rows.count)
    // Each row ends with a newline: what follows the last one is no row.
    for row in rows.dropLast().split(separator: 10, omittingEmptySubsequences: false) {
      if format == .copy {
        let fields = row.split(separator: UInt8(ascii: "\t"), omittingEmptySubsequences: false)
        result += (places ?? []).compactMap { $0 < fields.count ? Array(fields[$0]) : nil }.joined(separator: [9])
        result.append(10)
        continue
      }
      let all = columns.isEmpty ? [] : CopyText.values(row)
      let values = places.map { $0.map { $0 < all.count ? all[$0] : nil } } ?? all
      result += format == .csv ? CopyText.csv(values) : CopyText.json(values, columns: columns)
    }
    return result
  }

  private func damaged(_ reason: String) -> Fault {
    Fault(
      .artifactDamaged, "The data of \(table.schema).\(table.name) in \(source.manifest.id) is damaged.", cause: reason,
      hint: "pgbackupctl show \(shell: source.manifest.id)")
  }
}
