import TestSupport

/// Texts made of what has fooled an escaper once.
enum HostileText {
  private static let pieces = [
    "\u{600}", "\u{301}", "\u{200D}", "\u{200C}", "\u{FE0F}", "\r\n", "\n", "\r", "\t", "\u{2028}", "\u{2029}",
    "\u{85}",
    "\u{202E}", "\u{2066}", "\u{2069}", "\u{200B}", "\u{FEFF}", "\u{E0041}", "\u{1B}", "\u{1B}[2J", "\u{9B}", "\u{7F}",
    "\u{1}", "'", "''", "\"", "\\", "\\'", "$$", "$a$", "`", "$(id)", "<", ">", "</script", "&", "|", "=", ":", "*",
    "#",
    "!", "?", "~", " ", "a", "E", "e", "U&", "n", "x41", "7", "-- ", "/*", "*/", "%s", "..", "/", ";", "@", "{", "}",
    "é",
    "🙂", "\u{FFFD}", "_", "[", "]", "(", ")", "://", "www.",
  ]

  /// The tables that every context is tried with.
  static let known = [
    "", "shop", "a'b", "a\"b", "a\\b", "\u{600}'", "\u{600}\"", "\u{600}\\", "\u{600}<", "'\u{301}", "\"\u{301}",
    "\\\u{301}", "<\u{301}", "\n\u{301}", "\r\n", "a\r\nb", "\u{600}\n", "\u{2028}", "\u{202E}abc", "\u{1B}[31m",
    "x'; DROP TABLE t; --", "\u{600}'; ALTER ROLE mallory SUPERUSER; --", "\\'; SELECT 1; --", "$$", "%s%n", "../..",
    "-- ", "/*", "\u{600}' hostaddr=127.0.0.1 sslmode=disable dbname='x",
    "a" + String(repeating: "\u{301}", count: 31),
  ]

  /// - Parameter count: of random texts, behind the known ones.
  static func texts(_ count: Int, seed: UInt64, longest: Int = 12) -> [String] {
    var generator = SeededGenerator(seed)
    return known
      + (0..<count).map { _ in
        (0..<Int.random(in: 1...longest, using: &generator)).map { _ in
          pieces.randomElement(using: &generator) ?? ""
        }.joined()
      }
  }
}

extension String {
  /// Compared by bytes: Swift calls texts equal that PostgreSQL calls different.
  var bytes: [UInt8] { Array(utf8) }

  var hexadecimal: String { utf8.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
}
