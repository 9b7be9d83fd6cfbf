import Foundation
import Testing

@testable import BackupOperations

/// What the name of a dump's file tells of its age.
@Suite struct DumpNameTests {
  /// By this machine's zone.
  private static func local(
    _ year: Int, _ month: Int, _ day: Int, _ hour: Int = 0, _ minute: Int = 0, _ second: Int = 0
  )
    -> Date?
  {
    Calendar(identifier: .gregorian).date(
      from: DateComponents(year: year, month: month, day: day, hour: hour, minute: minute, second: second))
  }

  private static let names: [(String, Date?)] = [
    ("crm_2024-03-01_0200.sql", local(2024, 3, 1, 2, 0)), ("/var/2023-01-01/crm.sql", nil),
    ("crm-20240301.dump.gz", local(2024, 3, 1)), ("20240301020304.sql", local(2024, 3, 1, 2, 3, 4)),
    ("crm.2024.03.01T02:03:04.sql", local(2024, 3, 1, 2, 3, 4)), ("2024-02-29 23h59.sql", local(2024, 2, 29, 23, 59)),
    ("crm_2023-02-29.sql", nil), ("crm_2024-03-01_9999.sql", nil), ("crm_2024-13-01.sql", nil),
    ("order-1202403019.sql", nil), ("crm_v20.sql", nil), ("crm_2024-03.sql", nil), ("", nil),
    ("a_20240301_020000_b_20250101.sql", local(2024, 3, 1, 2)), ("crm_2024-03-01_12345.sql", local(2024, 3, 1)),
  ]

  @Test(arguments: names) func reads(_ name: String, _ time: Date?) {
    #expect(DumpName(name).time == time)
  }

  /// The file's own time is more exact, as long as it can be that of the dump.
  @Test func whichTimeCounts() throws {
    let time = try #require(Self.local(2024, 3, 1, 2))
    let midnight = try #require(Self.local(2024, 3, 1))
    let hour: TimeInterval = 3600
    let cases: [(String, TimeInterval, Date?)] = [
      ("crm_2024-03-01_0200.sql", hour, nil), ("crm_2024-03-01_0200.sql", 30 * hour, time),
      ("crm_2024-03-01_0200.sql", -hour, nil), ("crm_2024-03-01.sql", 30 * hour, nil),
      ("crm_2024-03-01.sql", 60 * hour, midnight), ("crm.sql", 60 * hour, nil),
    ]
    for (name, age, expected) in cases {
      let changed = time + age
      #expect(DumpName(name).taken(changed: changed) == expected ?? changed, "\(name), \(age)")
    }
  }
}
