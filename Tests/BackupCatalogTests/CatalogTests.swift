import BackupCatalog
import Faults
import Foundation
import Testing
import Units

@Suite struct BackupLayoutTests {
  static let names: [(String, String)] = [
    ("shop", "shop"), ("my shop", "my%20shop"), ("../etc", "%2E./etc".replacing("/", with: "%2F")),
    (".hidden", "%2Ehidden"),
    ("a/b", "a%2Fb"), ("Füße", "F%C3%BC%C3%9Fe"), ("100%", "100%25"), ("server.db", "server.db"),
  ]
  @Test(arguments: names) func anyDatabaseNameIsOneFolder(_ name: String, _ folder: String) throws {
    let layout = BackupLayout(id: BackupID(database: name, time: Date(timeIntervalSince1970: 0)), type: "daily")
    #expect(layout.folder == "\(folder)/daily/19700101T000000Z")
    #expect(BackupLayout(folder: layout.folder) == layout)
  }

  @Test(arguments: [
    "", "a/b", "a/b/c", "a/b/20260230T000000Z", "a/b/20261122T000000Z/c", "a%2/b/20261122T000000Z",
    "%61/b/20261122T000000Z",
  ])
  func otherFoldersAreNotOurs(_ folder: String) { #expect(BackupLayout(folder: folder) == nil) }
}

@Suite struct SelectorTests {
  let now = Date(timeIntervalSince1970: 1_800_000_000)
  private var all: Catalog {
    catalog([
      backup("daily", daysOld: 3, now: now), backup("weekly", daysOld: 2, now: now),
      backup("daily", daysOld: 1, now: now),
      backup("daily", daysOld: 0.5, now: now, isGood: false),
      backup("daily", daysOld: 1.5, database: "other", now: now),
    ])
  }

  private func age(_ selector: String, _ databases: [String] = ["shop", "other"]) throws -> Double {
    let found = try all.select(try BackupSelector(parsing: selector), databases: databases)
    return now.timeIntervalSince(found.id.time) / 86400
  }

  @Test func selectorsFind() throws {
    #expect(try age("shop/latest") == 1)
    #expect(try age("shop/oldest") == 3)
    #expect(try age("shop/latest:weekly") == 2)
    #expect(try age("shop/at:\(now.addingTimeInterval(-2.5 * 86400).rfc3339)") == 3)
    #expect(try age("shop/\(now.addingTimeInterval(-0.5 * 86400).stamp)") == 0.5)
  }

  @Test func theDatabaseMayBeLeftOutWhereThereIsOne() throws {
    let one = catalog([backup("daily", daysOld: 3, now: now)])
    #expect(try one.select(try BackupSelector(parsing: "latest"), databases: ["shop"]).id == one.backups[0].id)
    #expect(throws: Fault.self) { try age("latest") }
  }

  /// A time without a zone is by the operator's clock; where that has two answers or none, what came later is not in it.
  @Test(arguments: [
    ("at:2026-11-20 14:00", "at:2026-11-20T13:00:00Z"), ("shop/at:2026-07-01T14:00:30", "shop/at:2026-07-01T12:00:30Z"),
    // 02:30 comes twice, at 00:30Z and 01:30Z.
    ("at:2026-10-25 02:30", "at:2026-10-25T00:30:00Z"), ("at:2026-10-25 03:00", "at:2026-10-25T02:00:00Z"),
    // 02:30 does not come: the clock jumps at 01:00Z.
    ("at:2026-03-29 02:30", "at:2026-03-29T00:30:00Z"), ("at:2026-03-29 03:00", "at:2026-03-29T01:00:00Z"),
    ("at:2026-11-20 14:00Z", "at:2026-11-20 14:00Z"), ("at:2026-02-30 14:00", "at:2026-02-30 14:00"),
    ("shop/latest", "shop/latest"), ("at:2026-11-20", "at:2026-11-20"),
    ("chat:2026-11-20 14:00", "chat:2026-11-20 14:00"),
  ])
  func timesByTheClock(_ written: String, _ meant: String) throws {
    let zone = try #require(TimeZone(identifier: "Europe/Berlin"))
    #expect(BackupSelector.absolute(written, in: zone) == meant)
  }

  @Test(arguments: ["2026-11-20T13:00Z", "2026-11-20 13:00Z", "2026-11-20 14:00+01:00", "2026-11-20T14:00:00.5+01:00"])
  func timesWithTheirZone(_ written: String) throws {
    guard case .at(let date) = try BackupSelector(parsing: "at:\(written)").choice else {
      Issue.record("\(written) is a time")
      return
    }
    #expect(date.wholeSecond.rfc3339 == "2026-11-20T13:00:00Z")
  }

