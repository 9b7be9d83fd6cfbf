import Glibc

/// Takes one table's data block out of an archive: the COPY text of its rows, without the chunks' lengths and the terminator, as
/// `COPY … FROM stdin` takes it. Meters the rows on the way.
package struct CopyBlock {
  private enum State {
    case type
    case number
    case chunkLength
    case chunk(remaining: Int)
    case end
  }

  private let dumpID: Int
  private var state = State.type
  private var carry: [UInt8] = []
  private var meter = RowMeter()
  private var offset: UInt64
  /// The beginning of a line that may turn out to be the terminator.
  private var held: [UInt8] = []
  private var isAtLineStart = true
  private var isTerminated = false

  private static let terminator = Array("\\.\n".utf8)

  /// - Parameters:
  ///   - dumpID: whose block it has to be.
  ///   - offset: where it lies in the archive, for errors.
  package init(dumpID: Int, at offset: UInt64) {
    self.dumpID = dumpID
    self.offset = offset
  }

  package mutating func consume(_ input: ArraySlice<UInt8>, appendingTo rows: inout [UInt8]) throws(ArchiveError) {
    try input.withUnsafeBufferPointer { buffer throws(ArchiveError) in
      try consume(UnsafeRawBufferPointer(buffer), appendingTo: &rows)
    }
  }

  /// Takes the block's next bytes and appends the rows' to `rows`.
  package mutating func consume(
    _ input: UnsafeRawBufferPointer, appendingTo rows: inout [UInt8]
  ) throws(ArchiveError) {
    var position = 0
    while position < input.count {
      switch state {
      case .type:
        guard input[position] == 1 else {
          throw ArchiveError(.malformed("block type \(input[position])"), at: offset)
        }
        advance(1, &position)
        state = .number
      case .number:
        guard let id = number(input, &position) else { return }
        guard id == dumpID else {
          throw ArchiveError(.malformed("the block of entry \(id) instead of \(dumpID)"), at: offset)
        }
        state = .chunkLength
      case .chunkLength:
        guard let length = number(input, &position) else { return }
        guard length >= 0 else { throw ArchiveError(.malformed("a chunk of \(length) bytes"), at: offset) }
        state = length == 0 ? .end : .chunk(remaining: length)
      case .chunk(let remaining):
        let piece = min(remaining, input.count - position)
        let bytes = UnsafeRawBufferPointer(rebasing: input[position..<position + piece])
        guard meter.consume(bytes) else {
          throw ArchiveError(.malformed("bytes follow the end of a table"), at: offset)
        }
        take(bytes, &rows)
        advance(piece, &position)
        state = piece == remaining ? .chunkLength : .chunk(remaining: remaining - piece)
      case .end:
        throw ArchiveError(.malformed("bytes follow the end of a table"), at: offset)
      }
    }
  }

  /// What the rows were. Throws where the block is not whole.
  package consuming func finish() throws(ArchiveError) -> ArchiveIndex.RowSummary {
    guard case .end = state, meter.isTerminated else {
      throw ArchiveError(.truncated("the data of entry \(dumpID)"), at: offset)
    }
    return .init(count: meter.rows, bytes: meter.bytes, fingerprint: meter.fingerprint)
  }

  private mutating func advance(_ count: Int, _ position: inout Int) {
    position += count
    offset += UInt64(count)
  }

  /// Passes the bytes of rows on, and holds back what may be the terminator. pg_dump writes a row to a chunk, and so the common case is
  /// one comparison for each.
  private mutating func take(_ bytes: UnsafeRawBufferPointer, _ rows: inout [UInt8]) {
    if isTerminated { return }
    guard held.isEmpty else {
      let whole = held + bytes
      held = []
      whole.withUnsafeBytes { take($0, &rows) }
      return
    }
    guard let base = bytes.baseAddress else { return }
    var start = 0
    while start < bytes.count {
      if isAtLineStart, bytes[start] == Self.terminator[0] {
        let beginning = bytes[start..<min(start + 3, bytes.count)]
        if Self.terminator.starts(with: beginning) {
          if beginning.count == 3 { isTerminated = true } else { held = Array(beginning) }
          return
        }
      }
      guard let newline = memchr(base + start, 10, bytes.count - start) else {
        rows.append(contentsOf: bytes[start...])
        isAtLineStart = false
        return
      }
      let next = UnsafeRawPointer(newline) - base + 1
      rows.append(contentsOf: bytes[start..<next])
      isAtLineStart = true
      start = next
    }
  }

  /// A sign byte and four bytes of magnitude; nil where the input ends before.
  private mutating func number(_ input: UnsafeRawBufferPointer, _ position: inout Int) -> Int? {
    while carry.count < 5 {
      guard position < input.count else { return nil }
      carry.append(input[position])
      advance(1, &position)
    }
    defer { carry.removeAll(keepingCapacity: true) }
    let magnitude = carry[1...].reversed().reduce(0) { $0 << 8 | Int($1) }
    return carry[0] == 0 ? magnitude : -magnitude
  }
}

/// Meters rows of COPY text that come from anywhere, such as a restored database.
package struct CopyMeter {
  private var meter = RowMeter()

  package init() {}

  /// Rows, or pieces of rows, in order.
  package mutating func consume(_ bytes: UnsafeRawBufferPointer) { _ = meter.consume(bytes) }

  package var summary: ArchiveIndex.RowSummary {
    .init(count: meter.rows, bytes: meter.bytes, fingerprint: meter.fingerprint)
  }
}

/// Meters large objects that come from a restored database: the same sum as the scanner's.
package struct ObjectMeter {
  private var count: UInt64 = 0
  private var bytes: UInt64 = 0
  private var fingerprint = Fingerprint()
  private let hash = StreamingHash()

  package init() {}

  package mutating func begin(_ oid: UInt32) {
    hash.reset()
    withUnsafeBytes(of: oid.littleEndian) { hash.update($0) }
  }

  package mutating func consume(_ content: UnsafeRawBufferPointer) {
    hash.update(content)
    bytes += UInt64(content.count)
  }

  package mutating func end() {
    count += 1
    fingerprint.add(hash.digest())
  }

  package var summary: ArchiveIndex.ObjectSummary { .init(count: count, bytes: bytes, fingerprint: fingerprint) }
}
