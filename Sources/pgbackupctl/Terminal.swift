import Faults
import Foundation
import Quoting

/// The person at the other end, where there is one.
enum Terminal {
  static var isInteractive: Bool { isatty(0) == 1 && isatty(2) == 1 }
  static var showsProgress: Bool { isatty(2) == 1 }

  /// Prints a text on standard output. Its layout stays; names in it can't act on the terminal (`TerminalText`).
  static func say(_ text: String) { Swift.print(TerminalText.lines(text)) }

  static func complain(_ text: String) {
    FileHandle.standardError.write(Data((TerminalText.lines(text) + "\n").utf8))
  }

  /// Overwrites the current line of the terminal.
  static func overwrite(_ text: String) { FileHandle.standardError.write(Data("\r\u{1B}[K\(line: text)".utf8)) }

  /// Columns of the terminal, 100 where that is unknown.
  static var width: Int {
    var size = winsize()
    guard ioctl(2, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 100 }
    return Int(size.ws_col)
  }

  /// Asks for the database's name before something is destroyed. Off a terminal nobody can answer, so `--force` must stand
  /// in.
  static func confirm(_ deed: String, database: String, force: Bool) throws(Fault) {
    if force { return }
    guard isInteractive else {
      throw Fault(
        .confirmationNeeded, "\(deed) needs a confirmation, and there is no terminal to ask.", hint: "add --force")
    }
    FileHandle.standardError.write(Data("\(line: deed).\nType the database's name to go on: ".utf8))
    guard readLine() == database else {
      throw Fault(.confirmationNeeded, "That was not '\(database)'; nothing was changed.")
    }
  }
}
