/// The five fields of a cron expression, with their bounds and names as crontab(5) has them.
enum CronFieldKind: String, Sendable, CaseIterable {
  case minute = "minute"
  case hour = "hour"
  case dayOfMonth = "day of month"
  case month = "month"
  case dayOfWeek = "day of week"

  /// The values that may be written. 7 is a second name of Sunday.
  var bounds: ClosedRange<Int> {
    switch self {
    case .minute: 0...59
    case .hour: 0...23
    case .dayOfMonth: 1...31
    case .month: 1...12
    case .dayOfWeek: 0...7
    }
  }

  /// The values that exist: what `*` stands for.
  var domain: ClosedRange<Int> { self == .dayOfWeek ? 0...6 : bounds }

  /// Three-letter names, the first for the lowest value.
  var names: [String] {
    switch self {
    case .month: ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
    case .dayOfWeek: ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
    default: []
    }
  }
}

/// A set of small numbers as one machine word: all that a field needs, and quick to search.
struct ValueSet: Sendable, Hashable {
  private(set) var bits: UInt64 = 0

  init() {}
  init(_ range: ClosedRange<Int>) { for value in range { insert(value) } }

  var isEmpty: Bool { bits == 0 }
  var count: Int { bits.nonzeroBitCount }
  var values: [Int] { (0..<64).filter(contains) }

  func contains(_ value: Int) -> Bool { bits >> UInt64(value) & 1 == 1 }
  mutating func insert(_ value: Int) { bits |= 1 << UInt64(value) }
  mutating func formUnion(_ other: ValueSet) { bits |= other.bits }

  /// The smallest member that is `value` or more.
  func first(from value: Int) -> Int? {
    guard value < 64 else { return nil }
    let rest = bits & (UInt64.max << UInt64(max(0, value)))
    return rest == 0 ? nil : rest.trailingZeroBitCount
  }

  /// The largest member that is `value` or less.
  func last(upTo value: Int) -> Int? {
    guard value >= 0 else { return nil }
    let rest = value >= 63 ? bits : bits & ((1 << UInt64(value + 1)) - 1)
    return rest == 0 ? nil : 63 - rest.leadingZeroBitCount
  }
}
