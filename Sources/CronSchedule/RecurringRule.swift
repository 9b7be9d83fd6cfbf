import Units

/// The rule for all years to come, as a zone file's footer has it: POSIX's TZ string, `CET-1CEST,M3.5.0,M10.5.0/3` (POSIX.1, chapter 8;
/// hours from -167 to 167 as RFC 9636 section 3.3.1 allows).
struct RecurringRule: Sendable, Hashable {
  /// A change of the clock within a year: a day, and a time of day in seconds.
  struct Change: Sendable, Hashable {
    enum Day: Sendable, Hashable {
      /// 1...365, February 29 never counted.
      case julian(Int)
      /// 0...365, February 29 counted.
      case ofYear(Int)
      /// The `week`-th `weekday` of a month; 5 is the last.
      case weekday(month: Int, week: Int, weekday: Int)
    }
    var day: Day
    var time = 7200

    /// Wall-clock seconds, counted as if the zone were UTC.
    func wallClock(in year: Int) -> Int { number(in: year) * 86400 + time }

    private func number(in year: Int) -> Int {
      let newYear = CivilDay(year: year, month: 1, day: 1).number
      switch day {
      case .ofYear(let offset): return newYear + offset
      case .julian(let day):
        let isLeap = CivilDay(year: year, month: 2, day: 1).daysInMonth == 29
        return newYear + day - 1 + (isLeap && day >= 60 ? 1 : 0)
      case .weekday(let month, let week, let weekday):
        let first = CivilDay(year: year, month: month, day: 1)
        let day = 1 + (weekday - first.weekday).flooredRemainder(7) + (week - 1) * 7
        return first.number + (day > first.daysInMonth ? day - 7 : day) - 1
      }
    }
  }

  private let standard: Int
  private let saving: (offset: Int, start: Change, end: Change)?

  func offset(at instant: Int) -> Int {
    guard let saving else { return standard }
    let year = CivilDay(number: (instant + standard).flooredQuotient(86400)).year
    let start = saving.start.wallClock(in: year) - standard
    let end = saving.end.wallClock(in: year) - saving.offset
    // On the southern half saving begins late in the year and ends early in it.
    let isSaving = start < end ? start <= instant && instant < end : instant < end || start <= instant
    return isSaving ? saving.offset : standard
  }

  init(parsing text: String) throws(ZoneFileError) {
    var parser = Parser(rest: Array(text.utf8)[...])
    try parser.name()
    standard = -(try parser.time())
    guard !parser.isAtEnd else {
      saving = nil
      return
    }
    try parser.name()
    let offset = parser.next == UInt8(ascii: ",") ? standard + 3600 : -(try parser.time())
    let start = try parser.change()
    let end = try parser.change()
    guard parser.isAtEnd else { throw ZoneFileError("its last line goes on too long") }
    saving = (offset, start, end)
  }

  static func == (left: RecurringRule, right: RecurringRule) -> Bool {
    left.standard == right.standard && left.saving?.offset == right.saving?.offset
      && left.saving?.start == right.saving?.start && left.saving?.end == right.saving?.end
  }

  func hash(into hasher: inout Hasher) { hasher.combine(standard) }

  private struct Parser {
    var rest: ArraySlice<UInt8>

    var isAtEnd: Bool { rest.isEmpty }
    var next: UInt8? { rest.first }

    /// `CET`, or `<+03>`.
    mutating func name() throws(ZoneFileError) {
      if take("<") {
        guard let end = rest.firstIndex(of: UInt8(ascii: ">")) else { throw malformed }
        rest = rest[(end + 1)...]
      } else {
        let letters = rest.prefix { ($0 | 32) >= 97 && ($0 | 32) <= 122 }
        guard letters.count >= 3 else { throw malformed }
        rest = rest.dropFirst(letters.count)
      }
    }

    /// `[+-]hh[:mm[:ss]]` in seconds.
    mutating func time() throws(ZoneFileError) -> Int {
      let isNegative = take("-")
      if !isNegative { _ = take("+") }
      var seconds = try number(upTo: 167) * 3600
      if take(":") { seconds += try number(upTo: 59) * 60 }
      if take(":") { seconds += try number(upTo: 59) }
      return isNegative ? -seconds : seconds
    }

    mutating func change() throws(ZoneFileError) -> Change {
      guard take(",") else { throw malformed }
      var change: Change
      if take("M") {
        let month = try number(upTo: 12)
        guard take(".") else { throw malformed }
        let week = try number(upTo: 5)
        guard take("."), month >= 1, week >= 1 else { throw malformed }
        change = Change(day: .weekday(month: month, week: week, weekday: try number(upTo: 6)))
      } else if take("J") {
        let day = try number(upTo: 365)
        guard day >= 1 else { throw malformed }
        change = Change(day: .julian(day))
      } else {
        change = Change(day: .ofYear(try number(upTo: 365)))
      }
      if take("/") { change.time = try time() }
      return change
    }

    private mutating func number(upTo limit: Int) throws(ZoneFileError) -> Int {
      let digits = rest.prefix { $0 >= 48 && $0 <= 57 }
      guard !digits.isEmpty, digits.count <= 3 else { throw malformed }
      rest = rest.dropFirst(digits.count)
      let value = digits.reduce(0) { $0 * 10 + Int($1 - 48) }
      guard value <= limit else { throw malformed }
      return value
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
      guard let first = rest.first, UInt32(first) == character.value else { return false }
      rest = rest.dropFirst()
      return true
    }

    private var malformed: ZoneFileError { ZoneFileError("its last line is no rule") }
  }
}
