import Glibc

/// Asks until it is so, or has been asked for long enough: a test that waits for what does not come fails, and says what that was.
///
/// - Parameters:
///   - what: is waited for; with what was seen last, where that helps.
///   - limit: the end of all waiting, and not what a test relies on.
package func eventually(
  _ what: @autoclosure () -> String, within limit: Duration = .seconds(300), _ isSo: () throws -> Bool
) throws {
  let end = ContinuousClock.now + limit
  while try !isSo() { try askAgain(what(), end) }
}

/// The same of what takes `await` to ask for.
package func eventually(
  _ what: @autoclosure () -> String, within limit: Duration = .seconds(300), _ isSo: () async throws -> Bool
) async throws {
  let end = ContinuousClock.now + limit
  while try await !isSo() { try askAgain(what(), end) }
}

private func askAgain(_ what: @autoclosure () -> String, _ end: ContinuousClock.Instant) throws {
  guard ContinuousClock.now < end else {
    throw Shell.Failure(description: "waited for in vain: \(what())")
  }
  // Some milliseconds, so that many who wait leave the processor to what they wait for.
  poll(nil, 0, 5)
}
