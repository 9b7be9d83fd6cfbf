import AgeEncryption
import Foundation
import TestSupport
import Testing

/// The format against itself: lengths around the chunk's edges, and every kind of harm.
@Suite(.waits) struct AgeTests {
  private let identity = AgeIdentity.generate()

  private func recipient() throws -> AgeRecipient { try #require(identity.recipient) }

  static let lengths = [0, 1, 15, 16, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 400_000]

  private static func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
  }

  @Test(arguments: lengths, [1, 1000, 65_536, 1 << 20]) func thereAndBack(_ length: Int, pieces: Int) throws {
    let plain = Self.bytes(length)
    var encryptor = try AgeEncryptor(to: [recipient()])
    var stored: [UInt8] = []
    // Pieces of one byte would take their time for nothing on the long ones.
    let size = length > 20_000 ? max(pieces, 777) : pieces
    for start in stride(from: 0, to: length, by: size) {
      stored += try encryptor.update(Array(plain[start..<min(length, start + size)]))
    }
    stored += try encryptor.finish()
    var decryptor = AgeDecryptor([identity])
    var back: [UInt8] = []
    for start in stride(from: 0, to: stored.count, by: size) {
      back += try decryptor.update(Array(stored[start..<min(stored.count, start + size)]))
    }
    back += try decryptor.finish()
    #expect(back == plain)
  }

  /// Any range comes back from its chunks alone.
  @Test(arguments: lengths) func rangesReadBack(_ length: Int) async throws {
    let plain = Self.bytes(length)
    let stored = try AgeEncryptor.encrypt(plain, to: [recipient()])
    var fetched = 0
    let fetch = { (range: Range<UInt64>) in
      fetched += range.count
      return Array(stored[Int(range.lowerBound)..<Int(range.upperBound)])
    }
    let reader = try await AgeRangeReader(storedBytes: UInt64(stored.count), identities: [identity], fetch: fetch)
    #expect(reader.plainBytes == UInt64(length))
    for edge in [0, 1, 65_535, 65_536, 65_537, 131_072, length - 1, length] where edge >= 0 && edge <= length {
      for size in [0, 1, 100, 65_536, 65_537, length] where edge + size <= length {
        fetched = 0
        let range = UInt64(edge)..<UInt64(edge + size)
        #expect(try await reader.read(range, fetch: fetch) == Array(plain[edge..<edge + size]))
        #expect(fetched <= (size / 65_536 + 2) * 65_552)
      }
    }
  }

