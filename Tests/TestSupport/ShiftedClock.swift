package import Foundation
import Glibc

/// A clock of a daemon's own, moved by a file that the preloaded library looks at (Tests/ClockShift).
package struct ShiftedClock: Sendable {
  private let path: String

  package init(in folder: TemporaryFolder) { path = folder.file("clock") }

  /// What preloads it.
  ///
  /// - Parameter isKept: systemd-timesyncd keeps it, for all that the daemon sees.
  package func environment(isKept: Bool = false) -> [String: String] {
    var variables = ["LD_PRELOAD": DaemonProcess.program("libClockShift.so"), "CLOCK_SHIFT": path]
    if isKept { variables["CLOCK_SYNCHRONIZED"] = "1" }
    return variables
  }

  /// Sets the clock that the daemon sees; by so many seconds less than the time, where that is said.
  package func set(_ text: String, sooner: TimeInterval = 0) throws {
    guard let wanted = ISO8601DateFormatter().date(from: text) else {
      throw Shell.Failure(description: "'\(text)' is no time")
    }
    try shift(by: Int64((wanted.timeIntervalSinceNow - sooner).rounded()))
  }

  /// Moves it by so many seconds from the machine's own.
  package func shift(by seconds: Int64) throws {
    var shift = seconds
    let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    defer { close(file) }
    guard pwrite(file, &shift, 8, 0) == 8 else { throw Shell.Failure(description: "the clock in \(path) can't be set") }
  }
}
