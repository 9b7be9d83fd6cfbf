package import Foundation
import Units

/// Hours of the wall clock in which a scheduled run must not begin: `09:00-18:00 Europe/Berlin`, on some days of the week only with
/// `MON-FRI 09:00-18:00`, over midnight with `22:00-06:00`. The end is not part of it.
package struct QuietWindow: Sendable, Hashable {
  /// Minutes of the day.
  private let start: Int
  private let end: Int
  /// The days on which it begins; 0 is Sunday.
  private let weekdays: Set<Int>
  package private(set) var zone: ZoneRules

  private static let dayNames = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]

  /// - Parameters:
  ///   - zone: the zone where the text names none.
  ///   - named: finds a zone by its name.
  /// - Throws: `CronParseError` with a sentence about what is wrong.
  package init(
    parsing text: String, zone: ZoneRules, named: (String) -> ZoneRules?
  ) throws(CronParseError) {
    var words = text.split(separator: " ").map(String.init)
    var weekdays = Set(0..<7)
    if let first = words.first, first.first?.isLetter == true {
      weekdays = try Self.days(first.uppercased())
      words.removeFirst()
    }
    let times = (words.first ?? "").split(separator: "-", omittingEmptySubsequences: false).map(Self.minutes)
    guard times.count == 2, let start = times[0], let end = times[1], start < 1440 else {
      throw CronParseError(message: "write hours such as 09:00-18:00, or MON-FRI 09:00-18:00 Europe/Berlin", column: 1)
    }
    guard start != end, end - start < 1440 else {
      throw CronParseError(message: "it would never end", column: 1)
    }
    words.removeFirst()
    guard words.count <= 1 else { throw CronParseError(message: "'\(words[1])' is one word too many", column: 1) }
    if let name = words.first {
      guard let named = named(name) else { throw CronParseError(message: "'\(name)' is no time zone", column: 1) }
      self.zone = named
    } else {
      self.zone = zone
    }
    (self.start, self.end, self.weekdays) = (start, end % 1440, weekdays)
  }

  /// The same hours of another clock.
  package func moved(to zone: ZoneRules) -> QuietWindow {
    var window = self
    window.zone = zone
    return window
  }

  /// When the window ends that `instant` lies in; nil where it lies in none.
  package func end(covering instant: Date) -> Date? {
    let seconds = Int(instant.timeIntervalSince1970.rounded(.down))
    let local = seconds + zone.offset(at: seconds)
    let today = local.flooredQuotient(86400)
    // One that began yesterday may go on over midnight.
    for day in [today - 1, today] where weekdays.contains(CivilDay(number: day).weekday) {
      let first = day * 86400 + start * 60
      let last = day * 86400 + end * 60 + (end <= start ? 86400 : 0)
      guard first <= local, local < last else { continue }
      return Date(timeIntervalSince1970: Double(self.instant(ofWallClock: last, after: seconds)))
    }
    return nil
  }

  /// The first instant after `start` at which the wall clock has reached `wall`: where it jumps over it, the jump.
  private func instant(ofWallClock wall: Int, after start: Int) -> Int {
    // A window is shorter than a day, and no zone changes by more than one.
    var (low, high) = (start, wall - zone.offset(at: start) + 86400)
    let exact = wall - zone.offset(at: start)
    if zone.offset(at: exact) == zone.offset(at: start) { return exact }
    while high - low > 1 {
      let middle = (low + high) / 2
      if middle + zone.offset(at: middle) >= wall { high = middle } else { low = middle }
    }
    return high
  }

  private static func minutes(_ text: Substring) -> Int? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, parts.allSatisfy({ $0.count == 2 && $0.allSatisfy(\.isNumber) }), let hours = Int(parts[0]),
      let minutes = Int(parts[1]), minutes < 60, hours < 24 || (hours == 24 && minutes == 0)
    else { return nil }
    return hours * 60 + minutes
  }

  private static func days(_ text: String) throws(CronParseError) -> Set<Int> {
    var days: Set<Int> = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map {
        dayNames.firstIndex(of: String($0))
      }
      guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2 else {
        throw CronParseError(message: "'\(part)' is no day: write MON, SAT,SUN or MON-FRI", column: 1)
      }
      var day = first
      days.insert(day)
      while day != last {
        day = (day + 1) % 7
        days.insert(day)
      }
    }
    return days
  }
}

extension QuietWindow: CustomStringConvertible {
  /// The normal form, which parses back to the same window.
  package var description: String {
    let days = weekdays.count == 7 ? "" : weekdays.sorted().map { Self.dayNames[$0] }.joined(separator: ",") + " "
    return "\(days)\(Self.clock(start))-\(Self.clock(end)) \(zone.identifier)"
  }

  private static func clock(_ minutes: Int) -> String {
    let (hours, rest) = (minutes / 60, minutes % 60)
    return "\(hours < 10 ? "0" : "")\(hours):\(rest < 10 ? "0" : "")\(rest)"
  }
}
