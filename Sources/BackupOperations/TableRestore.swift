import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting
import Synchronization

/// Chosen tables into the live database, in one transaction: either all of them are there and proved, or nothing has changed.
struct TableRestore: Sendable {
  let restore: Restore
  let preparation: Preparation
  private let phases: PhaseClock
  private let triggers = StatementList()
  private let constraints = StatementList()

  init(_ restore: Restore, _ preparation: Preparation) {
    self.restore = restore
    self.preparation = preparation
    phases = PhaseClock(restore.context)
  }

  private var names: RestoreNames { preparation.names }
  private let partitions = StatementList()
  /// Those that are not ours to set.
  private let sequences = StatementList()

  func run() async throws -> RestoreOutcome {
    guard try await preparation.isThere(names.live) else {
      throw Fault(
        .databaseMissing, "There is no database '\(names.live)' to put tables into.",
        hint: "pgbackupctl restore \(shell: restore.manifest.id) --into NAME, with the same --table")
    }
    phases.begin(.prepare)
    var outcome = RestoreOutcome(database: names.live)
    switch restore.request.tableTarget {
    case .schema(let name):
      let columns = try await archivedColumns()
      let schema = if let name { name } else { try await free(names.schema) }
      outcome.schema = schema
      try await inTransaction(&outcome) { connection in try await beside(schema, columns, on: connection) }
    case .replaceRows:
      let safety = try await free(names.safetySchema)
      outcome.kept = safety
      try await inTransaction(&outcome, { connection in try await replaceRows(keeping: safety, on: connection) }) {
        targets, connection in
        try await finishReplacing(targets, on: connection)
      }
    }
    outcome.close(phases, preparation.source)
    outcome.warnings += preparation.ties
    if !sequences.statements.isEmpty {
      outcome.warnings.append(
        Fault(
          .databasePrivilege,
          "Sequences of the tables may stand behind the rows: '\(preparation.inventory.role)' may not set them.",
          cause: Set(sequences.statements).sorted().prefix(12).joined(separator: ", "),
          hint: "as their owner: SELECT setval('…', (SELECT max(…) FROM …))"))
    }
    if !partitions.statements.isEmpty {
      outcome.warnings.append(
        Fault(
          .tableMissing,
          "Partitions that the backup does not have are empty now; their rows are in '\(outcome.kept ?? "")'.",
          cause: partitions.statements.sorted().prefix(12).joined(separator: ", "),
          hint: "where they belong there: INSERT INTO … TABLE …"))
    }
    return outcome
  }

  /// A schema of this name, or with a number behind it, which is not there yet: two restores may fall into one second.
  private func free(_ wanted: String) async throws(Fault) -> String {
    try await preparation.session(names.live).connect().use { connection throws(Fault) in
      let taken = Set(try await connection.query("SELECT nspname FROM pg_catalog.pg_namespace").compactMap { $0[0] })
      var names = NamesInSchema(taken: taken)
      return names.take(wanted)
    }
  }

  /// A table of the backup, and where its rows go.
  private struct Target {
    let table: Contents.Table
    let name: String
  }

  private func inTransaction(
    _ outcome: inout RestoreOutcome, _ prepare: (PostgresSession) async throws -> [Target],
    _ finish: ([Target], PostgresSession) async throws -> Void = { _, _ in }
  ) async throws {
    // What has not been committed is gone with the connection.
    try await preparation.session(names.live).connect().use { connection in
      // Constraints are checked and triggers rest by our own rules, also where a superuser's presets say otherwise.
      _ = try await connection.query(
        """
        SELECT pg_catalog.set_config('session_replication_role', 'origin', false) FROM pg_catalog.pg_roles
        WHERE rolname = session_user AND rolsuper
        """)
      try await connection.execute("BEGIN; SET LOCAL lock_timeout = '60s'")
      let targets = try await prepare(connection)
      try await load(targets, on: connection)
      try await prove(targets, on: connection, &outcome)
      try await finish(targets, connection)
      try await connection.execute("SET LOCAL synchronous_commit = on; COMMIT")
    }
  }

