import Crypto

/// Encrypts a stream: the header first, then chunks as they fill.
package struct AgeEncryptor: Sendable {
  private let payload: AgePayload
  private var number: UInt64 = 0
  /// At most one chunk: a full one waits until it is known whether something follows.
  private var pending: [UInt8] = []
  private var head: [UInt8]

  /// - Parameter recipients: at least one; a passphrase must be alone.
  package init(to recipients: [AgeRecipient]) throws(AgeError) {
    guard !recipients.isEmpty else { throw .malformedKey("a file needs a recipient") }
    guard recipients.count == 1 || !recipients.contains(where: \.isPassphrase) else {
      throw .malformedKey("a passphrase must be the only recipient")
    }
    guard Set(recipients.map(\.isPostQuantum)).count == 1 else {
      // As age has it: the weakest recipient decides.
      throw .malformedKey("a post-quantum recipient protects nothing beside one that is none")
    }
    let fileKey = SymmetricKey(size: .bits128)
    var stanzas: [AgeHeader.Stanza] = []
    for recipient in recipients { stanzas.append(try recipient.wrap(fileKey)) }
    let nonce = SymmetricKey(size: .bits128).withUnsafeBytes { Array($0) }
    payload = AgePayload(fileKey: fileKey, nonce: nonce)
    head = AgeHeader(stanzas, fileKey: fileKey).encoded + nonce
  }

  /// Takes plain bytes and returns what is ready to be stored, which may be nothing.
  package mutating func update(_ plain: [UInt8]) throws(AgeError) -> [UInt8] {
    var stored = head
    head = []
    stored.reserveCapacity(stored.count + plain.count + plain.count / AgePayload.chunkBytes * AgePayload.tagBytes + 128)
    var position = 0
    if !pending.isEmpty {
      let taken = min(plain.count, AgePayload.chunkBytes - pending.count)
      pending.append(contentsOf: plain[..<taken])
      position = taken
      guard position < plain.count else { return stored }
      try seal(pending[...], isLast: false, into: &stored)
      pending.removeAll(keepingCapacity: true)
    }
    while plain.count - position > AgePayload.chunkBytes {
      try seal(plain[position..<position + AgePayload.chunkBytes], isLast: false, into: &stored)
      position += AgePayload.chunkBytes
    }
    pending.append(contentsOf: plain[position...])
    return stored
  }

  /// The last chunk. Nothing may follow.
  package mutating func finish() throws(AgeError) -> [UInt8] {
    var stored = head
    head = []
    try seal(pending[...], isLast: true, into: &stored)
    return stored
  }

  private mutating func seal(_ plain: ArraySlice<UInt8>, isLast: Bool, into stored: inout [UInt8]) throws(AgeError) {
    let (payload, number) = (payload, number)
    do {
      try plain.withUnsafeBytes { try payload.seal($0, number: number, isLast: isLast, into: &stored) }
    } catch {
      throw .chunkRefused(number)
    }
    self.number += 1
  }

  /// A small file in one go.
  package static func encrypt(_ plain: [UInt8], to recipients: [AgeRecipient]) throws(AgeError) -> [UInt8] {
    var encryptor = try AgeEncryptor(to: recipients)
    return try encryptor.update(plain) + encryptor.finish()
  }
}
