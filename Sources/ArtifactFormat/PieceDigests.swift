/// SHA-256 of each piece of a stored file, kept from one whole reading: later readings of any range are held against
/// them.
///
/// Contents of version 1.0 have no digest for each frame, so the whole artifact is read and checked first. A store may
/// give other bytes at the second reading: what is used then has to be what was checked.
package struct PieceDigests: Sendable, Equatable {
  /// 1 MiB: a small table costs one short read more, and the digests of 100 GB fit into 3.2 MB.
  package static let pieceBytes = 1 << 20
  private static let digestBytes = 32

  /// One digest behind the other.
  private var digests: [UInt8] = []
  private var pending: [UInt8] = []
  package private(set) var totalBytes: UInt64 = 0

  package init() {}

  /// Takes the file's bytes, in order and in portions of any size.
  package mutating func update(_ bytes: [UInt8]) {
    totalBytes += UInt64(bytes.count)
    var rest = bytes[...]
    while !rest.isEmpty {
      let portion = rest.prefix(Self.pieceBytes - pending.count)
      pending += portion
      rest = rest.dropFirst(portion.count)
      if pending.count == Self.pieceBytes { endPiece() }
    }
  }

  /// Ends the file. Nothing may follow.
  package mutating func finish() {
    if !pending.isEmpty { endPiece() }
  }

  private mutating func endPiece() {
    digests += Digest.bytes(of: pending[...])
    pending.removeAll(keepingCapacity: true)
  }

  /// The whole pieces that hold a range: what has to be read to check it.
  package func covering(_ range: Range<UInt64>) -> Range<UInt64> {
    let size = UInt64(Self.pieceBytes)
    let upper = (range.upperBound + size - 1) / size * size
    return range.lowerBound / size * size..<min(max(upper, range.lowerBound), totalBytes)
  }

  /// Whether bytes read from `range`, which `covering` gave, are those of the first reading.
  package func match(_ bytes: [UInt8], at range: Range<UInt64>) -> Bool {
    guard bytes.count == range.count, range.lowerBound % UInt64(Self.pieceBytes) == 0, range.upperBound <= totalBytes
    else { return false }
    var number = Int(range.lowerBound / UInt64(Self.pieceBytes))
    var rest = bytes[...]
    while !rest.isEmpty {
      let piece = rest.prefix(Self.pieceBytes)
      let place = number * Self.digestBytes
      guard place + Self.digestBytes <= digests.count,
        digests[place..<place + Self.digestBytes].elementsEqual(Digest.bytes(of: piece))
      else { return false }
      rest = rest.dropFirst(piece.count)
      number += 1
    }
    return true
  }
}
