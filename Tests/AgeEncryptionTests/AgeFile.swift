import Crypto
import CryptoExtras
import Foundation

/// Makes and opens age files by hand, right and wrong ones: a second implementation of the format
/// (age-encryption.org/v1) that shares no code with the one under test.
struct AgeFile {
  static let chunkBytes = 65_536

  var fileKey = Array("YELLOW SUBMARINE".utf8)
  /// The header's lines before the one with the MAC, without their newlines.
  var lines = ["age-encryption.org/v1"]
  /// What stands behind `---` and a space; the right MAC where nil.
  var macText: String?
  /// What stands between the lines.
  var newline = "\n"
  var nonce = [UInt8](repeating: 7, count: 16)
  /// Chunks as they are sealed: their plain bytes, and whether each is marked as the last.
  var chunks: [(plain: [UInt8], isLast: Bool)] = [(Array("secret".utf8), true)]
  /// What follows the last chunk.
  var trailing: [UInt8] = []

  var bytes: [UInt8] {
    let text = lines.map { $0 + newline }.joined()
    let mac =
      macText
      ?? Self.base64(Array(HMAC<SHA256>.authenticationCode(for: Data((text + "---").utf8), using: key("header"))))
    var bytes = Array((text + "--- " + mac + newline).utf8) + nonce
    for (number, chunk) in chunks.enumerated() {
      bytes += Self.seal(chunk.plain, with: key("payload", salt: nonce), Self.nonce(number, chunk.isLast))
    }
    return bytes + trailing
  }

  /// The file without what `header` and `payload` derive: for a key that is not the file's.
  private func key(_ purpose: String, salt: [UInt8] = []) -> SymmetricKey {
    HKDF<SHA256>.deriveKey(
      inputKeyMaterial: SymmetricKey(data: fileKey), salt: salt, info: Data(purpose.utf8), outputByteCount: 32)
  }

  static func nonce(_ number: Int, _ isLast: Bool) -> [UInt8] {
    [0, 0, 0] + (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * (7 - $0))) } + [isLast ? 1 : 0]
  }

  static func seal(_ plain: [UInt8], with key: SymmetricKey, _ nonce: [UInt8]) -> [UInt8] {
    guard let nonce = try? ChaChaPoly.Nonce(data: nonce),
      let box = try? ChaChaPoly.seal(Data(plain), using: key, nonce: nonce)
    else { return [] }
    return Array(box.ciphertext) + Array(box.tag)
  }

  static func base64(_ bytes: [UInt8]) -> String {
    Data(bytes).base64EncodedString().replacing("=", with: "")
  }

  /// A recipient's lines: the arguments, and a body in lines of 64 characters with a short one at the end.
  static func stanza(_ arguments: [String], _ body: [UInt8]) -> [String] {
    let text = Array(base64(body))
    let full = stride(from: 0, to: text.count + 1, by: 64).map { String(text[$0..<min(text.count, $0 + 64)]) }
    return ["-> " + arguments.joined(separator: " ")] + full
  }

  /// What an X25519 recipient gets: share and wrapped file key.
  static func x25519(
    _ fileKey: [UInt8], to recipient: Curve25519.KeyAgreement.PublicKey
  ) throws -> (share: [UInt8], body: [UInt8]) {
    let ephemeral = Curve25519.KeyAgreement.PrivateKey()
    let share = Array(ephemeral.publicKey.rawRepresentation)
    let wrap = try ephemeral.sharedSecretFromKeyAgreement(with: recipient).hkdfDerivedSymmetricKey(
      using: SHA256.self, salt: share + Array(recipient.rawRepresentation),
      sharedInfo: Data("age-encryption.org/v1/X25519".utf8), outputByteCount: 32)
    return (share, seal(fileKey, with: wrap, [UInt8](repeating: 0, count: 12)))
  }

  static func scrypt(_ fileKey: [UInt8], _ passphrase: String, salt: [UInt8], logN: Int) throws -> [UInt8] {
    let key = try KDF.Scrypt.deriveKey(
      from: Data(passphrase.utf8), salt: Data("age-encryption.org/v1/scrypt".utf8) + salt, outputByteCount: 32,
      rounds: 1 << logN, blockSize: 8, parallelism: 1)
    return seal(fileKey, with: key, [UInt8](repeating: 0, count: 12))
  }

  /// All plain bytes of a file's chunks that authenticate one after the other, whatever follows them: more than this no
  /// reader may release.
  static func authentic(_ file: [UInt8], fileKey: [UInt8]) -> [UInt8] {
    guard let mac = file.indices.first(where: { file[$0...].starts(with: Array("\n--- ".utf8)) }),
      let end = file[(mac + 1)...].firstIndex(of: 10), file.count >= end + 17
    else { return [] }
    let key = HKDF<SHA256>.deriveKey(
      inputKeyMaterial: SymmetricKey(data: fileKey), salt: Array(file[(end + 1)..<(end + 17)]),
      info: Data("payload".utf8), outputByteCount: 32)
    var (plain, rest, number) = ([UInt8](), file[(end + 17)...], 0)
    while rest.count >= 16 {
      let sealed = rest.prefix(chunkBytes + 16)
      rest = rest.dropFirst(sealed.count)
      let opened = [false, true].lazy.compactMap { isLast -> (Data, Bool)? in
        guard let nonce = try? ChaChaPoly.Nonce(data: nonce(number, isLast)),
          let box = try? ChaChaPoly.SealedBox(nonce: nonce, ciphertext: sealed.dropLast(16), tag: sealed.suffix(16))
        else { return nil }
        return (try? ChaChaPoly.open(box, using: key)).map { ($0, isLast) }
      }.first
      guard let opened, opened.1 || sealed.count == chunkBytes + 16, !opened.0.isEmpty || number == 0 else { break }
      plain += opened.0
      number += 1
      if opened.1 { break }
    }
    return plain
  }
}
