/// A value behind `keyword=` in a libpq connection string ("Keyword/Value Connection Strings" of libpq's manual).
package enum ConnectionValue {
  /// Within single quotes, backslashes and single quotes behind a backslash (`conninfo_parse` of fe-connect.c).
  package static func quoted(_ text: some StringProtocol) -> String {
    "'"
      + String(
        text,
        escaping: { byte in
          switch byte {
          case UInt8(ascii: "'"): #"\'"#
          case UInt8(ascii: "\\"): #"\\"#
          case 0: String.replacement
          default: nil
          }
        }) + "'"
  }
}

/// A field of a password file ("The Password File" of libpq's manual).
package enum PasswordFileField {
  /// Colons and backslashes stand behind a backslash, and so does what would make the field match everything (`*`) or
  /// its line a comment (`#`): `pwdfMatchesString` and `passwordFromFile` of fe-connect.c take any byte behind a
  /// backslash as itself.
  ///
  /// - Returns: nil where the text holds a zero byte, CR or LF: the format has no way to hold them.
  package static func quoted(_ text: some StringProtocol) -> String? {
    guard !text.utf8.contains(where: { $0 == 0 || $0 == 10 || $0 == 13 }) else { return nil }
    return String(
      text,
      escaping: { byte in
        switch byte {
        case UInt8(ascii: ":"): #"\:"#
        case UInt8(ascii: "\\"): #"\\"#
        case UInt8(ascii: "*"): #"\*"#
        case UInt8(ascii: "#"): "\\#"
        default: nil
        }
      })
  }
}

/// A value in postgresql.conf ("Parameter Interaction via the Configuration File" of the manual).
package enum ServerFileValue {
  /// Within single quotes; a backslash begins an escape there (`DeescapeQuotedString` of guc-file.l).
  package static func quoted(_ text: some StringProtocol) -> String {
    "'"
      + String(
        text,
        escaping: { byte in
          switch byte {
          case UInt8(ascii: "'"): "''"
          case UInt8(ascii: "\\"): #"\\"#
          case UInt8(ascii: "\n"): #"\n"#
          case UInt8(ascii: "\r"): #"\r"#
          case 0: String.replacement
          default: nil
          }
        }) + "'"
  }
}
