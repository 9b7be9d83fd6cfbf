import Foundation
import PostgresArchive
import Testing

/// The archives that `Golden/make-golden.sh` made with PostgreSQL 14 to 18, and what `oracle.py` found out about them from
/// the servers themselves.
struct Golden: Sendable, CustomTestStringConvertible {
  let name: String

  static let all = ["pg14", "pg15", "pg15-seekable", "pg16", "pg17", "pg18"].map(Golden.init)
  static let gzip = Golden(name: "pg16-gzip")

  struct Expectation: Decodable {
    struct Table: Decodable {
      let schema: String
      let name: String
      let rows: UInt64
      let bytes: UInt64
      let fingerprint: String
      let offset: UInt64
      let length: UInt64
    }
    struct Objects: Decodable {
      let count: UInt64
      let bytes: UInt64
      let fingerprint: String
    }
    let archiveVersion: String
    let serverVersion: String
    let dumpVersion: String
    let database: String
    let headBytes: UInt64
    let tables: [Table]
    let largeObjects: Objects
  }

  var testDescription: String { name }

  func archive() throws -> [UInt8] { Array(try Data(contentsOf: try url("dump"))) }

  func expectation() throws -> Expectation {
    try JSONDecoder().decode(Expectation.self, from: Data(contentsOf: try url("expected.json")))
  }

  private func url(_ suffix: String) throws -> URL {
    let folder = try #require(Bundle.module.url(forResource: "Golden", withExtension: nil))
    return folder.appending(path: "\(name).\(suffix)")
  }
}

/// Scans bytes cut into pieces of the sizes that `nextSize` gives.
func scan(_ archive: [UInt8], nextSize: () -> Int) throws(ArchiveError) -> ArchiveIndex {
  var scanner = ArchiveScanner()
  var position = 0
  while position < archive.count {
    let size = min(max(1, nextSize()), archive.count - position)
    let result = archive[position..<position + size].withUnsafeBytes { bytes in
      Result { () throws(ArchiveError) in try scanner.consume(bytes) }
    }
    try result.get()
    position += size
  }
  return try scanner.finish()
}

func scan(_ archive: [UInt8], pieces size: Int = .max) throws(ArchiveError) -> ArchiveIndex {
  try scan(archive) { size }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a failing case is found again by its seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
