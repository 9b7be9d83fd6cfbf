package import BackupCatalog
package import Faults
package import Foundation
package import Notifications
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
  var key: String {
    let kind = job != nil ? "run" : aspect ?? fault.code.rawValue
    return [kind, database ?? "", job ?? "", store ?? channel ?? ""].joined(separator: "|")
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
package struct IncidentBook: Codable, Sendable, Equatable {
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

  package private(set) var open: [String: Incident] = [:]
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