  @Test func severalRecipientsAndRotation() throws {
    let others = (0..<3).map { _ in AgeIdentity.generate() }
    let stored = try AgeEncryptor.encrypt([1, 2, 3], to: others.compactMap(\.recipient))
    for other in others { #expect(try AgeDecryptor.decrypt(stored, with: [identity, other]) == [1, 2, 3]) }
    #expect(throws: AgeError.noMatchingIdentity) { try AgeDecryptor.decrypt(stored, with: [identity]) }
    #expect(throws: AgeError.noMatchingIdentity) { try AgeDecryptor.decrypt(stored, with: []) }
  }

  @Test func passphrases() throws {
    let recipient = AgeRecipient(passphrase: "correct horse", logN: 10)
    let stored = try AgeEncryptor.encrypt([4, 5], to: [recipient])
    #expect(try AgeDecryptor.decrypt(stored, with: [AgeIdentity(passphrase: "correct horse")]) == [4, 5])
    #expect(throws: AgeError.noMatchingIdentity) {
      try AgeDecryptor.decrypt(stored, with: [AgeIdentity(passphrase: "wrong")])
    }
    #expect(throws: AgeError.self) { try AgeEncryptor(to: [recipient, self.recipient()]) }
    #expect(!"\(recipient)".contains("horse"))
    // A file that wants hours of work is refused at once.
    let text = String(decoding: stored.prefix(200), as: UTF8.self)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("-> scrypt") })
    let costly = Array(stored).replacing(Array(line.utf8), with: Array((line.dropLast(2) + "40").utf8))
    #expect(throws: AgeError.malformedHeader("the passphrase's work factor 40 is beyond 22")) {
      try AgeDecryptor.decrypt(costly, with: [AgeIdentity(passphrase: "correct horse")])
    }
  }

  /// One flipped bit anywhere, and every cut: refused, and what came out before it is what went in.
  @Test func everyHarmIsNoticed() throws {
    let plain = Self.bytes(140_000)
    let stored = try AgeEncryptor.encrypt(plain, to: [recipient()])
    let positions = Set(Array(0..<260) + stride(from: 260, to: stored.count, by: 1013) + [stored.count - 1])
    for position in positions {
      var changed = stored
      changed[position] ^= 1 << UInt8(position % 8)
      refuses(changed, plain)
    }
    for length in Set(Array(0..<260) + stride(from: 260, to: stored.count, by: 1013) + [stored.count - 1]) {
      refuses(Array(stored[..<length]), plain)
    }
  }

  /// Chunks swapped, left out, repeated, cut at their edges, and something behind the end.
  @Test func chunksKeepTheirPlaces() throws {
    let plain = Self.bytes(4 * 65_536)
    let stored = try AgeEncryptor.encrypt(plain, to: [recipient()])
    let head = stored.count - 4 * 65_552
    let chunks = (0..<4).map { Array(stored[(head + $0 * 65_552)..<(head + ($0 + 1) * 65_552)]) }
    let orders = [[1, 0, 2, 3], [0, 1, 3], [0, 0, 1, 2, 3], [0, 1, 2], [0], [], [0, 1, 2, 3, 3], [3]]
    for order in orders { refuses(Array(stored[..<head]) + order.flatMap { chunks[$0] }, plain) }
    refuses(stored + [0], plain)
    refuses(stored + stored, plain)
    // Another file's chunk, to the same recipient.
    let other = try AgeEncryptor.encrypt(plain, to: [recipient()])
    refuses(Array(stored[..<(head + 65_552)]) + other[(head + 65_552)...], plain)
  }

  private func refuses(_ stored: [UInt8], _ plain: [UInt8], _ location: SourceLocation = #_sourceLocation) {
    var decryptor = AgeDecryptor([identity])
    var released: [UInt8] = []
    do {
      for start in stride(from: 0, to: stored.count, by: 50_000) {
        released += try decryptor.update(Array(stored[start..<min(stored.count, start + 50_000)]))
      }
      released += try decryptor.finish()
      Issue.record("accepted", sourceLocation: location)
    } catch {
      // Nothing false came out.
      #expect(plain.starts(with: released), sourceLocation: location)
    }
  }

  @Test(arguments: [
    "", "age-encryption.org/v1", "age-encryption.org/v2\n-> X25519 a\n\n--- x\n", "age-encryption.org/v1\n--- AAAA\n",
    "age-encryption.org/v1\n-> \n\n", "age-encryption.org/v1\n->X25519 abc\nAAAA\n--- \n",
    "age-encryption.org/v1\n-> X25519  abc\nAAAA\n--- \n", "age-encryption.org/v1\r\n-> X25519 abc\r\nAAAA\r\n--- \r\n",
  ]) func malformedHeaders(_ text: String) {
    #expect(throws: AgeError.self) { try AgeDecryptor.decrypt(Array(text.utf8), with: [identity]) }
  }

  @Test func keysReadBack() throws {
    let text = identity.secretText
    #expect(text.hasPrefix("AGE-SECRET-KEY-1"))
    let again = try AgeIdentity(parsing: text)
    #expect(again.recipient == identity.recipient)
    #expect(try AgeRecipient(parsing: recipient().description) == recipient())
    #expect(!"\(identity)".contains(text.suffix(20)))
    for position in text.indices.dropFirst(16) {
      let other: Character = text[position] == "Q" ? "P" : "Q"
      let changed = text[..<position] + String(other) + text[text.index(after: position)...]
      #expect(throws: AgeError.self) { try AgeIdentity(parsing: String(changed)) }
    }
    for bad in ["", "age1", "age1qqqq", text, "AGE1" + text.dropFirst(4), text.lowercased()] {
      #expect(throws: AgeError.self, "\(bad.prefix(8))") { try AgeRecipient(parsing: bad) }
    }
    #expect(try AgeIdentity.identities(inFile: "# made today\n\n\(text)\r\n").count == 1)
    #expect(throws: AgeError.self) { try AgeIdentity.identities(inFile: "# nothing\n") }
  }

  @Test(arguments: [0, 1, 47, 48, 49, 96, 1000]) func armor(_ length: Int) throws {
    let bytes = Self.bytes(max(1, length))
    let text = AgeArmor.encode(bytes)
    #expect(try AgeArmor.decode(text) == bytes)
    #expect(try AgeArmor.decode("  \n" + text.replacing("\n", with: "\r\n") + "\n") == bytes)
    #expect(try AgeArmor.decode("age-encryption.org/v1") == nil)
    #expect(throws: AgeError.self) { try AgeArmor.decode(String(text.dropLast(10))) }
    #expect(throws: AgeError.self) { try AgeArmor.decode(text.replacing("-----END", with: "\n-----END")) }
  }
}

