import Crypto
import Foundation

/// The payload's cipher: chunks of 64 KiB, each sealed under a nonce of its number and whether it is the last
/// (age-encryption.org/v1, "Payload"; the STREAM construction). One boring file, and no byte leaves it that has not authenticated.
struct AgePayload: Sendable {
  static let chunkBytes = 65_536
  static let tagBytes = 16
  static let sealedBytes = chunkBytes + tagBytes
  static let nonceBytes = 16

  private let key: SymmetricKey

  init(fileKey: SymmetricKey, nonce: [UInt8]) {
    key = HKDF<SHA256>.deriveKey(
      inputKeyMaterial: fileKey, salt: nonce, info: Data("payload".utf8), outputByteCount: 32)
  }

  func seal(_ plain: UnsafeRawBufferPointer, number: UInt64, isLast: Bool, into sealed: inout [UInt8]) throws(AgeError)
  {
    guard let nonce = Self.nonce(number, isLast), let box = try? ChaChaPoly.seal(plain, using: key, nonce: nonce) else {
      throw .chunkRefused(number)
    }
    sealed.append(contentsOf: box.ciphertext)
    sealed.append(contentsOf: box.tag)
  }

  /// The plain bytes of a sealed chunk. Throws where it does not authenticate at this place.
  func open(_ sealed: UnsafeRawBufferPointer, number: UInt64, isLast: Bool) throws(AgeError) -> Data {
    guard sealed.count >= Self.tagBytes else { throw .truncated }
    let end = sealed.count - Self.tagBytes
    // A message ends with a chunk that holds something, unless there is nothing at all.
    if end == 0 && (number > 0 || !isLast) { throw .chunkRefused(number) }
    guard let nonce = Self.nonce(number, isLast),
      let box = try? ChaChaPoly.SealedBox(
        nonce: nonce, ciphertext: UnsafeRawBufferPointer(rebasing: sealed[..<end]),
        tag: UnsafeRawBufferPointer(rebasing: sealed[end...])),
      let plain = try? ChaChaPoly.open(box, using: key)
    else { throw .chunkRefused(number) }
    return plain
  }

  /// Eleven bytes of the chunk's number, and one that marks the last.
  private static func nonce(_ number: UInt64, _ isLast: Bool) -> ChaChaPoly.Nonce? {
    var bytes = [UInt8](repeating: 0, count: 12)
    for position in 0..<8 { bytes[10 - position] = UInt8(truncatingIfNeeded: number >> (8 * UInt64(position))) }
    bytes[11] = isLast ? 1 : 0
    return try? ChaChaPoly.Nonce(data: bytes)
  }
}
