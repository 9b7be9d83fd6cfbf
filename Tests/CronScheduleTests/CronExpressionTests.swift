import CronSchedule
import Foundation
import TestSupport
import Testing
import Units

@Suite struct CronExpressionTests {
  static let sentences: [(String, String)] = [
    ("* * * * *", "Every minute"), ("*/15 * * * *", "Every 15 minutes"), ("0 2 * * *", "At 02:00, every day"),
    ("30 1,13 * * MON-FRI", "At 01:30 and 13:30, on Monday to Friday"), ("0 3 * * 0", "At 03:00, on Sunday"),
    ("0 4 1 * *", "At 04:00, on the 1st of the month"), ("0 4 L * *", "At 04:00, on the last day of the month"),
    ("0 4 LW * *", "At 04:00, on the last weekday of the month"),
    ("0 4 15W 1-6 *", "At 04:00, on the weekday nearest the 15th, in January to June"),
    ("0 4 * * 5L", "At 04:00, on the last Friday of the month"),
    ("0 4 * * MON#2", "At 04:00, on the 2nd Monday of the month"),
    ("0 4 13 * 5", "At 04:00, on the 13th of the month, and on Friday"),
    ("15 */6 * * *", "Every 6 hours at 15 minutes past, every day"), ("@weekly", "At 00:00, on Sunday"),
    ("5 * * * *", "At 5 minutes past every hour"),
  ]
  @Test(arguments: sentences) func saysWhatItMeans(_ text: String, _ sentence: String) throws {
    #expect(try CronExpression(parsing: text).sentence == sentence)
  }

  static let normalForms: [(String, String)] = [
    ("00 02 * * SUN", "0 2 * * 0"), ("0 0 * * 7", "0 0 * * 0"), ("0-59 * * * *", "0-59 * * * *"),
    ("1,2,3,10 * * JAN,feb *", "1-3,10 * * 1,2 *"), ("0-30/10 1 * * *", "0-30/10 1 * * *"), ("@hourly", "0 * * * *"),
    ("0 0 L,15W,1 * 5L,1#2", "0 0 1,15W,L * 5L,1#2"), ("*/5 * */2 * *", "*/5 * */2 * *"),
    ("  0\t0 * * *  ", "0 0 * * *"),
  ]
  @Test(arguments: normalForms) func printsANormalForm(_ text: String, _ normal: String) throws {
    let expression = try CronExpression(parsing: text)
    #expect(expression.description == normal)
    #expect(try CronExpression(parsing: normal) == expression)
  }

  static let mistakes: [(String, String, Int)] = [
    ("0 25 * * *", "25 is no hour (0 to 23)", 3), ("0 0 * * FUN", "'FUN' is no day of week", 9),
    ("0 0 1,,2 * *", "the day of month list has an empty item", 7),
    ("0 9-5 * * *", "the range '9-5' runs backwards", 3),
    ("*/0 * * * *", "the step '0' is not a number from 1 on", 1),
    ("5/15 * * * *", "a step needs a range: write '5-59/15'", 1),
    ("0 0 30 2 *", "this date never comes", 5), ("0 0 31 4,6 *", "this date never comes", 5),
    ("0 0 * * 1#6", "'1#6' asks for a position that is not 1 to 5", 9),
    ("@reboot", "@reboot is no schedule", 1), ("0 0 * *", "found 4", 1), ("0 0 * * * *", "found 6", 11),
  ]
  @Test(arguments: mistakes) func tellsTheMistakeAndItsPlace(_ text: String, _ message: String, _ column: Int) throws {
    let error = #expect(throws: CronParseError.self) { try CronExpression(parsing: text) }
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    #expect(error?.column == column)
  }

  /// A leap day on a given weekday comes, if rarely.
  @Test func rareDatesAreFound() throws {
    let zone = ZoneRules.utc
    let schedule = ZonedSchedule(try CronExpression(parsing: "0 0 29 2 */7"), in: zone)
    let next = schedule.next(after: try #require(Date(rfc3339: "2026-11-22T00:00:00Z")))
    #expect(next?.rfc3339 == "2032-02-29T00:00:00Z")
    #expect(schedule.previous(before: try #require(next))?.rfc3339 == "2004-02-29T00:00:00Z")
  }
}

/// cron(8) of Debian, "Debian specific": a job at a fixed time that falls into the skipped hour runs soon after the change; one
/// in the repeated hour is not run again; jobs with a wildcard in hour or minute follow the new time at once; changes of
/// three hours or more are corrections and make up for nothing.
@Suite struct DaylightSavingTests {
  static let cases: [(String, String, String, [String])] = [
    // Berlin, 2026-03-29: 02:00 becomes 03:00.
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
    ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]),
    ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]),
    ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-30T00:00:00Z", "2026-03-30T00:30:00Z"]),
    // Berlin, 2026-10-25: 03:00 becomes 02:00.
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
    (
      "*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
      [
        "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z",
        "2026-10-26T01:00:00Z",
      ]
    ),
    // Asked in the second pass of the repeated hour: the fixed time has been.
    ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", ["2026-10-26T01:30:00Z"]),
    // Half an hour, on Lord Howe.
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]),
    // Midnight does not exist in Beirut on 2025-03-30.
    ("0 0 * * *", "Asia/Beirut", "2025-03-29T12:00:00Z", ["2025-03-29T22:00:00Z", "2025-03-30T21:00:00Z"]),
    // Samoa skipped 2011-12-30 whole: a correction of the date, nothing is made up for.
    ("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"]),
  ]
  @Test(arguments: cases)
  func changesOfTheClock(_ text: String, _ zone: String, _ start: String, _ expected: [String]) throws {
    let schedule = ZonedSchedule(try CronExpression(parsing: text), in: try ZoneRules.system(zone))
    var instant = try #require(Date(rfc3339: start))
    for due in expected {
      let next = try #require(schedule.next(after: instant))
      #expect(next.rfc3339 == due)
      instant = next
    }
  }
}
