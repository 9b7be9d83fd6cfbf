/// Where each frame of an artifact lies, and the digest of its stored bytes. All frames but the last hold the same
/// number of plain bytes, so the stored sizes tell where each one is.
package struct FrameIndex: Sendable, Hashable {
  /// 4 MiB: large enough that frames cost no ratio, small enough that a table of a few rows costs one short read.
  package static let standardFrameBytes = 4 << 20

  package let frameBytes: Int
  package private(set) var storedSizes: [Int] = []
  /// SHA-256 of each frame's stored bytes, 64 hexadecimal digits. Nil for an artifact of contents version 1.0, which
  /// has none.
  package private(set) var digests: [String]?
  package private(set) var plainBytes: UInt64 = 0
  package private(set) var storedBytes: UInt64 = 0

  package init(frameBytes: Int = standardFrameBytes) {
    self.frameBytes = frameBytes
    digests = []
  }

  /// Rebuilds an index from what contents.json keeps; nil where the parts don't fit together.
  package init?(frameBytes: Int, plainBytes: UInt64, storedSizes: [Int], digests: [String]?) {
    guard frameBytes > 0, storedSizes.allSatisfy({ $0 >= 0 }) else { return nil }
    guard digests.map({ $0.count == storedSizes.count }) ?? true else { return nil }
    let (whole, rest) = plainBytes.quotientAndRemainder(dividingBy: UInt64(frameBytes))
    let (frames, isTooMany) = whole.addingReportingOverflow(rest > 0 ? 1 : 0)
    guard !isTooMany, frames == UInt64(storedSizes.count) else { return nil }
    var sum: UInt64 = 0
    for size in storedSizes {
      let (next, isTooLarge) = sum.addingReportingOverflow(UInt64(size))
      guard !isTooLarge else { return nil }
      sum = next
    }
    self.frameBytes = frameBytes
    self.storedSizes = storedSizes
    self.digests = digests
    self.plainBytes = plainBytes
    storedBytes = sum
  }

  /// Records the next frame. Only the last one may hold less than `frameBytes`.
  ///
  /// - Parameter digest: SHA-256 of its stored bytes, in hexadecimal.
  package mutating func append(plain: Int, stored: Int, digest: String) {
    precondition(plainBytes % UInt64(frameBytes) == 0, "a short frame is the last one")
    storedSizes.append(stored)
    digests?.append(digest)
    plainBytes += UInt64(plain)
    storedBytes += UInt64(stored)
  }

  package struct Frame: Sendable, Hashable {
    package let number: Int
    package let stored: Range<UInt64>
    package let plain: Range<UInt64>
    /// SHA-256 of the stored bytes, in hexadecimal. Nil where the index has none: then the artifact's own digest has to
    /// be checked first.
    package let digest: String?
  }

  /// The frames that hold a range of plain bytes, in order.
  package func frames(covering range: Range<UInt64>) throws(FrameError) -> [Frame] {
    guard range.upperBound <= plainBytes else { throw .outOfBounds(range.upperBound) }
    guard !range.isEmpty else { return [] }
    let size = UInt64(frameBytes)
    let first = Int(range.lowerBound / size)
    let last = Int((range.upperBound - 1) / size)
    var start = storedSizes[..<first].reduce(0) { $0 + UInt64($1) }
    return (first...last).map { number in
      let plainStart = UInt64(number) * size
      defer { start += UInt64(storedSizes[number]) }
      return Frame(
        number: number, stored: start..<start + UInt64(storedSizes[number]),
        plain: plainStart..<plainStart + min(size, plainBytes - plainStart), digest: digests?[number])
    }
  }
}
