package import Foundation
import Glibc
import Quoting

/// The time that a dump's file name tells: `crm_2024-03-01_0200.sql`, `crm-20240301.dump`.
package struct DumpName: Sendable, Equatable {
  /// By this machine's zone; the day's begin where the name has no hour.
  package let time: Date?
  private let hasHour: Bool

  package init(_ path: String) {
    let name = path.split(atByte: UInt8(ascii: "/")).last ?? ""
    let pattern =
      /(?:^|[^0-9])((?:19|20)[0-9]{2})[-_.]?([0-9]{2})[-_.]?([0-9]{2})(?:[-_.Tt ]?([0-9]{2})[-_.:h]?([0-9]{2})(?:[-_.:m]?([0-9]{2}))?)?(?![0-9])/
    guard let found = name.firstMatch(of: pattern) else {
      (time, hasHour) = (nil, false)
      return
    }
    let parts = [found.1, found.2, found.3] + [found.4, found.5, found.6].map { $0 ?? "0" }
    time = Self.time(parts.compactMap { Int32($0) })
    hasHour = found.4 != nil
  }

  /// When the dump was made: by the name where the file is younger than it can be by that, because somebody has copied it; else by the
  /// file's own time, which is more exact.
  package func taken(changed: Date) -> Date {
    guard let time else { return changed }
    return changed.timeIntervalSince(time) > (hasHour ? 1 : 2) * 86400 ? time : changed
  }

  /// Nil where there is no such day or hour.
  private static func time(_ numbers: [Int32]) -> Date? {
    guard numbers.count == 6, numbers[0] >= 1996, numbers[3] < 24, numbers[4] < 60, numbers[5] < 60 else { return nil }
    var broken = tm()
    (broken.tm_year, broken.tm_mon, broken.tm_mday) = (numbers[0] - 1900, numbers[1] - 1, numbers[2])
    (broken.tm_hour, broken.tm_min, broken.tm_sec) = (numbers[3], numbers[4], numbers[5])
    broken.tm_isdst = -1
    let seconds = mktime(&broken)
    // February 31 would be a day in March.
    guard seconds >= 0, broken.tm_mon == numbers[1] - 1, broken.tm_mday == numbers[2] else { return nil }
    return Date(timeIntervalSince1970: Double(seconds))
  }
}
