import Quoting

extension DefaultStringInterpolation {
  /// A value within a command that will be pasted (`ShellWord`). Names of databases and files come from others, and may
  /// hold anything.
  package mutating func appendInterpolation(shell value: some CustomStringConvertible) {
    appendLiteral(ShellWord.quoted(value.description))
  }
}

/// What a hint is: a command that can be pasted as it stands, or words.
package enum Hint {
  private static let programs: Set<Substring> = [
    "pgbackupctl", "systemctl", "journalctl", "timedatectl", "df", "psql", "pg_isready", "apt", "pgbackupd",
  ]

  /// Whether all of it is one command.
  package static func isCommand(_ text: String) -> Bool {
    guard let first = text.split(atByte: 32).first, programs.contains(first) else { return false }
    return !["; ", ", ", ": ", "\n"].contains { text.contains(bytes: $0) }
  }
}
