package import Faults

/// One mistake in a configuration file, where it stands, and what would be right.
package struct ConfigurationProblem: Error, Sendable, Hashable, CustomStringConvertible {
  /// From 1; nil where the mistake is that something is absent.
  package let line: Int
  package let column: Int
  /// `jobs.daily.schedule`; empty for the file itself.
  package let path: String
  package let message: String

  package var description: String { "\(line):\(column): \(path.isEmpty ? "" : path + ": ")\(message)" }
}

/// All mistakes of one file.
package struct ConfigurationProblems: Error, Sendable {
  package let file: String
  package let problems: [ConfigurationProblem]

  package var fault: Fault {
    let count = problems.count == 1 ? "one mistake" : "\(problems.count) mistakes"
    return Fault(
      .configInvalid, "\(file) has \(count) and was not taken.",
      cause: problems.map { "\(file):\($0)" }.joined(separator: "\n"),
      hint: "mend it, then: pgbackupctl config check \(shell: file)")
  }
}
