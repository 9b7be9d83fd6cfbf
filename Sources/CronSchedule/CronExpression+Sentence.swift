extension CronExpression {
  /// The rule as an English sentence without a full stop: `At 02:30, Monday to Friday`.
  package var sentence: String {
    [timePhrase, dayPhrase, monthPhrase].compactMap { $0 }.joined(separator: ", ")
  }

  private static let weekdayNames = [
    "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
  ]
  private static let monthNames = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
  ]

  private var timePhrase: String {
    let everyMinute = minutes.count == 60
    let everyHour = hours.count == 24
    if everyMinute && everyHour { return "Every minute" }
    if everyHour {
      if let step = Self.evenStep(minutes, 0...59), minutes.contains(0) { return "Every \(step) minutes" }
      return "At \(Self.list(minutes.values.map(String.init))) minutes past every hour"
    }
    if everyMinute {
      return
        "Every minute of the \(Self.plural("hour", hours.count)) \(Self.list(Self.spans(hours.values) { Self.clock($0, 0) }))"
    }
    if minutes.count == 1, let step = Self.evenStep(hours, 0...23), hours.contains(0) {
      return "Every \(step) hours at \(Self.twoDigits(minutes.values[0])) minutes past"
    }
    guard minutes.count * hours.count <= 12 else {
      return
        "At \(Self.list(Self.spans(minutes.values) { String($0) })) minutes past \(Self.list(Self.spans(hours.values) { Self.clock($0, 0) }))"
    }
    let times = hours.values.flatMap { hour in minutes.values.map { Self.clock(hour, $0) } }
    return "At " + Self.list(times)
  }

  private var dayPhrase: String? {
    let month = monthDayPhrases
    let week = weekDayPhrases
    let everyDayOfMonth = days.days.count == 31
    let everyDayOfWeek = weekdays.weekdays.count == 7
    if days.isStar || weekdays.isStar {
      if everyDayOfMonth && everyDayOfWeek { return months.count == 12 && !coversWholeDay ? "every day" : nil }
      if everyDayOfMonth { return week }
      if everyDayOfWeek { return month }
      return "\(month) that are \(week)"
    }
    return "\(month), and \(week)"
  }

  private var coversWholeDay: Bool { hours.count == 24 }

  private var monthPhrase: String? {
    months.count == 12 ? nil : "in " + Self.list(Self.spans(months.values) { Self.monthNames[$0 - 1] })
  }

  private var monthDayPhrases: String {
    var phrases: [String] = []
    if let step = Self.evenStep(days.days, 1...31), days.days.contains(1) {
      phrases.append("every \(Self.ordinal(step)) day from the 1st")
    } else if !days.days.isEmpty {
      phrases.append("on the \(Self.list(Self.spans(days.days.values, Self.ordinal))) of the month")
    }
    phrases += days.nearestWeekdays.values.map { "on the weekday nearest the \(Self.ordinal($0))" }
    if days.isLastDay { phrases.append("on the last day of the month") }
    if days.isLastWeekday { phrases.append("on the last weekday of the month") }
    return Self.list(phrases)
  }

  private var weekDayPhrases: String {
    var phrases: [String] = []
    if !weekdays.weekdays.isEmpty {
      phrases.append("on " + Self.list(Self.spans(weekdays.weekdays.values) { Self.weekdayNames[$0] }))
    }
    phrases += weekdays.lasts.values.map { "on the last \(Self.weekdayNames[$0]) of the month" }
    phrases += weekdays.ordinals.sorted { ($0.weekday, $0.position) < ($1.weekday, $1.position) }
      .map { "on the \(Self.ordinal($0.position)) \(Self.weekdayNames[$0.weekday]) of the month" }
    return Self.list(phrases)
  }

  /// The step of a set that runs evenly over its whole domain, where it has one of 2 or more and three values at least.
  private static func evenStep(_ set: ValueSet, _ domain: ClosedRange<Int>) -> Int? {
    let values = set.values
    guard values.count >= 2 else { return nil }
    let step = values[1] - values[0]
    guard step >= 2, zip(values, values.dropFirst()).allSatisfy({ $1 - $0 == step }),
      values[0] + step * values.count > domain.upperBound
    else { return nil }
    return step
  }

  /// Runs of three or more become "first to last".
  private static func spans(_ values: [Int], _ name: (Int) -> String) -> [String] {
    var result: [String] = []
    var rest = values[...]
    while let first = rest.first {
      var length = 1
      while length < rest.count, rest[rest.startIndex + length] == first + length { length += 1 }
      if length < 3 { length = 1 }
      result.append(length == 1 ? name(first) : "\(name(first)) to \(name(first + length - 1))")
      rest = rest.dropFirst(length)
    }
    return result
  }

  private static func list(_ items: [String]) -> String {
    guard let last = items.last, items.count > 1 else { return items.first ?? "" }
    return items.dropLast().joined(separator: ", ") + " and " + last
  }

  private static func ordinal(_ number: Int) -> String {
    let suffix =
      switch (number % 10, number % 100) {
      case (1, let tens) where tens != 11: "st"
      case (2, let tens) where tens != 12: "nd"
      case (3, let tens) where tens != 13: "rd"
      default: "th"
      }
    return "\(number)\(suffix)"
  }

  private static func plural(_ noun: String, _ count: Int) -> String { count == 1 ? noun : noun + "s" }
  private static func twoDigits(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
  private static func clock(_ hour: Int, _ minute: Int) -> String { "\(twoDigits(hour)):\(twoDigits(minute))" }
}
