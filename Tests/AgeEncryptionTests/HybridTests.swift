import AgeEncryption
import Crypto
import Foundation
import Testing

/// The post-quantum recipient. No tool that a package brings reads it yet; the vector is one of the age test suite's (C2SP CCTV,
/// `age/testdata/hybrid`), whose others, right and wrong, were gone through by hand.
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

  @Test func theSuitesVector() throws {
    let file = try #require(Bundle.module.url(forResource: "hybrid", withExtension: "age", subdirectory: "Vectors"))
    let identity = try AgeIdentity(
      parsing: "AGE-SECRET-KEY-PQ-1HZLGZUPT4ETPKDEV8HSGFDCYZ4E522W0A7PU2LHT8EH9W6YLNC3SW78XKG")
    let plain = try AgeDecryptor.decrypt([UInt8](Data(contentsOf: file)), with: [identity])
    #expect(
      SHA256.hash(data: plain).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        == "013f54400c82da08037759ada907a8b864e97de81c088a182062c4b5622fd2ab")
  }
}
