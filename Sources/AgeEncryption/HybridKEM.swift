import Crypto
import Foundation

/// age's post-quantum recipient: ML-KEM-768 and X25519 in one, so that both must be broken (age-encryption.org/v1, "The hybrid recipient
/// type"). HPKE (RFC 9180) in base mode with X-Wing (KEM 0x647a), HKDF-SHA256 and ChaCha20-Poly1305.
enum HybridKEM {
  static let type = "mlkem768x25519"

  private static let suite = HPKE.Ciphersuite(kem: .XWingMLKEM768X25519, kdf: .HKDF_SHA256, aead: .chaChaPoly)
  private static let info = Data("age-encryption.org/mlkem768x25519".utf8)
  /// ML-KEM's 1088 bytes and X25519's 32.
  private static let shareBytes = 1120

  static func isPublicKey(_ bytes: [UInt8]) -> Bool {
    bytes.count == 1216 && (try? XWingMLKEM768X25519.PublicKey(rawRepresentation: bytes)) != nil
  }

  static func publicKey(ofSeed seed: [UInt8]) -> [UInt8]? {
    guard seed.count == 32, let key = try? privateKey(seed) else { return nil }
    return Array(key.publicKey.rawRepresentation)
  }

  static func seal(_ fileKey: SymmetricKey, to recipient: [UInt8]) throws -> (share: [UInt8], body: [UInt8]) {
    var sender = try HPKE.Sender(
      recipientKey: XWingMLKEM768X25519.PublicKey(rawRepresentation: recipient), ciphersuite: suite, info: info)
    let body = try sender.seal(fileKey.withUnsafeBytes { Data($0) })
    return (Array(sender.encapsulatedKey), Array(body))
  }

  /// Nil where it is not for this seed. Throws where no honest sender has made such a share.
  static func open(_ body: [UInt8], _ share: [UInt8], _ seed: [UInt8]) throws(AgeError) -> SymmetricKey? {
    guard share.count == shareBytes, let key = try? privateKey(seed),
      var receiver = try? HPKE.Recipient(
        privateKey: key, ciphersuite: suite, info: info, encapsulatedKey: Data(share))
    else { throw .malformedHeader("a post-quantum share is none to agree on") }
    return (try? receiver.open(Data(body))).map { SymmetricKey(data: $0) }
  }

  private static func privateKey(_ seed: [UInt8]) throws -> XWingMLKEM768X25519.PrivateKey {
    try XWingMLKEM768X25519.PrivateKey(seedRepresentation: seed, publicKey: nil)
  }
}