  private func load(_ targets: [Target], on connection: PostgresSession) async throws {
    let progress = phases.begin(.load, expected: targets.map { Int64($0.table.length) }.reduce(0, +))
    let loading = RestoreLoad(
      source: preparation.source, tables: [], session: preparation.session(names.live), jobs: 1, progress: progress)
    for target in targets {
      var table = target.table
      table.copyStatement = table.copyStatement.map { CopyStatement.into(target.name, $0) }
      try await loading.load(table, on: connection)
    }
  }

  private func prove(
    _ targets: [Target], on connection: PostgresSession, _ outcome: inout RestoreOutcome
  ) async throws {
    let progress = phases.begin(.proof, expected: targets.compactMap(\.table.bytes).reduce(0, +))
    let findings = ProofFindings()
    for target in targets {
      let table = target.table
      let name = "\(table.schema).\(table.name)"
      guard let statement = table.copyStatement, let rows = table.rows else { continue }
      let summary = try await RestoreProof.measure(
        CopyStatement.out(CopyStatement.into(target.name, statement)), on: connection)
      progress(Int64(summary.bytes), name)
      findings.tell(
        name, rows: (rows, Int64(summary.count)), isSame: summary.fingerprint.description == table.fingerprint)
    }
    let (result, differences) = findings.value
    guard differences.isEmpty else {
      throw Fault(
        .proofFailed, "The tables are not what was backed up, and nothing was changed.",
        cause: differences.sorted().prefix(12).map { TerminalText.line($0) }.joined(separator: "\n"),
        hint: "has a trigger, a rule or a column's type of '\(names.live)' changed the rows? Try --into NAME")
    }
    outcome.loadedBytes = targets.map { Int64($0.table.length) }.reduce(0, +)
    (outcome.tables, outcome.provedTables, outcome.rows) = (targets.count, result.tables, result.rows)
  }

  // MARK: - Beside the live tables

  /// Each chosen table's columns as SQL, from the archive itself: its schema is made in a database that is dropped again.
  private func archivedColumns() async throws -> [Int: String] {
    var options = RestoreProgram.Options()
    (options.withOwners, options.withPrivileges, options.withTablespaces) = (false, false, false)
    let program = RestoreProgram(
      preparation.program, restore.maintenance.database(names.work), serverMajor: preparation.server.major, options)
    let preparation = preparation
    let work = names.work
    do {
      let hold = try await preparation.create(work)
      let head = try MemoryFile(preparation.head)
      try await program.make(.preData, head: head, entries: preparation.entries, jobs: 1)
      let columns = try await preparation.session(work).connect().use { connection throws(Fault) in
        var columns: [Int: String] = [:]
        for table in preparation.tables { columns[table.dumpID] = try await Self.columns(table, on: connection) }
        return columns
      }
      await hold.close()
      try await preparation.drop(work)
      return columns
    } catch {
      _ = try? await uncancelled { () async throws(Fault) in try await preparation.drop(work) }
      throw error
    }
  }

  /// Generated columns are left out: they are no data.
  private static func columns(_ table: Contents.Table, on connection: PostgresSession) async throws(Fault) -> String {
    try await connection.query(
      """
      SELECT pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
             || CASE WHEN a.attcollation <> t.typcollation THEN
                  ' COLLATE ' || pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(c.collname) ELSE '' END
             || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
      LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = c.collnamespace
      WHERE a.attrelid = $1::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      ORDER BY a.attnum
      """, [SQLName.quoted(table.schema, table.name)]
    ).compactMap { $0[0] }.joined(separator: ", ")
  }