/// Against the two other implementations: the Go one of Debian, and the Rust one behind pyrage.
@Suite(.waits) struct AgeInteroperationTests {
  private static func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 / 256) }
  }

  @Test(arguments: AgeTests.lengths) func withAge(_ length: Int) throws {
    let folder = TemporaryFolder()
    try Shell.must("age-keygen", ["-o", folder.file("key")])
    let identity = try #require(
      try AgeIdentity.identities(inFile: String(contentsOfFile: folder.file("key"), encoding: .utf8)).first)
    let recipient = try #require(identity.recipient)
    #expect(try Shell.must("age-keygen", ["-y", folder.file("key")]) == "\(recipient)\n")
    let plain = Self.bytes(length)
    try Data(plain).write(to: URL(filePath: folder.file("plain")))

    let other = try #require(AgeIdentity.generate().recipient)
    try Data(AgeEncryptor.encrypt(plain, to: [other, recipient])).write(to: URL(filePath: folder.file("ours.age")))
    // By the shell: with -o, age makes no file for nothing.
    try Shell.must("sh", ["-c", "cd '\(folder.path)' && age -d -i key ours.age > back"])
    #expect(try Data(contentsOf: URL(filePath: folder.file("back"))) == Data(plain))

    try Shell.must(
      "age", ["-r", "\(other)", "-r", "\(recipient)", "-o", folder.file("theirs.age"), folder.file("plain")])
    let theirs = [UInt8](try Data(contentsOf: URL(filePath: folder.file("theirs.age"))))
    #expect(try AgeDecryptor.decrypt(theirs, with: [identity]) == plain)
    try Shell.must("age", ["-a", "-r", "\(recipient)", "-o", folder.file("armored"), folder.file("plain")])
    let armored = try #require(try AgeArmor.decode(String(contentsOfFile: folder.file("armored"), encoding: .utf8)))
    #expect(try AgeDecryptor.decrypt(armored, with: [identity]) == plain)
  }

  /// One process for all: keys made by us, files of both, and a passphrase.
  @Test func withPyrage() throws {
    let folder = TemporaryFolder()
    let identity = AgeIdentity.generate()
    let recipient = try #require(identity.recipient)
    for length in AgeTests.lengths {
      let plain = Self.bytes(length)
      try Data(plain).write(to: URL(filePath: folder.file("plain.\(length)")))
      try Data(AgeEncryptor.encrypt(plain, to: [recipient])).write(to: URL(filePath: folder.file("ours.\(length)")))
    }
    try Data(AgeEncryptor.encrypt([7], to: [AgeRecipient(passphrase: "open sesame", logN: 12)]))
      .write(to: URL(filePath: folder.file("phrase")))
    _ = try folder.write(
      "check.py",
      """
      import sys
      from pyrage import x25519, encrypt, decrypt, passphrase
      folder, secret, recipient = sys.argv[1:4]
      key = x25519.Identity.from_str(secret)
      assert str(key.to_public()) == recipient
      for length in sys.argv[4:]:
        plain = open(f"{folder}/plain.{length}", "rb").read()
        assert decrypt(open(f"{folder}/ours.{length}", "rb").read(), [key]) == plain
        open(f"{folder}/theirs.{length}", "wb").write(encrypt(plain, [x25519.Recipient.from_str(recipient)]))
      assert passphrase.decrypt(open(f"{folder}/phrase", "rb").read(), "open sesame") == b"\\x07"
      open(f"{folder}/theirs.phrase", "wb").write(passphrase.encrypt(b"back", "open sesame"))
      """)
    try Shell.must(
      "\(repositoryRoot)/.build/python/bin/python3",
      [folder.file("check.py"), folder.path, identity.secretText, "\(recipient)"] + AgeTests.lengths.map(String.init))
    for length in AgeTests.lengths {
      let theirs = [UInt8](try Data(contentsOf: URL(filePath: folder.file("theirs.\(length)"))))
      #expect(try AgeDecryptor.decrypt(theirs, with: [identity]) == Self.bytes(length))
    }
    let phrase = [UInt8](try Data(contentsOf: URL(filePath: folder.file("theirs.phrase"))))
    #expect(try AgeDecryptor.decrypt(phrase, with: [AgeIdentity(passphrase: "open sesame")]) == Array("back".utf8))
  }
}
