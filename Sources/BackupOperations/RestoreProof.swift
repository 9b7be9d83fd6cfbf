import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting

/// Compares a restored database with what the backup says of it: every table's rows and fingerprint, every sequence, every large object.
/// What can't be compared is named, and never counts as proved.
struct RestoreProof: Sendable {
  let contents: Contents
  let sequences: [TableOfContents.SequenceState]
  let session: LoadSession
  let jobs: Int
  /// Whether all of the backup was restored.
  let isWhole: Bool
  /// Bytes of COPY text compared so far.
  let progress: @Sendable (Int64, String) -> Void

  struct Result: Sendable {
    var tables = 0
    var rows: Int64 = 0
    var unproved: [String] = []
    /// What the server has computed anew, from rows that are proved: a backup has no such rows to compare with.
    var derived: [String] = []
  }

  /// Throws `E-PROOF-FAILED` with the first differences where anything is not as it was.
  func run() async throws -> Result {
    let conditions = try await extensionConditions()
    let shared = ProofFindings()
    let largestFirst = contents.tables.sorted { ($0.bytes ?? 0) > ($1.bytes ?? 0) }
    try await session.each(largestFirst, jobs: jobs) { table, connection in
      try await prove(table, on: connection, conditions[[table.schema, table.name]], shared)
    }
    try await session.connect().use { connection in
      try await proveSequences(on: connection, shared)
      try await proveLargeObjects(on: connection, shared)
    }
    shared.settlePartitions()
    var (result, differences) = shared.value
    guard differences.isEmpty else {
      throw Fault(
        .proofFailed, "The restored data is not what was backed up: \(differences.count) differences.",
        cause: differences.sorted().prefix(12).map { TerminalText.line($0) }.joined(separator: "\n"),
        hint: "report it; the live database was not touched")
    }
    result.derived = try await derived() + (isWhole ? try await leftToExtensions() : [])
    return result
  }

  /// Tables of extensions that these keep out of every dump (they are not in `pg_extension_config_dump`), by name: what
  /// an application has put there is in no backup.
  private func leftToExtensions() async throws(Fault) -> [String] {
    let rows = try await session.connect().use { connection throws(Fault) in
      try await connection.query(
        """
        SELECT n.nspname, c.relname, e.extname FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'r' AND c.relpersistence = 'p'
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT c.oid OPERATOR(pg_catalog.=) ANY (coalesce(e.extconfig, '{}'))
        ORDER BY 1, 2
        """)
    }
    return rows.map {
      "\($0[0] ?? "").\($0[1] ?? "") (of the extension \($0[2] ?? ""), which keeps its rows out of every dump)"
    }
  }

  /// Generated columns and materialized views, and tables of whose rows the backup has none, by name.
  private func derived() async throws(Fault) -> [String] {
    let restored = Set(contents.tables.map { [ExactText($0.schema), ExactText($0.name)] })
    let rows = try await session.connect().use { connection throws(Fault) in
      try await connection.query(
        """
        SELECT n.nspname, c.relname, a.attname, c.relkind FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_attribute a
          ON a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped AND c.relkind = 'r'
        WHERE (c.relkind = 'm' AND c.relispopulated OR a.attname IS NOT NULL OR c.relkind IN ('f', 'r') AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND d.objid = c.oid AND d.deptype = 'e'))
          AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
        ORDER BY 1, 2, 3
        """)
    }
    return rows.compactMap { row in
      let (schema, name) = (row[0] ?? "", row[1] ?? "")
      guard let column = row[2] else {
        return switch row[3] {
        case "m": "\(schema).\(name) (materialized view)"
        case "f": "\(schema).\(name) (foreign table: its rows are on another server)"
        // An unlogged table that was dumped from a standby has none.
        default:
          isWhole && !restored.contains([ExactText(schema), ExactText(name)])
            ? "\(schema).\(name) (the backup has no rows of it)" : nil
        }
      }
      return restored.contains([ExactText(schema), ExactText(name)])
        ? "\(schema).\(name).\(column) (generated column)" : nil
    }
  }

