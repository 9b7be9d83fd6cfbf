package import Faults

/// A transaction that holds one exported snapshot: pg_dump, the checks and later the proof all see the same rows.
///
/// The transaction is idle while the dump runs; its connection must stay open until pg_dump has imported the snapshot and
/// done, or the server forgets it.
package struct Snapshot: Sendable {
  package let identifier: String
  private let session: PostgresSession

  /// Begins the transaction. Locks are waited for no longer than `lockWait` milliseconds.
  package static func export(on session: PostgresSession, lockWaitMilliseconds: Int64) async throws(Fault) -> Snapshot {
    for setting in [
      "lock_timeout = \(lockWaitMilliseconds)", "statement_timeout = 0", "idle_in_transaction_session_timeout = 0",
    ] {
      _ = try await session.query("SET \(setting)")
    }
    _ = try await session.query("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    guard let identifier = try await session.query("SELECT pg_catalog.pg_export_snapshot()").first?[0] else {
      throw Fault(.databaseQuery, "The server exported no snapshot.")
    }
    return Snapshot(identifier: identifier, session: session)
  }

  /// Ends the transaction. Throws where it has not lived on until now: a dump that used the snapshot is then not to be trusted.
  package func end() async throws(Fault) {
    _ = try await session.query("SELECT 1")
    _ = try await session.query("COMMIT")
  }
}

/// The session settings that decide how values read as text. pg_dump sets some of them itself and leaves others to the
/// server; a proof must use the same, so they are fixed here and written into the contents.
package enum TextSettings {
  package static let all: [(name: String, value: String)] = [
    ("TimeZone", "UTC"), ("DateStyle", "ISO"), ("IntervalStyle", "postgres"), ("bytea_output", "hex"),
    ("extra_float_digits", "3"), ("quote_all_identifiers", "off"),
  ]

  /// What pg_dump takes from the server and we leave at that: the money in an archive has to read as the server writes it, or
  /// `pg_restore` alone could not load it there again. It goes into the contents, and a proof sets the same where the server can.
  package static let ofServer = "lc_monetary"

  /// For libpq's `options` parameter, behind what the user has set there.
  package static func options(after existing: String?) -> String {
    ([existing].compactMap { $0 } + all.map { "-c \($0.name)=\($0.value)" }).joined(separator: " ")
  }
}
