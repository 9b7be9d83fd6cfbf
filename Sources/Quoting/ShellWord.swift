/// A value within a command that will be pasted or run.
package enum ShellWord {
  /// As it is where a POSIX shell takes it for one plain word. Else within single quotes. Where it has characters that
  /// a terminal would not show (`TerminalText`), within `$'…'` (POSIX.1-2024, 2.2.4; bash, zsh, ksh): so a pasted word
  /// stays on its line.
  package static func quoted(_ text: some StringProtocol) -> String {
    if !text.isEmpty, text.utf8.allSatisfy(isPlain) { return String(text) }
    guard text.unicodeScalars.contains(where: TerminalText.isHidden) else {
      return "'" + String(text, escaping: { $0 == UInt8(ascii: "'") ? #"'\''"# : nil }) + "'"
    }
    return dollarQuoted(text)
  }

  /// Octal escapes have three digits at most, so that no digit behind one is taken for a part of it.
  private static func dollarQuoted(_ text: some StringProtocol) -> String {
    var result = "$'"
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\0": result += String.replacement
      case _ where scalar.isASCII && isPlain(UInt8(scalar.value)) || scalar == " ":
        result.unicodeScalars.append(scalar)
      case _ where scalar.isASCII || TerminalText.isHidden(scalar):
        for byte in String(scalar).utf8 {
          let digits = String(byte, radix: 8)
          result += "\\" + String(repeating: "0", count: 3 - digits.utf8.count) + digits
        }
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "'"
  }

  private static func isPlain(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."),
      UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: "@"), UInt8(ascii: "%"), UInt8(ascii: "+"),
      UInt8(ascii: ","):
      true
    default: false
    }
  }
}
