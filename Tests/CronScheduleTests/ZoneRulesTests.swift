import CronSchedule
import Foundation
import TestSupport
import Testing

/// Offsets against `date`, which reads the same zone files by the C library.
@Suite(.waits) struct ZoneRulesTests {
  /// Instants that matter: odd times long ago, around changes, and far beyond the file's own transitions.
  private static let instants: [Int] =
    [-5_000_000_000, -2_000_000_000, -1, 0, 1_700_000_000, 1_900_000_000, 4_000_000_000, 9_000_000_000]
    + stride(from: 1_577_836_800, to: 1_640_995_200, by: 86400 * 3 + 3607)

  @Test(arguments: [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Africa/Casablanca", "Asia/Gaza",
    "Pacific/Apia", "America/Sao_Paulo", "Europe/Dublin", "Antarctica/Troll", "Asia/Tehran", "Pacific/Chatham",
  ]) func offsetsAgreeWithDate(_ name: String) throws {
    let zone = try ZoneRules.system(name)
    let folder = TemporaryFolder()
    let list = try folder.write("instants", Self.instants.map { "@\($0)\n" }.joined())
    let told = try Shell.must("env", ["TZ=\(name)", "date", "-f", list, "+%::z"])
    for (instant, text) in zip(Self.instants, told.split(separator: "\n")) {
      let parts = text.dropFirst().split(separator: ":").compactMap { Int($0) }
      let expected = (parts[0] * 3600 + parts[1] * 60 + parts[2]) * (text.hasPrefix("-") ? -1 : 1)
      #expect(zone.offset(at: instant) == expected, "\(name) at \(instant)")
    }
  }

  /// A file that is cut off or changed is an error, or other offsets; never a trap.
  @Test func damagedFiles() throws {
    let file = [UInt8](try Data(contentsOf: URL(filePath: "/usr/share/zoneinfo/Europe/Berlin")))
    for length in 0..<file.count {
      #expect(throws: ZoneFileError.self) { try ZoneRules(identifier: "x", file: Array(file[..<length])) }
    }
    var generator = SystemRandomNumberGenerator()
    for position in file.indices {
      var changed = file
      changed[position] = UInt8.random(in: 0...255, using: &generator)
      let zone = try? ZoneRules(identifier: "x", file: changed)
      for instant in Self.instants { _ = zone?.offset(at: instant) }
    }
    #expect(throws: ZoneFileError.self) { try ZoneRules(identifier: "x", file: Array("no zone".utf8)) }
  }
}
