import Units

/// A cron expression: when a job is due, as a rule about the wall clock. It holds no zone and no state.
///
/// The grammar is crontab(5)'s five fields (lists, ranges, steps, names, 7 for Sunday, `@daily` and friends), and the day
/// words that Quartz and cronsim know: `L` (last day of the month), `LW` (last weekday, Monday to Friday), `15W` (the
/// weekday nearest to the 15th within its month), `5L` (last Friday) and `MON#2` (second Monday).
///
/// Printing gives a normal form: `CronExpression(parsing: expression.description) == expression`.
package struct CronExpression: Sendable, Hashable {
  let minutes: ValueSet
  let hours: ValueSet
  let days: DayOfMonthField
  let months: ValueSet
  let weekdays: DayOfWeekField

  /// Whether the minute or the hour field begins with `*`. Debian's cron calls such an entry a wildcard job: it follows the
  /// wall clock over a change of daylight saving time, where a fixed-time job is moved out of the gap and not repeated
  /// (`MIN_STAR | HR_STAR` in its entry.c, and cron(8), "Debian specific").
  let minuteIsWildcard: Bool
  let hourIsWildcard: Bool

  package var isWildcard: Bool { minuteIsWildcard || hourIsWildcard }

  /// Whether a job is due on this day: both day fields where one of them begins with `*`, either of them where none does.
  /// That is Vixie's and Debian's rule (`DOM_STAR`, `DOW_STAR` in cron.c); `*/2` counts as a star there, and here.
  func matches(_ day: CalendarDay) -> Bool {
    guard months.contains(day.civil.month) else { return false }
    if days.isStar || weekdays.isStar { return days.matches(day) && weekdays.matches(day) }
    return days.matches(day) || weekdays.matches(day)
  }

  /// The next day from `number` on (counted from 1970-01-01) that matches, or nil where none comes within the calendar's
  /// cycle of 400 years: the Gregorian calendar, weekdays included, repeats after exactly 146,097 days.
  func firstDay(from number: Int, within limit: Int = 146_097) -> Int? {
    var candidate = number
    while candidate < number + limit {
      let day = CalendarDay(number: candidate)
      if matches(day) { return candidate }
      // A month that is not wanted is passed over whole.
      candidate += months.contains(day.civil.month) ? 1 : day.length - day.civil.day + 1
    }
    return nil
  }

  /// The last matching day that is `number` or earlier, with the same bound as `firstDay`.
  func lastDay(upTo number: Int, within limit: Int = 146_097) -> Int? {
    var candidate = number
    while candidate > number - limit {
      let day = CalendarDay(number: candidate)
      if matches(day) { return candidate }
      candidate -= months.contains(day.civil.month) ? 1 : day.civil.day
    }
    return nil
  }
}

/// A day with what the day rules ask of it, worked out once.
struct CalendarDay {
  let civil: CivilDay
  let weekday: Int
  let length: Int

  init(number: Int) {
    civil = CivilDay(number: number)
    weekday = (number + 4).flooredRemainder(7)
    length = civil.daysInMonth
  }

  /// The weekday of another day of the same month.
  func weekday(of day: Int) -> Int { (weekday + day - civil.day).flooredRemainder(7) }
}
