import Faults
import PostgresTools

/// Row-level security that binds the tables' owner too (`FORCE ROW LEVEL SECURITY`), in a database that nobody but a restore has yet: it
/// rests while rows are compared by a role that can't bypass it, as its owner could at any time.
struct ForcedRowSecurity: Sendable {
  let session: LoadSession

  func resting<Value>(during work: () async throws -> Value) async throws -> Value {
    let tables = try await session.connect().use { connection throws(Fault) in
      // As SQL names: the session has no search path.
      let tables = try await connection.query(
        """
        SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relrowsecurity AND c.relforcerowsecurity AND pg_catalog.row_security_active(c.oid) ORDER BY 1
        """
      ).compactMap { $0[0] }
      for table in tables { try await connection.execute("ALTER TABLE \(table) NO FORCE ROW LEVEL SECURITY") }
      return tables
    }
    guard !tables.isEmpty else { return try await work() }
    do {
      let value = try await work()
      try await force(tables)
      return value
    } catch {
      // Where it goes on in spite of this, nobody gets it without.
      try await force(tables)
      throw error
    }
  }

  private func force(_ tables: [String]) async throws(Fault) {
    try await session.connect().use { connection throws(Fault) in
      for table in tables { try await connection.execute("ALTER TABLE \(table) FORCE ROW LEVEL SECURITY") }
    }
  }
}
