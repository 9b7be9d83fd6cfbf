/// Reads header and table of contents from bytes that arrive in pieces.
///
/// The bytes are kept until all is read (a few KB for most databases; they are also what a slice begins with). A step
/// reads one field of an entry. One that lacks bytes says how many it needs, and is not tried again before they are
/// there: the work stays linear however small the pieces are and however many dependencies an entry has.
struct HeadParser {
  /// pg_dump's own strings are bounded by PostgreSQL's 1 GiB; a table of contents that large is damage or malice.
  private static let longestString = 256 << 20

  private(set) var bytes: [UInt8] = []
  private(set) var header: ArchiveHeader?
  private(set) var entries: [TocEntry] = []
  private var entryCount: Int?
  private var draft = TocDraft()
  /// Where the next step begins.
  private var position = 0
  /// The next step can't succeed before so many bytes are there.
  private var needed = 5

  /// What is being read, for the error of an archive that ends here.
  var phase: String { header == nil ? "the header" : "the table of contents" }

  /// Takes what it needs from `input`, and says how many bytes that was. `isComplete` tells whether the head is read.
  mutating func consume(_ input: UnsafeRawBufferPointer) throws(ArchiveError) -> (taken: Int, isComplete: Bool) {
    var taken = 0
    while true {
      if bytes.count < needed {
        let piece = min(needed - bytes.count, input.count - taken)
        bytes.append(contentsOf: input[taken..<taken + piece])
        taken += piece
        if bytes.count < needed { return (taken, false) }
      }
      var reader = PrimitiveReader(bytes: bytes, position: position, header: header)
      do {
        if header == nil {
          header = try readHeader(&reader)
        } else if entryCount == nil {
          entryCount = try readEntryCount(&reader)
        } else {
          if let entry = try draft.readField(&reader, limit: Self.longestString) {
            entries.append(entry)
            draft = TocDraft()
          }
        }
      } catch {
        switch error {
        case .needs(let count): needed = count
        case .invalid(let error): throw error
        }
        continue
      }
      position = reader.position
      if let entryCount, entries.count == entryCount { return (taken, true) }
      needed = max(needed, position + 1)
    }
  }

  private func readHeader(_ reader: inout PrimitiveReader) throws(ReadInterruption) -> ArchiveHeader {
    guard try reader.raw(5).elementsEqual("PGDMP".utf8) else { throw .invalid(ArchiveError(.notAnArchive, at: 0)) }
    let version = ArchiveHeader.Version(
      major: try reader.byte(), minor: try reader.byte(), revision: try reader.byte())
    guard version.major == 1, (14...16).contains(version.minor) else {
      throw reader.invalid(.unsupportedVersion(version.description), at: 5)
    }
    let integerSize = Int(try reader.byte())
    let offsetSize = Int(try reader.byte())
    guard integerSize == 4, (1...8).contains(offsetSize) else {
      throw reader.invalid(.unsupportedLayout("integers of \(integerSize) and offsets of \(offsetSize) bytes"), at: 8)
    }
    reader.integerSize = integerSize
    reader.offsetSize = offsetSize
    let format = try reader.byte()
    guard format == 1 else { throw reader.invalid(.wrongFormat(format), at: 10) }
    let compression: ArchiveHeader.Compression
    if version.minor >= 15 {
      let algorithm = try reader.byte()
      let names = ["none", "gzip", "lz4", "zstd"]
      guard algorithm < names.count else {
        throw reader.invalid(.malformed("unknown compression \(algorithm)"), at: 11)
      }
      compression = algorithm == 0 ? .none : .byPgDump(names[Int(algorithm)])
    } else {
      compression = try reader.integer() == 0 ? .none : .byPgDump("gzip")
    }
    for _ in 0..<7 { _ = try reader.integer() }  // the local time of the dump: struct tm
    return ArchiveHeader(
      version: version, integerSize: integerSize, offsetSize: offsetSize, compression: compression,
      database: try reader.string(limit: Self.longestString),
      serverVersion: try reader.string(limit: Self.longestString),
      dumpVersion: try reader.string(limit: Self.longestString))
  }

  private func readEntryCount(_ reader: inout PrimitiveReader) throws(ReadInterruption) -> Int {
    let start = reader.position
    let count = try reader.integer()
    guard count > 0 else { throw reader.invalid(.malformed("a table of contents of \(count) entries"), at: start) }
    return count
  }
}

/// Header and table of contents of an archive, from bytes that hold them whole: what every slice begins with.
package struct ArchiveHead: Sendable {
  package let header: ArchiveHeader
  package let entries: [TocEntry]

  package init(_ bytes: [UInt8]) throws(ArchiveError) {
    var parser = HeadParser()
    let result = bytes.withUnsafeBytes { buffer in
      Result { () throws(ArchiveError) in try parser.consume(buffer) }
    }
    guard try result.get().isComplete, let header = parser.header else {
      throw ArchiveError(.truncated(parser.phase), at: UInt64(bytes.count))
    }
    self.header = header
    entries = parser.entries
  }
}

/// Why a step of the head stops: too few bytes yet, or wrong ones.
enum ReadInterruption: Error {
  case needs(Int)
  case invalid(ArchiveError)
}

/// The custom format's primitives over a byte array: `ReadInt`, `ReadStr` and raw bytes of pg_backup_archiver.c.
struct PrimitiveReader {
  let bytes: [UInt8]
  var position: Int
  var integerSize: Int
  var offsetSize: Int
  /// Whether an entry names its relation's kind: from version 1.16 on.
  let hasRelationKinds: Bool
  /// A string that was read was no UTF-8.
  private(set) var hasRepaired = false

  init(bytes: [UInt8], position: Int, header: ArchiveHeader?) {
    self.bytes = bytes
    self.position = position
    integerSize = header?.integerSize ?? 4
    offsetSize = header?.offsetSize ?? 8
    hasRelationKinds = (header?.version.minor ?? 0) >= 16
  }

  func invalid(_ reason: ArchiveError.Reason, at offset: Int) -> ReadInterruption {
    .invalid(ArchiveError(reason, at: UInt64(offset)))
  }

  mutating func byte() throws(ReadInterruption) -> UInt8 {
    guard position < bytes.count else { throw .needs(position + 1) }
    defer { position += 1 }
    return bytes[position]
  }

  mutating func raw(_ count: Int) throws(ReadInterruption) -> ArraySlice<UInt8> {
    guard position + count <= bytes.count else { throw .needs(position + count) }
    defer { position += count }
    return bytes[position..<position + count]
  }

  /// A sign byte and the magnitude, least significant byte first.
  mutating func integer() throws(ReadInterruption) -> Int {
    let start = position
    let sign = try byte()
    guard sign <= 1 else { throw invalid(.malformed("sign byte \(sign)"), at: start) }
    let magnitude = try raw(integerSize).reversed().reduce(0) { $0 << 8 | Int($1) }
    return sign == 1 ? -magnitude : magnitude
  }

  /// A length and so many bytes; a negative length is NULL. Bytes that are no UTF-8 (a SQL_ASCII database) are repaired.
  mutating func string(limit: Int) throws(ReadInterruption) -> String? {
    let start = position
    let length = try integer()
    guard length >= 0 else { return nil }
    guard length <= limit else { throw invalid(.malformed("a string of \(length) bytes"), at: start) }
    let bytes = try raw(length)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      hasRepaired = true
      return String(decoding: bytes, as: UTF8.self)
    }
    return text
  }
}
