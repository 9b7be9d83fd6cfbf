import BackupCatalog
import ControlAPI
import Foundation
import Glibc

/// What the last backups of each database were like, in the state directory: the next one is compared with them without reading an
/// encrypted one. Lost, it begins anew.
struct StatisticsFile: Sendable {
  private let folder: String

  /// So many of each database.
  private static let kept = 10

  init(state: String) { folder = state + "/statistics" }

  /// The oldest first.
  func read(_ database: String) -> [BackupStatistics] {
    guard let data = try? Data(contentsOf: URL(filePath: path(database))) else { return [] }
    return (try? ControlJSON.decode([BackupStatistics].self, from: data)) ?? []
  }

  func append(_ new: BackupStatistics) {
    // Before the oldest one goes, so that the others know what it knew.
    var all = (read(new.backup.database).filter { $0.backup != new.backup } + [new]).withPeaks
    // The last one that nobody doubts is the measure, however old it is.
    let measure = all.last { !$0.isFlagged }
    all = all.suffix(Self.kept)
    if let measure, !all.contains(measure) { all.insert(measure, at: 0) }
    write(all, new.backup.database)
  }

  /// What was flagged up to this backup is right, as somebody says.
  func accept(_ backup: BackupID) {
    var all = read(backup.database)
    for position in all.indices where all[position].backup <= backup {
      (all[position].isFlagged, all[position].isUncompared) = (false, nil)
    }
    if let position = all.lastIndex(where: { $0.backup <= backup }) { all[position].isBaseline = true }
    write(all, backup.database)
  }

  private func write(_ all: [BackupStatistics], _ database: String) {
    mkdir(folder, 0o700)
    // It can be lost without harm: no failure of it may fail a backup.
    guard let data = try? ControlJSON.encode(all) else { return }
    try? data.write(to: URL(filePath: path(database)), options: .atomic)
  }

  private func path(_ database: String) -> String { "\(folder)/\(BackupLayout.folderName(ofDatabase: database)).json" }
}
