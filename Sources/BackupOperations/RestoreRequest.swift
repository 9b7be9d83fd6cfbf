package import BackupCatalog
package import Foundation
package import PostgresTools
package import Quoting
import Units

/// What is to be restored, where to and how.
package struct RestoreRequest: Sendable {
  package enum Target: Sendable, Equatable {
    /// Beside the live database, then into its place; the old one is kept.
    case swap
    /// Into a new database of this name; the live one is not touched.
    case beside(String)
    /// The live database makes room first: for servers that can't hold two.
    case inPlace
  }

  /// Where chosen tables go, when not into a database of their own.
  package enum TableTarget: Sendable, Equatable {
    /// Into a new schema of the live database.
    case schema(String?)
    /// Instead of the rows that the live tables have now.
    case replaceRows
  }

  package var backup: BackupID
  package var database: String
  package var target = Target.swap
  /// Only these tables, and all of these schemas; everything where both are empty.
  package var tables: [String] = []
  package var schemas: [String] = []
  package var tableTarget = TableTarget.schema(nil)
  package var options = RestoreProgram.Options()
  /// Creates roles and tablespaces that are missing.
  package var withGlobals = false
  /// Whether those roles get their passwords: a drill's need none, and code of the backup could read the hashes.
  package var withPasswords = true
  /// Connections that load at once.
  package var jobs = 4
  /// Goes on where the server does not take an object, and tells each; what is not whole takes nobody's place.
  package var keepsGoing = false
  /// Goes on where something but rows can't be restored, and tells it: for what is put back after a restore in place has failed.
  package var isLenient = false
  /// The server can reach nobody: a materialized view over another server can't be refreshed there, and is named instead.
  package var isConfined = false
  /// Whether ANALYZE runs before the proof.
  package var makesStatistics = true
  /// Whether materialized views are filled.
  package var fillsViews = true

  package init(backup: BackupID, database: String) {
    self.backup = backup
    self.database = database
  }

  var errors: RestoreProgram.ErrorRule { isLenient ? .ignore : keepsGoing ? .skip : .stop }

  package var isPartial: Bool { !tables.isEmpty || !schemas.isEmpty }

  /// The name that the database has in the end.
  func finalName(of live: String) -> String { if case .beside(let name) = target { name } else { live } }

  /// Whether what tables need comes along, and of schemas all that is in them: where nothing of it is there yet.
  var bringsAll: Bool { if case .beside = target { true } else { false } }
}

/// Names that a restore gives to databases, from the live one's: PostgreSQL cuts names at 63 bytes, and so are these made to fit.
package struct RestoreNames: Sendable, Equatable {
  package let live: String
  private let stamp: String

  /// - Parameter taken: the databases that there are: the names are those of the first second from `time` on that has none of them.
  package init(live: String, at time: Date, taken: Set<ExactText>) {
    var time = time
    var names = Self(live: live, stamp: time.stamp.lowercased())
    while [names.work, names.kept, names.incomplete].contains(where: { taken.contains(ExactText($0)) }) {
      time += 1
      names = Self(live: live, stamp: time.stamp.lowercased())
    }
    self = names
  }

  private init(live: String, stamp: String) {
    self.live = live
    self.stamp = stamp
  }

  /// While it is loaded.
  package var work: String { name("restore") }
  /// The one that was replaced.
  package var kept: String { name("before") }
  /// One that is loaded, and lacks objects that could not be made.
  package var incomplete: String { name("incomplete") }
  /// Of chosen tables in the live database.
  package var schema: String { "restored_\(stamp)" }
  package var safetySchema: String { "replaced_\(stamp)" }

  /// Whether a restore of `live` gives this name to what it loads.
  static func isWork(_ name: String, of live: String) -> Bool { isOne(name, "restore", of: live, \.work) }

  /// Whether a restore gives this name to what it loads, whatever database it restores.
  static func isWork(_ name: String) -> Bool { isOne(name, "restore", \.work) }

  /// Whether a restore or a rollback of `live` gives this name to what it puts aside.
  static func isKept(_ name: String, of live: String) -> Bool { isOne(name, "before", of: live, \.kept) }

  /// Whether a restore of `live` gives this name to what it leaves beside it because something lacks.
  static func isIncomplete(_ name: String, of live: String) -> Bool {
    isOne(name, "incomplete", of: live, \.incomplete)
  }

  /// - Parameter live: any database where nil.
  private static func isOne(
    _ name: String, _ what: String, of live: String? = nil, _ made: (RestoreNames) -> String
  ) -> Bool {
    guard let range = name.lastRange(ofBytes: "_\(what)_"),
      let time = Date(stamp: name[range.upperBound...].uppercased())
    else { return false }
    let live = live ?? String(name[..<range.lowerBound])
    return made(RestoreNames(live: live, stamp: time.stamp.lowercased())).isExactly(name)
  }

  /// Whether a restore has made the database, and has not given it a name of its own yet, or has put it aside: its name
  /// and its comment say so. A comment alone, which every owner writes, hides no database from a pattern.
  package static func isOurs(_ name: String, comment: String?) -> Bool {
    guard let comment else { return false }
    if comment.starts(withBytes: Preparation.unfinishedMark) { return isWork(name) }
    if comment.starts(withBytes: Preparation.incompleteMark) { return isOne(name, "incomplete", \.incomplete) }
    return KeptMark(of: name, comment: comment) != nil
  }

  private func name(_ what: String) -> String {
    let suffix = "_\(what)_\(stamp)"
    var base = live
    while base.utf8.count + suffix.utf8.count > 63 { base.unicodeScalars.removeLast() }
    return base + suffix
  }
}
