package import Faults
package import Foundation
import Quoting
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

  /// Whether nothing that is older than the backup it finds can change what it finds.
  package var isOfNewest: Bool {
    guard database != nil else { return false }
    return switch choice {
    case .exact, .at: true
    // Its proof may lie in a ledger.
    case .latest(let type): type != "proved"
    case .oldest: false
    }
  }

  package init(parsing text: String) throws(Fault) {
    let slash = text.utf8.lastIndex(of: UInt8(ascii: "/"))
    database = slash.map { String(text[..<$0]) }
    let word = String(text[(slash.map(text.utf8.index(after:)) ?? text.startIndex)...])
    let parts = word.split(atByte: UInt8(ascii: ":"), maxSplits: 1).map(String.init)
    switch (parts.first, parts.count > 1 ? parts[1] : nil) {
    case ("latest", let type): choice = .latest(type: type)
    case ("oldest", let type): choice = .oldest(type: type)
    case ("at", let time?):
      guard let date = Self.time(time) else {
        throw Fault(
          .usage, "'\(time)' is not a time with a zone; write it as 2026-11-20T14:00:00Z.", hint: "pgbackupctl list")
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

  /// The selector with its time in UTC, where it names one by a clock in `zone`: `at:2026-11-20 14:00`. Everything else stays as it is.
  ///
  /// What came later must not be in it: of an hour that the clock goes through twice the first one is meant, and a time that it jumps over
  /// counts from before the jump.
  package static func absolute(_ text: String, in zone: TimeZone) -> String {
    let slash = text.utf8.lastIndex(of: UInt8(ascii: "/"))
    let word = text[(slash.map(text.utf8.index(after:)) ?? text.startIndex)...]
    guard word.starts(withBytes: "at:"), let parts = Parts(word.dropFirst(3)), parts.zone.isEmpty,
      let clock = Date(rfc3339: parts.text(zone: "Z"))
    else { return text }
    let offsets = [-86_400.0, 86_400].map { Double(zone.secondsFromGMT(for: clock.addingTimeInterval($0))) }
    let instants = offsets.map { (date: clock.addingTimeInterval(-$0), offset: $0) }.sorted { $0.date < $1.date }
    let real = instants.first { Double(zone.secondsFromGMT(for: $0.date)) == $0.offset } ?? instants[0]
    return text[..<word.startIndex] + "at:" + real.date.rfc3339
  }

  private static func time(_ text: String) -> Date? {
    if let date = Date(rfc3339: text) { return date }
    guard let parts = Parts(text[...]), !parts.zone.isEmpty else { return nil }
    return Date(rfc3339: parts.text(zone: parts.zone))
  }

  /// `2026-11-20T14:00:00Z`, also with a space for the `T`, without seconds, and without the zone.
  private struct Parts {
    let day: Substring
    let time: Substring
    let zone: Substring

    init?(_ text: Substring) {
      guard let match = text.wholeMatch(of: /(\d{4}-\d\d-\d\d)[ Tt](\d\d:\d\d)(:\d\d)?(|[Zz]|[+-]\d\d:\d\d)/) else {
        return nil
      }
      (day, zone) = (match.1, match.4)
      time = match.2 + (match.3 ?? ":00")
    }

    func text(zone: Substring) -> String { "\(day)T\(time)\(zone.uppercased())" }
  }
}

extension Catalog {
  /// The one backup that a selector names. `databases` are the configured ones, for a selector without one.
  package func select(_ selector: BackupSelector, databases: [String]) throws(Fault) -> Backup {
    let database: String
    if let named = selector.database {
      database = named
    } else if let only = (databases + backups.map(\.id.database)).exact.only {
      database = only.text
    } else {
      throw Fault(.usage, "Several databases are configured: write DATABASE/… in front.", hint: "pgbackupctl list")
    }
    let candidates = backups.filter { $0.id.database.isExactly(database) }
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
        hint: "pgbackupctl list \(shell: database)")
    }
    return found
  }
}

extension Set {
  /// The element, where there is one alone.
  fileprivate var only: Element? { count == 1 ? first : nil }
}
