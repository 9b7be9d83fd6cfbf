package import BackupCatalog
package import Faults
import Foundation
import PostgresArchive
package import PostgresTools

/// Undoes the last restore of a database by the same swap: the kept one takes its place again, and the present one is kept. So a rollback
/// can be undone too.
package struct Rollback: Sendable {
  private let maintenance: ConnectionSettings
  private let context: OperationContext

  package init(on connection: ConnectionSettings, context: OperationContext) {
    maintenance = connection.maintenance
    self.context = context
  }

  /// The databases that restores have put aside on the server, the oldest first.
  package func kept() async throws(Fault) -> [KeptDatabase] {
    try await databases().compactMap(KeptDatabase.init).sorted { ($0.replaced, $0.name) < ($1.replaced, $1.name) }
  }

  /// Puts the database back that was kept last.
  package func run(_ live: String) async throws(Fault) -> RestoreOutcome {
    let databases = try await databases()
    let kept = databases.compactMap(KeptDatabase.init).filter { $0.live == live }
    guard let newest = kept.max(by: { ($0.replaced, $0.name) < ($1.replaced, $1.name) }) else {
      throw Fault(
        .rollbackMissing, "Nothing is kept of '\(live)': no restore has replaced it, or what it replaced is gone.",
        hint: "pgbackupctl status")
    }
    let now = context.now()
    let present = databases.first { $0.name == live }
    let names = RestoreNames(live: live, at: now, taken: Set(databases.map(\.name)))
    let original = KeptDatabase.originalComment(databases.first { $0.name == newest.name }?.comment)
    let result = try await DatabaseSwap(maintenance: maintenance).run(
      newest.name, to: live, keeping: present == nil ? nil : names.kept,
      comment: KeptDatabase.comment(live: live, at: now, before: present?.comment), newComment: .some(original))
    var outcome = RestoreOutcome(database: live)
    outcome.kept = present == nil ? nil : names.kept
    outcome.downtimeSeconds = result.seconds
    return outcome
  }

  /// Drops what was kept and is older than it has to be; returns the names.
  package func drop(olderThan limit: Duration) async throws(Fault) -> [String] {
    let now = context.now()
    let old = try await kept().filter { now.timeIntervalSince($0.replaced) > Double(limit.components.seconds) }
    return try await drop(old.map(\.name))
  }

  /// Drops what a restore of this database that died has left half-made, where nobody is connected to it; returns the names. One that it
  /// had no time to mark goes when it is an hour old.
  package func sweepUnfinished(of live: String) async throws(Fault) -> [String] {
    let now = context.now()
    let left = try await databases().filter { database in
      guard database.connections == 0, database.isOurs, let time = RestoreNames.workTime(database.name, of: live) else {
        return false
      }
      return database.comment?.hasPrefix(Preparation.unfinishedMark) ?? (now.timeIntervalSince(time) > 3600)
    }
    return try await drop(left.map(\.name))
  }

  /// Without FORCE: who looks into one of them today is not thrown out.
  private func drop(_ names: [String]) async throws(Fault) -> [String] {
    guard !names.isEmpty else { return [] }
    return try await PostgresSession.connect(maintenance).use { session throws(Fault) in
      for name in names { try await session.execute("DROP DATABASE \(SQLName.quoted(name))") }
      return names
    }
  }

  private func databases() async throws(Fault) -> [PostgresSession.DatabaseFacts] {
    try await PostgresSession.connect(maintenance).use { session throws(Fault) in
      try await session.inventory().databases
    }
  }
}
