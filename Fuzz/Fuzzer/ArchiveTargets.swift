import Foundation
import Quoting

@testable import PostgresArchive

let archiveTargets = [
  FuzzTarget("archive-head") { bytes in
    let whole = Result { try ArchiveHead(bytes) }
    // In pieces of any size: the same head, and no byte more than it has.
    var parser = HeadParser()
    var taken = 0
    var isComplete = false
    do {
      let size = FuzzTarget.pieceSize(bytes)
      while taken < bytes.count, !isComplete {
        let piece = bytes[taken..<min(bytes.count, taken + size)]
        let (count, end) = try piece.withUnsafeBytes { try parser.consume($0) }
        (taken, isComplete) = (taken + count, end)
      }
    } catch {
      isComplete = false
    }
    guard case .success(let head) = whole else {
      return FuzzTarget.require(!isComplete, "a head that is refused whole is refused in pieces")
    }
    FuzzTarget.require(isComplete, "a head that is read whole is read in pieces")
    FuzzTarget.require(parser.entries == head.entries && parser.header == head.header, "pieces give the same head")
    ask(TableOfContents(head.entries))
  },
  FuzzTarget("archive-scan") { bytes in
    let whole = scan(bytes, pieces: max(1, bytes.count))
    let inPieces = scan(bytes, pieces: FuzzTarget.pieceSize(bytes))
    FuzzTarget.require(whole?.tables == inPieces?.tables, "pieces give the same tables")
    FuzzTarget.require(whole?.largeObjects == inPieces?.largeObjects, "pieces give the same large objects")
    guard let whole else { return }
    FuzzTarget.require(whole.totalBytes == UInt64(bytes.count), "all bytes are counted")
    for table in whole.tables where table.rows != nil {
      let block = bytes[Int(table.offset)..<Int(table.offset + table.length)]
      let (summary, rows) = copied(Array(block), dumpID: table.dumpID, pieces: FuzzTarget.pieceSize(bytes))
      FuzzTarget.require(summary == table.rows, "a block's rows are those that the scan saw")
      FuzzTarget.require(rows.isEmpty || rows.last == 10, "rows end with a newline")
    }
    let ranges = whole.slice(keeping: Set(whole.tables.prefix(2).map(\.dumpID)))
    FuzzTarget.require(ranges.allSatisfy { $0.upperBound <= whole.totalBytes }, "a slice lies in the archive")
  },
  FuzzTarget("copy-block") { bytes in
    let (whole, rows) = copied(bytes, dumpID: 1, pieces: max(1, bytes.count))
    let (inPieces, sameRows) = copied(bytes, dumpID: 1, pieces: FuzzTarget.pieceSize(bytes))
    FuzzTarget.require(whole == inPieces, "pieces give the same rows")
    guard let whole else { return }
    FuzzTarget.require(rows == sameRows, "pieces give the same bytes")
    var meter = CopyMeter()
    rows.withUnsafeBytes { meter.consume($0) }
    FuzzTarget.require(meter.summary == whole, "what is passed on is what was counted")
  },
  FuzzTarget("copy-text") { bytes in
    for row in bytes.split(separator: 10, omittingEmptySubsequences: false) {
      let values = CopyText.values(row)
      FuzzTarget.require(values.count == row.count(where: { $0 == 9 }) + 1, "a row has a value more than tabs")
      let csv = CopyText.csv(values)
      FuzzTarget.require(readCSV(csv).map { $0 == values } ?? false, "CSV reads back")
      let columns = values.indices.map { "c\($0)" }
      let json = try? JSONSerialization.jsonObject(with: Data(CopyText.json(values, columns: columns)))
      guard let object = json as? [String: Any] else { return FuzzTarget.require(false, "a line is JSON") }
      for (column, value) in zip(columns, values) {
        let expected = value.map { String(decoding: $0, as: UTF8.self) }
        let found = object[column] as? String
        FuzzTarget.require(found.map { Array($0.utf8) } == expected.map { Array($0.utf8) }, "JSON reads back")
      }
    }
  },
  FuzzTarget("plain-dump") { bytes in
    let whole = passed(bytes, pieces: max(1, bytes.count))
    let inPieces = passed(bytes, pieces: FuzzTarget.pieceSize(bytes))
    FuzzTarget.require(whole.output == inPieces.output, "pieces give the same output")
    FuzzTarget.require(whole.commands == inPieces.commands, "pieces leave out the same commands")
    FuzzTarget.require(whole.statements == inPieces.statements, "pieces tell the same statements")
    // What went through says nothing to psql and of the database: a second pass finds nothing to leave out, but for a second mark of UTF-8.
    if whole.output.starts(with: [0xEF, 0xBB, 0xBF]) { return }
    let again = passed(whole.output, pieces: max(1, whole.output.count))
    FuzzTarget.require(again.output == whole.output && again.commands.isEmpty, "a second pass changes nothing")
  },
]

