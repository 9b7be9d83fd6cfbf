import Crypto

/// Decrypts a stream that is fed in pieces of any size. What it returns has authenticated; where it throws, nothing more of the
/// stream may be used.
package struct AgeDecryptor: Sendable {
  private let identities: [AgeIdentity]
  private var payload: AgePayload?
  private var number: UInt64 = 0
  private var pending: [UInt8] = []

  package init(_ identities: [AgeIdentity]) { self.identities = identities }

  /// Takes stored bytes and returns the plain bytes of every chunk that is known not to be the last.
  package mutating func update(_ stored: [UInt8]) throws(AgeError) -> [UInt8] {
    pending.append(contentsOf: stored)
    if payload == nil {
      guard let opened = try AgeOpening(pending, identities) else { return [] }
      payload = opened.payload
      pending.removeFirst(opened.payloadOffset)
    }
    var plain: [UInt8] = []
    var position = 0
    while pending.count - position > AgePayload.sealedBytes {
      plain.append(contentsOf: try open(position..<position + AgePayload.sealedBytes, isLast: false))
      position += AgePayload.sealedBytes
    }
    pending.removeFirst(position)
    return plain
  }

  /// The last chunk's bytes. A message can't end without a chunk that is marked as the last.
  package mutating func finish() throws(AgeError) -> [UInt8] {
    guard payload != nil else { throw .malformedHeader("it is cut off") }
    defer { pending = [] }
    do {
      return try open(0..<pending.count, isLast: true)
    } catch {
      // A chunk that would be right as one in the middle: the file ends too early.
      if (try? open(0..<pending.count, isLast: false)) != nil { throw .truncated }
      throw error
    }
  }

  private mutating func open(_ range: Range<Int>, isLast: Bool) throws(AgeError) -> [UInt8] {
    guard let payload else { throw .truncated }
    let number = number
    let result = pending[range].withUnsafeBytes { sealed -> Result<[UInt8], AgeError> in
      do throws(AgeError) {
        return .success([UInt8](try payload.open(sealed, number: number, isLast: isLast)))
      } catch {
        return .failure(error)
      }
    }
    let plain = try result.get()
    self.number += 1
    return plain
  }

  /// A small file in one go.
  package static func decrypt(_ stored: [UInt8], with identities: [AgeIdentity]) throws(AgeError) -> [UInt8] {
    var decryptor = AgeDecryptor(identities)
    return try decryptor.update(stored) + decryptor.finish()
  }
}

/// A header that an identity has opened, and where the payload begins.
struct AgeOpening {
  let payload: AgePayload
  /// Of the first chunk in the file.
  let payloadOffset: Int

  /// Nil where `bytes` end before the payload's first chunk begins.
  init?(_ bytes: [UInt8], _ identities: [AgeIdentity]) throws(AgeError) {
    guard let header = try AgeHeader(reading: bytes), bytes.count >= header.length + AgePayload.nonceBytes else {
      return nil
    }
    // Also where a key opens the file: who adds a recipient could not know the passphrase ("The scrypt recipient
    // type").
    guard header.stanzas.count == 1 || !header.stanzas.contains(where: { $0.type == "scrypt" }) else {
      throw .malformedHeader("a passphrase stands beside other recipients")
    }
    for identity in identities {
      guard let fileKey = try identity.unwrap(header) else { continue }
      guard header.isAuthentic(fileKey) else { throw .headerChanged }
      payloadOffset = header.length + AgePayload.nonceBytes
      payload = AgePayload(fileKey: fileKey, nonce: Array(bytes[header.length..<payloadOffset]))
      return
    }
    throw .noMatchingIdentity
  }
}
