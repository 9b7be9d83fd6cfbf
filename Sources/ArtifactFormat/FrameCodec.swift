/// Makes and opens single frames. It holds the library's working memory, so make one per thread and keep it; it is not
/// `Sendable`.
package protocol FrameCodec: AnyObject {
  /// One independent frame of `plain`.
  func encode(_ plain: UnsafeRawBufferPointer) throws(FrameError) -> [UInt8]
  /// The plain bytes of frame number `frame`. Throws where they are not exactly `plainCount`, or where anything follows.
  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) throws(FrameError) -> [UInt8]
}

extension Compression {
  package func makeCodec() throws(FrameError) -> any FrameCodec {
    switch algorithm {
    case .zstd: try ZstdCodec(level: level)
    case .gzip: GzipCodec(level: level)
    case .none: PlainCodec()
    }
  }
}

/// No compression: a frame is its bytes.
final class PlainCodec: FrameCodec {
  func encode(_ plain: UnsafeRawBufferPointer) -> [UInt8] { Array(plain) }

  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) throws(FrameError) -> [UInt8] {
    guard stored.count == plainCount else {
      throw .damaged(frame: frame, reason: "\(stored.count) bytes instead of \(plainCount)")
    }
    return Array(stored)
  }
}
