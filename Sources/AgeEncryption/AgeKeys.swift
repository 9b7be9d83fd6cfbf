import Crypto
import CryptoExtras
import Foundation
import Quoting
import Units

/// To whom a file is encrypted.
package struct AgeRecipient: Sendable, Hashable, CustomStringConvertible {
  private enum Kind: Sendable, Hashable {
    case x25519([UInt8])
    case hybrid([UInt8])
    case passphrase(String, logN: Int)
  }

  private let kind: Kind

  /// Reads `age1…` (X25519) and `age1pq1…` (ML-KEM-768 with X25519).
  package init(parsing text: String) throws(AgeError) {
    guard let (prefix, bytes) = Bech32.decode(text), text.lowercased() == text else {
      throw .malformedKey("it is no recipient: age1… with a wrong character or checksum")
    }
    if prefix == "age1pq", HybridKEM.isPublicKey(bytes) {
      kind = .hybrid(bytes)
      return
    }
    guard prefix == "age", bytes.count == 32 else {
      throw .malformedKey(
        prefix.starts(withBytes: "age1") && prefix != "age1pq"
          ? "recipients of the kind '\(prefix)' are not supported" : "it is no recipient: they begin with age1")
    }
    kind = .x25519(bytes)
  }

  fileprivate init(x25519 key: [UInt8]) { kind = .x25519(key) }
  fileprivate init(hybrid key: [UInt8]) { kind = .hybrid(key) }

  /// A passphrase (scrypt). Such a file has no other recipient.
  ///
  /// - Parameter logN: the work factor's logarithm; 18 takes about a second.
  package init(passphrase: String, logN: Int = 18) { kind = .passphrase(passphrase, logN: logN) }

  /// `age1…`; a passphrase is not shown.
  package var description: String {
    switch kind {
    case .x25519(let key): Bech32.encode("age", key)
    case .hybrid(let key): Bech32.encode("age1pq", key)
    case .passphrase: "a passphrase"
    }
  }

  package var isPassphrase: Bool { if case .passphrase = kind { true } else { false } }

  /// Whether a quantum computer of the future leaves what is encrypted to it closed.
  package var isPostQuantum: Bool { if case .hybrid = kind { true } else { false } }

  /// Wraps a file key for this recipient.
  func wrap(_ fileKey: SymmetricKey) throws(AgeError) -> AgeHeader.Stanza {
    do {
      switch kind {
      case .x25519(let recipient):
        let ephemeral = Curve25519.KeyAgreement.PrivateKey()
        let share = Array(ephemeral.publicKey.rawRepresentation)
        let secret = try ephemeral.sharedSecretFromKeyAgreement(with: .init(rawRepresentation: recipient))
        let key = try X25519.wrapKey(secret, share: share, recipient: recipient)
        return AgeHeader.Stanza(
          type: "X25519", arguments: [Base64.encode(share)], body: try KeyWrap.seal(fileKey, with: key))
      case .hybrid(let recipient):
        let (share, body) = try HybridKEM.seal(fileKey, to: recipient)
        return AgeHeader.Stanza(type: HybridKEM.type, arguments: [Base64.encode(share)], body: body)
      case .passphrase(let text, let logN):
        let salt = SymmetricKey(size: .bits128).withUnsafeBytes { Array($0) }
        let key = try Scrypt.key(text, salt: salt, logN: logN)
        return AgeHeader.Stanza(
          type: "scrypt", arguments: [Base64.encode(salt), "\(logN)"], body: try KeyWrap.seal(fileKey, with: key))
      }
    } catch let error as AgeError {
      throw error
    } catch {
      throw .malformedKey("the recipient's key can't be used")
    }
  }
}