  static let wrong: [(String, FaultCode)] = [
    ("shop/newest", .usage), ("shop/at:yesterday", .usage), ("shop/at:", .usage), ("", .usage),
    ("shop/latest:monthly", .backupMissing),
    ("nothing/latest", .backupMissing), ("shop/20000101T000000Z", .backupMissing),
  ]
  @Test(arguments: wrong) func wrongSelectorsAreFaults(_ selector: String, _ code: FaultCode) {
    let fault = #expect(throws: Fault.self) { try age(selector) }
    #expect(fault?.code == code)
    #expect(fault?.hint != nil)
  }
}

@Suite struct RecordTests {
  let manifest = backup("daily", daysOld: 0, now: Date(timeIntervalSince1970: 1_800_000_000)).manifest

  @Test func recordsReadBack() throws {
    let bytes = try manifest.encoded()
    #expect(try Manifest(decoding: bytes, from: "test") == manifest)
    let text = String(decoding: bytes, as: UTF8.self)
    #expect(text.contains(#""format" : "pgbackupd-manifest""#))
    #expect(text.contains(#""version" : "1.0""#))
    #expect(text.hasSuffix("}\n"))
  }

  @Test func aNewerMajorVersionIsRefusedAndANewerMinorIsNot() throws {
    let text = String(decoding: try manifest.encoded(), as: UTF8.self)
    let minor = text.replacing(#""version" : "1.0""#, with: #""version" : "1.9", "something new": [1]"#)
    #expect(try Manifest(decoding: Array(minor.utf8), from: "test") == manifest)
    let fault = #expect(throws: Fault.self) {
      try Manifest(
        decoding: Array(text.replacing(#""version" : "1.0""#, with: #""version" : "2.0""#).utf8), from: "test")
    }
    #expect(fault?.code == .formatTooNew)
  }

  @Test(arguments: [
    "", "{}", "[]", #"{"format":"pgbackupd-contents","version":"1.0"}"#,
    #"{"format":"pgbackupd-manifest","version":"1.0"}"#,
  ])
  func damagedRecordsAreFaults(_ text: String) {
    let fault = #expect(throws: Fault.self) { try Manifest(decoding: Array(text.utf8), from: "test") }
    #expect(fault?.code == .manifestInvalid)
  }

  /// Every fault code maps to an exit status, and no two share their text.
  @Test func faultCodesAreDistinct() {
    #expect(Set(FaultCode.allCases.map(\.rawValue)).count == FaultCode.allCases.count)
    #expect(FaultCode.allCases.allSatisfy { $0.exitCode != .done })
  }
}

/// Whoever can write into a store can write a manifest: what can't be meant is refused, and nothing traps.
@Suite struct HostileRecordTests {
  @Test(arguments: [
    ("\"size\" : 1", "\"size\" : 9223372036854775807"), ("\"size\" : 1", "\"size\" : -1"),
    ("\"name\" : \"contents\"", "\"name\" : \"manifest.json\""), ("\"name\" : \"contents\"", "\"name\" : \"../x\""),
    ("\"name\" : \"contents\"", "\"name\" : \"artifact\""), ("\"rows\" : 3", "\"rows\" : 9223372036854775807"),
    ("\"keepSeconds\" : 60", "\"keepSeconds\" : 9223372036854775807"), ("\"keepSeconds\" : 60", "\"keepSeconds\" : -5"),
  ]) func isRefused(_ honest: String, _ hostile: String) throws {
    let sum = String(repeating: "a", count: 64)
    let time = Date(timeIntervalSince1970: 1_800_000_000)
    let manifest = Manifest(
      id: BackupID(database: "db", time: time), type: "daily", label: nil, job: nil, run: "r", keepSeconds: 60,
      started: time, finished: time, host: "h", software: "s", dumpProgram: "d",
      server: .init(
        version: "15", versionNumber: 150000, systemIdentifier: nil, database: "db", encoding: "UTF8", databaseBytes: 2,
        isStandby: false),
      artifact: .init(
        file: .init(name: "artifact", size: 1, sha256: sum), archiveBytes: 2, compression: "zstd", level: 3),
      contents: .init(name: "contents", size: 1, sha256: sum), globals: nil,
      totals: .init(tables: 1, rows: 3, rowBytes: 4, largeObjects: 0))
    let text = String(decoding: try manifest.encoded(), as: UTF8.self)
    #expect(try Manifest(decoding: Array(text.utf8), from: "x") == manifest)
    let changed = text.replacing(honest, with: hostile)
    try #require(changed != text)
    #expect(throws: Fault.self) { try Manifest(decoding: Array(changed.utf8), from: "x") }
  }
}
