package import Faults
import Quoting

/// The index of an archive: per table where its block lies and what its rows were, and where each frame of the artifact lies.
/// With it one table comes back by reading that table's bytes, and a restore is proved row for row.
package struct Contents: VersionedRecord, Equatable {
  package static let format = "pgbackupd-contents"
  package static let majorVersion = 1
  /// 1.1 brought the digests of the frames and of the head.
  package static let minorVersion = 1

  package struct Table: Codable, Sendable, Equatable {
    package var schema: String
    package var name: String
    package var dumpID: Int
    /// Of the block in the archive.
    package var offset: UInt64
    package var length: UInt64
    package var copyStatement: String?
    /// Nil where the data is not COPY text: such a table is not proved, and nothing pretends that it is.
    package var rows: Int64?
    /// Of COPY text, newlines included.
    package var bytes: Int64?
    /// The sum modulo 2^128 of the XXH3-128 of each row, 32 hexadecimal digits.
    package var fingerprint: String?
    /// Of a partition: the partitioned tables that it is part of, as `schema.name`, the nearest first. Nil also in what versions before
    /// have written.
    package var partitionOf: [String]?

    package init(
      schema: String, name: String, dumpID: Int, offset: UInt64, length: UInt64, copyStatement: String?, rows: Int64?,
      bytes: Int64?, fingerprint: String?
    ) {
      self.schema = schema
      self.name = name
      self.dumpID = dumpID
      self.offset = offset
      self.length = length
      self.copyStatement = copyStatement
      self.rows = rows
      self.bytes = bytes
      self.fingerprint = fingerprint
    }
  }

  package struct LargeObjects: Codable, Sendable, Equatable {
    package var dumpID: Int
    package var offset: UInt64
    package var length: UInt64
    package var count: Int64?
    package var bytes: Int64?
    package var fingerprint: String?

    package init(dumpID: Int, offset: UInt64, length: UInt64, count: Int64?, bytes: Int64?, fingerprint: String?) {
      self.dumpID = dumpID
      self.offset = offset
      self.length = length
      self.count = count
      self.bytes = bytes
      self.fingerprint = fingerprint
    }
  }

  package struct Frames: Codable, Sendable, Equatable {
    /// Plain bytes of each frame but the last.
    package var plainBytes: Int
    package var storedSizes: [Int]
    /// SHA-256 of each frame as it is stored before encryption, in hexadecimal. Nil in version 1.0.
    package var digests: [String]?

    package init(plainBytes: Int, storedSizes: [Int], digests: [String]?) {
      self.plainBytes = plainBytes
      self.storedSizes = storedSizes
      self.digests = digests
    }
  }

  package var id: BackupID
  package var archiveVersion: String
  package var archiveBytes: UInt64
  /// Header and table of contents: what every slice begins with.
  package var headBytes: UInt64
  /// SHA-256 of these bytes, in hexadecimal. Nil in version 1.0.
  package var headDigest: String?
  package var frames: Frames
  /// The session settings under which the COPY text was made: a proof must use the same.
  package var settings: [String: String]
  package var tables: [Table]
  package var largeObjects: [LargeObjects]
  /// What its history did not explain when it was made; nil where there was nothing.
  package var anomalies: [Anomaly]?

  /// What a restore of all of it loads: the blocks of tables and large objects.
  package var dataBytes: Int64 {
    Int64(clamping: tables.map(\.length).reduce(0, +) + largeObjects.map(\.length).reduce(0, +))
  }

  package var flaw: String? {
    let limit: UInt64 = 1 << 48
    guard archiveBytes <= limit, headBytes <= archiveBytes, frames.plainBytes > 0, frames.plainBytes <= 1 << 30 else {
      return "its sizes"
    }
    guard frames.storedSizes.allSatisfy({ (0...1 << 32).contains($0) }) else { return "its frames" }
    let digests = (frames.digests ?? []) + (headDigest.map { [$0] } ?? [])
    guard frames.digests.map({ $0.count == frames.storedSizes.count }) ?? true,
      digests.allSatisfy({ $0.utf8.count == 64 })
    else { return "its digests" }
    let blocks = tables.map { ($0.offset, $0.length) } + largeObjects.map { ($0.offset, $0.length) }
    guard blocks.allSatisfy({ $0.0 <= limit && $0.1 <= limit }) else { return "where its blocks lie" }
    let counts = tables.flatMap { [$0.rows, $0.bytes] } + largeObjects.flatMap { [$0.count, $0.bytes] }
    guard counts.allSatisfy({ (0...Int64(limit)).contains($0 ?? 0) }) else { return "its counts" }
    // Each may be possible and their sum no number that there is.
    let sums = [blocks.map(\.1), tables.map { UInt64($0.rows ?? 0) }, tables.map { UInt64($0.bytes ?? 0) }]
    guard sums.allSatisfy({ $0.reduce(0) { min(limit + 1, $0 + $1) } <= limit }) else { return "its sums" }
    return nil
  }

  package init(
    id: BackupID, archiveVersion: String, archiveBytes: UInt64, headBytes: UInt64, headDigest: String?, frames: Frames,
    settings: [String: String], tables: [Table], largeObjects: [LargeObjects]
  ) {
    self.id = id
    self.archiveVersion = archiveVersion
    self.archiveBytes = archiveBytes
    self.headBytes = headBytes
    self.headDigest = headDigest
    self.frames = frames
    self.settings = settings
    self.tables = tables
    self.largeObjects = largeObjects
  }
}

