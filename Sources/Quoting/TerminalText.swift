/// Text that people read: no name moves the cursor, hides or reorders what stands beside it, or begins a line.
///
/// Shown as an escape: C0 and C1 controls and DEL (`\n`, `\t`, `\x1b`, `\u009b`), line and paragraph separators, bidi
/// controls (UAX #9, 2.6), and characters without a form of their own, such as U+200B and the tag characters. ZWJ, ZWNJ
/// and variation selectors stay: words and emoji are written with them. Backslashes stay as they are, so the escapes
/// are for reading and not for reading back.
package enum TerminalText {
  /// One line or one cell: newlines and tabs are shown too.
  package static func line(_ text: some StringProtocol) -> String { shown(text, keepingLayout: false) }

  /// A text that was laid out here: its newlines and tabs stay.
  package static func lines(_ text: some StringProtocol) -> String { shown(text, keepingLayout: true) }

  static func shown(_ text: some StringProtocol, keepingLayout: Bool) -> String {
    if text.utf8.allSatisfy({ (32..<127).contains($0) || keepingLayout && ($0 == 9 || $0 == 10) }) {
      return String(text)
    }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if keepingLayout && (scalar == "\n" || scalar == "\t") || !isHidden(scalar) {
        result.append(scalar)
      } else {
        result.append(contentsOf: escape(scalar).unicodeScalars)
      }
    }
    return String(result)
  }

  /// Whether a character acts, instead of showing itself.
  package static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7F..<0xA0, 0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, 0x2028...0x202E, 0x2060...0x206F, 0xFEFF,
      0xFFF9...0xFFFB, 0xE0000...0xE0FFF:
      true
    default: false
    }
  }

  private static func escape(_ scalar: Unicode.Scalar) -> String {
    switch scalar {
    case "\n": #"\n"#
    case "\r": #"\r"#
    case "\t": #"\t"#
    case _ where scalar.value < 128: #"\x"# + String(hexadecimal: scalar.value, digits: 2)
    default: #"\u"# + String(hexadecimal: scalar.value, digits: 4)
    }
  }
}

extension DefaultStringInterpolation {
  /// A value from outside within a line that people read (`TerminalText.line`).
  package mutating func appendInterpolation(line value: some CustomStringConvertible) {
    appendLiteral(TerminalText.line(value.description))
  }
}

/// The daemon's log: one event is one line, whatever it is about.
package enum LogText {
  /// The sentence of an event.
  package static func sentence(_ text: some StringProtocol) -> String { TerminalText.line(text) }

  /// A value behind `key=`: within double quotes where it would not be one word. A double quote in it becomes a single
  /// one, so that the next key can't be forged.
  package static func value(_ text: some StringProtocol) -> String {
    let shown = TerminalText.line(text)
    guard shown.isEmpty || shown.utf8.contains(where: { $0 == 32 || $0 == UInt8(ascii: "\"") }) else { return shown }
    return "\"" + String(shown, escaping: { $0 == UInt8(ascii: "\"") ? "'" : nil }) + "\""
  }

  /// A field of a journal entry, which has a length: newlines may stay (sd_journal_sendv(3)).
  package static func field(_ text: some StringProtocol) -> String { TerminalText.lines(text) }
}

/// What a monitoring plugin prints (Monitoring Plugins' development guidelines): one line, and performance data behind
/// a pipe.
package enum PluginText {
  /// The sentence: a pipe in it would begin the performance data.
  package static func sentence(_ text: some StringProtocol) -> String {
    String(TerminalText.line(text), escaping: { $0 == UInt8(ascii: "|") ? "/" : nil })
  }

  /// A label with its quotes: a single quote is doubled, and an equals sign would end it.
  package static func label(_ text: some StringProtocol) -> String {
    "'"
      + String(
        TerminalText.line(text),
        escaping: { byte in
          switch byte {
          case UInt8(ascii: "'"): "''"
          case UInt8(ascii: "="): "_"
          case UInt8(ascii: "|"): "/"
          default: nil
          }
        }) + "'"
  }
}
