/// Reads plain bytes back out of an artifact, any range of them, through whatever fetches stored bytes.
///
/// Only the frames that hold the range are fetched. Each frame's digest is checked before it is opened, where the index
/// has digests; a fetch that returns other than what was asked for is an error.
package struct ArtifactReader {
  /// Stored bytes of a range, exactly.
  package typealias Fetch = (Range<UInt64>) async throws -> [UInt8]

  package let index: FrameIndex
  private let codec: any FrameCodec
  private let fetch: Fetch

  package init(index: FrameIndex, compression: Compression, fetch: @escaping Fetch) throws(FrameError) {
    self.index = index
    codec = try compression.makeCodec()
    self.fetch = fetch
  }

  /// Hands the plain bytes of `range` to `body`, in order, a frame's worth at most at a time.
  package func read(_ range: Range<UInt64>, _ body: (UnsafeRawBufferPointer) throws -> Void) async throws {
    for frame in try index.frames(covering: range) {
      let stored = try await fetch(frame.stored)
      let plain = try codec.open(stored, frame)
      let wanted = range.clamped(to: frame.plain)
      try plain.withUnsafeBytes { bytes in
        let slice = Int(wanted.lowerBound - frame.plain.lowerBound)..<Int(wanted.upperBound - frame.plain.lowerBound)
        try body(UnsafeRawBufferPointer(rebasing: bytes[slice]))
      }
    }
  }

  /// All plain bytes, in order.
  package func readAll(_ body: (UnsafeRawBufferPointer) throws -> Void) async throws {
    try await read(0..<index.plainBytes, body)
  }
}