private func scan(_ bytes: [UInt8], pieces size: Int) -> ArchiveIndex? {
  var scanner = ArchiveScanner()
  for start in stride(from: 0, to: bytes.count, by: size) {
    guard (try? scanner.consume(bytes[start..<min(bytes.count, start + size)])) != nil else { return nil }
  }
  return try? scanner.finish()
}

private func copied(
  _ bytes: [UInt8], dumpID: Int, pieces size: Int
) -> (summary: ArchiveIndex.RowSummary?, rows: [UInt8]) {
  var block = CopyBlock(dumpID: dumpID, at: 0)
  var rows: [UInt8] = []
  for start in stride(from: 0, to: bytes.count, by: size) {
    let piece = bytes[start..<min(bytes.count, start + size)]
    guard (try? block.consume(piece, appendingTo: &rows)) != nil else { return (nil, rows) }
  }
  return (try? block.finish(), rows)
}

private func passed(
  _ bytes: [UInt8], pieces size: Int
) -> (output: [UInt8], commands: [String], statements: [String]) {
  var scanner = PlainDumpScanner(isOfOurName: false)
  var output: [UInt8] = []
  for start in stride(from: 0, to: bytes.count, by: size) {
    output += scanner.pass(Array(bytes[start..<min(bytes.count, start + size)]))
  }
  output += scanner.finish()
  return (output, scanner.commands, scanner.takeStatements())
}

/// Every question that a restore asks of a table of contents.
private func ask(_ contents: TableOfContents) {
  _ = (contents.sessionStatements, contents.dataStatements, contents.refreshes, contents.eventTriggers)
  _ = (contents.unreadable, contents.extensions, contents.tablespaces, contents.owners, contents.grantees)
  _ = (contents.beneficiaries, contents.settingRoles, contents.databaseOwner, contents.databaseOptions)
  _ = (contents.databaseComment, contents.sequences)
  _ = try? contents.databaseStatements(for: "new", withPrivileges: true, roles: contents.settingRoles.exact)
  _ = TableSelection(contents.entries, tables: ["*"], schemas: [])
  _ = TableSelection(contents.entries, tables: [], schemas: ["public"], isComplete: true)
  _ = TableSelection.ancestors(in: contents.entries)
}

/// RFC 4180, as COPY reads it; nil where it is not one line of it.
private func readCSV(_ line: [UInt8]) -> [[UInt8]?]? {
  guard line.last == 10 else { return nil }
  var values: [[UInt8]?] = []
  var rest = line.dropLast()[...]
  while true {
    if rest.first == UInt8(ascii: "\"") {
      var value: [UInt8] = []
      rest = rest.dropFirst()
      while let byte = rest.popFirst() {
        if byte != UInt8(ascii: "\"") {
          value.append(byte)
        } else if rest.first == byte {
          value.append(rest.removeFirst())
        } else {
          break
        }
      }
      values.append(value)
    } else {
      let value = rest.prefix { $0 != UInt8(ascii: ",") }
      rest = rest.dropFirst(value.count)
      values.append(value.isEmpty ? nil : Array(value))
    }
    guard let separator = rest.popFirst() else { return values }
    guard separator == UInt8(ascii: ",") else { return nil }
  }
}
