import AgeEncryption
import CZlib
import Foundation
import TestSupport
import Testing

/// The age test kit (C2SP CCTV, `age/testdata`): files of others, right and wrong, each with what must come of it. The
/// files themselves are not part of this repository; see `Vectors/README.md`.
@Suite struct AgeTestKitTests {
  /// Where the kit lies, and nil where it does not.
  static let folder: String? = [
    ProcessInfo.processInfo.environment["AGE_TESTKIT"], "\(repositoryRoot)/../shared/age-testkit",
  ].compactMap { $0 }.first { FileManager.default.fileExists(atPath: "\($0)/x25519") }

  @Test(.enabled(if: folder != nil, "the kit is not here: set AGE_TESTKIT to its folder"))
  func everyFileOfTheKitGivesWhatItsHeaderSays() async throws {
    let folder = try #require(Self.folder)
    let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter { !$0.contains(".") }.sorted()
    #expect(names.count >= 140)
    for name in names {
      let vector = try AgeVector(Array(Data(contentsOf: URL(filePath: "\(folder)/\(name)"))), name)
      await vector.check()
    }
  }
}

/// One file of the kit: what must come of it, and the age file.
struct AgeVector {
  let name: String
  let outcome: AgeOutcome
  /// SHA-256 of all that may be released.
  let payload: String?
  let fileKey: [UInt8]
  let isArmored: Bool
  let identities: [AgeIdentity]
  let text: [UInt8]

  init(_ file: [UInt8], _ name: String) throws {
    self.name = name
    let end = try #require(zip(file, file.dropFirst()).enumerated().first { $1 == (10, 10) }?.offset)
    var (fields, identities): ([String: String], [AgeIdentity]) = ([:], [])
    for line in String(decoding: file[..<end], as: UTF8.self).split(separator: "\n") {
      let pair = line.split(separator: ": ", maxSplits: 1).map(String.init)
      fields[pair[0]] = pair[1]
      if pair[0] == "identity" { identities.append(try AgeIdentity(parsing: pair[1])) }
      if pair[0] == "passphrase" { identities.append(AgeIdentity(passphrase: pair[1])) }
    }
    outcome = try #require(AgeOutcome(rawValue: fields["expect"] ?? ""))
    payload = fields["payload"]
    let digits = Array(fields["file key"] ?? "")
    fileKey = stride(from: 0, to: digits.count - 1, by: 2).compactMap { UInt8(String(digits[$0...$0 + 1]), radix: 16) }
    isArmored = fields["armored"] == "yes"
    self.identities = identities
    let body = Array(file[(end + 2)...])
    text = fields["compressed"] == "zlib" ? try Self.inflated(body) : body
  }

  func check() async {
    let stored: [UInt8]
    do throws(AgeError) {
      let opened = isArmored ? try AgeArmor.decode(String(decoding: text, as: UTF8.self)) : nil
      guard opened != nil || !isArmored else {
        // No armor at all: what reads such a file takes it for a binary one.
        #expect(outcome == .armor, "\(name)")
        return
      }
      stored = opened ?? text
    } catch {
      #expect(outcome == .armor, "\(name): \(error)")
      return
    }
    let authentic = payload == nil ? [] : AgeFile.authentic(stored, fileKey: fileKey)
    if let payload { #expect(AgeReaders.hexadecimalDigest(authentic) == payload, "\(name)") }
    for size in [stored.count + 1, 1000] {
      compare(AgeReaders.stream(stored, identities, pieces: size), authentic, "the stream in pieces of \(size)")
    }
    compare(await AgeReaders.ranges(stored, identities, size: 65_536), authentic, "ranges")
  }

  /// A reader that fails may have released less than all that is authentic, but nothing else.
  private func compare(_ reading: AgeReading, _ authentic: [UInt8], _ what: String) {
    #expect(reading.outcome == outcome, "\(name): \(what)")
    let released = reading.released
    #expect(authentic.starts(with: released), "\(name): \(what) released \(released.count) bytes")
    if outcome == .success { #expect(released == authentic, "\(name): \(what)") }
  }

  private static func inflated(_ body: [UInt8]) throws -> [UInt8] {
    var count = UInt(64 << 20)
    var plain = [UInt8](repeating: 0, count: Int(count))
    let status = uncompress(&plain, &count, body, UInt(body.count))
    try #require(status == Z_OK)
    return Array(plain.prefix(Int(count)))
  }
}
