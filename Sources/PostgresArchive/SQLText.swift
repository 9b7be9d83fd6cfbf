/// SQL as pg_dump and pg_dumpall write it.
package enum SQLText {
  /// The statements, each with its semicolon. A line inside a constant is no statement, whatever it says: anybody may set his own
  /// role's settings to any text. Dollar quotes and block comments don't stand where this is used.
  package static func statements(_ text: String) -> [String] {
    var statements: [String] = []
    var current = ""
    var quote: Character?
    var isEscaping = false
    var rest = text[...]
    while let character = rest.popFirst() {
      if let open = quote {
        current.append(character)
        if isEscaping, character == "\\", let next = rest.popFirst() {
          current.append(next)
        } else if character == open {
          // A doubled quote stands for itself.
          if rest.first == open { current.append(rest.removeFirst()) } else { quote = nil }
        }
      } else if character == "-", rest.first == "-", current.allSatisfy(\.isWhitespace) {
        rest = rest.drop { !$0.isNewline }
        current = ""
      } else if character == "'" || character == "\"" {
        quote = character
        isEscaping = character == "'" && current.last.map { $0 == "E" || $0 == "e" } == true
        current.append(character)
      } else if character == ";" {
        statements.append(String(current.drop(while: \.isWhitespace)) + ";")
        current = ""
      } else {
        current.append(character)
      }
    }
    return statements
  }
}
