package import Foundation

/// Texts of an instant. Both forms are in UTC and have a resolution of one second, which is the resolution of backup ids.
extension Date {
  /// `2026-11-22T18:15:00Z` (RFC 3339).
  package var rfc3339: String {
    let part = utcParts
    return
      "\(pad(part.year, 4))-\(pad(part.month))-\(pad(part.day))T\(pad(part.hour)):\(pad(part.minute)):\(pad(part.second))Z"
  }

  /// `2026-11-22T18:15:00.042Z`: RFC 3339 with milliseconds, for what is measured rather than named.
  package var rfc3339Milliseconds: String {
    let milliseconds = Int((timeIntervalSince1970 * 1000).rounded(.down))
    return rfc3339.dropLast() + "." + pad(milliseconds.flooredRemainder(1000), 3) + "Z"
  }

  /// `20261122T181500Z` (ISO 8601 basic form), the time part of a backup id.
  package var stamp: String {
    let part = utcParts
    return
      "\(pad(part.year, 4))\(pad(part.month))\(pad(part.day))T\(pad(part.hour))\(pad(part.minute))\(pad(part.second))Z"
  }

  /// Parses what `stamp` prints; nil for anything else, a day that does not exist included.
  package init?(stamp: String) {
    let text = Array(stamp.utf8)
    guard text.count == 16, text[8] == UInt8(ascii: "T"), text[15] == UInt8(ascii: "Z") else { return nil }
    func number(_ range: Range<Int>) -> Int? {
      text[range].reduce(0) { value, byte in
        guard let value, byte >= 48, byte <= 57 else { return nil }
        return value * 10 + Int(byte - 48)
      }
    }
    guard let year = number(0..<4), let month = number(4..<6), let day = number(6..<8), let hour = number(9..<11),
      let minute = number(11..<13), let second = number(13..<15)
    else { return nil }
    let date = Date(
      timeIntervalSince1970: Double(
        CivilDay(year: year, month: month, day: day).number * 86400 + hour * 3600 + minute * 60 + second))
    guard date.stamp == stamp else { return nil }
    self = date
  }

  /// Parses RFC 3339 with `Z` or a numeric offset, fractions of a second included.
  package init?(rfc3339 text: String) {
    var compact = text.filter { $0 != "-" && $0 != ":" }
    var offset = 0
    if let sign = text.dropFirst(10).lastIndex(where: { $0 == "+" || $0 == "-" }) {
      let zone = text[text.index(after: sign)...].filter { $0 != ":" }
      guard zone.utf8.count == 4, zone.utf8.allSatisfy(\.isDigit), let value = Int(zone) else { return nil }
      offset = (value / 100 * 3600 + value % 100 * 60) * (text[sign] == "-" ? -1 : 1)
      compact = text[..<sign].filter { $0 != "-" && $0 != ":" } + "Z"
    }
    var fraction = 0.0
    if let point = compact.firstIndex(of: ".") {
      // Digits alone: with an exponent it would be no fraction, and as large as no clock shows.
      let digits = compact[compact.index(after: point)...].dropLast()
      guard !digits.isEmpty, digits.utf8.allSatisfy(\.isDigit), let value = Double("0.\(digits)") else { return nil }
      fraction = value
      compact = compact[..<point] + "Z"
    }
    guard let local = Date(stamp: String(compact.map { $0 == " " ? "T" : $0 })) else { return nil }
    self = local.addingTimeInterval(fraction - Double(offset))
  }

  /// The instant without its fraction of a second.
  package var wholeSecond: Date { Date(timeIntervalSince1970: timeIntervalSince1970.rounded(.down)) }

  private var utcParts: (year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
    let seconds = Int(timeIntervalSince1970.rounded(.down))
    let (days, rest) = (seconds.flooredQuotient(86400), seconds.flooredRemainder(86400))
    let day = CivilDay(number: days)
    return (day.year, day.month, day.day, rest / 3600, rest / 60 % 60, rest % 60)
  }
}

/// A value with leading zeros.
private func pad(_ value: Int, _ width: Int = 2) -> String {
  let digits = String(value)
  return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

extension UInt8 {
  fileprivate var isDigit: Bool { self >= 48 && self <= 57 }
}
