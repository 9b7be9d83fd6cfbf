import AgeEncryption
import Crypto
import Foundation
import Testing

/// The post-quantum recipient. No tool that a package brings reads it yet, so the age test suite's vectors tell what is right and wrong
/// (C2SP CCTV, `age/testdata/*hybrid*`, Copyright 2022 The age Authors, 0BSD; two of them unpacked here). Each file says first what must come
/// of it.
@Suite struct HybridTests {
  @Test func thereAndBack() throws {
    let identity = try AgeIdentity.generatePostQuantum()
    let recipient = try #require(identity.recipient)
    #expect(recipient.description.hasPrefix("age1pq1"))
    #expect(identity.secretText.hasPrefix("AGE-SECRET-KEY-PQ-1"))
    #expect(try AgeRecipient(parsing: recipient.description) == recipient)
    #expect(try AgeIdentity(parsing: identity.secretText) == identity)
    let plain = [UInt8](repeating: 7, count: 100_000)
    let other = try #require(try AgeIdentity.generatePostQuantum().recipient)
    let stored = try AgeEncryptor.encrypt(plain, to: [other, recipient])
    #expect(try AgeDecryptor.decrypt(stored, with: [identity]) == plain)
    #expect(throws: AgeError.self) { try AgeDecryptor.decrypt(stored, with: [AgeIdentity.generatePostQuantum()]) }
    #expect(throws: AgeError.self) { try AgeDecryptor.decrypt(stored, with: [AgeIdentity.generate()]) }
  }

  /// Any changed byte of the share or the body: not for us, or no header; never another file key.
  @Test func harm() throws {
    let identity = try AgeIdentity.generatePostQuantum()
    let stored = try AgeEncryptor.encrypt([1, 2, 3], to: [try #require(identity.recipient)])
    for position in stride(from: 0, to: stored.count, by: 41) {
      var changed = stored
      changed[position] ^= 1
      #expect(throws: AgeError.self, "\(position)") { try AgeDecryptor.decrypt(changed, with: [identity]) }
    }
  }

  /// The weakest recipient would decide.
  @Test func kindsDoNotMix() throws {
    let weak = try #require(AgeIdentity.generate().recipient)
    let strong = try #require(try AgeIdentity.generatePostQuantum().recipient)
    #expect(throws: AgeError.self) { try AgeEncryptor.encrypt([1], to: [weak, strong]) }
  }

  static let vectors = [
    "armor_hybrid", "hybrid", "hybrid_and_x25519", "hybrid_bad_tag", "hybrid_currupted_enc_mlkem",
    "hybrid_currupted_enc_x25519", "hybrid_extra_argument", "hybrid_grease", "hybrid_identity", "hybrid_long_file_key",
    "hybrid_long_share", "hybrid_low_order", "hybrid_multiple_recipients", "hybrid_no_match",
    "hybrid_not_canonical_body", "hybrid_not_canonical_enc", "hybrid_short_share", "hybrid_uppercase",
    "hybrid_x25519_arg",
  ]

  @Test(arguments: vectors) func theSuitesVectors(_ name: String) throws {
    let url = try #require(Bundle.module.url(forResource: name, withExtension: nil, subdirectory: "Vectors"))
    let file = [UInt8](try Data(contentsOf: url))
    let end = try #require(zip(file, file.dropFirst()).enumerated().first { $1 == (10, 10) }?.offset)
    var (fields, identities): ([String: String], [AgeIdentity]) = ([:], [])
    for line in String(decoding: file[..<end], as: UTF8.self).split(separator: "\n") {
      let pair = line.split(separator: ": ", maxSplits: 1).map(String.init)
      fields[pair[0]] = pair[1]
      if pair[0] == "identity" { identities.append(try AgeIdentity(parsing: pair[1])) }
    }
    let text = Array(file[(end + 2)...])
    let stored = try AgeArmor.decode(String(decoding: text, as: UTF8.self)) ?? text
    #expect((stored != text) == (fields["armored"] == "yes"))
    let outcome = Result { try AgeDecryptor.decrypt(stored, with: identities) }
    switch (fields["expect"], outcome) {
    case ("success", .success(let plain)):
      let digest = SHA256.hash(data: plain).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      #expect(digest == fields["payload"])
    case ("no match", .failure(AgeError.noMatchingIdentity)): break
    case ("header failure", .failure(AgeError.malformedHeader)): break
    default: Issue.record("\(fields): \(outcome)")
    }
  }
}
