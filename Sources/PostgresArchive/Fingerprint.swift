package import CXXHash

/// The order-independent digest of a table's rows: the sum modulo 2^128 of the XXH3-128 of each row's COPY text, without
/// its newline. Order does not matter, duplicates count. The empty table has the fingerprint zero.
///
/// It is no cryptographic digest: it tells damage and difference, and the artifact's SHA-256 and the manifest's signature
/// tell forgery.
package struct Fingerprint: Sendable, Hashable {
  package private(set) var value: UInt128

  package init(_ value: UInt128 = 0) { self.value = value }

  @inline(__always)
  package mutating func add(row: UnsafeRawBufferPointer) {
    add(XXH3_128bits(row.baseAddress, row.count))
  }

  @inline(__always)
  package mutating func add(_ hash: XXH128_hash_t) {
    value &+= UInt128(hash.high64) << 64 | UInt128(hash.low64)
  }

  /// Of two sets of rows together.
  package mutating func add(_ other: Fingerprint) { value &+= other.value }
}

extension Fingerprint: CustomStringConvertible {
  /// 32 hexadecimal digits, the most significant first.
  package var description: String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 32 - digits.count) + digits
  }

  package init?(hexadecimal text: String) {
    guard text.utf8.count == 32, text.allSatisfy(\.isHexDigit), let value = UInt128(text, radix: 16) else { return nil }
    self.value = value
  }
}

extension Fingerprint: Codable {
  package init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let fingerprint = Fingerprint(hexadecimal: try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "a fingerprint has 32 hexadecimal digits")
    }
    self = fingerprint
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

/// An XXH3-128 fed piece by piece, for rows and large objects that lie across input boundaries.
///
/// - Safety: `state` is made here, owned by this object alone and freed with it; the class is not `Sendable`.
final class StreamingHash {
  private let state: OpaquePointer

  init() {
    // XXH3_createState allocates 576 bytes; where that fails, nothing else would work either.
    guard let state = XXH3_createState() else { preconditionFailure("out of memory") }
    self.state = state
    reset()
  }

  deinit { XXH3_freeState(state) }

  func reset() { _ = XXH3_128bits_reset(state) }
  func update(_ bytes: UnsafeRawBufferPointer) { _ = XXH3_128bits_update(state, bytes.baseAddress, bytes.count) }
  func digest() -> XXH128_hash_t { XXH3_128bits_digest(state) }
}
