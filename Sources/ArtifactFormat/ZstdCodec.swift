import CZstd

/// Zstandard frames (RFC 8878) with content size and checksum, as `zstd` writes them.
///
/// - Safety: both contexts are made here, used by one caller at a time (the class is not `Sendable`) and freed in `deinit`.
final class ZstdCodec: FrameCodec {
  private let compressor: OpaquePointer
  private let decompressor: OpaquePointer

  init(level: Int) throws(FrameError) {
    guard let compressor = ZSTD_createCCtx() else { throw .compressor("out of memory") }
    guard let decompressor = ZSTD_createDCtx() else {
      ZSTD_freeCCtx(compressor)
      throw .compressor("out of memory")
    }
    self.compressor = compressor
    self.decompressor = decompressor
    ZSTD_CCtx_setParameter(compressor, ZSTD_c_compressionLevel, Int32(level))
    ZSTD_CCtx_setParameter(compressor, ZSTD_c_checksumFlag, 1)
  }

  deinit {
    ZSTD_freeCCtx(compressor)
    ZSTD_freeDCtx(decompressor)
  }

  func encode(_ plain: UnsafeRawBufferPointer) throws(FrameError) -> [UInt8] {
    var result = 0
    let frame = [UInt8](unsafeUninitializedCapacity: ZSTD_compressBound(plain.count)) { buffer, count in
      result = ZSTD_compress2(compressor, buffer.baseAddress, buffer.count, plain.baseAddress, plain.count)
      count = ZSTD_isError(result) == 0 ? result : 0
    }
    guard ZSTD_isError(result) == 0 else { throw .compressor(Self.name(result)) }
    return frame
  }

  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) throws(FrameError) -> [UInt8] {
    guard ZSTD_findFrameCompressedSize(stored.baseAddress, stored.count) == stored.count else {
      throw .damaged(frame: frame, reason: "it is not exactly one zstd frame")
    }
    var result = 0
    let plain = [UInt8](unsafeUninitializedCapacity: plainCount) { buffer, count in
      result = ZSTD_decompressDCtx(decompressor, buffer.baseAddress, buffer.count, stored.baseAddress, stored.count)
      count = ZSTD_isError(result) == 0 ? result : 0
    }
    guard ZSTD_isError(result) == 0 else { throw .damaged(frame: frame, reason: Self.name(result)) }
    guard plain.count == plainCount else {
      throw .damaged(frame: frame, reason: "\(plain.count) plain bytes instead of \(plainCount)")
    }
    return plain
  }

  func plainCount(_ stored: UnsafeRawBufferPointer) throws(FrameError) -> Int {
    // Two values at the top of the range mean "unknown" and "no frame"; both are larger than any claim that is taken.
    let claim = ZSTD_getFrameContentSize(stored.baseAddress, stored.count)
    guard claim <= UInt64(largestClaim) else { throw .damaged(frame: 0, reason: "it does not tell a possible size") }
    return Int(claim)
  }

  private static func name(_ code: Int) -> String { String(cString: ZSTD_getErrorName(code)) }
}
