import CZlib

/// gzip members (RFC 1952) through zlib; concatenated members are one gzip file (section 2.2).
final class GzipCodec: FrameCodec {
  private let level: Int
  /// 15 bits of window and, by zlib.h's convention, 16 for the gzip wrapper.
  private static let windowBits: Int32 = 15 + 16

  init(level: Int) { self.level = level }

  func encode(_ plain: UnsafeRawBufferPointer) throws(FrameError) -> [UInt8] {
    var stream = z_stream()
    var status = deflateInit2_(
      &stream, Int32(level), Z_DEFLATED, Self.windowBits, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
      Int32(MemoryLayout<z_stream>.size))
    guard status == Z_OK else { throw .compressor("zlib status \(status)") }
    defer { deflateEnd(&stream) }

    let member = [UInt8](unsafeUninitializedCapacity: Int(deflateBound(&stream, UInt(plain.count)))) { buffer, count in
      Self.attach(&stream, input: plain, output: buffer)
      status = deflate(&stream, Z_FINISH)
      count = status == Z_STREAM_END ? Int(stream.total_out) : 0
    }
    guard status == Z_STREAM_END else { throw .compressor("zlib status \(status)") }
    return member
  }

  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) throws(FrameError) -> [UInt8] {
    var stream = z_stream()
    var status = inflateInit2_(&stream, Self.windowBits, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
    guard status == Z_OK else { throw .compressor("zlib status \(status)") }
    defer { inflateEnd(&stream) }

    // One byte more than wanted, so that a member which is too long is seen to be.
    let plain = [UInt8](unsafeUninitializedCapacity: plainCount + 1) { buffer, count in
      Self.attach(&stream, input: stored, output: buffer)
      status = inflate(&stream, Z_FINISH)
      count = min(Int(stream.total_out), buffer.count)
    }
    guard status == Z_STREAM_END, stream.avail_in == 0 else {
      throw .damaged(frame: frame, reason: "it is not exactly one gzip member (zlib status \(status))")
    }
    guard plain.count == plainCount else {
      throw .damaged(frame: frame, reason: "\(plain.count) plain bytes instead of \(plainCount)")
    }
    return plain
  }

  /// The last four bytes are the size modulo 2^32 (RFC 1952, ISIZE).
  func plainCount(_ stored: UnsafeRawBufferPointer) throws(FrameError) -> Int {
    guard stored.count >= 18 else { throw .damaged(frame: 0, reason: "it is too short for a gzip member") }
    let claim = UInt32(littleEndian: stored.loadUnaligned(fromByteOffset: stored.count - 4, as: UInt32.self))
    guard claim <= largestClaim else { throw .damaged(frame: 0, reason: "it does not tell a possible size") }
    return Int(claim)
  }

  /// zlib's input pointer is not const, but zlib.h promises that the input is only read.
  private static func attach(
    _ stream: inout z_stream, input: UnsafeRawBufferPointer, output: UnsafeMutableBufferPointer<UInt8>
  ) {
    stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
    stream.avail_in = UInt32(input.count)
    stream.next_out = output.baseAddress
    stream.avail_out = UInt32(output.count)
  }
}
