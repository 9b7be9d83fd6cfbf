package import Foundation

/// What a channel may be asked to tell of.
package enum NoticeTopic: String, Codable, Sendable, CaseIterable {
  /// Something that was to be done was not, or an objective is missed.
  case failure
  /// A backup is in doubt.
  case warning
  /// An objective is missed, or is about to be.
  case objective
  /// A run ended well.
  case success
  /// What was told of before is over.
  case recovered
  /// The configuration was reloaded, or refused.
  case reload
}

/// One message to people: what happened, since when, what still holds, and what to type next. It names no secret and no row.
package struct Notice: Codable, Sendable, Equatable {
  package enum Kind: String, Codable, Sendable {
    /// An incident begins, lasts, ends.
    case opened, reminder, recovered
    /// Something that is over as soon as it is told: a run that ended well, a reload.
    case event
    /// Somebody tries the channel.
    case test
    /// For dead-man pings: a run begins, ends well, fails.
    case runBegan = "run-began"
    case runSucceeded = "run-succeeded"
    case runFailed = "run-failed"

    package var isPing: Bool { [.runBegan, .runSucceeded, .runFailed].contains(self) }
  }

  /// Of the incident, the same from its opening to its recovery; or of the run.
  package var id: String
  package var kind: Kind
  package var topic: NoticeTopic
  package var time: Date
  package var host: String
  package var code: String?
  /// One sentence.
  package var sentence: String
  package var cause: String?
  /// When the incident began.
  package var since: Date?
  package var database: String?
  package var job: String?
  package var store: String?
  /// What still holds: the newest good backup, the newest proof, what is due next.
  package var holds: [String]
  /// Further sentences of the same incident.
  package var more: [String]
  /// The next command to type.
  package var next: String?
  /// For a ping: the run's records, and where it failed the end of its log.
  package var log: [String]

  package init(
    id: String, kind: Kind, topic: NoticeTopic, time: Date, host: String, code: String? = nil, sentence: String,
    cause: String? = nil, since: Date? = nil, database: String? = nil, job: String? = nil, store: String? = nil,
    holds: [String] = [], more: [String] = [], next: String? = nil, log: [String] = []
  ) {
    self.id = id
    self.kind = kind
    self.topic = topic
    self.time = time
    self.host = host
    self.code = code
    self.sentence = sentence
    self.cause = cause
    self.since = since
    self.database = database
    self.job = job
    self.store = store
    self.holds = holds
    self.more = more
    self.next = next
    self.log = log
  }
}
