/// SQL cut into tokens as PostgreSQL's lexer cuts it (scan.l): what stands in a name, a constant or a comment is no
/// word.
package struct SQLTokens: Sendable {
  package struct Token: Sendable {
    package enum Kind: Sendable, Equatable {
      /// A key word, a bare name or a number.
      case word
      /// A name in double quotes.
      case name
      /// A constant in single quotes, with or without `E`.
      case string
      /// A constant between dollar signs.
      case dollarString
      /// Any other byte.
      case symbol
    }

    package let kind: Kind
    /// Without quotes and escapes.
    package let text: String
    package let range: Range<String.Index>
  }

  package let text: String
  package let tokens: [Token]

  /// - Parameter standardStrings: what `standard_conforming_strings` is where the text is read. A SET statement in the
  ///   text changes it.
  package init(_ text: String, standardStrings: Bool = true) {
    var lexer = SQLLexer(text, standardStrings: standardStrings)
    var tokens: [Token] = []
    while let token = lexer.next() { tokens.append(token) }
    (self.text, self.tokens) = (text, tokens)
  }

  /// Whether a key word stands there, in whatever case.
  package func isWord(_ word: String, at position: Int) -> Bool {
    guard tokens.indices.contains(position), tokens[position].kind == .word else { return false }
    return tokens[position].text.utf8.elementsEqual(word.utf8) { Self.capital($0) == Self.capital($1) }
  }

  /// Whether these key words stand at the beginning.
  package func begins(with words: String...) -> Bool {
    words.indices.allSatisfy { isWord(words[$0], at: $0) }
  }

  package func isSymbol(_ byte: Character, at position: Int) -> Bool {
    tokens.indices.contains(position) && tokens[position].kind == .symbol && tokens[position].text == String(byte)
  }

  /// The name that stands there, in quotes or bare.
  package func name(at position: Int) -> String? {
    guard tokens.indices.contains(position), [.word, .name].contains(tokens[position].kind) else { return nil }
    return tokens[position].text
  }

  package func firstWord(_ word: String, from start: Int = 0) -> Int? {
    tokens.indices.first { $0 >= start && isWord(word, at: $0) }
  }

  package func lastWord(_ word: String) -> Int? { tokens.indices.last { isWord(word, at: $0) } }

  /// The text before a token, without the blanks in front of it; all of it where there is no such token.
  package func text(before position: Int?) -> String {
    guard let position, tokens.indices.contains(position) else { return text }
    let end = position > 0 ? tokens[position - 1].range.upperBound : tokens[position].range.lowerBound
    return String(text[..<end])
  }

  /// The text with other tokens in place of some of it.
  package func text(with replacements: [Int: String]) -> String {
    var result = ""
    var start = text.startIndex
    for (position, token) in tokens.enumerated() {
      guard let new = replacements[position] else { continue }
      result += text[start..<token.range.lowerBound]
      result += new
      start = token.range.upperBound
    }
    return result + text[start...]
  }

  private static func capital(_ byte: UInt8) -> UInt8 { (97...122).contains(byte) ? byte - 32 : byte }
}

/// SQL as pg_dump and pg_dumpall write it.
package enum SQLText {
  /// The statements, each with its semicolon, without the comments before it. What follows the last semicolon is left
  /// out.
  ///
  /// - Parameter standardStrings: as in `SQLTokens`. The statements come back independent of it.
  package static func statements(_ text: String, standardStrings: Bool = true) -> [SQLTokens] {
    var lexer = SQLLexer(text, standardStrings: standardStrings)
    var statements: [SQLTokens] = []
    var start: String.Index?
    var strings: [(range: Range<String.Index>, text: String)] = []
    while let token = lexer.next() {
      if start == nil { start = token.range.lowerBound }
      if token.kind == .string { strings.append((token.range, token.text)) }
      guard token.kind == .symbol, token.text == ";", let begin = start else { continue }
      if begin < token.range.lowerBound {
        var statement = ""
        var rest = begin
        for string in strings {
          statement += text[rest..<string.range.lowerBound]
          statement += SQLName.literal(string.text)
          rest = string.range.upperBound
        }
        statements.append(SQLTokens(statement + text[rest..<token.range.upperBound]))
      }
      (start, strings) = (nil, [])
    }
    return statements
  }
}