/// What opens a file. It can't be printed.
package struct AgeIdentity: Sendable, Hashable, CustomStringConvertible {
  private enum Kind: Sendable, Hashable {
    /// The private key's bytes, and those of its public key.
    case x25519(SecretBytes, public: [UInt8])
    /// The seed, and the public key that comes of it.
    case hybrid(SecretBytes, public: [UInt8])
    case passphrase(Secret)
  }

  private let kind: Kind

  /// The largest work factor that is accepted: a hostile file must not keep the processor busy for hours.
  private static let logNLimit = 22

  /// Reads `AGE-SECRET-KEY-1…` and `AGE-SECRET-KEY-PQ-1…`.
  package init(parsing text: String) throws(AgeError) {
    if text.uppercased() == text, let (prefix, seed) = Bech32.decode(text), prefix == "age-secret-key-pq-",
      let key = HybridKEM.publicKey(ofSeed: seed)
    {
      self.init(kind: .hybrid(SecretBytes(seed), public: key))
      return
    }
    guard text.uppercased() == text, let (prefix, bytes) = Bech32.decode(text), prefix == "age-secret-key-",
      let key = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: bytes)
    else { throw .malformedKey("it is no identity: AGE-SECRET-KEY-1… with a wrong character or checksum") }
    self.init(key)
  }

  package init(passphrase: String) { kind = .passphrase(Secret(passphrase)) }

  private init(_ key: Curve25519.KeyAgreement.PrivateKey) {
    kind = .x25519(SecretBytes(key.rawRepresentation), public: Array(key.publicKey.rawRepresentation))
  }

  package static func generate() -> AgeIdentity { AgeIdentity(.init()) }

  /// One whose files a quantum computer of the future leaves closed; age 1.3 and later read it.
  package static func generatePostQuantum() throws(AgeError) -> AgeIdentity {
    let seed = SymmetricKey(size: .bits256).withUnsafeBytes { Array($0) }
    guard let key = HybridKEM.publicKey(ofSeed: seed) else {
      throw .malformedKey("no post-quantum key can be made here")
    }
    return AgeIdentity(kind: .hybrid(SecretBytes(seed), public: key))
  }

  private init(kind: Kind) { self.kind = kind }

  /// Every identity in the text of a key file: one a line, `#` begins a comment (age-keygen(1)).
  package static func identities(inFile text: String) throws(AgeError) -> [AgeIdentity] {
    var identities: [AgeIdentity] = []
    for (number, line) in text.lines.enumerated() {
      if line.isEmpty || line.starts(withBytes: "#") { continue }
      do {
        identities.append(try AgeIdentity(parsing: String(line)))
      } catch {
        throw .malformedKey("line \(number + 1): \(error)")
      }
    }
    guard !identities.isEmpty else { throw .malformedKey("it holds no identity") }
    return identities
  }

  /// Who encrypts to this identity; nil for a passphrase.
  package var recipient: AgeRecipient? {
    switch kind {
    case .x25519(_, let key): AgeRecipient(x25519: key)
    case .hybrid(_, let key): AgeRecipient(hybrid: key)
    case .passphrase: nil
    }
  }

  /// The secret text, for the file that `key generate` writes and for nothing else.
  package var secretText: String {
    switch kind {
    case .x25519(let key, _): Bech32.encode("age-secret-key-", key.copy).uppercased()
    case .hybrid(let seed, _): Bech32.encode("age-secret-key-pq-", seed.copy).uppercased()
    case .passphrase: ""
    }
  }

  package var description: String { "AgeIdentity(…)" }

  /// The file key, where a stanza is for this identity and opens with it; nil where none is. Throws where one that must be ours is
  /// malformed.
  func unwrap(_ header: AgeHeader) throws(AgeError) -> SymmetricKey? {
    for stanza in header.stanzas {
      switch (kind, stanza.type) {
      case (.x25519(let bytes, let recipient), "X25519"):
        guard stanza.arguments.count == 1, let share = Base64.decode(stanza.arguments[0]), share.count == 32,
          stanza.body.count == 32
        else { throw .malformedHeader("an X25519 recipient is malformed") }
        guard let key = try? bytes.withBytes({ try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: $0) }),
          let secret = try? key.sharedSecretFromKeyAgreement(with: .init(rawRepresentation: share)),
          let wrapKey = try? X25519.wrapKey(secret, share: share, recipient: recipient)
        else { throw .malformedHeader("an X25519 share is no point to agree on") }
        if let fileKey = KeyWrap.open(stanza.body, with: wrapKey) { return fileKey }
      case (.hybrid(let seed, _), HybridKEM.type):
        guard stanza.arguments.count == 1, let share = Base64.decode(stanza.arguments[0]), stanza.body.count == 32
        else {
          throw .malformedHeader("a post-quantum recipient is malformed")
        }
        if let fileKey = try HybridKEM.open(stanza.body, share, seed.copy) { return fileKey }
      case (.passphrase(let text), "scrypt"):
        // Alone in its file: else a second recipient could tell that somebody knows the passphrase.
        guard header.stanzas.count == 1, stanza.arguments.count == 2, let salt = Base64.decode(stanza.arguments[0]),
          salt.count == 16, let logN = Int(stanza.arguments[1]), "\(logN)" == stanza.arguments[1],
          stanza.body.count == 32
        else { throw .malformedHeader("a passphrase's recipient is malformed") }
        guard (1...Self.logNLimit).contains(logN) else {
          throw .malformedHeader("the passphrase's work factor \(logN) is beyond \(Self.logNLimit)")
        }
        if let key = try? Scrypt.key(text.revealed, salt: salt, logN: logN),
          let fileKey = KeyWrap.open(stanza.body, with: key)
        {
          return fileKey
        }
      default: continue
      }
    }
    return nil
  }
}

/// The file key under a wrap key: ChaCha20-Poly1305 with a zero nonce, because each wrap key is used once.
private enum KeyWrap {
  static func seal(_ fileKey: SymmetricKey, with key: SymmetricKey) throws -> [UInt8] {
    let box = try ChaChaPoly.seal(
      fileKey.withUnsafeBytes { Data($0) }, using: key, nonce: .init(data: Data(count: 12)))
    return Array(box.ciphertext + box.tag)
  }

  static func open(_ body: [UInt8], with key: SymmetricKey) -> SymmetricKey? {
    guard body.count == 32,
      let box = try? ChaChaPoly.SealedBox(
        nonce: .init(data: Data(count: 12)), ciphertext: body[..<16], tag: body[16...]),
      let plain = try? ChaChaPoly.open(box, using: key)
    else { return nil }
    return SymmetricKey(data: plain)
  }
}

private enum X25519 {
  /// age-encryption.org/v1, "The X25519 recipient type". Throws where the shared secret is zero: then the share is a point of low order.
  static func wrapKey(_ secret: SharedSecret, share: [UInt8], recipient: [UInt8]) throws(AgeError) -> SymmetricKey {
    guard secret.withUnsafeBytes({ $0.contains { $0 != 0 } }) else {
      throw .malformedHeader("an X25519 share is no point to agree on")
    }
    return secret.hkdfDerivedSymmetricKey(
      using: SHA256.self, salt: share + recipient, sharedInfo: Data("age-encryption.org/v1/X25519".utf8),
      outputByteCount: 32)
  }
}

private enum Scrypt {
  /// age-encryption.org/v1, "The scrypt recipient type".
  static func key(_ passphrase: String, salt: [UInt8], logN: Int) throws -> SymmetricKey {
    try KDF.Scrypt.deriveKey(
      from: Data(passphrase.utf8), salt: Data("age-encryption.org/v1/scrypt".utf8) + salt, outputByteCount: 32,
      rounds: 1 << logN, blockSize: 8, parallelism: 1, maxMemory: 2 << (logN + 10))
  }
}
