import Faults
import Foundation
import TestSupport
import Testing

@testable import Units

@Suite struct DurationTests {
  static let valid: [(String, Int64, String)] = [
    ("0s", 0, "0s"), ("90s", 90, "1m30s"), ("15m", 900, "15m"), ("36h", 129_600, "1d12h"), ("7d", 604_800, "7d"),
    ("2w", 1_209_600, "14d"), ("1d12h", 129_600, "1d12h"), ("1w1d1h1m1s", 694_861, "8d1h1m1s"),
  ]
  @Test(arguments: valid) func reads(_ text: String, _ seconds: Int64, _ normal: String) throws {
    let duration = try #require(Duration(parsing: text))
    #expect(duration == .seconds(seconds))
    #expect(duration.configurationText == normal)
    #expect(Duration(parsing: normal) == duration)
  }

  @Test(arguments: ["", "7", "d", "7 d", "-7d", "1h1d", "1d1d", "7D", "1.5h", "9999999999999999999s", "٣d"])
  func refuses(_ text: String) { #expect(Duration(parsing: text) == nil) }

  static let spoken: [(Duration, String)] = [
    (.milliseconds(420), "0.4s"), (.seconds(59), "59s"), (.seconds(3600), "1h"), (.seconds(90_061), "1d 1h"),
    (.seconds(86_460), "1d 1m"), (.seconds(725), "12m 5s"),
  ]
  @Test(arguments: spoken) func speaks(_ duration: Duration, _ text: String) { #expect(duration.spoken == text) }
}

@Suite struct ByteCountTests {
  static let valid: [(String, Int64)] = [
    ("0", 0), ("4096", 4096), ("16MiB", 16 << 20), ("1.5GB", 1_500_000_000), ("1K", 1024), ("2TiB", 2 << 40), ("7B", 7),
  ]
  @Test(arguments: valid) func reads(_ text: String, _ bytes: Int64) {
    #expect(ByteCount(parsing: text)?.bytes == bytes)
  }

  @Test(arguments: ["", "MiB", "-1", "+1", "1 MiB", "nan", "inf", "1e300", "12XB"])
  func refuses(_ text: String) { #expect(ByteCount(parsing: text) == nil) }

  static let printed: [(Int64, String)] = [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 * 1024, "10 KiB"), (1_048_575, "1.0 MiB"),
    (5_583_457_485, "5.2 GiB"),
  ]
  @Test(arguments: printed) func prints(_ bytes: Int64, _ text: String) {
    #expect(ByteCount(bytes).description == text)
  }
}

@Suite struct InstantTests {
  @Test func stampsReadBack() throws {
    for seconds in [0.0, 951_782_400, 1_700_000_000, 4_102_444_799, -1] {
      let date = Date(timeIntervalSince1970: seconds)
      #expect(Date(stamp: date.stamp) == date)
      #expect(Date(rfc3339: date.rfc3339) == date)
    }
    #expect(Date(timeIntervalSince1970: 0).stamp == "19700101T000000Z")
    #expect(Date(timeIntervalSince1970: 951_782_400).rfc3339 == "2000-02-29T00:00:00Z")
  }

  @Test(arguments: ["", "20260230T000000Z", "20261122T250000Z", "20261122T181500", "2026-11-22", "20261122t181500Z"])
  func wrongStampsAreRefused(_ text: String) { #expect(Date(stamp: text) == nil) }

  @Test func offsetsAndFractions() {
    #expect(Date(rfc3339: "2026-11-22T02:00:00+01:00") == Date(rfc3339: "2026-11-22T01:00:00Z"))
    #expect(Date(rfc3339: "2026-11-22T02:00:00.25Z")?.rfc3339Milliseconds == "2026-11-22T02:00:00.250Z")
    #expect(Date(rfc3339: "2026-11-22 02:00:00-05:30") == Date(rfc3339: "2026-11-22T07:30:00Z"))
  }

  /// A store's listing with such a time would have ended the process where it was printed: the fraction was infinite.
  @Test(arguments: [
    "2026-11-22T02:00:00.9e999Z", "2026-11-22T02:00:00.5e3Z", "2026-11-22T02:00:00.Z", "2026-11-22T02:00:00.1_0Z",
    "2026-11-22T02:00:00.0x1Z", "2026-11-22T02:00:00.infZ", "2026-11-22T02:00:00++123", "2026-11-22T02:00:00+-123",
  ])
  func onlyDigitsMakeAFractionOrAnOffset(_ text: String) { #expect(Date(rfc3339: text) == nil) }

  /// Against Foundation's calendar, day by day over four centuries and more.
  @Test func civilDaysAgreeWithFoundation() {
    var calendar = Calendar(identifier: .gregorian)
    calendar.timeZone = .gmt
    for number in stride(from: -140_000, to: 150_000, by: 97) {
      let day = CivilDay(number: number)
      let parts = calendar.dateComponents(
        [.year, .month, .day, .weekday, .era], from: Date(timeIntervalSince1970: Double(number) * 86400))
      guard parts.era == 1 else { continue }
      #expect((day.year, day.month, day.day) == (parts.year ?? 0, parts.month ?? 0, parts.day ?? 0))
      #expect(day.weekday + 1 == parts.weekday)
      #expect(day.number == number)
    }
  }
}

@Suite struct SecretTests {
  @Test func aSecretDoesNotShow() {
    let secret = Secret("hunter2")
    var dumped = ""
    dump(["password": secret], to: &dumped)
    for text in ["\(secret)", String(describing: secret), String(reflecting: secret), dumped] {
      #expect(!text.contains("hunter2"))
    }
    #expect(secret.revealed == "hunter2")
    #expect(secret == Secret("hunter2") && secret != Secret("hunter3") && Secret("").revealed == "")
  }

  @Test func aKeyIsErasedInItsPlace() {
    let key = SecretBytes([1, 2, 3])
    #expect(key.copy == [1, 2, 3] && key == SecretBytes([1, 2, 3]) && "\(key)" == "•••")
    key.erase()
    #expect(key.copy == [0, 0, 0])
  }
}

@Suite(.waits) struct ShellWordTests {
  static let words = [
    "shop", "shop/20261122T000000Z", "my shop", "o'hara", "", "$(reboot)", "a;b", "`x`", "a\nb", "größe", "--help",
    "~root", "a*", "!!", "#",
  ]

  /// The shell itself is asked. Control characters are written as `$'…'`, which dash does not know.
  @Test(arguments: words) func theShellReadsOneWord(_ text: String) throws {
    let shell = text.utf8.contains { $0 < 32 } ? "/bin/bash" : "/bin/sh"
    #expect(try Shell.must(shell, ["-c", "printf '%s|' \(shell: text)"]) == text + "|")
  }

  @Test func whatIsPlainStaysSo() {
    #expect("pgbackupctl show \(shell: "shop/20261122T000000Z")" == "pgbackupctl show shop/20261122T000000Z")
    #expect("pgbackupctl drill \(shell: "my shop")" == "pgbackupctl drill 'my shop'")
  }
}
