package import Faults
package import Foundation
import Units

/// How a person names a backup: `db/20261122T020000Z`, `db/latest`, `db/oldest`, `db/latest:weekly`,
/// `db/at:2026-11-20T14:00Z` (the newest at or before that time). The database may be left out where there is only one.
package struct BackupSelector: Sendable, Equatable {
  package enum Choice: Sendable, Equatable {
    case exact(Date)
    case latest(type: String?)
    case oldest(type: String?)
    case at(Date)
  }

  package let database: String?
  package let choice: Choice

  package init(parsing text: String) throws(Fault) {
    let slash = text.lastIndex(of: "/")
    database = slash.map { String(text[..<$0]) }
    let word = String(text[(slash.map(text.index(after:)) ?? text.startIndex)...])
    let parts = word.split(separator: ":", maxSplits: 1).map(String.init)
    switch (parts.first, parts.count > 1 ? parts[1] : nil) {
    case ("latest", let type): choice = .latest(type: type)
    case ("oldest", let type): choice = .oldest(type: type)
    case ("at", let time?):
      guard let date = Self.time(time) else {
        throw Fault(.usage, "'\(time)' is not a time; write it as 2026-11-20T14:00:00Z.", hint: "pgbackupctl list")
      }
      choice = .at(date)
    case (_, nil):
      guard let date = Date(stamp: word) else { fallthrough }
      choice = .exact(date)
    default:
      throw Fault(
        .usage,
        "'\(text)' names no backup: write DATABASE/YYYYMMDDTHHMMSSZ, DATABASE/latest, latest:TYPE, oldest or at:TIME.",
        hint: "pgbackupctl list")
    }
  }

  /// A time needs its zone; seconds may be left out.
  private static func time(_ text: String) -> Date? {
    if let date = Date(rfc3339: text) { return date }
    guard text.hasSuffix("Z") else { return nil }
    return Date(rfc3339: text.dropLast() + ":00Z")
  }
}

extension Catalog {
  /// The one backup that a selector names. `databases` are the configured ones, for a selector without one.
  package func select(_ selector: BackupSelector, databases: [String]) throws(Fault) -> Backup {
    let database: String
    if let named = selector.database {
      database = named
    } else if let only = Set(databases).union(backups.map(\.id.database)).first,
      Set(databases).union(backups.map(\.id.database)).count == 1
    {
      database = only
    } else {
      throw Fault(.usage, "Several databases are configured: write DATABASE/… in front.", hint: "pgbackupctl list")
    }
    let candidates = backups.filter { $0.id.database == database }
    let found: Backup? =
      switch selector.choice {
      case .exact(let time): candidates.first { $0.id.time == time }
      // What a restore in place has put aside is what one wanted to be rid of: it has to be named.
      case .latest(nil): candidates.last { $0.isGood && $0.manifest.type != "pre-restore" }
      case .latest(let type?): candidates.last { $0.isGood && $0.manifest.type == type }
      case .oldest(let type): candidates.first { $0.isGood && (type == nil || $0.manifest.type == type) }
      case .at(let time): candidates.last { $0.isGood && $0.id.time <= time }
      }
    guard let found else {
      let damaged = candidates.count { !$0.isGood }
      throw Fault(
        .backupMissing,
        "There is no such backup of '\(database)' (\(candidates.count) are in the catalog, \(damaged) of them damaged).",
        hint: "pgbackupctl list \(database)")
    }
    return found
  }
}
