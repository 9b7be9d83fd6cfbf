package import BackupCatalog
package import Faults
import Foundation
import PostgresArchive
package import PostgresTools
import Quoting

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

  package func isThere(_ live: String) async throws(Fault) -> Bool {
    try await databases().contains { $0.name == live }
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
    for name in [live, newest.name] {
      if let fault = databases.first(where: { $0.name == name })?.heldByPrepared { throw fault }
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
    outcome.replaced = newest.replaced
    return outcome
  }

  /// What became of databases that were to be dropped: one that can't be stops none of the others.
  package struct Removal: Sendable {
    package var dropped: [String] = []
    package var failed: [String: Fault] = [:]

    package init() {}
  }

  /// Drops what was kept of these databases and is older than it has to be. Others on the server are somebody else's.
  package func drop(
    olderThan limit: Duration, of isOurs: @Sendable (String) -> Bool
  ) async throws(Fault) -> Removal {
    let now = context.now()
    let old = try await kept().filter {
      isOurs($0.live) && now.timeIntervalSince($0.replaced) > Double(limit.components.seconds)
    }
    return try await drop(old.map(\.name))
  }

  /// Drops what a restore of this database that died has left half-made, where nobody is connected to it: what carries the mark, and
  /// nothing by its name alone.
  package func sweepUnfinished(of live: String) async throws(Fault) -> Removal {
    let left = try await databases().filter { database in
      database.connections == 0 && database.isOurs && RestoreNames.isWork(database.name, of: live)
        && database.comment?.starts(withBytes: Preparation.unfinishedMark) == true
    }
    return try await drop(left.map(\.name), withSubscriptions: true)
  }

  /// Without FORCE: who looks into one of them today is not thrown out.
  ///
  /// - Parameter withSubscriptions: where they are copies that nobody has enabled. Those of what was kept may be at work.
  private func drop(_ names: [String], withSubscriptions: Bool = false) async throws(Fault) -> Removal {
    var removal = Removal()
    guard !names.isEmpty else { return removal }
    try await PostgresSession.connect(maintenance).use { session throws(Fault) in
      for name in names {
        do throws(Fault) {
          try await session.drop(name, endingOthers: false, withSubscriptions: withSubscriptions)
          removal.dropped.append(name)
        } catch {
          removal.failed[name] = Fault(
            error.code, "'\(name)', which a restore has left, can't be dropped.", cause: error.cause ?? error.message,
            hint: "end what is connected to it or subscribed in it; it is tried again every hour")
        }
      }
    }
    return removal
  }

  private func databases() async throws(Fault) -> [PostgresSession.DatabaseFacts] {
    try await PostgresSession.connect(maintenance).use { session throws(Fault) in
      try await session.inventory().databases
    }
  }
}
