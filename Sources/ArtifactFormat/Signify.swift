import Crypto
import Foundation
import Quoting
import Units

/// Ed25519 signatures in the files of OpenBSD's signify(1): two lines, a comment and Base64. `signify-openbsd -V` checks them.
///
/// The Base64 holds the algorithm (`Ed`), the key's number (8 bytes that tell keys apart and prove nothing), and the signature or key.
package struct SigningKey: Sendable, Hashable, CustomStringConvertible {
  private let seed: SecretBytes
  private let number: [UInt8]
  package let publicKey: VerifyingKey

  package static func generate() -> SigningKey {
    let number = SymmetricKey(size: .bits128).withUnsafeBytes { Array($0.prefix(8)) }
    let key = Curve25519.Signing.PrivateKey()
    return SigningKey(Array(key.rawRepresentation), number, Array(key.publicKey.rawRepresentation))
  }

  private init(_ seed: [UInt8], _ number: [UInt8], _ publicKey: [UInt8]) {
    self.seed = SecretBytes(seed)
    self.number = number
    self.publicKey = VerifyingKey(number: number, key: publicKey)
  }

  /// Reads a secret key file without a passphrase (`signify -G -n`); nil where the text is none.
  package init?(parsing text: String) {
    // "Ed", "BK", rounds of the passphrase's hash (0), salt (16), checksum of the key (8), number (8), seed and public key (64).
    guard let bytes = SignifyFile.bytes(text), bytes.count == 104, bytes.prefix(4).spells("EdBK"),
      bytes[4..<8].allSatisfy({ $0 == 0 }),
      bytes[24..<32].elementsEqual(SHA512.hash(data: bytes[40...]).prefix(8)),
      let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: bytes[40..<72]),
      key.publicKey.rawRepresentation.elementsEqual(bytes[72...])
    else { return nil }
    self.init(Array(bytes[40..<72]), Array(bytes[32..<40]), Array(bytes[72...]))
  }

  /// The secret key file, for the state directory and nothing else.
  package var secretText: String {
    let pair = seed.copy + publicKey.key
    let salt = [UInt8](repeating: 0, count: 16)
    let bytes = Array("EdBK".utf8) + [0, 0, 0, 0] + salt + SHA512.hash(data: pair).prefix(8) + number + pair
    return SignifyFile.text("pgbackupd secret key", bytes)
  }

  /// The signature file of a message.
  package func sign(_ message: [UInt8]) throws -> String {
    let key = try seed.withBytes { try Curve25519.Signing.PrivateKey(rawRepresentation: $0) }
    let signature = try key.signature(for: message)
    return SignifyFile.text(
      "verify with the public key of the pgbackupd that made it", Array("Ed".utf8) + number + signature)
  }

  package var description: String { "SigningKey(…)" }
}

/// The public half: what tells a manifest of ours from a forged one.
package struct VerifyingKey: Sendable, Hashable, CustomStringConvertible {
  fileprivate let number: [UInt8]
  fileprivate let key: [UInt8]

  fileprivate init(number: [UInt8], key: [UInt8]) {
    self.number = number
    self.key = key
  }

  /// Reads a public key file, or its Base64 line alone; nil where the text is neither.
  package init?(parsing text: String) {
    let whole = text.contains(byte: 10) ? text : "untrusted comment: key\n\(text)\n"
    guard let bytes = SignifyFile.bytes(whole), bytes.count == 42, bytes.prefix(2).spells("Ed") else { return nil }
    self.init(number: Array(bytes[2..<10]), key: Array(bytes[10...]))
  }

  /// The public key file.
  package var text: String { SignifyFile.text("pgbackupd public key", Array("Ed".utf8) + number + key) }

  /// The Base64 line, as the configuration takes it.
  package var description: String { Data(Array("Ed".utf8) + number + key).base64EncodedString() }

  /// Whether the signature file is this key's for this message.
  package func verifies(_ message: [UInt8], signature text: String) -> Bool {
    guard let bytes = SignifyFile.bytes(text), bytes.count == 74, bytes.prefix(2).spells("Ed"),
      bytes[2..<10].elementsEqual(number), let key = try? Curve25519.Signing.PublicKey(rawRepresentation: key)
    else { return false }
    return key.isValidSignature(bytes[10...], for: message)
  }
}

private enum SignifyFile {
  private static let comment = "untrusted comment: "

  static func text(_ words: String, _ bytes: [UInt8]) -> String {
    "\(comment)\(words)\n\(Data(bytes).base64EncodedString())\n"
  }

  static func bytes(_ text: String) -> [UInt8]? {
    let lines = text.split(atByte: 10, omittingEmptySubsequences: false)
    guard lines.count == 3, lines[0].starts(withBytes: comment), lines[2].isEmpty,
      // In its canonical form only: else several texts would be one signature.
      let data = Data(base64Encoded: String(lines[1])), data.base64EncodedString() == lines[1]
    else { return nil }
    return [UInt8](data)
  }
}

extension Sequence<UInt8> {
  fileprivate func spells(_ text: String) -> Bool { elementsEqual(text.utf8) }
}
