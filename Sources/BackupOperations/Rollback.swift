package import ArtifactFormat
package import BackupCatalog
package import Faults
import Foundation
import PostgresArchive
package import PostgresTools
package import Quoting

/// Undoes the last restore of a database by the same swap: the kept one takes its place again, and the present one is kept. So a rollback
/// can be undone too.
package struct Rollback: Sendable {
  private let maintenance: ConnectionSettings
  private let context: OperationContext
  private let witnesses: KeptWitnesses
  private let signingKey: SigningKey?

  /// - Parameters:
  ///   - witnesses: who says that a database was put aside.
  ///   - signingKey: signs the mark of the one that this puts aside.
  package init(
    on connection: ConnectionSettings, context: OperationContext, witnesses: KeptWitnesses = .init(),
    signingKey: SigningKey? = nil
  ) {
    maintenance = connection.maintenance
    self.context = context
    self.witnesses = witnesses
    self.signingKey = signingKey
  }

  /// The databases of the server that bear the mark of those that were put aside, the oldest first; also those that are
  /// in doubt.
  package func kept() async throws(Fault) -> [KeptDatabase] {
    KeptDatabase.all(among: try await databases(), witnesses, at: context.now())
  }

  package func isThere(_ live: String) async throws(Fault) -> Bool {
    try await databases().contains { $0.name.isExactly(live) }
  }

  /// Puts the database back that was kept last.
  ///
  /// - Parameters:
  ///   - chosen: this one of those that bear the mark, whatever there is against it: somebody has looked at it.
  ///   - command: how that is asked for, for hints.
  package func run(
    _ live: String, choosing chosen: String? = nil, command: String? = nil
  ) async throws(Fault) -> RestoreOutcome {
    let databases = try await databases()
    let kept = KeptDatabase.all(among: databases, witnesses, at: context.now()).filter { $0.live.isExactly(live) }
    let newest = try choose(kept, live, chosen, command ?? "pgbackupctl rollback \(shell: live)")
    let chosen = databases.first { $0.name.isExactly(newest.name) }
    guard let chosen else { throw Fault(.rollbackMissing, "'\(newest.name)' is gone.", hint: "pgbackupctl status") }
    var outcome = try await swap(
      chosen, to: live, among: databases, comment: KeptMark.originalComment(chosen.comment))
    outcome.replaced = newest.replaced
    outcome.putBack = newest.name
    return outcome
  }

  /// Puts a database that lacks objects into the place of the live one, which is kept.
  ///
  /// - Parameter identifier: its OID: another one of its name is none that a restore has made.
  package func swapIn(_ name: String, _ identifier: UInt32, for live: String) async throws(Fault) -> RestoreOutcome {
    let databases = try await databases()
    guard let new = databases.first(where: { $0.name.isExactly(name) }), new.identifier == identifier else {
      throw Fault(
        .rollbackMissing, "'\(name)' is not the database that a restore has left beside '\(live)'.",
        cause: "it was dropped, or made anew", hint: "pgbackupctl status")
    }
    let comment = try await PostgresSession.connect(maintenance).use { session throws(Fault) in
      try await session.query(
        "SELECT pg_catalog.shobj_description($1::pg_catalog.oid, 'pg_database')", ["\(identifier)"]
      ).first?[0]
    }
    return try await swap(new, to: live, among: databases, comment: Preparation.archivedComment(behind: comment))
  }

  private func swap(
    _ new: PostgresSession.DatabaseFacts, to live: String, among databases: [PostgresSession.DatabaseFacts],
    comment: String?
  ) async throws(Fault) -> RestoreOutcome {
    let present = databases.first { $0.name.isExactly(live) }
    for one in [present, new] {
      if let fault = one?.heldByPrepared { throw fault }
    }
    let now = context.now()
    let names = RestoreNames(live: live, at: now, taken: databases.map(\.name).exact)
    let aside = KeptAside(
      name: names.kept, live: live, time: now, before: present?.comment, key: signingKey,
      identifier: present?.identifier ?? 0)
    let result = try await DatabaseSwap(maintenance: maintenance).run(
      new.name, new.identifier, to: live, keeping: present == nil ? nil : aside, newComment: .some(comment))
    var outcome = RestoreOutcome(database: live)
    outcome.kept = present == nil ? nil : names.kept
    outcome.downtimeSeconds = result.seconds
    return outcome
  }

  /// The newest that is what its mark says. What others have marked is passed over; what may be the newest after all is
  /// not.
  private func choose(
    _ kept: [KeptDatabase], _ live: String, _ chosen: String?, _ command: String
  ) throws(Fault) -> KeptDatabase {
    if let chosen {
      guard let one = kept.first(where: { $0.name.isExactly(chosen) }) else {
        throw Fault(
          .rollbackMissing, "'\(chosen)' is no database that was kept of '\(live)'.",
          cause: kept.isEmpty ? nil : "those are " + kept.map { "'\($0.name)'" }.joined(separator: ", "),
          hint: "pgbackupctl status")
      }
      return one
    }
    let newest = kept.last { $0.doubt == nil }
    let doubtful = kept.last { one in
      if case .unknown = one.doubt { newest.map { $0.replaced < one.replaced } ?? true } else { false }
    }
    if let doubtful, let doubt = doubtful.doubt {
      throw Fault(
        .rollbackRefused,
        "Nothing was done: '\(doubtful.name)' may be what was kept of '\(live)' last, and may be not.",
        cause: doubt.reason + (newest.map { "; the newest that is known is '\($0.name)'" } ?? ""),
        hint: "look into it, then: \(command) --kept \(shell: doubtful.name)")
    }
    if let newest { return newest }
    let strangers = kept.compactMap { one in one.doubt.map { "'\(one.name)': \($0.reason)" } }
    throw Fault(
      .rollbackMissing, "Nothing is kept of '\(live)': no restore has replaced it, or what it replaced is gone.",
      cause: strangers.isEmpty ? nil : strangers.joined(separator: "\n"), hint: "pgbackupctl status")
  }

  /// What became of databases that were to be dropped: one that can't be stops none of the others.
  package struct Removal: Sendable {
    package var dropped: [String] = []
    package var failed: [ExactText: Fault] = [:]

    package init() {}
  }

  /// Drops what was kept of these databases and is older than it has to be: only what is surely that. Others on the
  /// server are not ours.
  package func drop(
    olderThan limit: Duration, of isOurs: @Sendable (String) -> Bool
  ) async throws(Fault) -> Removal {
    let now = context.now()
    let old = try await kept().filter {
      $0.doubt == nil && isOurs($0.live) && now.timeIntervalSince($0.replaced) > Double(limit.components.seconds)
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
          removal.failed[ExactText(name)] = Fault(
            error.code, "'\(name)', which a restore has left, can't be dropped.", cause: error.cause ?? error.message,
            hint: "end what is connected to it or subscribed in it; it is tried again every hour")
        }
      }
    }
    return removal
  }

  private func databases() async throws(Fault) -> [PostgresSession.DatabaseFacts] {
    try await PostgresSession.connect(maintenance, answeringWithin: .seconds(60)).use { session throws(Fault) in
      try await session.inventory(withComment: KeptMark.begin).databases
    }
  }
}