extension [Contents.Table] {
  /// What `SCHEMA.NAME` means, or `NAME` where only one schema has it: a table, or all the partitions of a partitioned one. Throws
  /// `E-TABLE-MISSING`, with `missing` as its message where there is none.
  package func parts(
    named text: String, or missing: String, hint: String
  ) throws(Fault) -> (name: String, tables: [Contents.Table]) {
    // By their full names: `a.b` may also be the table `b` of a schema `a`, or one of that name in whatever schema.
    let names = Set(flatMap(\.names).map(ExactText.init(_:))).map(\.text)
    let exact = names.filter { $0.isExactly(text) }
    let found = exact.isEmpty ? names.filter { $0.ends(withBytes: ".\(text)") && isName(text, in: $0) } : exact
    guard let name = found.first, found.count == 1 else {
      let schemas = found.map { String($0.prefix(upTo: $0.utf8.index($0.endIndex, offsetBy: -text.utf8.count - 1))) }
        .sorted()
      throw Fault(
        .tableMissing,
        schemas.isEmpty ? missing : "Several schemas have a table \(text): \(schemas.joined(separator: ", ")).",
        hint: hint)
    }
    return (name, filter { $0.names.contains { $0.isExactly(name) } })
  }

  /// Whether a full name is that of a table of this name, and not of one whose own name has a dot in it.
  private func isName(_ text: String, in full: String) -> Bool {
    if contains(where: { $0.fullName.isExactly(full) }) {
      return contains { $0.fullName.isExactly(full) && $0.name.isExactly(text) }
    }
    return true
  }

  /// All of these as one: rows, bytes and fingerprint are those of the whole, which a fingerprint that is a sum allows. Nil where there
  /// is none.
  package var sum: Contents.Table? {
    guard var whole = first else { return nil }
    for part in dropFirst() {
      whole.rows = whole.rows.flatMap { rows in part.rows.map { rows + $0 } }
      whole.bytes = whole.bytes.flatMap { bytes in part.bytes.map { bytes + $0 } }
      whole.fingerprint = whole.fingerprint.flatMap { sum in part.fingerprint.flatMap { Self.sum(sum, $0) } }
    }
    return whole
  }

  /// Modulo 2^128, as 32 hexadecimal digits.
  private static func sum(_ left: String, _ right: String) -> String? {
    guard let left = UInt128(left, radix: 16), let right = UInt128(right, radix: 16) else { return nil }
    let digits = String(left &+ right, radix: 16)
    return String(repeating: "0", count: 32 - digits.count) + digits
  }
}

extension Contents.Table {
  package var fullName: String { "\(schema).\(name)" }

  /// Its own, and those of the tables that it is part of.
  var names: [String] { [fullName] + (partitionOf ?? []) }
}
