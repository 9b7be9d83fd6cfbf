import Crypto
import Foundation
import Testing

@testable import AgeEncryption

/// The format's rules one by one, each broken once: files that `AgeFile` makes, with what must come of each, in the
/// stream and in ranges.
@Suite struct AgeCasesTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let outcome: AgeOutcome
    let change: @Sendable (inout AgeFile) throws -> Void

    init(_ name: String, _ outcome: AgeOutcome, _ change: @escaping @Sendable (inout AgeFile) throws -> Void) {
      (testDescription, self.outcome, self.change) = (name, outcome, change)
    }
  }

  private static let secret = [UInt8](repeating: 0x42, count: 32)
  private static let passphrase = "correct horse"

  /// Changes one line of the header; line 1 is the recipient's, line 2 its body.
  private static func line(
    _ number: Int, _ change: @escaping @Sendable (String) -> String
  ) -> @Sendable (inout AgeFile) -> Void {
    { $0.lines[number] = change($0.lines[number]) }
  }

  private static func replacingShare(_ share: [UInt8]) -> @Sendable (inout AgeFile) -> Void {
    line(1) { _ in "-> X25519 \(AgeFile.base64(share))" }
  }

  static let headers: [Case] = [
    Case("a plain file", .success) { _ in },
    Case("another version", .malformedHeader, line(0) { _ in "age-encryption.org/v1234" }),
    Case("no recipient", .malformedHeader) { $0.lines = [$0.lines[0]] },
    Case("CRLF", .malformedHeader) { $0.newline = "\r\n" },
    Case("a CR at a line's end", .malformedHeader, line(1) { $0 + "\r" }),
    Case("a bad beginning of a recipient", .malformedHeader, line(1) { "-" + $0 }),
    Case("a recipient without a type", .malformedHeader, line(1) { _ in "->" }),
    Case("an empty argument", .malformedHeader, line(1) { $0.replacing("X25519 ", with: "X25519  ") }),
    Case("an empty last argument", .malformedHeader, line(1) { $0 + " " }),
    Case("a character beyond ASCII", .malformedHeader, line(1) { $0 + " \u{e8}" }),
    Case("a control character", .malformedHeader, line(1) { $0 + " \u{7f}" }),
    Case("padding in a body", .malformedHeader, line(2) { $0 + "=" }),
    Case("a body that is not canonical", .malformedHeader, line(2) { $0.dropLast() + "B" }),
    Case("no body", .malformedHeader) { $0.lines.removeLast() },
    Case("unknown recipients around ours", .success) {
      let grease = AgeFile.stanza(["grease", "!#$%", "~"], [UInt8](repeating: 1, count: 100))
      $0.lines = [$0.lines[0]] + grease + $0.lines.dropFirst() + AgeFile.stanza(["empty"], [])
    },
    Case("a body that fills its last line, with the empty one behind it", .success) {
      $0.lines += AgeFile.stanza(["grease"], [UInt8](repeating: 1, count: 96))
    },
    Case("a body that fills its last line, without the empty one", .malformedHeader) {
      $0.lines += AgeFile.stanza(["grease"], [UInt8](repeating: 1, count: 96)).dropLast()
    },
    Case("a body's line of 68 characters", .malformedHeader) {
      $0.lines += ["-> grease", String(repeating: "A", count: 68), ""]
    },
    Case("two short lines in a body", .malformedHeader) { $0.lines += ["-> grease", "AAAA", "AAAA"] },
  ]

  static let codes: [Case] = [
    Case("another MAC", .changedHeader) { $0.macText = AgeFile.base64([UInt8](repeating: 0, count: 32)) },
    Case("a space in front of the MAC", .malformedHeader, mac { " " + $0 }),
    Case("a space behind the MAC", .malformedHeader, mac { $0 + " " }),
    Case("something behind the MAC", .malformedHeader, mac { $0 + "AAAA" }),
    Case("no MAC", .malformedHeader, mac { _ in "" }),
    Case("a MAC that is not canonical", .malformedHeader) {
      $0.macText = AgeFile.base64([UInt8](repeating: 0, count: 32)).dropLast() + "B"
    },
    Case("a MAC of 31 bytes", .malformedHeader) { $0.macText = AgeFile.base64([UInt8](repeating: 0, count: 31)) },
    Case("a recipient that the MAC does not cover", .changedHeader) { file in
      file.macText = mac(of: file)
      file.lines += AgeFile.stanza(["grease"], [1])
    },
  ]

  private static func mac(of file: AgeFile) -> String {
    let text = String(decoding: file.bytes.prefix { $0 < 128 }, as: UTF8.self)
    return text.split(separator: "\n").first { $0.hasPrefix("--- ") }.map { String($0.dropFirst(4).prefix(43)) } ?? ""
  }

  private static func mac(_ change: @escaping @Sendable (String) -> String) -> @Sendable (inout AgeFile) -> Void {
    { $0.macText = change(mac(of: $0)) }
  }

  static let x25519: [Case] = [
    Case("another key", .noMatch) { try wrap(&$0, for: Curve25519.KeyAgreement.PrivateKey().publicKey) },
    Case("a second key, ours", .success) {
      let ours = $0.lines.dropFirst()
      try wrap(&$0, for: Curve25519.KeyAgreement.PrivateKey().publicKey)
      $0.lines += ours
    },
    Case("a wrapped key that does not authenticate", .noMatch, line(2) { "AAAA" + $0.dropFirst(4) }),
    Case("a type in lower case", .noMatch, line(1) { $0.lowercased() }),
    Case("a further argument", .malformedHeader, line(1) { $0 + " 1234" }),
    Case("no share", .malformedHeader, line(1) { _ in "-> X25519" }),
    Case("a share of 31 bytes", .malformedHeader, replacingShare([UInt8](repeating: 9, count: 31))),
    Case("a share of 33 bytes", .malformedHeader, replacingShare([UInt8](repeating: 9, count: 33))),
    Case("a share of low order", .malformedHeader, replacingShare([UInt8](repeating: 0, count: 32))),
    Case("a share that is not canonical", .malformedHeader, line(1) { $0.dropLast() + "B" }),
    Case("a file key of 24 bytes", .malformedHeader) {
      $0.fileKey += Array(" of 1966".utf8)
      try wrap(&$0, for: publicKey())
    },
  ]

  private static func publicKey() throws -> Curve25519.KeyAgreement.PublicKey {
    try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: secret).publicKey
  }

  private static func wrap(_ file: inout AgeFile, for recipient: Curve25519.KeyAgreement.PublicKey) throws {
    let (share, body) = try AgeFile.x25519(file.fileKey, to: recipient)
    file.lines = [file.lines[0]] + AgeFile.stanza(["X25519", AgeFile.base64(share)], body)
  }

  private static func scrypt(
    _ name: String, _ outcome: AgeOutcome, work: String = "4", salt: Int = 16, type: String = "scrypt"
  ) -> Case {
    Case(name, outcome) { file in
      let salt = [UInt8](repeating: 3, count: salt)
      let body = try AgeFile.scrypt(file.fileKey, passphrase, salt: salt, logN: 4)
      let arguments = [type, AgeFile.base64(salt), work].filter { !$0.isEmpty }
      file.lines = [file.lines[0]] + AgeFile.stanza(arguments, body)
    }
  }

  static let passphrases: [Case] = [
    scrypt("a passphrase", .success),
    scrypt("a passphrase with another work factor", .noMatch, work: "5"),
    scrypt("a passphrase's type in upper case", .noMatch, type: "Scrypt"),
    scrypt("no work factor", .malformedHeader, work: ""),
    scrypt("a work factor of 0", .malformedHeader, work: "0"),
    scrypt("a negative work factor", .malformedHeader, work: "-4"),
    scrypt("a work factor with a sign", .malformedHeader, work: "+4"),
    scrypt("a work factor with a zero in front", .malformedHeader, work: "04"),
    scrypt("a hexadecimal work factor", .malformedHeader, work: "0x4"),
    scrypt("a work factor with a letter", .malformedHeader, work: "4a"),
    scrypt("a work factor that takes too long", .malformedHeader, work: "23"),
    scrypt("a work factor that no number holds", .malformedHeader, work: "18446744073709551620"),
    scrypt("a salt of 15 bytes", .malformedHeader, salt: 15), scrypt("a salt of 17 bytes", .malformedHeader, salt: 17),
    scrypt("a further argument of a passphrase", .malformedHeader, work: "4 5"),
    // Whoever opens it, by key or by passphrase: another recipient could not tell that the passphrase is known.
    Case("a passphrase beside a key", .malformedHeader) {
      let salt = [UInt8](repeating: 3, count: 16)
      let body = try AgeFile.scrypt($0.fileKey, passphrase, salt: salt, logN: 4)
      $0.lines += AgeFile.stanza(["scrypt", AgeFile.base64(salt), "4"], body)
    },
  ]

  private static let full = [UInt8](repeating: 5, count: AgeFile.chunkBytes)

  static let payloads: [Case] = [
    Case("nothing inside", .success) { $0.chunks = [([], true)] },
    Case("one full chunk", .success) { $0.chunks = [(full, true)] },
    Case("two chunks", .success) { $0.chunks = [(full, false), ([1], true)] },
    Case("258 chunks", .success) { $0.chunks = Array(repeating: (full, false), count: 257) + [(full, true)] },
    Case("an empty chunk behind a full one", .payload) { $0.chunks = [(full, false), ([], true)] },
    Case("no last chunk", .payload) { $0.chunks = [(full, false)] },
    Case("no last chunk, and a short one", .payload) { $0.chunks = [([1], false)] },
    Case("two last chunks", .payload) { $0.chunks = [(full, true), ([1], true)] },
    Case("a short chunk in the middle", .payload) { $0.chunks = [([1], false), ([1], true)] },
    Case("one byte behind the end", .payload) { $0.trailing = [0] },
    Case("some bytes behind a full chunk", .payload) {
      ($0.chunks, $0.trailing) = ([(full, true)], [UInt8](repeating: 0, count: 12))
    },
    Case("a tag's bytes behind a full chunk", .payload) {
      ($0.chunks, $0.trailing) = ([(full, true)], [UInt8](repeating: 0, count: 16))
    },
    Case("another chunk's bytes behind a full one", .payload) {
      ($0.chunks, $0.trailing) = ([(full, true)], [UInt8](repeating: 0, count: 100))
    },
    Case("no chunk", .payload) { $0.chunks = [] },
    Case("less than a tag", .payload) { ($0.chunks, $0.trailing) = ([], [1, 2, 3]) },
    Case("half a nonce", .malformedHeader) { ($0.chunks, $0.nonce) = ([], [1, 2, 3]) },
    Case("no nonce", .malformedHeader) { ($0.chunks, $0.nonce) = ([], []) },
  ]

  @Test(arguments: [headers, codes, x25519, passphrases, payloads].flatMap { $0 })
  func everyRuleIsKeptByBothReaders(_ rule: Case) async throws {
    let identities = [
      try AgeIdentity(parsing: Bech32.encode("age-secret-key-", Self.secret).uppercased()),
      AgeIdentity(passphrase: Self.passphrase),
    ]
    var file = AgeFile()
    try Self.wrap(&file, for: Self.publicKey())
    try rule.change(&file)
    let stored = file.bytes
    let authentic = AgeFile.authentic(stored, fileKey: file.fileKey)
    var readings = [await AgeReaders.ranges(stored, identities, size: 65_536)]
    readings.append(await AgeReaders.ranges(stored, identities, size: 1 << 30))
    readings += [1 << 30, 65_552, 4099].map { AgeReaders.stream(stored, identities, pieces: $0) }
    for (number, reading) in readings.enumerated() {
      #expect(reading.outcome == rule.outcome, "reader \(number)")
      #expect(authentic.starts(with: reading.released), "reader \(number) released \(reading.released.count) bytes")
      if rule.outcome == .success { #expect(reading.released == authentic, "reader \(number)") }
      if rule.outcome != .success, rule.outcome != .payload { #expect(reading.released.isEmpty, "reader \(number)") }
    }
  }

  /// A key that opens the file decides nothing where a passphrase stands beside it.
  @Test func aPassphraseBesideAKeyIsRefusedWithTheKeyAlone() throws {
    var file = AgeFile()
    try Self.wrap(&file, for: Self.publicKey())
    try #require(Self.passphrases.last).change(&file)
    let identity = try AgeIdentity(parsing: Bech32.encode("age-secret-key-", Self.secret).uppercased())
    #expect(throws: AgeError.malformedHeader("a passphrase stands beside other recipients")) {
      try AgeDecryptor.decrypt(file.bytes, with: [identity])
    }
  }

  /// A store that answers with less than it was asked for, or with nothing, is an error and no endless loop.
  @Test(arguments: [0, 1]) func aFetchThatBringsTooLittleIsAnError(_ missing: Int) async throws {
    var file = AgeFile()
    try Self.wrap(&file, for: Self.publicKey())
    let stored = file.bytes
    let identity = try AgeIdentity(parsing: Bech32.encode("age-secret-key-", Self.secret).uppercased())
    await #expect(throws: AgeError.self) {
      try await AgeRangeReader(storedBytes: UInt64(stored.count), identities: [identity]) { range in
        missing == 0 ? [] : Array(stored[Int(range.lowerBound)..<Int(range.upperBound)].dropLast(missing))
      }
    }
  }

  /// The Kelvin sign is a K in lower case: a key with it is another text for the same key, and none of ours.
  @Test func aKeyOfOtherLettersThatLookAlikeIsRefused() throws {
    let text = Bech32.encode("age-secret-key-", Self.secret).uppercased()
    #expect(throws: AgeError.self) { try AgeIdentity(parsing: text.replacing("K", with: "\u{212a}")) }
    #expect(throws: AgeError.self) { try AgeIdentity(parsing: text.replacing("S", with: "\u{17f}")) }
    let recipient = try #require(try AgeIdentity(parsing: text).recipient).description
    #expect(throws: AgeError.self) { try AgeRecipient(parsing: recipient + "\u{301}") }
  }

  static let armors: [(String, Bool)] = [
    ("BEGIN\nAAAA\nEND\n", true), (" \n\t\nBEGIN\nAAAA\nEND \n\n", true), ("BEGIN\r\nAAAA\r\nEND\r\n", true),
    ("BEGIN\nEND\n", true), ("BEGIN\nAAAA\n\nEND\n", false), ("BEGIN\n\nAAAA\nEND\n", false),
    ("BEGIN\nAAA=\nEND\n", true), ("BEGIN\nAAA\nEND\n", false), ("BEGIN\nAAB=\nEND\n", false),
    ("BEGIN\nAA=\n=\nEND\n", false), ("BEGIN\nAAAA \nEND\n", false), ("BEGIN\n AAAA\nEND\n", false),
    ("BEGIN \nAAAA\nEND\n", false), ("BEGIN\nAAAA\nAAAA\nEND\n", false), ("BEGIN\nAA*A\nEND\n", false),
    ("BEGIN\nHeader: x\n\nAAAA\nEND\n", false), ("BEGIN\nAAAA\n=njUN\nEND\n", false), ("BEGIN\nAAAA\n", false),
    ("BEGIN\nAAAA\nEND\nx", false), ("BEGIN\nAAAAEND\n", false),
  ]

  @Test(arguments: armors) func armorIsReadStrictly(_ text: String, _ isRight: Bool) throws {
    let marked = text.replacing("BEGIN", with: "-----BEGIN AGE ENCRYPTED FILE-----")
      .replacing("END", with: "-----END AGE ENCRYPTED FILE-----")
    // The first replacement leaves no END of its own.
    if isRight {
      #expect(try AgeArmor.decode(marked) != nil)
    } else {
      #expect(throws: AgeError.self) { try AgeArmor.decode(marked) }
    }
  }
}
