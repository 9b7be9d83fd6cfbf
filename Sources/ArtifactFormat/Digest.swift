import Crypto

/// The SHA-256 of a stored file, fed as it is written or read: what `sha256sum` prints.
package struct Digest: Sendable {
  private var hash = SHA256()
  package private(set) var count: Int64 = 0

  package init() {}

  package mutating func update(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
    count += Int64(bytes.count)
  }

  /// 64 hexadecimal digits.
  package var hexadecimal: String { hash.finalize().map { Self.pairs[Int($0)] }.joined() }

  package static func hexadecimal(of bytes: [UInt8]) -> String {
    var digest = Digest()
    digest.update(bytes)
    return digest.hexadecimal
  }

  /// The 32 bytes of a digest.
  package static func bytes(of bytes: ArraySlice<UInt8>) -> [UInt8] {
    var hash = SHA256()
    bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
    return Array(hash.finalize())
  }

  private static let pairs: [String] = (0..<256).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
}
