import BackupCatalog
import Foundation
import TestSupport
import Testing

@testable import BackupDaemon

/// What is kept of the last backups, and what it is enough for.
@Suite struct StatisticsFileTests {
  private let folder = TemporaryFolder()
  private var file: StatisticsFile { StatisticsFile(state: folder.path) }

  /// The days on which something was told.
  private func told(_ days: Range<Int>, _ rows: (Int) -> Int64, _ change: (Int) -> Void = { _ in }) -> [Int] {
    days.filter { day in
      var new = BackupStatistics(
        backup: BackupID(database: "shop", time: Date(timeIntervalSince1970: 1_800_000_000 + Double(day) * 86400)),
        archiveBytes: 1000, storedBytes: 1000, seconds: 1, rows: ["t": rows(day)], schemaDigest: nil)
      let found = AnomalyRule().compare(new, with: file.read("shop"))
      new.isFlagged = found.contains(where: \.kind.isAlarming)
      file.append(new)
      change(day)
      return new.isFlagged
    }
  }

  private func losing(_ day: Int) -> Int64 { Int64(10_000 * pow(0.98, Double(day))) }

  /// Two percent each time, over more backups than are kept: told from the day on that a fifth has gone, until somebody accepts.
  @Test func littleByLittleOverManyBackups() {
    #expect(told(0..<22, losing) == Array(12..<22))
    #expect(file.read("shop").count <= 11)
    file.accept(BackupID(database: "shop", time: Date(timeIntervalSince1970: 1_800_000_000 + 21 * 86400)))
    // What was accepted is the measure: as much again has to go.
    #expect(told(22..<36, losing) == [33, 34, 35])
  }

  /// One that grows in between comes and goes: of a partitioned table the oldest part goes each week.
  @Test func rotationIsNoLoss() {
    #expect(told(0..<60) { day in Int64(10_000 - 250 * (day % 7)) } == [])
    #expect(told(60..<120) { day in Int64(10_000 - day + (day % 9 == 0 ? 500 : 0)) } == [])
  }

  /// A file of before knows no peaks: they begin with the oldest that it has.
  @Test func anOldFile() throws {
    #expect(told(0..<11, losing) == [])
    let path = folder.file("statistics/shop.json")
    let all = try #require(
      try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: path))) as? [[String: Any]])
    #expect(all.last?["peaks"] != nil)
    let old = all.map { $0.filter { $0.key != "peaks" } }
    try JSONSerialization.data(withJSONObject: old).write(to: URL(filePath: path))
    #expect(told(11..<16, losing) == [13, 14, 15])
  }
}
