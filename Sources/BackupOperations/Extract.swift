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

  /// One block of rows: a table's, or a partition's.
  private struct Part {
    let table: Contents.Table
    /// Where in its rows the wanted columns are; nil where its rows are what is wanted.
    let places: [Int]?
  }

  private let source: ArchiveSource
  private let format: Format
  private let columns: [String]
  /// Those that are still to come; the first one is being read.
  private var parts: ArraySlice<Part>
  private var block: CopyBlock
  private var position: UInt64
  private var rest: [UInt8] = []
  private var isBegun = false

  /// - Parameters:
  ///   - table: `NAME` where only one schema has it, or `SCHEMA.NAME`; of a partitioned one come the rows of all its partitions.
  ///   - columns: the ones that are wanted, in their order; all where empty.
  package init(_ table: String, columns wanted: [String], format: Format, from source: ArchiveSource) throws(Fault) {
    let hint = "pgbackupctl contents \(shell: source.manifest.id)"
    let tables = try source.contents.tables.parts(
      named: table, or: "\(source.manifest.id) has no data of a table \(table).", hint: hint
    ).tables
    var parts: [Part] = []
    var columns = wanted
    for part in tables {
      guard let statement = part.copyStatement, part.rows != nil else {
        throw Fault(.tableMissing, "The data of \(part.fullName) in \(source.manifest.id) is no COPY text.")
      }
      let own = CopyStatement.columnNames(statement)
      // Partitions may have the same columns in another order: the first one's is the order of all.
      if wanted.isEmpty, parts.isEmpty { columns = own }
      var places: [Int] = []
      for name in columns {
        guard let place = own.firstIndex(of: name) else {
          throw Fault(
            .tableMissing, "\(part.fullName) has no column \(name); it has \(own.joined(separator: ", ")).", hint: hint)
        }
        places.append(place)
      }
      parts.append(Part(table: part, places: places == Array(own.indices) ? nil : places))
    }
    self.source = source
    self.format = format
    self.columns = columns
    self.parts = parts[...]
    block = CopyBlock(dumpID: tables[0].dumpID, at: tables[0].offset)
    position = tables[0].offset
  }

  /// The next rows; nil at the end. Throws where they are not those that were backed up: what came before is then not to be used.
  package mutating func next() async throws -> [UInt8]? {
    if !isBegun {
      isBegun = true
      if format == .csv, !columns.isEmpty { return CopyText.csv(columns.map { Array($0.utf8) }) }
    }
    while let part = parts.first {
      let table = part.table
      let end = table.offset + table.length
      while position < end {
        let piece = position..<min(end, position + Self.step)
        position = piece.upperBound
        var rows = rest
        try await source.read(piece) { bytes in try take(bytes, of: table, &block, &rows) }
        // As they lie in the archive: a row of some hundred megabytes is passed on in pieces.
        if format == .copy, part.places == nil {
          if rows.isEmpty { continue }
          return rows
        }
        // Whole rows only; the last one may go on in the next piece.
        let whole = rows.lastIndex(of: 10).map { $0 + 1 } ?? 0
        rest = Array(rows[whole...])
        guard whole > 0 else { continue }
        return converted(rows[..<whole], part.places)
      }
      try check(table)
      parts = parts.dropFirst()
      if let next = parts.first?.table {
        (block, position, rest) = (CopyBlock(dumpID: next.dumpID, at: next.offset), next.offset, [])
      }
    }
    return nil
  }

  /// That the rows which came were the table's.
  private func check(_ table: Contents.Table) throws(Fault) {
    let summary: ArchiveIndex.RowSummary
    do throws(ArchiveError) {
      summary = try block.finish()
    } catch {
      throw damaged(table, error.description)
    }
    guard summary.fingerprint.description == table.fingerprint else {
      throw damaged(table, "its rows are not those that the contents tell")
    }
  }

  /// Bytes of the archive that are read at once: some frames.
  private static let step: UInt64 = 16 << 20

  private func take(
    _ bytes: ArraySlice<UInt8>, of table: Contents.Table, _ block: inout CopyBlock, _ rows: inout [UInt8]
  ) throws(Fault) {
    do throws(ArchiveError) {
      try block.consume(bytes, appendingTo: &rows)
    } catch {
      throw damaged(table, error.description)
    }
  }

  private func converted(_ rows: ArraySlice<UInt8>, _ places: [Int]?) -> [UInt8] {
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

  private func damaged(_ table: Contents.Table, _ reason: String) -> Fault {
    Fault(
      .artifactDamaged, "The data of \(table.fullName) in \(source.manifest.id) is damaged.", cause: reason,
      hint: "pgbackupctl show \(shell: source.manifest.id)")
  }
}
