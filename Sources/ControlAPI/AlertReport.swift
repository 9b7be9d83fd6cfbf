package import Faults
package import Foundation

/// One alert channel, as `status` shows it.
package struct AlertChannelReport: Codable, Sendable {
  package var name: String
  package var kind: String
  package var topics: [String]
  /// Messages that wait for it.
  package var waiting = 0
  package var delivered = 0
  /// Messages that were given up.
  package var dropped = 0
  package var lastDelivered: Date?
  /// Tries in a row that failed, and why the last one did.
  package var failures = 0
  package var fault: Fault?
  package var nextTry: Date?

  /// How it is, in a few words.
  package var condition: String {
    guard fault != nil else { return "ok" }
    return failures == 0
      ? "some addresses were refused" : "takes no messages since \(failures) \(failures == 1 ? "try" : "tries")"
  }

  package init(name: String, kind: String, topics: [String]) {
    self.name = name
    self.kind = kind
    self.topics = topics
  }
}

/// `POST /v1/alerts/test`.
package struct AlertTestCommand: Codable, Sendable {
  /// All channels where nil.
  package var channel: String?

  package init(channel: String?) { self.channel = channel }
}

/// What came of a test, channel by channel.
package struct AlertTestReport: Codable, Sendable {
  package var channel: String
  package var kind: String
  package var fault: Fault?

  package init(channel: String, kind: String, fault: Fault?) {
    self.channel = channel
    self.kind = kind
    self.fault = fault
  }
}