  private func prove(
    _ table: Contents.Table, on connection: PostgresSession, _ condition: String?, _ findings: ProofFindings
  ) async throws {
    let name = "\(table.schema).\(table.name)"
    guard let statement = table.copyStatement, let rows = table.rows, let fingerprint = table.fingerprint else {
      findings.leave(name, "its data is no COPY text")
      return
    }
    let restored = SQLName.quoted(table.schema, table.name)
    let root = CopyStatement.target(statement).flatMap { $0 == [table.schema, table.name] ? nil : $0 }
    let out =
      if let condition {
        CopyStatement.out(statement, from: restored, where: condition)
      } else if root != nil {
        CopyStatement.out(statement, from: restored)
      } else {
        CopyStatement.out(statement)
      }
    let summary = try await Self.measure(out, on: connection)
    progress(Int64(summary.bytes), name)
    if let root, let expected = Fingerprint(hexadecimal: fingerprint) {
      findings.tell(
        .init(name: name, rows: rows, fingerprint: expected, columns: CopyStatement.columns(statement) ?? ""),
        of: root.joined(separator: "."), found: (Int64(summary.count), summary.fingerprint))
    } else {
      findings.tell(
        name, rows: (rows, Int64(summary.count)), isSame: summary.fingerprint.description == fingerprint)
    }
  }

  /// Rows and fingerprint of what a `COPY … TO STDOUT` gives.
  static func measure(
    _ statement: String, on connection: PostgresSession
  ) async throws(Fault) -> ArchiveIndex.RowSummary {
    try await connection.copyOut(
      statement, start: { CopyMeter() }, row: { meter, row in meter.consume(row) }, end: { $0.summary })
  }

  /// Tables of extensions that pg_dump reads through a condition (`pg_extension_config_dump`): the extension's own script makes rows
  /// besides. By schema and name.
  private func extensionConditions() async throws(Fault) -> [[String]: String] {
    let rows = try await session.connect().use { connection throws(Fault) in
      try await connection.query(
        """
        SELECT n.nspname, c.relname, t.condition
        FROM pg_catalog.pg_extension e,
          ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) AS t(id, condition)
        JOIN pg_catalog.pg_class c ON c.oid = t.id JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE t.condition <> ''
        """)
    }
    return Dictionary(
      rows.map { ([$0[0] ?? "", $0[1] ?? ""], $0[2] ?? "") }, uniquingKeysWith: { first, _ in first })
  }

  private func proveSequences(on connection: PostgresSession, _ findings: ProofFindings) async throws(Fault) {
    for sequence in sequences {
      let name = SQLName.quoted(sequence.schema, sequence.name)
      let row = try await connection.query("SELECT last_value, is_called FROM \(name)").first
      guard let row, row[0] == sequence.value, (row[1] == "t") == sequence.isCalled else {
        findings.differ(
          "sequence \(sequence.schema).\(sequence.name) stands at \(row?[0] ?? "nothing") instead of \(sequence.value)")
        continue
      }
    }
  }

  private static let objectPiece = 4 << 20

  private func proveLargeObjects(on connection: PostgresSession, _ findings: ProofFindings) async throws {
    let backedUp = contents.largeObjects
    guard !backedUp.isEmpty else { return }
    guard backedUp.allSatisfy({ $0.fingerprint != nil }) else {
      findings.leave("large objects", "pg_dump compressed them")
      return
    }
    var expected = Fingerprint()
    for block in backedUp {
      if let sum = block.fingerprint.flatMap(Fingerprint.init(hexadecimal:)) { expected.add(sum) }
    }
    let identifiers = try await connection.query("SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid")
      .compactMap { $0[0].flatMap(UInt32.init) }
    var meter = ObjectMeter()
    for identifier in identifiers {
      meter.begin(identifier)
      var offset: Int64 = 0
      while true {
        let text = try await connection.query(
          "SELECT pg_catalog.lo_get($1::pg_catalog.oid, $2::pg_catalog.int8, $3::pg_catalog.int4)",
          ["\(identifier)", "\(offset)", "\(Self.objectPiece)"]
        ).first?[0]
        let bytes = Self.bytes(hexadecimal: text ?? "")
        bytes.withUnsafeBytes { meter.consume($0) }
        offset += Int64(bytes.count)
        progress(Int64(bytes.count), "large objects")
        if bytes.count < Self.objectPiece { break }
      }
      meter.end()
    }
    let summary = meter.summary
    let count = backedUp.compactMap(\.count).reduce(0, +)
    guard Int64(summary.count) == count, summary.fingerprint == expected else {
      findings.differ("large objects: \(summary.count) of \(count), or their contents differ")
      return
    }
  }

  /// bytea's hex form, `\x…`.
  private static func bytes(hexadecimal text: String) -> [UInt8] {
    let digits = Array(text.utf8.dropFirst(2))
    return stride(from: 0, to: digits.count - 1, by: 2).map { position in
      value(digits[position]) << 4 | value(digits[position + 1])
    }
  }

  private static func value(_ digit: UInt8) -> UInt8 {
    digit >= UInt8(ascii: "a") ? digit - UInt8(ascii: "a") + 10 : digit &- UInt8(ascii: "0")
  }
}
