import Glibc

/// Reads an archive as it streams by, in pieces of any size, and changes nothing: a meter.
///
/// Feed every byte in order to `consume`, then call `finish`. The cost is one search for newlines and one XXH3 pass over the
/// rows; nothing is copied but the head and what lies across the edges of pieces. Malformed input throws with its offset; after
/// a throw the scanner is of no more use.
package struct ArchiveScanner {
  private enum State {
    case head
    case blockType
    case blockID(isLargeObjects: Bool)
    case objectID
    case chunkLength
    case chunk(remaining: Int)
  }

  private enum Body {
    case rows
    case objects
    /// Blocks whose bytes say nothing here: INSERT statements, or compressed by pg_dump.
    case opaque
  }

  private var head = HeadParser()
  private var state = State.head
  /// Of the next byte, from the archive's start.
  package private(set) var offset: UInt64 = 0

  /// A number that lies across the edge of two pieces.
  private var carry: [UInt8] = []

  private var body = Body.opaque
  private var inLargeObjects = false
  private var blockStart: UInt64 = 0
  private var entry: TocEntry?
  private var rows = RowMeter()
  private var objectHash = StreamingHash()
  private var objects: (count: UInt64, bytes: UInt64, fingerprint: Fingerprint) = (0, 0, Fingerprint())

  private var awaited: [Int: TocEntry] = [:]
  private var tables: [ArchiveIndex.Table] = []
  private var largeObjects: [ArchiveIndex.LargeObjects] = []

  package init() {}

  /// What is passing by now, for a progress line.
  package var currentTable: String? { entry?.label }

  package mutating func consume(_ input: ArraySlice<UInt8>) throws(ArchiveError) {
    try input.withUnsafeBufferPointer { buffer throws(ArchiveError) in try consume(UnsafeRawBufferPointer(buffer)) }
  }

  package mutating func consume(_ input: UnsafeRawBufferPointer) throws(ArchiveError) {
    var position = 0
    while position < input.count {
      switch state {
      case .head:
        let rest = UnsafeRawBufferPointer(rebasing: input[position...])
        let (taken, isComplete) = try head.consume(rest)
        position += taken
        offset += UInt64(taken)
        if isComplete { try beginData() }

      case .blockType:
        blockStart = offset
        let type = input[position]
        guard type == 1 || type == 3 else { throw ArchiveError(.malformed("block type \(type)"), at: offset) }
        position += 1
        offset += 1
        state = .blockID(isLargeObjects: type == 3)

      case .blockID(let isLargeObjects):
        if let id = try number(input, &position) { try beginBlock(id, isLargeObjects: isLargeObjects) }

      case .objectID:
        if let oid = try number(input, &position) { try beginObject(oid) }

      case .chunkLength:
        if case .rows = body, carry.isEmpty {
          consumeWholeRows(input, &position)
          if position == input.count { break }
        }
        if let length = try number(input, &position) {
          guard length >= 0 else { throw ArchiveError(.malformed("a chunk of \(length) bytes"), at: offset) }
          if length > 0 { state = .chunk(remaining: length) } else { try endChunks() }
        }

      case .chunk(let remaining):
        let piece = min(remaining, input.count - position)
        try consumeChunk(UnsafeRawBufferPointer(rebasing: input[position..<position + piece]))
        position += piece
        offset += UInt64(piece)
        state = piece == remaining ? .chunkLength : .chunk(remaining: remaining - piece)
      }
    }
  }

  /// Ends the scan. Throws where the archive is not whole: cut off inside something, or without the data of an entry.
  package consuming func finish() throws(ArchiveError) -> ArchiveIndex {
    switch state {
    case .blockType: break
    case .head: throw ArchiveError(.truncated(head.phase), at: offset)
    default: throw ArchiveError(.truncated(entry?.label ?? "a data block"), at: offset)
    }
    if let missing = awaited.values.min(by: { $0.dumpID < $1.dumpID }) {
      throw ArchiveError(.missingData(entry: missing.label), at: offset)
    }
    guard let header = head.header else { preconditionFailure("the head was read") }
    return ArchiveIndex(
      header: header, entries: head.entries, head: head.bytes, totalBytes: offset, tables: tables,
      largeObjects: largeObjects)
  }

  // MARK: - Data blocks

  private mutating func beginData() throws(ArchiveError) {
    for entry in head.entries where entry.hasData {
      guard awaited.updateValue(entry, forKey: entry.dumpID) == nil else {
        throw ArchiveError(.malformed("dump id \(entry.dumpID) stands twice in the table of contents"), at: offset)
      }
    }
    state = .blockType
  }

  private mutating func beginBlock(_ id: Int, isLargeObjects: Bool) throws(ArchiveError) {
    guard let wanted = awaited.removeValue(forKey: id) else {
      throw ArchiveError(.malformed("a data block of entry \(id), which awaits none"), at: blockStart)
    }
    entry = wanted
    let isPlain = head.header?.compression == ArchiveHeader.Compression.none
    inLargeObjects = isLargeObjects
    if isLargeObjects {
      body = isPlain ? .objects : .opaque
      objects = (0, 0, Fingerprint())
      state = .objectID
    } else {
      body = isPlain && wanted.copyStatement?.isEmpty == false ? .rows : .opaque
      rows.reset()
      state = .chunkLength
    }
  }

  private mutating func beginObject(_ oid: Int) throws(ArchiveError) {
    guard oid != 0 else {
      endBlock()
      return
    }
    // An OID is 32 bits unsigned; pg_dump writes it as a signed number of the same bits.
    let bits = UInt32(truncatingIfNeeded: oid)
    if case .objects = body {
      objects.count += 1
      objectHash.reset()
      withUnsafeBytes(of: bits.littleEndian) { objectHash.update($0) }
    }
    state = .chunkLength
  }

  private mutating func consumeChunk(_ bytes: UnsafeRawBufferPointer) throws(ArchiveError) {
    switch body {
    case .rows:
      guard rows.consume(bytes) else {
        throw ArchiveError(.malformed("bytes follow the end of \(entry?.label ?? "a table")"), at: offset)
      }
    case .objects:
      objects.bytes += UInt64(bytes.count)
      objectHash.update(bytes)
    case .opaque:
      break
    }
  }

  /// A zero length: the end of a large object, or of a table's block.
  private mutating func endChunks() throws(ArchiveError) {
    if inLargeObjects {
      if case .objects = body { objects.fingerprint.add(objectHash.digest()) }
      state = .objectID
      return
    }
    if case .rows = body, !rows.isTerminated {
      throw ArchiveError(.malformed("\(entry?.label ?? "a table") ends without its terminator"), at: offset)
    }
    endBlock()
  }

  private mutating func endBlock() {
    guard let entry else { preconditionFailure("a block ends that began") }
    let length = offset - blockStart
    if inLargeObjects {
      var summary: ArchiveIndex.ObjectSummary?
      if case .objects = body {
        summary = .init(count: objects.count, bytes: objects.bytes, fingerprint: objects.fingerprint)
      }
      largeObjects.append(.init(dumpID: entry.dumpID, offset: blockStart, length: length, objects: summary))
    } else {
      var summary: ArchiveIndex.RowSummary?
      if case .rows = body {
        summary = .init(count: rows.rows, bytes: rows.bytes, fingerprint: rows.fingerprint)
      }
      tables.append(
        .init(
          dumpID: entry.dumpID, schema: entry.schema ?? "", name: entry.tag ?? "", copyStatement: entry.copyStatement,
          offset: blockStart, length: length, rows: summary))
    }
    self.entry = nil
    state = .blockType
  }

  // MARK: - Bytes

  /// The quick path: chunks that lie whole in the input and are one whole row each, as pg_dump writes them. Stops before
  /// the first chunk that is anything else.
  private mutating func consumeWholeRows(_ input: UnsafeRawBufferPointer, _ position: inout Int) {
    guard rows.isBetweenRows, let base = input.baseAddress else { return }
    var count = rows.rows
    var bytes = rows.bytes
    var sum = rows.fingerprint
    var at = position
    let end = input.count
    while end - at >= 5, base.load(fromByteOffset: at, as: UInt8.self) == 0 {
      let length = Int(UInt32(littleEndian: base.loadUnaligned(fromByteOffset: at + 1, as: UInt32.self)))
      guard length > 0, length <= end - at - 5 else { break }
      let row = base + at + 5
      guard let newline = memchr(row, 10, length), UnsafeRawPointer(newline) - row == length - 1 else { break }
      // `\.` and its newline: three bytes, left to the meter.
      if length == 3, row.load(as: UInt8.self) == UInt8(ascii: "\\") { break }
      sum.add(row: UnsafeRawBufferPointer(start: row, count: length - 1))
      count += 1
      bytes += UInt64(length)
      at += 5 + length
    }
    rows.setTotals(rows: count, bytes: bytes, fingerprint: sum)
    offset += UInt64(at - position)
    position = at
  }

  /// A sign byte and a magnitude of the header's integer size; nil where the input ends inside it.
  private mutating func number(_ input: UnsafeRawBufferPointer, _ position: inout Int) throws(ArchiveError) -> Int? {
    let size = 1 + (head.header?.integerSize ?? 4)
    let piece = min(size - carry.count, input.count - position)
    carry.append(contentsOf: input[position..<position + piece])
    position += piece
    offset += UInt64(piece)
    guard carry.count == size else { return nil }
    defer { carry.removeAll(keepingCapacity: true) }
    guard carry[0] <= 1 else {
      throw ArchiveError(.malformed("sign byte \(carry[0])"), at: offset - UInt64(size))
    }
    let magnitude = carry[1...].reversed().reduce(0) { $0 << 8 | Int($1) }
    return carry[0] == 1 ? -magnitude : magnitude
  }
}
