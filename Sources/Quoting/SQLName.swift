/// Names of SQL objects and string constants, written and read as PostgreSQL's lexer does (scan.l; manual, section
/// 4.1).
package enum SQLName {
  /// Always in quotes, so that no list of key words is needed.
  package static func quoted(_ name: some StringProtocol) -> String {
    "\""
      + String(
        name,
        escaping: { byte in
          switch byte {
          case UInt8(ascii: "\""): "\"\""
          case 0: String.replacement
          default: nil
          }
        }) + "\""
  }

  package static func quoted(_ schema: some StringProtocol, _ name: some StringProtocol) -> String {
    quoted(schema) + "." + quoted(name)
  }

  /// A string constant that means the same whatever `standard_conforming_strings` says: `E'…'` where it has a
  /// backslash. A space stands in front of `E`, as in `quote_literal`, so that no word before it takes the letter.
  package static func literal(_ text: some StringProtocol) -> String {
    let hasBackslash = text.utf8.contains(UInt8(ascii: "\\"))
    return (hasBackslash ? " E'" : "'")
      + String(
        text,
        escaping: { byte in
          switch byte {
          case UInt8(ascii: "'"): "''"
          case UInt8(ascii: "\\"): #"\\"#
          case 0: String.replacement
          default: nil
          }
        }) + "'"
  }

  /// Reads a name from the beginning of `text`: quoted, or up to the first byte that no bare name has. Then it is taken
  /// away.
  package static func read(_ text: inout Substring) -> String? {
    let bytes = text.utf8
    guard bytes.first == UInt8(ascii: "\"") else {
      let end = bytes.firstIndex { !isPartOfName($0) } ?? bytes.endIndex
      guard end > bytes.startIndex else { return nil }
      defer { text = text[end...] }
      return String(text[..<end])
    }
    var name: [UInt8] = []
    var position = bytes.index(after: bytes.startIndex)
    while position < bytes.endIndex {
      let byte = bytes[position]
      position = bytes.index(after: position)
      guard byte == UInt8(ascii: "\"") else {
        name.append(byte)
        continue
      }
      guard position < bytes.endIndex, bytes[position] == byte else {
        text = text[position...]
        return String(decoding: name, as: UTF8.self)
      }
      name.append(byte)
      position = bytes.index(after: position)
    }
    return nil
  }

  /// `ident_cont` of scan.l.
  static func isPartOfName(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "$"), 128...255:
      true
    default: false
    }
  }
}
