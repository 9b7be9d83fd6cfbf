package import Foundation
import Units

/// When a job begins by itself, and what happens when it could not.
package struct JobTiming: Sendable, Hashable {
  package var schedule: ZonedSchedule
  /// How far a run may be moved behind its due instant, so that many hosts don't ask one server or store at the same second.
  package var jitter = Duration.zero
  /// Hours in which no scheduled run begins; it begins when they end.
  package var notBetween: [QuietWindow] = []
  /// How late a missed run is still made up for; nil for never.
  package var catchUp: Duration? = .seconds(86400)
  package var retry: RetryRule? = RetryRule(count: 2, after: .seconds(300))
  /// Whether a backup of another job may be taken over instead of dumping, where both are due within the hour.
  package var share = true
  /// Jobs that are due together begin in this order: the configuration's.
  package var order = 0
  /// The jitter of this host and job, always the same.
  package private(set) var delay: TimeInterval = 0

  package init(_ schedule: ZonedSchedule) { self.schedule = schedule }

  /// Chooses the delay: stable for a host and a job, evenly spread over the jitter, in whole seconds.
  package mutating func settleDelay(host: String, job: String) {
    let span = UInt64(max(0, jitter.components.seconds))
    guard span > 0 else {
      delay = 0
      return
    }
    // FNV-1a, 64 bits: any even hash does, as long as every version of this program has the same.
    let hash = "\(host)\u{0}\(job)".utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    delay = TimeInterval((hash >> 16) % (span + 1))
  }

  /// When a run that is due at `instant` begins: after the delay, and not in quiet hours.
  package func start(of instant: Date) -> Date { afterQuiet(instant.addingTimeInterval(delay)) }

  /// The first moment from `instant` on that lies in no quiet hours. Windows that together leave no minute of the week free
  /// would hold a job for ever: after a week the job begins.
  package func afterQuiet(_ instant: Date) -> Date {
    var moment = instant
    while let end = notBetween.lazy.compactMap({ $0.end(covering: moment) }).max() {
      moment = end
      if moment.timeIntervalSince(instant) > 7 * 86400 { return moment }
    }
    return moment
  }
}

/// How often and when a failed scheduled run is tried again: `3 after 5m`, each wait twice as long as the one before.
package struct RetryRule: Sendable, Hashable {
  package var count: Int
  package var after: Duration

  package init(count: Int, after: Duration) {
    self.count = count
    self.after = after
  }

  /// Parses `3 after 5m`; nil for anything else. At most 20 tries, which grow to more than a year.
  package init?(parsing text: String) {
    let words = text.split(separator: " ")
    guard words.count == 3, words[1] == "after", let count = Int(words[0]), (1...20).contains(count),
      let after = Duration(parsing: String(words[2])), after >= .seconds(1)
    else { return nil }
    self.init(count: count, after: after)
  }

  /// When the try after the `attempt`-th (from 1) begins, where that one ended at `end`; nil where it was the last.
  package func next(after attempt: Int, endedAt end: Date) -> Date? {
    guard attempt <= count else { return nil }
    return end.addingTimeInterval(after.inSeconds * Double(1 << (attempt - 1)))
  }

  package var text: String { "\(count) after \(after.configurationText)" }
}
