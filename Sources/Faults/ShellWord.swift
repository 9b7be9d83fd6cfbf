extension DefaultStringInterpolation {
  /// A value within a command that somebody will paste: as it is where a POSIX shell takes it for one plain word, else within single quotes.
  /// Names of databases and files come from others, and may hold anything.
  package mutating func appendInterpolation(shell value: some CustomStringConvertible) {
    let text = value.description
    let isPlain = !text.isEmpty && text.utf8.allSatisfy { Self.plain.contains($0) }
    appendLiteral(
      isPlain
        ? text : "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#) + "'")
  }

  private static var plain: Set<UInt8> {
    Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,".utf8)
  }
}

/// What a hint is: a command that can be pasted as it stands, or words.
package enum Hint {
  private static let programs: Set<Substring> = [
    "pgbackupctl", "systemctl", "journalctl", "timedatectl", "df", "psql", "pg_isready", "apt", "pgbackupd",
  ]

  /// Whether all of it is one command.
  package static func isCommand(_ text: String) -> Bool {
    guard let first = text.split(separator: " ").first, programs.contains(first) else { return false }
    return !text.contains("; ") && !text.contains(", ") && !text.contains(": ") && !text.contains("\n")
  }
}
