import BackupConfiguration
import CronSchedule
import Faults
import Foundation
import TestSupport
import Testing

@Suite struct SystemZonesTests {
  /// A zone directory with two zones, and a local-time link to the first.
  private func makeZones() throws -> (SystemZones, TemporaryFolder) {
    let folder = TemporaryFolder()
    let files = FileManager.default
    try files.createDirectory(atPath: folder.file("zoneinfo/Europe"), withIntermediateDirectories: true)
    for zone in ["Europe/Berlin", "Europe/London"] {
      try files.copyItem(atPath: "/usr/share/zoneinfo/\(zone)", toPath: folder.file("zoneinfo/\(zone)"))
    }
    try files.createSymbolicLink(
      atPath: folder.file("localtime"), withDestinationPath: folder.file("zoneinfo/Europe/Berlin"))
    return (
      SystemZones(directory: folder.file("zoneinfo"), localTime: folder.file("localtime"), variable: nil), folder
    )
  }

  @Test func theLocalZoneHasItsName() throws {
    let (zones, folder) = try makeZones()
    #expect(zones.local().identifier == "Europe/Berlin")
    #expect(zones.local().offset(at: 1_700_000_000) == 3600)
    let named = SystemZones(
      directory: folder.file("zoneinfo"), localTime: folder.file("localtime"), variable: ":Europe/London")
    #expect(named.local().identifier == "Europe/London")
    let unknown = SystemZones(directory: folder.file("zoneinfo"), localTime: "/nonexistent", variable: nil)
    #expect(unknown.local() == .utc)
  }

  /// The package manager brings new rules, or the administrator another zone: both are seen without a restart.
  @Test func changesAreSeen() throws {
    let (zones, folder) = try makeZones()
    #expect(try zones.zone("Europe/Berlin").offset(at: 1_700_000_000) == 3600)
    // As dpkg does it: a new file renamed over the old one.
    try FileManager.default.copyItem(
      atPath: folder.file("zoneinfo/Europe/London"), toPath: folder.file("zoneinfo/Europe/Berlin.new"))
    #expect(rename(folder.file("zoneinfo/Europe/Berlin.new"), folder.file("zoneinfo/Europe/Berlin")) == 0)
    #expect(try zones.zone("Europe/Berlin").offset(at: 1_700_000_000) == 0)
    try FileManager.default.removeItem(atPath: folder.file("localtime"))
    try FileManager.default.createSymbolicLink(
      atPath: folder.file("localtime"), withDestinationPath: folder.file("zoneinfo/Europe/London"))
    #expect(zones.local().identifier == "Europe/London")
  }

  @Test(arguments: ["Europe/Paris", "../Europe/Berlin", "/etc/passwd", "", "Europe", "Europe/.", "Europe//Berlin"])
  func noZone(_ name: String) throws {
    let (zones, _) = try makeZones()
    #expect(throws: Fault.self) { try zones.zone(name) }
  }
}
