import Faults
import PostgresArchive
import PostgresTools

/// Planner statistics, without which the first queries after the swap are planned blindly.
extension Preparation {
  /// Analyzes a restored database. A table that the server can't analyze (it has a foreign table among its children, or
  /// an extended statistics object whose expression fails) costs its own statistics and nothing else.
  ///
  /// - Returns: the tables without statistics, as `schema.table`, each with the server's words.
  func analyze(_ name: String) async throws(Fault) -> [String] {
    try await session(name).connect().use { connection throws(Fault) in
      try await connection.execute("RESET ROLE")
      try await connection.execute("SET client_min_messages = error")
      do throws(Fault) {
        // A statement of its own: behind others it would be one transaction, which keeps the locks of all tables at
        // once.
        try await connection.execute("ANALYZE")
        return []
      } catch {
        guard error.code == .databaseQuery, !Task.isCancelled else { throw error }
      }
      return try await Self.analyzeOneByOne(connection)
    }
  }

  /// What a restore says of tables without statistics.
  static func warning(withoutStatistics tables: [String]) -> Fault? {
    guard !tables.isEmpty else { return nil }
    let more = tables.count > 6 ? "\n… and \(tables.count - 6) more" : ""
    return Fault(
      .statisticsMissing, "The server could not analyze \(tables.count) tables; their rows are restored and proved.",
      cause: tables.prefix(6).joined(separator: "\n") + more, hint: "mend the cause, then run ANALYZE on them")
  }

  /// Each table alone. Those with partitions or children go last and only add the statistics of the whole: the parts
  /// have theirs by then.
  private static func analyzeOneByOne(_ connection: PostgresSession) async throws(Fault) -> [String] {
    let tables = try await connection.query(
      """
      SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(c.relname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relisshared
        AND n.nspname NOT IN ('pg_toast', 'information_schema') AND NOT pg_catalog.starts_with(n.nspname, 'pg_temp_')
      ORDER BY c.relhassubclass, c.oid
      """)
    var failed: [String] = []
    for row in tables {
      guard let schema = row[0], let table = row[1] else { continue }
      do throws(Fault) {
        try await connection.execute("ANALYZE \(schema).\(table)")
      } catch {
        guard error.code == .databaseQuery, !Task.isCancelled else { throw error }
        let words = (error.cause ?? error.message).split(separator: "\n").first ?? ""
        failed.append("\(schema).\(table): \(words)")
      }
    }
    return failed
  }
}
