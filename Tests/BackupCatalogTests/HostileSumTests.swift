import BackupCatalog
import Faults
import Foundation
import Testing

/// Records that decode and can't be meant: what fuzzing found.
@Suite struct HostileSumTests {
  private static func contents(tables count: Int, _ table: String) -> [UInt8] {
    let tables = Array(repeating: table, count: count).joined(separator: ",")
    return Array(
      """
      {"format": "pgbackupd-contents", "version": "1.0", "id": "shop/20261122T020000Z", "archiveVersion": "1.15.0",
       "archiveBytes": 9000000, "headBytes": 100, "frames": {"plainBytes": 4194304, "storedSizes": [10, 20, 30]},
       "settings": {}, "largeObjects": [], "tables": [\(tables)]}
      """.utf8)
  }

  private static let plain =
    #"{"schema": "s", "name": "t", "dumpID": 1, "offset": 100, "length": 50, "rows": 1, "bytes": 2}"#

  @Test func contentsAreRead() throws {
    let contents = try Contents(decoding: Self.contents(tables: 3, Self.plain), from: "contents.json")
    #expect(contents.dataBytes == 150)
    #expect(contents.tables.sum?.rows == 3)
  }

  /// Each number is possible, and their sum none that 64 bits hold: adding them up ended the process.
  @Test(arguments: [
    plain.replacing("50", with: "281474976710656"), plain.replacing(#""rows": 1"#, with: #""rows": 281474976710656"#),
    plain.replacing(#""bytes": 2"#, with: #""bytes": 281474976710656"#),
  ])
  func sumsThatNoNumberHoldsAreRefused(_ table: String) {
    #expect(throws: Fault.self) { try Contents(decoding: Self.contents(tables: 70_000, table), from: "contents.json") }
  }
}
