import Crypto
import Foundation
import Quoting

/// The header of an age file: to whom the file key is wrapped (age-encryption.org/v1, "Header").
package struct AgeHeader: Sendable, Equatable {
  package struct Stanza: Sendable, Equatable {
    package let type: String
    package let arguments: [String]
    package let body: [UInt8]
  }

  package let stanzas: [Stanza]
  /// As the file has it.
  let mac: [UInt8]
  /// Everything that the MAC covers: up to and including `---`.
  private let covered: [UInt8]
  /// Bytes of the header, its last newline included.
  package let length: Int

  private static let version = "age-encryption.org/v1"
  /// More than any number of recipients needs; a hostile file must not make us hold more.
  package static let lengthLimit = 1 << 20

  /// Makes the header of a new file.
  init(_ stanzas: [Stanza], fileKey: SymmetricKey) {
    self.stanzas = stanzas
    var text = Self.version + "\n"
    for stanza in stanzas {
      text += "-> " + ([stanza.type] + stanza.arguments).joined(separator: " ") + "\n"
      let body = Base64.encode(stanza.body)
      var rest = body[...]
      while rest.count >= 64 {
        text += rest.prefix(64) + "\n"
        rest = rest.dropFirst(64)
      }
      // The last line is short, and empty where the body fills its lines.
      text += rest + "\n"
    }
    text += "---"
    covered = Array(text.utf8)
    mac = Self.mac(covered, fileKey)
    length = covered.count + 1 + Base64.encode(mac).utf8.count + 1
  }

  /// The header as it is stored.
  package var encoded: [UInt8] { covered + Array(" \(Base64.encode(mac))\n".utf8) }

  /// Reads a header from the beginning of a file. Nil where `bytes` end before it does.
  package init?(reading bytes: [UInt8]) throws(AgeError) {
    var position = 0
    var stanzas: [Stanza] = []

    func line() throws(AgeError) -> String? {
      guard let end = bytes[position...].firstIndex(of: 10) else {
        guard bytes.count - position < Self.lengthLimit else { throw .malformedHeader("a line never ends") }
        return nil
      }
      defer { position = end + 1 }
      let text = bytes[position..<end]
      guard text.allSatisfy({ $0 >= 32 && $0 < 127 }) else { throw .malformedHeader("a line holds other characters") }
      return String(decoding: text, as: UTF8.self)
    }

    // Told early, so that a large file of another kind is not read to its first newline.
    let beginning = Array(Self.version.utf8)
    guard bytes.prefix(beginning.count).elementsEqual(beginning.prefix(bytes.count)) else {
      throw .malformedHeader("it does not begin with \(Self.version)")
    }
    guard let version = try line() else { return nil }
    guard version == Self.version else { throw .malformedHeader("it does not begin with \(Self.version)") }
    while true {
      guard position < Self.lengthLimit else { throw .malformedHeader("it is too long") }
      let start = position
      guard let text = try line() else { return nil }
      if text.starts(withBytes: "---") {
        guard text.starts(withBytes: "--- "), let mac = Base64.decode(String(text.dropFirst(4))), mac.count == 32 else {
          throw .malformedHeader("its MAC is no MAC")
        }
        guard !stanzas.isEmpty else { throw .malformedHeader("it has no recipient") }
        self.stanzas = stanzas
        self.mac = mac
        covered = Array(bytes[..<(start + 3)])
        length = position
        return
      }
      let words = text.split(atByte: 32, omittingEmptySubsequences: false).map(String.init)
      guard words.count >= 2, words[0] == "->", words.dropFirst().allSatisfy({ !$0.isEmpty }) else {
        throw .malformedHeader("a recipient's line is malformed")
      }
      var body = ""
      while true {
        guard let part = try line() else { return nil }
        guard part.utf8.count <= 64 else { throw .malformedHeader("a line is too long") }
        body += part
        if part.utf8.count < 64 { break }
      }
      guard let decoded = Base64.decode(body) else { throw .malformedHeader("a body is no canonical Base64") }
      stanzas.append(Stanza(type: words[1], arguments: Array(words.dropFirst(2)), body: decoded))
    }
  }

  /// Whether the header is the one that this file key was wrapped in.
  func isAuthentic(_ fileKey: SymmetricKey) -> Bool {
    HMAC<SHA256>.isValidAuthenticationCode(mac, authenticating: covered, using: Self.macKey(fileKey))
  }

  private static func mac(_ covered: [UInt8], _ fileKey: SymmetricKey) -> [UInt8] {
    Array(HMAC<SHA256>.authenticationCode(for: covered, using: macKey(fileKey)))
  }

  private static func macKey(_ fileKey: SymmetricKey) -> SymmetricKey {
    HKDF<SHA256>.deriveKey(inputKeyMaterial: fileKey, info: Data("header".utf8), outputByteCount: 32)
  }
}

/// Base64 without padding, and only in its canonical form (RFC 4648, section 3.5).
enum Base64 {
  static func encode(_ bytes: [UInt8]) -> String {
    String(decoding: Data(bytes).base64EncodedData().filter { $0 != UInt8(ascii: "=") }, as: UTF8.self)
  }

  static func decode(_ text: String) -> [UInt8]? {
    guard !text.contains(byte: UInt8(ascii: "=")), text.utf8.count % 4 != 1 else { return nil }
    let padded = text + String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
    guard let data = Data(base64Encoded: padded), encode([UInt8](data)) == text else { return nil }
    return [UInt8](data)
  }
}
