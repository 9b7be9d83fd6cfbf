import Foundation

@testable import AgeEncryption

/// A key that is nobody's: the corpus has files for it.
private let secret = [UInt8](repeating: 0x42, count: 32)
private let identity = try? AgeIdentity(parsing: Bech32.encode("age-secret-key-", secret).uppercased())
private let hybrid = try? AgeIdentity(parsing: Bech32.encode("age-secret-key-pq-", secret).uppercased())

/// A header that `identity` opens, with its nonce: inputs are payloads behind it.
private let opened: [UInt8] = {
  guard let recipient = identity?.recipient, let file = try? AgeEncryptor.encrypt([], to: [recipient]) else {
    return []
  }
  return Array(file.dropLast(AgePayload.tagBytes))
}()

let ageTargets = [
  FuzzTarget("age-header") { bytes in
    guard let header = (try? AgeHeader(reading: bytes)) ?? nil else { return }
    FuzzTarget.require(header.encoded == Array(bytes.prefix(header.length)), "a header prints as it was read")
    for identity in [identity, hybrid].compactMap({ $0 }) { _ = try? AgeOpening(bytes, [identity]) }
  },
  FuzzTarget(text: "age-armor") { text in
    guard let bytes = (try? AgeArmor.decode(text)) ?? nil else { return }
    FuzzTarget.require((try? AgeArmor.decode(AgeArmor.encode(bytes))) == bytes, "an armor's bytes read back")
  },
  FuzzTarget("age-payload") { payload in
    guard let identity else { return }
    let stored = opened + payload
    let whole = try? AgeDecryptor.decrypt(stored, with: [identity])
    var decryptor = AgeDecryptor([identity])
    var released: [UInt8] = []
    var isRead = false
    do {
      let size = FuzzTarget.pieceSize(payload)
      for start in stride(from: 0, to: stored.count, by: size) {
        released += try decryptor.update(Array(stored[start..<min(stored.count, start + size)]))
      }
      released += try decryptor.finish()
      isRead = true
    } catch {}
    FuzzTarget.require(isRead == (whole != nil), "pieces end as the whole does")
    if let whole { FuzzTarget.require(whole == released, "pieces give the same bytes") }
    // The key of `opened` is new in each process: no input can be its ciphertext.
    FuzzTarget.require(released.isEmpty && whole == nil, "nothing is released that was not sealed with the key")
  },
  FuzzTarget(text: "age-keys") { text in
    if let recipient = try? AgeRecipient(parsing: text) {
      FuzzTarget.require("\(recipient)".utf8.elementsEqual(text.utf8), "a recipient has one text")
    }
    if let identity = try? AgeIdentity(parsing: text) {
      FuzzTarget.require(identity.secretText.utf8.elementsEqual(text.utf8), "an identity has one text")
    }
    _ = try? AgeIdentity.identities(inFile: text)
  },
]
