/// Makes and opens single frames. It holds the library's working memory, so make one per thread and keep it; it is not
/// `Sendable`.
package protocol FrameCodec: AnyObject {
  /// One independent frame of `plain`.
  func encode(_ plain: UnsafeRawBufferPointer) throws(FrameError) -> [UInt8]
  /// The plain bytes of frame number `frame`. Throws where they are not exactly `plainCount`, or where anything follows.
  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) throws(FrameError) -> [UInt8]
  /// The plain size that the frame itself claims; a claim of more than 1 GiB is refused.
  func plainCount(_ stored: UnsafeRawBufferPointer) throws(FrameError) -> Int
}

extension FrameCodec {
  /// The plain bytes of a frame. The stored bytes are looked at only if their SHA-256 is the frame's: a decompressor is
  /// no place for what an adversary has written.
  ///
  /// - Throws: `FrameError.damaged` where size or digest differ, or where the frame does not hold what the index says.
  package func open(_ stored: [UInt8], _ frame: FrameIndex.Frame) throws(FrameError) -> [UInt8] {
    guard stored.count == frame.stored.count else {
      throw .damaged(frame: frame.number, reason: "\(stored.count) bytes read of \(frame.stored.count)")
    }
    if let digest = frame.digest, Digest.hexadecimal(of: stored) != digest {
      throw .damaged(frame: frame.number, reason: "its SHA-256 is not the one in the contents")
    }
    return try stored.span.withUnsafeBytes { bytes throws(FrameError) in
      try decode(bytes, plainCount: frame.plain.count, frame: frame.number)
    }
  }
}

/// Bounds what a damaged frame can make us allocate. The largest frame without an index is a contents.json of some hundred
/// thousand tables.
let largestClaim = 1 << 30

extension Compression {
  package func makeCodec() throws(FrameError) -> any FrameCodec {
    switch algorithm {
    case .zstd: try ZstdCodec(level: level)
    case .gzip: GzipCodec(level: level)
    case .none: PlainCodec()
    }
  }
}

extension Compression {
  /// What one frame holds, where its plain size is known to nobody: for small files that were written in one piece.
  package func decompress(_ stored: [UInt8]) throws(FrameError) -> [UInt8] {
    let codec = try makeCodec()
    return try stored.span.withUnsafeBytes { bytes throws(FrameError) in
      try codec.decode(bytes, plainCount: try codec.plainCount(bytes), frame: 0)
    }
  }
}

/// No compression: a frame is its bytes.
final class PlainCodec: FrameCodec {
  func encode(_ plain: UnsafeRawBufferPointer) -> [UInt8] { Array(plain) }

  func plainCount(_ stored: UnsafeRawBufferPointer) -> Int { stored.count }

  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) throws(FrameError) -> [UInt8] {
    guard stored.count == plainCount else {
      throw .damaged(frame: frame, reason: "\(stored.count) bytes instead of \(plainCount)")
    }
    return Array(stored)
  }
}
