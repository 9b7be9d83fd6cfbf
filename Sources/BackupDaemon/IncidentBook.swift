package import BackupCatalog
package import Faults
package import Foundation
package import Notifications
package import Quoting
import Units

/// Something that is wrong, and what it is about: two problems of one scope are one incident.
package struct Problem: Sendable, Equatable {
  package var fault: Fault
  package var database: String?
  package var job: String?
  package var store: String?
  /// The alert channel.
  package var channel: String?
  /// Which of a database's objectives; an objective that was at risk and is missed then is one incident.
  package var aspect: String?
  /// The one backup that it is about.
  package var backup: BackupID?
  /// Until then it is shown, and nobody is called for it.
  package var quietUntil: Date?
  /// Nobody is called for it alone; an incident that is open goes on.
  package var opensNothing = false

  package init(
    _ fault: Fault, database: String? = nil, job: String? = nil, store: String? = nil, channel: String? = nil,
    aspect: String? = nil, backup: BackupID? = nil
  ) {
    self.backup = backup
    self.channel = channel
    self.aspect = aspect
    self.fault = fault
    self.database = database
    self.job = job
    self.store = store
  }

  /// Of the incident. A job that fails is one, whatever it fails with: each try may have another reason.
  var key: ExactText {
    let kind = job != nil ? "run" : aspect ?? fault.code.rawValue
    return ExactText([kind, database ?? "", job ?? "", store ?? channel ?? ""].joined(separator: "|"))
  }

  /// The topics that it is told under; who has chosen one of them hears of it.
  var topics: Set<NoticeTopic> {
    switch fault.code {
    case .backupDoubtful: [.warning]
    case .objectiveAtRisk: [.objective]
    case .objectiveMissed: [.objective, .failure]
    case .configInvalid, .configUnreadable: [.reload, .failure]
    case .storeSpace where job == nil: [.warning, .failure]
    default: [.failure]
    }
  }
}

/// Which incidents are open, and who was told of them when: one message when an incident opens, one every so often while it lasts, one
/// when it is over. A pure value; it is kept on disk, so that a restart repeats nothing.
package struct IncidentBook: Sendable, Equatable {
  package struct Incident: Codable, Sendable, Equatable {
    /// Short, and the same in all of the incident's messages.
    package var id: String
    package var since: Date
    package var fault: Fault
    package var more: [String]
    package var database: String?
    package var job: String?
    package var store: String?
    package var topics: Set<NoticeTopic>
    /// When each channel was told last.
    package var told: [String: Date]
  }

  /// A message for one channel.
  package struct Message: Sendable, Equatable {
    package var channel: String
    package var kind: Notice.Kind
    package var incident: Incident
  }

  package private(set) var open: [ExactText: Incident] = [:]
  /// How many there have been: their ids.
  private var count = 0

  package init() {}

  /// Compares what is wrong now with what was wrong before.
  ///
  /// - Parameter newID: an id for an incident that opens, from its number.
  package mutating func update(
    _ problems: [Problem], channels: [ChannelSettings], at now: Date, newID: (Int) -> String
  ) -> [Message] {
    var messages: [Message] = []
    let current = Dictionary(grouping: problems.filter { $0.quietUntil.map { $0 <= now } ?? true }, by: \.key)
    for (key, incident) in open.sorted(by: { $0.key < $1.key }) where current[key] == nil {
      open[key] = nil
      for channel in channels where incident.told[channel.name] != nil && channel.topics.contains(.recovered) {
        messages.append(Message(channel: channel.name, kind: .recovered, incident: incident))
      }
    }
    for (key, problems) in current.sorted(by: { $0.key < $1.key }) {
      guard let first = problems.first(where: { !$0.opensNothing }) ?? (open[key] == nil ? nil : problems.first) else {
        continue
      }
      var incident: Incident
      if let known = open[key] {
        incident = known
      } else {
        count += 1
        incident = Incident(
          id: newID(count), since: now, fault: first.fault, more: [], database: first.database, job: first.job,
          store: first.store, topics: [], told: [:])
      }
      // What was at risk and is missed now is worth a word to whoever has heard of the risk.
      let isWorse = incident.fault.code == .objectiveAtRisk && first.fault.code == .objectiveMissed
      if !first.opensNothing { (incident.fault, incident.topics) = (first.fault, first.topics) }
      incident.more = problems.dropFirst().map(\.fault.message)
      for channel in channels where channel.wants(incident.topics, database: incident.database) {
        let last = incident.told[channel.name]
        if let last {
          // A clock that was set back makes nobody wait for the difference.
          let waited = now.timeIntervalSince(last)
          guard isWorse || channel.every.map({ waited >= $0.inSeconds - 30 || waited < 0 }) == true else { continue }
        } else if first.channel == channel.name {
          // A channel that takes no messages takes none about that.
          continue
        }
        incident.told[channel.name] = now
        messages.append(
          Message(channel: channel.name, kind: last == nil || isWorse ? .opened : .reminder, incident: incident))
      }
      open[key] = incident
    }
    return messages
  }
}

extension IncidentBook: Codable {
  private enum CodingKeys: String, CodingKey { case open, count }

  package init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    let stored = try values.decode([String: Incident].self, forKey: .open)
    open = Dictionary(stored.map { (Self.key($0.key), $0.value) }, uniquingKeysWith: { first, _ in first })
    count = try values.decode(Int.self, forKey: .count)
  }

  package func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    let stored = open.map { (Self.text($0.key), $0.value) }
    try values.encode(Dictionary(stored, uniquingKeysWith: { first, _ in first }), forKey: .open)
    try values.encode(count, forKey: .count)
  }

  /// JSON's objects are dictionaries by `String` on their way, which take canonical twins for one key: other bytes than
  /// ASCII are escaped as in URLs.
  private static func text(_ key: ExactText) -> String {
    key.text.utf8.map { byte in
      byte < 128 && byte != UInt8(ascii: "%")
        ? String(Unicode.Scalar(byte)) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }.joined()
  }

  /// Earlier versions escaped nothing: what is no escape stands for itself.
  private static func key(_ text: String) -> ExactText {
    var (bytes, rest) = ([UInt8](), text.utf8[...])
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return ExactText(String(decoding: bytes, as: UTF8.self))
  }
}
