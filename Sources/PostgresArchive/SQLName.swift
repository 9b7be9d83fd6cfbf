/// Names of SQL objects, quoted and read as PostgreSQL's lexer does (section 4.1.1 of its manual).
package enum SQLName {
  /// Always in quotes, so that no list of key words is needed.
  package static func quoted(_ name: String) -> String { "\"" + name.replacing("\"", with: "\"\"") + "\"" }

  package static func quoted(_ schema: String, _ name: String) -> String { quoted(schema) + "." + quoted(name) }

  /// A string constant. `standard_conforming_strings` must be on, as it is by default.
  package static func literal(_ text: String) -> String { "'" + text.replacing("'", with: "''") + "'" }

  /// Reads a name from the beginning of `text`: quoted, or up to the first character that no bare name has.
  package static func read(_ text: inout Substring) -> String? {
    guard text.first == "\"" else {
      let name = text.prefix { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "$" }
      text = text.dropFirst(name.count)
      return name.isEmpty ? nil : String(name)
    }
    var name = ""
    var rest = text.dropFirst()
    while let character = rest.popFirst() {
      if character != "\"" {
        name.append(character)
      } else if rest.first == "\"" {
        name.append(rest.removeFirst())
      } else {
        text = rest
        return name
      }
    }
    return nil
  }
}
