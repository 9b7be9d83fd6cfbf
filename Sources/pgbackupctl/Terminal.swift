import Faults
import Foundation
import Quoting
import Synchronization

/// The person at the other end, where there is one.
enum Terminal {
  static var isInteractive: Bool { isatty(0) == 1 && isatty(2) == 1 }
  static var showsProgress: Bool { isatty(2) == 1 }

  /// Prints a text on standard output. Its layout stays; names in it can't act on the terminal (`TerminalText`).
  static func say(_ text: String) {
    endWait()
    Swift.print(TerminalText.lines(text))
  }

  static func complain(_ text: String) {
    endWait()
    write(text)
  }

  private static func write(_ text: String) {
    FileHandle.standardError.write(Data((TerminalText.lines(text) + "\n").utf8))
  }

  /// Overwrites the current line of the terminal.
  static func overwrite(_ text: String) { FileHandle.standardError.write(Data("\r\u{1B}[K\(line: text)".utf8)) }

  /// Says what is waited for: one line on a terminal, which the next one overwrites; else a line each time that
  /// something has changed.
  static func wait(_ text: String) {
    guard text != waitedFor.withLock({ old in swap(&old, text) }) else { return }
    if showsProgress { overwrite(text) } else { write(text) }
  }

  /// Clears the line of `wait`.
  static func endWait() {
    guard !waitedFor.withLock({ old in swap(&old, "") }).isEmpty else { return }
    if showsProgress { overwrite("") }
  }

  private static let waitedFor = Mutex("")
  private static func swap(_ old: inout String, _ new: String) -> String {
    defer { old = new }
    return old
  }

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
    guard database.isExactly(readLine()) else {
      throw Fault(.confirmationNeeded, "That was not '\(database)'; nothing was changed.")
    }
  }
}
