/// HTML, between tags and within attributes in either kind of quotes.
package enum HTMLText {
  /// One line: what a terminal would not show is shown as an escape here too (`TerminalText`), and so are newlines,
  /// which a browser shows as spaces.
  package static func escaped(_ text: some StringProtocol) -> String {
    String(TerminalText.line(text), escaping: entity)
  }

  private static func entity(_ byte: UInt8) -> String? {
    switch byte {
    case UInt8(ascii: "&"): "&amp;"
    case UInt8(ascii: "<"): "&lt;"
    case UInt8(ascii: ">"): "&gt;"
    case UInt8(ascii: "\""): "&quot;"
    case UInt8(ascii: "'"): "&#39;"
    default: nil
    }
  }
}

/// GitHub's Markdown, within a table's cell or a line.
package enum MarkdownText {
  /// No cell, line, tag, link, mention or emphasis begins in it. A pipe has to be an entity: tables are cut before
  /// backslashes are read.
  package static func cell(_ text: some StringProtocol) -> String {
    String(
      TerminalText.line(text),
      escaping: { byte in
        switch byte {
        case UInt8(ascii: "|"): "&#124;"
        case UInt8(ascii: "<"): "&lt;"
        case UInt8(ascii: ">"): "&gt;"
        case UInt8(ascii: "&"): "&amp;"
        case UInt8(ascii: "@"): "&#64;"
        case UInt8(ascii: "\\"), UInt8(ascii: "`"), UInt8(ascii: "*"), UInt8(ascii: "_"), UInt8(ascii: "["),
          UInt8(ascii: "]"), UInt8(ascii: "~"), UInt8(ascii: "$"):
          "\\" + String(Unicode.Scalar(byte))
        default: nil
        }
      })
  }
}

/// Slack's mrkdwn ("Formatting text for app surfaces": three characters are control sequences).
package enum SlackText {
  package static func escaped(_ text: some StringProtocol) -> String {
    String(
      TerminalText.lines(text),
      escaping: { byte in
        switch byte {
        case UInt8(ascii: "&"): "&amp;"
        case UInt8(ascii: "<"): "&lt;"
        case UInt8(ascii: ">"): "&gt;"
        default: nil
        }
      })
  }

  /// Within backticks.
  package static func code(_ text: some StringProtocol) -> String {
    "`" + String(escaped(text), escaping: { $0 == UInt8(ascii: "`") ? "'" : nil }) + "`"
  }
}

/// Discord's Markdown.
package enum DiscordText {
  package static func escaped(_ text: some StringProtocol) -> String {
    let marks = Set(#"\*_~`|>[]#@<"#.utf8)
    return String(
      TerminalText.lines(text), escaping: { marks.contains($0) ? "\\" + String(Unicode.Scalar($0)) : nil })
  }

  /// Within backticks.
  package static func code(_ text: some StringProtocol) -> String {
    "`" + String(TerminalText.lines(text), escaping: { $0 == UInt8(ascii: "`") ? "'" : nil }) + "`"
  }
}

/// The text formats that Prometheus reads.
package enum MetricsLabel {
  /// A label's value within its double quotes (OpenMetrics 1.0, `escaped-string`). All else stays: two names never
  /// become one series.
  package static func value(_ text: some StringProtocol) -> String {
    String(text, escaping: { $0 == UInt8(ascii: "\"") ? #"\""# : common($0) })
  }

  /// A HELP line's text. OpenMetrics escapes double quotes there too; the older format does not.
  package static func help(_ text: some StringProtocol, escapingQuotes: Bool) -> String {
    String(text, escaping: { escapingQuotes && $0 == UInt8(ascii: "\"") ? #"\""# : common($0) })
  }

  private static func common(_ byte: UInt8) -> String? {
    switch byte {
    case UInt8(ascii: "\\"): #"\\"#
    case UInt8(ascii: "\n"): #"\n"#
    case 0: String.replacement
    default: nil
    }
  }
}

/// JSON strings (RFC 8259, section 7).
package enum JSONText {
  /// The inside of a string, without its quotes. What a terminal would not show is escaped: C0 and C1 controls, DEL,
  /// bidi controls.
  package static func inside(_ text: some StringProtocol) -> String {
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\":
        result.append("\\")
        result.append(scalar)
      case "\n": result.append(contentsOf: #"\n"#.unicodeScalars)
      case "\r": result.append(contentsOf: #"\r"#.unicodeScalars)
      case "\t": result.append(contentsOf: #"\t"#.unicodeScalars)
      case _ where TerminalText.isHidden(scalar): result.append(contentsOf: escape(scalar).unicodeScalars)
      default: result.append(scalar)
      }
    }
    return String(result)
  }

  package static func quoted(_ text: some StringProtocol) -> String { "\"\(inside(text))\"" }

  /// A whole JSON text that an encoder wrote, safe to show on a terminal. The characters that it escapes stand only
  /// within strings there, but for the newlines of its layout.
  package static func shown(_ json: some StringProtocol) -> String {
    if json.utf8.allSatisfy({ (32..<127).contains($0) || $0 == 10 }) { return String(json) }
    var result = String.UnicodeScalarView()
    for scalar in json.unicodeScalars {
      if scalar != "\n", TerminalText.isHidden(scalar) {
        result.append(contentsOf: escape(scalar).unicodeScalars)
      } else {
        result.append(scalar)
      }
    }
    return String(result)
  }

  /// Outside the first plane, as two units of UTF-16.
  private static func escape(_ scalar: Unicode.Scalar) -> String {
    scalar.utf16.map { #"\u"# + String(hexadecimal: UInt32($0), digits: 4) }.joined()
  }
}
