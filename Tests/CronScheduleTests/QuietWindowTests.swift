import CronSchedule
import Foundation
import TestSupport
import Testing
import Units

@Suite struct QuietWindowTests {
  private func window(_ text: String) throws -> QuietWindow {
    try QuietWindow(parsing: text, zone: .utc) { $0 == "UTC" ? .utc : try? ZoneRules.system($0) }
  }

  @Test(arguments: [
    ("09:00-18:00", "2026-11-23T08:59:59Z", nil), ("09:00-18:00", "2026-11-23T09:00:00Z", "2026-11-23T18:00:00Z"),
    ("09:00-18:00", "2026-11-23T18:00:00Z", nil), ("22:00-06:00", "2026-11-23T23:00:00Z", "2026-11-24T06:00:00Z"),
    ("22:00-06:00", "2026-11-24T05:59:00Z", "2026-11-24T06:00:00Z"), ("22:00-06:00", "2026-11-24T06:00:00Z", nil),
    ("09:00-24:00", "2026-11-23T23:30:00Z", "2026-11-24T00:00:00Z"),
    // 2026-11-22 is a Sunday; a window that begins on Friday night ends on Saturday.
    ("MON-FRI 09:00-18:00", "2026-11-22T10:00:00Z", nil),
    ("MON-FRI 22:00-06:00", "2026-11-21T05:00:00Z", "2026-11-21T06:00:00Z"),
    ("MON-FRI 22:00-06:00", "2026-11-22T05:00:00Z", nil),
    ("SAT,SUN 00:00-12:00", "2026-11-22T05:00:00Z", "2026-11-22T12:00:00Z"),
    ("FRI-MON 09:00-10:00", "2026-11-22T09:30:00Z", "2026-11-22T10:00:00Z"),
    // Over a change of the clock, by the wall clock: Berlin skips 02:00 to 03:00 on 2026-03-29, and repeats it on 2026-10-25.
    ("01:00-04:00 Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T02:00:00Z"),
    ("01:00-02:30 Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
    ("01:00-04:00 Europe/Berlin", "2026-10-24T23:30:00Z", "2026-10-25T03:00:00Z"),
  ]) func ends(_ text: String, _ instant: String, _ end: String?) throws {
    #expect(try window(text).end(covering: #require(Date(rfc3339: instant)))?.rfc3339 == end)
  }

  /// Wherever it is asked, what it tells lies outside, or in the window's next part.
  @Test func theEndIsLater() throws {
    for text in [
      "01:30-02:30 Europe/Berlin", "22:00-03:00 America/New_York", "MON 00:00-24:00".replacing("24:00", with: "23:59"),
    ] {
      let window = try window(text)
      for minute in 0..<(14 * 1440) {
        let instant = Date(timeIntervalSince1970: 1_792_000_000 + Double(minute) * 60)
        if let end = window.end(covering: instant) { #expect(end > instant) }
      }
    }
  }

  @Test(arguments: ["09:00-18:00", "MON,TUE 22:00-06:00 Europe/Berlin", "09:00-24:00"]) func printsBack(_ text: String)
    throws
  {
    let window = try window(text)
    #expect(try self.window(window.description) == window)
  }

  @Test(arguments: [
    "", "9-18", "09:00", "09:00-09:00", "00:00-24:00", "25:00-26:00", "09:00-18:60", "FOO 09:00-18:00",
    "09:00-18:00 Nowhere/City",
    "09:00-18:00 UTC and more", "MON-TUE-WED 09:00-10:00",
  ]) func refusals(_ text: String) {
    #expect(throws: CronParseError.self) { try window(text) }
  }
}
