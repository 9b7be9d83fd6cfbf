import Quoting

/// One failure as an operator sees it: a stable code, one plain sentence, what lies behind it, and what to type next.
///
/// Leaves throw their own small typed errors (`ArchiveError`, `CronParseError`); where a failure leaves a room it becomes a
/// `Fault`, and a fault crosses the control socket as it is.
package struct Fault: Error, Sendable, Codable, Hashable {
  package var code: FaultCode
  /// One sentence, without secrets, that says what went wrong.
  package var message: String
  /// What the other side said: the server's message, a program's last lines, the system's reason.
  package var cause: String?
  /// The next command to type, or the next thing to look at.
  package var hint: String?

  package init(_ code: FaultCode, _ message: String, cause: String? = nil, hint: String? = nil) {
    self.code = code
    self.message = message
    self.cause = cause
    self.hint = hint
  }

  /// Wraps any error, keeping one that is a fault already.
  package init(_ error: any Error) {
    if let fault = error as? Fault {
      self = fault
    } else if error is CancellationError {
      self.init(.runAborted, "The run was stopped before it was done; nothing of it was kept.")
    } else {
      self.init(.internal, "An unexpected error ended the work.", cause: String(describing: error))
    }
  }
}

extension Fault: CustomStringConvertible {
  /// `E-CODE: sentence`, then the cause and the hint on lines of their own. Only the cause may have several; names that
  /// would move a cursor or begin a line are shown as escapes (`TerminalText`).
  package var description: String {
    var lines = ["\(code.rawValue): \(line: message)"]
    let cause = (cause ?? "").lines.filter { !$0.isEmpty }.map { TerminalText.line($0) }
    if !cause.isEmpty { lines.append("  cause: " + cause.joined(separator: "\n         ")) }
    if let hint { lines.append("  next:  \(line: hint)") }
    return lines.joined(separator: "\n")
  }
}
