package import Foundation

/// The one place where the clock is read, in either program. Everything else is given the time.
package enum SystemClock {
  @Sendable package static func now() -> Date { Date() }
}
