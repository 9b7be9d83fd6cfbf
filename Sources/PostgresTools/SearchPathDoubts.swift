package import Faults
import Quoting

extension PostgresSession {
  /// What a restore may not be able to make: indexes and materialized views over functions whose text finds tables or
  /// other functions by the search_path, which is empty while pg_restore works (`_doSetFixedOutputState` of
  /// pg_backup_archiver.c). Nil where there is nothing.
  package func searchPathDoubts() async throws(Fault) -> Fault? {
    let uses = try await query(
      """
      SELECT u.what, p.oid::pg_catalog.regprocedure, p.prosrc FROM (
        SELECT d.refobjid AS function, 'INDEX ' || d.objid::pg_catalog.regclass::pg_catalog.text AS what
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('i', 'I')
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
          AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        UNION SELECT d.refobjid, 'MATERIALIZED VIEW ' || r.ev_class::pg_catalog.regclass::pg_catalog.text
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
        JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind = 'm'
        WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
          AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
      ) AS u JOIN pg_catalog.pg_proc p ON p.oid = u.function JOIN pg_catalog.pg_language l ON l.oid = p.prolang
      WHERE p.oid >= 16384 AND l.lanname IN ('sql', 'plpgsql') AND pg_catalog.length(p.prosrc) < 100000
        AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) AS s WHERE pg_catalog.starts_with(s, 'search_path='))
      ORDER BY 1, 2 LIMIT 500
      """)
    guard !uses.isEmpty else { return nil }
    let (relations, functions) = (try await names(of: Self.relations), try await names(of: Self.functions))
    let found = uses.compactMap { row -> (what: String, function: String, name: String)? in
      guard let what = row[0], let function = row[1], let text = row[2] else { return nil }
      return Self.unqualified(in: SQLTokens(text), relations, functions).map { (what, function, $0) }
    }
    guard let first = found.first else { return nil }
    let more = found.count > 8 ? "\n… and \(found.count - 8) more" : ""
    return Fault(
      .schemaIncomplete,
      "A restore may not be able to make \(found.count == 1 ? first.what : "\(found.count) objects").",
      cause: found.prefix(8).map {
        "\($0.what): \($0.function) finds '\($0.name)' by the search_path, which is empty in a restore"
      }.joined(separator: "\n") + more,
      hint: "ALTER FUNCTION \(first.function) SET search_path = …, or name the schema in its text")
  }

  private static let relations = """
    SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384
    """
  private static let functions = "SELECT p.proname FROM pg_catalog.pg_proc p WHERE p.oid >= 16384"

  private func names(of statement: String) async throws(Fault) -> Set<ExactText> {
    try await query(statement).compactMap { $0[0] }.exact
  }

  /// The first name in a function's text that means a table or a function of the database, and has no schema.
  private static func unqualified(
    in text: SQLTokens, _ relations: Set<ExactText>, _ functions: Set<ExactText>
  ) -> String? {
    for at in text.tokens.indices {
      guard let written = text.name(at: at), !text.isSymbol(".", at: at - 1), !text.isSymbol(".", at: at + 1) else {
        continue
      }
      // A bare name means its small letters.
      let name = text.tokens[at].kind == .word ? written.lowercased() : written
      if functions.contains(ExactText(name)), text.isSymbol("(", at: at + 1) { return name }
      let isPlace = ["FROM", "JOIN", "INTO", "UPDATE", "ONLY"].contains { text.isWord($0, at: at - 1) }
      if isPlace, relations.contains(ExactText(name)) { return name }
    }
    return nil
  }
}
