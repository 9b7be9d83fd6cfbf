extension CronExpression: CustomStringConvertible {
  /// The normal form: numbers instead of names, lists in order, runs of three or more as ranges, even steps as steps.
  package var description: String {
    [
      Self.text(minutes, .minute, startsWithStar: minuteIsWildcard),
      Self.text(hours, .hour, startsWithStar: hourIsWildcard),
      dayOfMonthText,
      Self.text(months, .month, startsWithStar: months == ValueSet(CronFieldKind.month.domain)),
      dayOfWeekText,
    ].joined(separator: " ")
  }

  private var dayOfMonthText: String {
    var items: [String] = []
    if days.isStar || !days.days.isEmpty {
      items.append(Self.text(days.days, .dayOfMonth, startsWithStar: days.isStar))
    }
    items += days.nearestWeekdays.values.map { "\($0)W" }
    if days.isLastDay { items.append("L") }
    if days.isLastWeekday { items.append("LW") }
    return items.joined(separator: ",")
  }

  private var dayOfWeekText: String {
    var items: [String] = []
    if weekdays.isStar || !weekdays.weekdays.isEmpty {
      items.append(Self.text(weekdays.weekdays, .dayOfWeek, startsWithStar: weekdays.isStar))
    }
    items += weekdays.lasts.values.map { "\($0)L" }
    items += weekdays.ordinals.sorted { ($0.weekday, $0.position) < ($1.weekday, $1.position) }
      .map { "\($0.weekday)#\($0.position)" }
    return items.joined(separator: ",")
  }

  /// A star at the start changes what a field means, so the normal form keeps it. The part of the set that no
  /// `*/step` gives is written out behind it: `*/20,7`.
  private static func text(_ set: ValueSet, _ kind: CronFieldKind, startsWithStar: Bool) -> String {
    guard startsWithStar else { return listText(set.values) }
    let domain = kind.domain
    for step in 1...64 {
      let stepped = stride(from: domain.lowerBound, through: domain.upperBound, by: step)
      guard stepped.allSatisfy(set.contains) else { continue }
      let covered = Set(stepped)
      let rest = set.values.filter { !covered.contains($0) }
      let star = step == 1 ? "*" : "*/\(step)"
      return rest.isEmpty ? star : star + "," + listText(rest)
    }
    return listText(set.values)
  }

  private static func listText(_ values: [Int]) -> String {
    var items: [String] = []
    var rest = values[...]
    while let first = rest.first {
      let step = rest.count > 1 ? rest[rest.startIndex + 1] - first : 1
      var length = 1
      while length < rest.count, rest[rest.startIndex + length] == first + step * length { length += 1 }
      // A step pays from four values on, a plain run from three.
      if length >= (step == 1 ? 3 : 4) {
        items.append("\(first)-\(first + step * (length - 1))" + (step == 1 ? "" : "/\(step)"))
      } else {
        length = 1
        items.append("\(first)")
      }
      rest = rest.dropFirst(length)
    }
    return items.joined(separator: ",")
  }
}
