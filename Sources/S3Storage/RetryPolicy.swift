import Foundation

/// When a request is sent again, and when it is not: a pure rule.
struct RetryPolicy: Sendable {
  /// Tries in all. With the waits between them, about half a minute for who is patient: longer outages are reconcile's.
  var attempts = 7
  /// Tries for who is not.
  var quickAttempts = 3
  var firstWait: TimeInterval = 0.5
  var longestWait: TimeInterval = 20

  /// How long to wait after the `attempt`th try (the first is 1), or nil where it was the last. Half of the wait is jitter, so that many
  /// hosts don't come back at once; what the server asks for (`Retry-After`) counts where it is longer, up to a minute.
  /// - Parameter chance: 0 to 1, random.
  func wait(after attempt: Int, isPatient: Bool, retryAfter: TimeInterval?, chance: Double) -> TimeInterval? {
    guard attempt < (isPatient ? attempts : quickAttempts) else { return nil }
    let full = min(longestWait, firstWait * pow(2, Double(attempt - 1)))
    return max(full / 2 + full / 2 * chance, min(60, retryAfter ?? 0))
  }

  /// Whether another try may succeed where this answer came.
  static func isRetryable(status: Int, code: String?) -> Bool {
    switch code {
    case "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted",
      "ConditionalRequestConflict", "Throttling", "ThrottlingException", "RequestLimitExceeded",
      "XMinioServerNotInitialized":
      true
    default: [408, 425, 429, 500, 502, 503, 504].contains(status)
    }
  }
}
