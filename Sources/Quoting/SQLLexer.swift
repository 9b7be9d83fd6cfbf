/// Finds one token after the other. It never fails: what is not closed goes to the end of the text.
struct SQLLexer {
  private let text: String
  private var position: String.Index
  private var standardStrings: Bool
  /// The last tokens of the statement at hand, as far as they may set `standard_conforming_strings`.
  private var setting: [String] = []

  private var bytes: String.UTF8View { text.utf8 }

  init(_ text: String, standardStrings: Bool) {
    (self.text, self.standardStrings) = (text, standardStrings)
    position = text.startIndex
  }

  mutating func next() -> SQLTokens.Token? {
    skipBlanks()
    guard let byte = byte() else { return nil }
    let start = position
    let (kind, value) = token(byte)
    let token = SQLTokens.Token(kind: kind, text: value, range: start..<position)
    follow(token)
    return token
  }

  private mutating func token(_ byte: UInt8) -> (SQLTokens.Token.Kind, String) {
    switch byte {
    case UInt8(ascii: "'"):
      return (.string, string(escapes: !standardStrings))
    case UInt8(ascii: "\""):
      var rest = text[position...]
      guard let name = SQLName.read(&rest) else {
        defer { position = text.endIndex }
        return (.name, String(text[bytes.index(after: position)...]))
      }
      position = rest.startIndex
      return (.name, name)
    case UInt8(ascii: "E"), UInt8(ascii: "e"):
      if self.byte(1) == UInt8(ascii: "'") {
        advance()
        return (.string, string(escapes: true))
      }
      return (.word, word())
    case UInt8(ascii: "$"):
      if let value = dollarString() { return (.dollarString, value) }
      advance()
      return (.symbol, "$")
    case _ where SQLName.isPartOfName(byte):
      return (.word, word())
    default:
      advance()
      return (.symbol, String(Unicode.Scalar(byte)))
    }
  }

  // MARK: - Pieces

  private func byte(_ offset: Int = 0) -> UInt8? {
    guard let index = bytes.index(position, offsetBy: offset, limitedBy: bytes.endIndex), index < bytes.endIndex
    else { return nil }
    return bytes[index]
  }

  private mutating func advance(_ count: Int = 1) {
    position = bytes.index(position, offsetBy: count, limitedBy: bytes.endIndex) ?? bytes.endIndex
  }

  /// White space, `-- …` up to the end of its line, and `/* … */`, which nests.
  private mutating func skipBlanks() {
    while let byte = byte() {
      switch (byte, self.byte(1)) {
      case (9...13, _), (32, _): advance()
      case (UInt8(ascii: "-"), UInt8(ascii: "-")?):
        position = bytes[position...].firstIndex { $0 == 10 || $0 == 13 } ?? bytes.endIndex
      case (UInt8(ascii: "/"), UInt8(ascii: "*")?): skipBlock()
      default: return
      }
    }
  }

  private mutating func skipBlock() {
    var depth = 0
    while let byte = byte() {
      switch (byte, self.byte(1)) {
      case (UInt8(ascii: "/"), UInt8(ascii: "*")?):
        depth += 1
        advance(2)
      case (UInt8(ascii: "*"), UInt8(ascii: "/")?):
        depth -= 1
        advance(2)
        if depth == 0 { return }
      default: advance()
      }
    }
  }

  private mutating func word() -> String {
    let end = bytes[position...].firstIndex { !SQLName.isPartOfName($0) } ?? bytes.endIndex
    defer { position = end }
    return String(text[position..<end])
  }

  /// From the opening quote on.
  private mutating func string(escapes: Bool) -> String {
    var value: [UInt8] = []
    advance()
    while let byte = byte() {
      advance()
      if byte == UInt8(ascii: "'") {
        guard self.byte() == byte else { break }
        value.append(byte)
        advance()
      } else if escapes, byte == UInt8(ascii: "\\"), let escaped = self.byte() {
        advance()
        value += escape(escaped)
      } else {
        value.append(byte)
      }
    }
    return String(decoding: value, as: UTF8.self)
  }

  /// What stands behind a backslash (manual, section 4.1.2.2).
  private mutating func escape(_ byte: UInt8) -> [UInt8] {
    switch byte {
    case UInt8(ascii: "b"): return [8]
    case UInt8(ascii: "f"): return [12]
    case UInt8(ascii: "n"): return [10]
    case UInt8(ascii: "r"): return [13]
    case UInt8(ascii: "t"): return [9]
    case UInt8(ascii: "0")...UInt8(ascii: "7"):
      var code = UInt32(byte - 48)
      var digits = 1
      while digits < 3, let digit = self.byte(), (48...55).contains(digit) {
        code = code * 8 + UInt32(digit - 48)
        digits += 1
        advance()
      }
      return [UInt8(truncatingIfNeeded: code)]
    case UInt8(ascii: "x"):
      return number(digits: 2).map { [UInt8(truncatingIfNeeded: $0)] } ?? [byte]
    case UInt8(ascii: "u"), UInt8(ascii: "U"):
      let scalar = number(digits: byte == UInt8(ascii: "u") ? 4 : 8).flatMap(Unicode.Scalar.init)
      return scalar.map { Array(String($0).utf8) } ?? [byte]
    default: return [byte]
    }
  }

  private mutating func number(digits: Int) -> UInt32? {
    var value: UInt32?
    var count = 0
    while count < digits, let byte = byte(), let digit = Self.hexadecimal(byte) {
      value = (value ?? 0) << 4 | digit
      count += 1
      advance()
    }
    return value
  }

  private static func hexadecimal(_ byte: UInt8) -> UInt32? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - 48)
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte - 87)
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte - 55)
    default: nil
    }
  }

  /// `$tag$…$tag$`; nil where no tag begins here.
  private mutating func dollarString() -> String? {
    let start = bytes.index(after: position)
    guard let end = bytes[start...].firstIndex(of: UInt8(ascii: "$")) else { return nil }
    let tag = bytes[start..<end]
    guard tag.allSatisfy(SQLName.isPartOfName), tag.first.map({ !(48...57).contains($0) }) ?? true else { return nil }
    let mark = String(text[position...end])
    let inside = text[bytes.index(after: end)...]
    guard let close = inside.range(ofBytes: mark) else {
      position = text.endIndex
      return String(inside)
    }
    position = close.upperBound
    return String(inside[..<close.lowerBound])
  }

  // MARK: - The setting

  /// `SET standard_conforming_strings = on;` holds from its semicolon on.
  private mutating func follow(_ token: SQLTokens.Token) {
    if token.kind == .symbol, token.text == ";" {
      if let value = Self.setting(setting) { standardStrings = value }
      setting = []
    } else if setting.count < 6 {
      setting.append(token.text.lowercased())
    }
  }

  private static func setting(_ words: [String]) -> Bool? {
    guard words.first == "set" else { return nil }
    let rest = words.dropFirst(words.dropFirst().first == "session" ? 2 : 1)
    guard rest.count == 3, rest.first == "standard_conforming_strings", let value = rest.last else { return nil }
    switch value {
    case "on", "true", "yes", "1": return true
    case "off", "false", "no", "0": return false
    default: return nil
    }
  }
}