  private func beside(
    _ schema: String, _ columns: [Int: String], on connection: PostgresSession
  ) async throws -> [Target] {
    try await connection.execute("CREATE SCHEMA IF NOT EXISTS \(SQLName.quoted(schema))")
    let counts = Dictionary(preparation.tables.map { (ExactText($0.name), 1) }, uniquingKeysWith: +)
    // Tables of one name from several schemas meet here; who is alone with his name keeps it.
    var names = NamesInSchema(taken: counts.filter { $0.value == 1 }.keys.map(\.text))
    var targets: [Target] = []
    for table in preparation.tables {
      let name = counts[ExactText(table.name)] == 1 ? table.name : names.take("\(table.schema)_\(table.name)")
      let target = SQLName.quoted(schema, name)
      try await connection.execute("CREATE TABLE \(target) (\(columns[table.dumpID] ?? ""))")
      targets.append(Target(table: table, name: target))
    }
    return targets
  }

  // MARK: - Instead of the live rows

  private func replaceRows(keeping safety: String, on connection: PostgresSession) async throws -> [Target] {
    let replacement = try await Replacement(
      preparation.tables, chosen: preparation.selection?.relations ?? [], of: names.live, on: connection)
    let targets = replacement.tables.map { Target(table: $0, name: SQLName.quoted($0.schema, $0.name)) }
    let places =
      targets.map { Replacement.Place(schema: $0.table.schema, name: $0.table.name) } + replacement.newPartitions
    let all = places.map(\.quoted).joined(separator: ", ")
    try await connection.execute("LOCK TABLE \(all) IN ACCESS EXCLUSIVE MODE")
    try await connection.execute("CREATE SCHEMA \(SQLName.quoted(safety))")
    var copies = NamesInSchema()
    for place in places {
      let copy = SQLName.quoted(safety, copies.take("\(place.schema)_\(place.name)"))
      try await connection.execute("CREATE TABLE \(copy) AS TABLE ONLY \(place.quoted)")
      let note = "Rows of \(place.quoted) that pgbackupd has replaced by those of \(restore.manifest.id)."
      try await connection.execute("COMMENT ON TABLE \(copy) IS \(SQLName.literal(note))")
    }
    for one in replacement.newPartitions {
      let hasRows = try await connection.query("SELECT FROM \(one.quoted) LIMIT 1").count == 1
      if hasRows { partitions.add("\(one.schema).\(one.name)") }
    }
    try await postpone(replacement.circular, on: connection)
    for target in (places + replacement.partitioned).map(\.quoted) {
      // Before the TRUNCATE, which has triggers of its own.
      let enabled = try await connection.query(
        """
        SELECT pg_catalog.quote_ident(tgname), tgenabled FROM pg_catalog.pg_trigger
        WHERE tgrelid = $1::pg_catalog.regclass AND tgenabled <> 'D'
          -- PostgreSQL 14 calls a partition's copy of its parent's trigger internal; a constraint's own is that too.
          AND (NOT tgisinternal OR tgconstraint = 0)
        """, [target])
      for row in enabled {
        let mode = ["A": "ALWAYS ", "R": "REPLICA "][row[1] ?? ""] ?? ""
        triggers.add("ALTER TABLE ONLY \(target) ENABLE \(mode)TRIGGER \(row[0] ?? "")")
      }
      try await connection.execute("ALTER TABLE ONLY \(target) DISABLE TRIGGER USER")
    }
    do throws(Fault) {
      try await connection.execute("TRUNCATE \(replacement.truncated.joined(separator: ", "))")
    } catch {
      throw Replacement.ledTo(error.cause)
    }
    return targets
  }

  /// Foreign keys that lead in a circle: no order of the rows satisfies them before all are there.
  private func postpone(_ keys: [Replacement.ForeignKey], on connection: PostgresSession) async throws(Fault) {
    guard !keys.isEmpty else { return }
    for key in keys where !key.isDeferrable {
      let alter = "ALTER TABLE \(key.table.quoted) ALTER CONSTRAINT \(SQLName.quoted(key.name))"
      try await connection.execute("\(alter) DEFERRABLE")
      constraints.add("\(alter) NOT DEFERRABLE")
    }
    try await connection.execute("SET CONSTRAINTS ALL DEFERRED")
  }

