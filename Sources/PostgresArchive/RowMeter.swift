import CXXHash
import Glibc

/// Counts and fingerprints the rows of one block of COPY text, fed in pieces of any size.
///
/// A row is a line: COPY writes newlines inside values as `\n`. pg_dump ends the block with the line `\.` and two empty
/// lines (`dumpTableData_copy` of pg_dump.c). No value can be the line `\.`: its backslash would be doubled.
struct RowMeter {
  private(set) var rows: UInt64 = 0
  private(set) var bytes: UInt64 = 0
  private(set) var fingerprint = Fingerprint()
  private(set) var isTerminated = false

  /// The unfinished row's length and its first two bytes; its hash is in `streaming`.
  private var pendingLength = 0
  private var pendingStart: (UInt8, UInt8) = (0, 0)
  private let streaming = StreamingHash()

  var isBetweenRows: Bool { pendingLength == 0 && !isTerminated }

  mutating func reset() {
    rows = 0
    bytes = 0
    fingerprint = Fingerprint()
    isTerminated = false
    pendingLength = 0
  }

  /// Replaces the totals after rows that were metered elsewhere: the scanner's quick path keeps them in registers.
  @inline(__always)
  mutating func setTotals(rows count: UInt64, bytes size: UInt64, fingerprint sum: Fingerprint) {
    rows = count
    bytes = size
    fingerprint = sum
  }

  /// Returns false where bytes follow the terminator that have no place there.
  mutating func consume(_ input: UnsafeRawBufferPointer) -> Bool {
    guard let base = input.baseAddress else { return true }
    var position = 0
    while position < input.count {
      if isTerminated { return input[position...].allSatisfy { $0 == UInt8(ascii: "\n") } }
      let start = base + position
      guard let newline = memchr(start, 10, input.count - position) else {
        hold(UnsafeRawBufferPointer(start: start, count: input.count - position))
        return true
      }
      let length = UnsafeRawPointer(newline) - start
      let row = UnsafeRawBufferPointer(start: start, count: length)
      position += length + 1
      if pendingLength > 0 { finishHeld(row) } else { finish(row) }
    }
    return true
  }

  private mutating func finish(_ row: UnsafeRawBufferPointer) {
    if Self.isTerminator(row.count, row.count == 2 ? (row[0], row[1]) : (0, 0)) {
      isTerminated = true
      return
    }
    rows += 1
    bytes += UInt64(row.count) + 1
    fingerprint.add(row: row)
  }

  private mutating func hold(_ piece: UnsafeRawBufferPointer) {
    if pendingLength == 0 { streaming.reset() }
    for (index, byte) in piece.prefix(max(0, 2 - pendingLength)).enumerated() {
      if pendingLength + index == 0 { pendingStart.0 = byte } else { pendingStart.1 = byte }
    }
    streaming.update(piece)
    pendingLength += piece.count
  }

  private mutating func finishHeld(_ rest: UnsafeRawBufferPointer) {
    if rest.count > 0 { hold(rest) }
    defer { pendingLength = 0 }
    if Self.isTerminator(pendingLength, pendingStart) {
      isTerminated = true
      return
    }
    rows += 1
    bytes += UInt64(pendingLength) + 1
    fingerprint.add(streaming.digest())
  }

  private static func isTerminator(_ length: Int, _ start: (UInt8, UInt8)) -> Bool {
    length == 2 && start == (UInt8(ascii: "\\"), UInt8(ascii: "."))
  }
}
