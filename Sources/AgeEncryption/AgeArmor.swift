import Foundation
import Quoting

/// The text form of an age file (age-encryption.org/v1, "ASCII armor"): PEM with 64 columns, strictly.
package enum AgeArmor {
  private static let begin = "-----BEGIN AGE ENCRYPTED FILE-----"
  private static let end = "-----END AGE ENCRYPTED FILE-----"

  package static func encode(_ bytes: [UInt8]) -> String {
    let text = Data(bytes).base64EncodedString()
    let lines = stride(from: 0, to: text.utf8.count, by: 64).map { start in
      String(decoding: text.utf8.dropFirst(start).prefix(64), as: UTF8.self)
    }
    return ([begin] + lines + [end]).joined(separator: "\n") + "\n"
  }

  /// The bytes; nil where the text is not armored at all.
  package static func decode(_ text: String) throws(AgeError) -> [UInt8]? {
    let trimmed = text.withoutBlanks
    guard trimmed.starts(withBytes: "-----BEGIN") else { return nil }
    // A line ends with LF or CR LF: a CR anywhere else stays, and is no Base64.
    let lines = trimmed.split(atByte: 10, omittingEmptySubsequences: false).map { line in
      String(line.ends(withBytes: "\r") ? Substring(line.utf8.dropLast()) : line)
    }
    guard lines.count >= 2, lines.first == begin, lines.last == end else {
      throw .malformedHeader("its armor is incomplete")
    }
    let body = lines.dropFirst().dropLast()
    if body.isEmpty { return [] }
    // Full lines but for the last: anything else could hide bytes.
    guard body.dropLast().allSatisfy({ $0.utf8.count == 64 }), let last = body.last, (1...64).contains(last.utf8.count)
    else { throw .malformedHeader("its armor's lines are not of 64 characters") }
    let joined = body.joined()
    guard let data = Data(base64Encoded: joined), data.base64EncodedString() == joined else {
      throw .malformedHeader("its armor is no canonical Base64")
    }
    return [UInt8](data)
  }
}