  /// The sequences of a table, each with a column of numbers that draws from it and whether we may set it: those that it or what it is a
  /// part of owns (partitions and what inherits draw from their parents'), and those that a default names.
  private static let sequences = """
    WITH RECURSIVE line AS (
      SELECT $1::pg_catalog.regclass::pg_catalog.oid AS id
      UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN line ON i.inhrelid = line.id),
    used AS (
      SELECT d.objid AS sequence, d.refobjid AS id, d.refobjsubid AS number FROM pg_catalog.pg_depend d
      JOIN line ON line.id = d.refobjid
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
      UNION SELECT d.refobjid, f.adrelid, f.adnum FROM pg_catalog.pg_attrdef f JOIN line ON line.id = f.adrelid
      JOIN pg_catalog.pg_depend d ON d.objid = f.oid AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
    SELECT DISTINCT s.oid::pg_catalog.regclass::pg_catalog.text, pg_catalog.quote_ident(a.attname),
      pg_catalog.has_sequence_privilege(s.oid, 'SELECT') AND pg_catalog.has_sequence_privilege(s.oid, 'UPDATE')
    FROM used JOIN pg_catalog.pg_class s ON s.oid = used.sequence AND s.relkind = 'S'
    JOIN pg_catalog.pg_attribute a ON a.attrelid = used.id AND a.attnum = used.number
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid AND t.typcategory = 'N'
    ORDER BY 1, 2
    """

  /// Triggers as they were before, and sequences no further back than the rows of all tables that draw from them.
  private func finishReplacing(_ targets: [Target], on connection: PostgresSession) async throws {
    // All rows are there: whatever was to wait is checked now, before tables with checks to come are altered.
    try await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for statement in constraints.statements + triggers.statements { try await connection.execute(statement) }
    for target in targets {
      for row in try await connection.query(Self.sequences, [target.name]) {
        guard let sequence = row[0], let column = row[1] else { continue }
        guard row[2] == "t" else {
          sequences.add(sequence)
          continue
        }
        try await connection.execute(
          """
          SELECT pg_catalog.setval(\(SQLName.literal(sequence)), m.far::pg_catalog.int8)
          FROM pg_catalog.pg_sequence q, \(sequence) s, LATERAL (
            SELECT pg_catalog.trunc(CASE WHEN q.seqincrement > 0 THEN pg_catalog.max(\(column)) ELSE pg_catalog.min(\(column))
              END::pg_catalog.numeric) AS far
            FROM ONLY \(target.name)) m
          WHERE q.seqrelid = \(SQLName.literal(sequence))::pg_catalog.regclass AND m.far BETWEEN q.seqmin AND q.seqmax
            AND (pg_catalog.sign(q.seqincrement) * (m.far - s.last_value) > 0 OR m.far = s.last_value AND NOT s.is_called)
          """)
      }
    }
  }
}

/// Names for tables that come into one schema: no two are alike, and none is longer than PostgreSQL takes.
private struct NamesInSchema {
  private var taken: Set<ExactText>

  init(taken: some Sequence<String> = []) { self.taken = Set(taken.map(ExactText.init(_:))) }

  mutating func take(_ wanted: String) -> String {
    var number = 1
    while true {
      let suffix = number == 1 ? "" : "_\(number)"
      var name = wanted
      while name.utf8.count + suffix.utf8.count > 63 { name.unicodeScalars.removeLast() }
      if taken.insert(ExactText(name + suffix)).inserted { return name + suffix }
      number += 1
    }
  }
}

/// What is to be done at the end of a transaction.
private final class StatementList: Sendable {
  private let list = Mutex<[String]>([])
  var statements: [String] { list.withLock { $0 } }
  func add(_ statement: String) { list.withLock { $0.append(statement) } }
}
