import PostgresArchive
import Testing

/// COPY's text and what an extract makes of it.
@Suite struct CopyTextTests {
  private func values(_ row: String) -> [String?] {
    CopyText.values(Array(row.utf8)[...]).map { $0.map { String(decoding: $0, as: UTF8.self) } }
  }

  static let rows: [(String, [String?])] = [
    ("", [""]), ("a\tb", ["a", "b"]), ("\\N\t\\\\N\t", [nil, "\\N", ""]),
    ("\\b\\t\\n\\v\\f\\r\\\\", ["\u{8}\t\n\u{b}\u{c}\r\\"]), ("\\101\\7\\0411", ["A\u{7}!1"]), ("\\x\\", ["x\\"]),
  ]
  @Test(arguments: rows) func escapesAreReadBack(_ row: String, _ expected: [String?]) {
    #expect(values(row) == expected)
  }

  static let lines: [([String?], String)] = [
    (["a", "b"], "a,b\n"), ([nil, ""], ",\"\"\n"), (["a,b", "say \"x\""], "\"a,b\",\"say \"\"x\"\"\"\n"),
    (["two\nlines", "cr\r"], "\"two\nlines\",\"cr\r\"\n"), (["\\."], "\"\\.\"\n"), (["\\.", "x"], "\\.,x\n"),
    ([], "\n"),
  ]
  @Test(arguments: lines) func csvQuotesWhatNeedsIt(_ values: [String?], _ line: String) {
    #expect(String(decoding: CopyText.csv(values.map { $0.map { Array($0.utf8) } }), as: UTF8.self) == line)
  }

  @Test func jsonEscapesNamesAndValues() {
    let values: [[UInt8]?] = [Array("q\" b\\ n\n t\t r\r \u{1}\u{1f}".utf8), nil, [0xFF], Array("no column".utf8)]
    let line = String(decoding: CopyText.json(values, columns: ["a\"", "b", "c"]), as: UTF8.self)
    let expected = #"{"a\"":"q\" b\\ n\n t\t r\r \u0001\u001f","b":null,"c":"\#u{FFFD}","":"no column"}"# + "\n"
    #expect(line == expected)
  }

  @Test func aBlockGivesItsRowsAlone() throws {
    let block = Block().rows(["1\n", "two\t", "rows\n3\n", "\\", ".\n"]).end
    for size in [1, 2, 5, 1000] {
      var reader = CopyBlock(dumpID: 1, at: 0)
      var rows: [UInt8] = []
      for start in stride(from: 0, to: block.count, by: size) {
        try reader.consume(block[start..<min(block.count, start + size)], appendingTo: &rows)
      }
      let summary = try reader.finish()
      #expect(String(decoding: rows, as: UTF8.self) == "1\ntwo\trows\n3\n")
      #expect(summary.count == 3 && summary.bytes == UInt64(rows.count))
    }
  }

  static let wrong: [(String, [UInt8])] = [
    ("another type", [3]), ("another entry", Block(id: 2).bytes),
    ("a negative chunk", Block().bytes + [1, 5, 0, 0, 0]),
    ("no terminator", Block().rows(["1\n"]).end), ("no end", Block().rows(["1\n", "\\.\n"]).bytes),
    ("rows behind the terminator", Block().rows(["\\.\n", "1\n"]).end),
    ("bytes behind the end", Block().rows(["\\.\n"]).end + [0]), ("nothing", []),
  ]
  @Test(arguments: wrong) func aBlockThatIsNotWholeIsRefused(_ what: String, _ block: [UInt8]) {
    #expect(throws: ArchiveError.self, "\(what)") {
      var reader = CopyBlock(dumpID: 1, at: 0)
      var rows: [UInt8] = []
      try reader.consume(block[...], appendingTo: &rows)
      _ = try reader.finish()
    }
  }

  static let errors: [(ArchiveError.Reason, String)] = [
    (.notAnArchive, "PGDMP"), (.wrongFormat(3), "format 3"), (.unsupportedVersion("1.12.0"), "1.12.0"),
    (.unsupportedLayout("integers of 8"), "integers of 8"), (.malformed("sign byte 2"), "sign byte 2"),
    (.truncated("the header"), "ends inside the header"), (.missingData(entry: "TABLE DATA t"), "TABLE DATA t"),
  ]
  @Test(arguments: errors) func anErrorNamesWhatAndWhere(_ reason: ArchiveError.Reason, _ words: String) {
    let text = "\(ArchiveError(reason, at: 17))"
    #expect(text.contains(words) && text.hasSuffix("(at byte 17)"), "\(text)")
  }
}

/// One table's data block by hand.
private struct Block {
  var bytes: [UInt8]

  init(id: UInt8 = 1) { bytes = [1, 0, id, 0, 0, 0] }

  func rows(_ chunks: [String]) -> Block {
    var block = self
    for chunk in chunks { block.bytes += [0, UInt8(chunk.utf8.count), 0, 0, 0] + Array(chunk.utf8) }
    return block
  }

  var end: [UInt8] { bytes + [0, 0, 0, 0, 0] }
}
