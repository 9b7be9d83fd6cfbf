package import Foundation
import Units

/// A cron expression in a time zone: from here on, due instants can be told.
///
/// Daylight saving time is treated as Debian's cron treats it (cron(8), "Debian specific"; cron.c, the `medium` and
/// `negative` clock changes), the calendar being certain here where cron watches the clock:
///
/// - A **fixed-time** rule (neither minute nor hour begins with `*`) that falls into the hour which spring skips is due once,
///   right after the gap; in the hour which autumn repeats it is due once, the first time.
/// - A **wildcard** rule follows the wall clock: nothing in the gap, and both passes of the repeated hour.
/// - A change of three hours or more is a correction of the zone and no daylight saving: what it skips stays skipped.
package struct ZonedSchedule: Sendable, Hashable {
  package let expression: CronExpression
  package let zone: ZoneRules

  package init(_ expression: CronExpression, in zone: ZoneRules) {
    self.expression = expression
    self.zone = zone
  }

  /// The first due instant later than `instant`; nil where none comes within the calendar's cycle.
  package func next(after instant: Date) -> Date? {
    // The day before is looked at too: clocks that go back over midnight repeat its end.
    var number = localDay(of: instant) - 1
    let lastDay = number + 146_100
    while let candidate = expression.firstDay(from: number, within: max(0, lastDay - number)) {
      let day = LocalDay(candidate, of: self)
      if var due = day.firstInstant(after: instant) {
        if !day.isUniform, expression.matches(CalendarDay(number: candidate + 1)) {
          due = min(due, LocalDay(candidate + 1, of: self).firstInstant(after: instant) ?? due)
        }
        return due
      }
      number = candidate + 1
    }
    return nil
  }

  /// The last due instant earlier than `instant`; nil where none was within the calendar's cycle.
  package func previous(before instant: Date) -> Date? {
    var number = localDay(of: instant) + 1
    let firstDay = number - 146_100
    while let candidate = expression.lastDay(upTo: number, within: max(0, number - firstDay)) {
      let day = LocalDay(candidate, of: self)
      if var due = day.lastInstant(before: instant) {
        if !day.isUniform, expression.matches(CalendarDay(number: candidate - 1)) {
          due = max(due, LocalDay(candidate - 1, of: self).lastInstant(before: instant) ?? due)
        }
        return due
      }
      number = candidate - 1
    }
    return nil
  }

  private func localDay(of instant: Date) -> Int {
    let seconds = Int(instant.timeIntervalSince1970.rounded(.down))
    return (seconds + zone.offset(at: seconds)).flooredQuotient(86400)
  }
}

/// One calendar day in a zone, and the instants at which a schedule is due on it.
private struct LocalDay {
  /// Wall-clock seconds of its midnight, as if the zone were UTC.
  private let midnight: Int
  private let schedule: ZonedSchedule
  private let offsetBefore: Int
  private let offsetAfter: Int

  /// Changes of the clock from this size on are corrections, not daylight saving (cron.c: `timeRunning` against three hours).
  private static let correction = 3 * 3600

  init(_ number: Int, of schedule: ZonedSchedule) {
    self.schedule = schedule
    midnight = number * 86400
    // No zone is further than 15 hours from UTC, so these two bracket the day whatever its offset is.
    offsetBefore = schedule.zone.offset(at: midnight - 86400)
    offsetAfter = schedule.zone.offset(at: midnight + 2 * 86400)
  }

  /// No change of the clock on this day: wall-clock time and instants run together.
  var isUniform: Bool { offsetBefore == offsetAfter }

  func firstInstant(after instant: Date) -> Date? {
    guard isUniform else { return irregularInstants().first { $0 > instant } }
    let earliest = Int(instant.timeIntervalSince1970.rounded(.down)) + offsetBefore - midnight
    guard let second = firstSecond(from: earliest.flooredQuotient(60) + 1) else { return nil }
    return date(midnight + second - offsetBefore)
  }

  func lastInstant(before instant: Date) -> Date? {
    guard isUniform else { return irregularInstants().last { $0 < instant } }
    let latest = Int(instant.timeIntervalSince1970.rounded(.up)) + offsetBefore - midnight - 1
    guard let second = lastSecond(upTo: latest.flooredQuotient(60)) else { return nil }
    return date(midnight + second - offsetBefore)
  }

  /// The first wanted time of day from a minute of the day on, in seconds of the day.
  private func firstSecond(from minute: Int) -> Int? {
    guard minute < 1440 else { return nil }
    let start = max(0, minute)
    let expression = schedule.expression
    guard let hour = expression.hours.first(from: start / 60) else { return nil }
    if hour == start / 60, let minute = expression.minutes.first(from: start % 60) { return hour * 3600 + minute * 60 }
    guard let later = hour > start / 60 ? hour : expression.hours.first(from: hour + 1),
      let minute = expression.minutes.first(from: 0)
    else { return nil }
    return later * 3600 + minute * 60
  }

  private func lastSecond(upTo minute: Int) -> Int? {
    guard minute >= 0 else { return nil }
    let start = min(1439, minute)
    let expression = schedule.expression
    guard let hour = expression.hours.last(upTo: start / 60) else { return nil }
    if hour == start / 60, let minute = expression.minutes.last(upTo: start % 60) { return hour * 3600 + minute * 60 }
    guard let earlier = hour < start / 60 ? hour : expression.hours.last(upTo: hour - 1),
      let minute = expression.minutes.last(upTo: 59)
    else { return nil }
    return earlier * 3600 + minute * 60
  }

  /// All due instants of a day near a change of the clock, in order.
  private func irregularInstants() -> [Date] {
    var instants: Set<Int> = []
    for hour in schedule.expression.hours.values {
      for minute in schedule.expression.minutes.values {
        instants.formUnion(self.instants(ofWallClock: midnight + hour * 3600 + minute * 60))
      }
    }
    return instants.sorted().map(date)
  }

  /// The instants at which the wall clock shows `wall` and the schedule counts them: none, one or two.
  private func instants(ofWallClock wall: Int) -> [Int] {
    let showing = Set([offsetBefore, offsetAfter]).map { wall - $0 }.filter {
      schedule.zone.offset(at: $0) == wall - $0
    }.sorted()
    let shift = abs(offsetAfter - offsetBefore)
    if schedule.expression.isWildcard || shift >= Self.correction { return showing }
    if showing.isEmpty { return [changeOfClock()] }
    return [showing[0]]
  }

  /// The instant at which the offset changes from `offsetBefore`, to the second.
  private func changeOfClock() -> Int {
    var low = midnight - 86400
    var high = midnight + 2 * 86400
    while high - low > 1 {
      let middle = low + (high - low) / 2
      if schedule.zone.offset(at: middle) == offsetBefore { low = middle } else { high = middle }
    }
    return high
  }

  private func date(_ seconds: Int) -> Date { Date(timeIntervalSince1970: Double(seconds)) }
}
