import Units

/// The day-of-month field: plain days, and rules that depend on the month.
struct DayOfMonthField: Sendable, Hashable {
  var days = ValueSet()
  /// Days `N` of `NW`: the weekday (Monday to Friday) nearest to the Nth, not leaving the month.
  var nearestWeekdays = ValueSet()
  var isLastDay = false
  var isLastWeekday = false
  /// The field begins with `*`.
  var isStar = false

  func matches(_ day: CalendarDay) -> Bool {
    if days.contains(day.civil.day) { return true }
    if isLastDay, day.civil.day == day.length { return true }
    if isLastWeekday, day.civil.day == Self.nearestWeekday(to: day.length, in: day) { return true }
    guard !nearestWeekdays.isEmpty else { return false }
    return nearestWeekdays.values.contains { $0 <= day.length && Self.nearestWeekday(to: $0, in: day) == day.civil.day }
  }

  /// Saturday moves to Friday and Sunday to Monday, unless that leaves the month: then the other way, two days.
  private static func nearestWeekday(to target: Int, in day: CalendarDay) -> Int {
    switch day.weekday(of: target) {
    case 6: target == 1 ? 3 : target - 1
    case 0: target == day.length ? target - 2 : target + 1
    default: target
    }
  }
}

/// The day-of-week field: plain weekdays (0 is Sunday), and rules that depend on the month.
struct DayOfWeekField: Sendable, Hashable {
  struct Ordinal: Sendable, Hashable {
    /// 0 is Sunday.
    let weekday: Int
    /// 1 to 5.
    let position: Int
  }

  var weekdays = ValueSet()
  /// Weekdays `N` of `NL`: the last one of its kind in the month.
  var lasts = ValueSet()
  /// `N#k`: the kth of its kind in the month.
  var ordinals: Set<Ordinal> = []
  /// The field begins with `*`.
  var isStar = false

  func matches(_ day: CalendarDay) -> Bool {
    if weekdays.contains(day.weekday) { return true }
    if lasts.contains(day.weekday), day.civil.day + 7 > day.length { return true }
    guard !ordinals.isEmpty else { return false }
    return ordinals.contains(Ordinal(weekday: day.weekday, position: (day.civil.day - 1) / 7 + 1))
  }
}
