import BackupCatalog
import Faults
import Foundation
import PostgresArchive
import PostgresTools
import Quoting
import Units

/// What a restore finds out before it changes anything, with every check that can refuse it.
struct Preparation: Sendable {
  let source: ArchiveSource
  let head: [UInt8]
  let toc: TableOfContents
  let server: ServerFacts
  let inventory: PostgresSession.ServerInventory
  /// Who is connected to the live database and can't be ended by us.
  let untouchable: [String]
  let program: ClientProgram
  let names: RestoreNames
  /// Nil where all is restored.
  let selection: TableSelection?
  let restore: Restore
  let globals: Globals?
  /// What can be made under the database's own name alone.
  let late: LateExtensions
  /// Foreign keys that are checked when all rows are replaced.
  private(set) var circular: [Replacement.ForeignKey] = []
  /// Publications of the live database that publish whatever table is made in it.
  private var publications: [String] = []

  var request: RestoreRequest { restore.request }

  /// The comment of a database that is being loaded begins so.
  static let unfinishedMark = "Not finished: pgbackupd restores into this "
  /// That of one which lacks objects begins so.
  static let incompleteMark = "Incomplete: pgbackupd restored into this "

  init(_ restore: Restore, readsGlobals: Bool) async throws(Fault) {
    self.restore = restore
    let context = restore.context
    source = try await ArchiveSource(
      restore.manifest, in: restore.stores, identities: restore.identities
    ) { checked, all in
      var progress = RunProgress(phase: .check)
      (progress.storedBytes, progress.expectedBytes) = (checked, all)
      context.report(progress)
    }
    head = try await source.head()
    do throws(ArchiveError) {
      toc = TableOfContents(try ArchiveHead(head).entries)
    } catch {
      throw Fault(
        .artifactDamaged, "The archive of \(restore.manifest.id) can't be read.", cause: error.description,
        hint: "pgbackupctl show \(shell: restore.manifest.id)")
    }
    selection =
      restore.request.isPartial
      ? TableSelection(
        toc.entries, tables: restore.request.tables, schemas: restore.request.schemas,
        isComplete: restore.request.bringsAll) : nil
    globals =
      readsGlobals
      ? try await Globals.read(restore.manifest, from: restore.stores, identities: restore.identities) : nil

    let settings: [String: String]
    (server, inventory, untouchable, settings) = try await PostgresSession.connect(restore.maintenance).use {
      session throws(Fault) in
      (
        try await session.serverFacts(), try await session.inventory(measuring: restore.live),
        try await session.untouchableConnections(to: restore.live), try await Self.databaseSettings(session)
      )
    }
    late = LateExtensions(
      toc.entries.filter { [selection] entry in selection?.dumpIDs.contains(entry.dumpID) ?? true },
      settings: settings, database: restore.request.finalName(of: restore.live))
    names = RestoreNames(
      live: restore.live, at: restore.context.now(), taken: inventory.databases.map(\.name).exact)
    guard !server.isStandby else {
      throw Fault(
        .restoreRefused, "\(restore.maintenance.summary) is a standby, which nothing can be restored into.",
        hint: "restore on the primary")
    }
    let dumpMajor = restore.manifest.server.versionNumber / 10000
    guard server.major >= dumpMajor else {
      throw Fault(
        .restoreRefused, "\(restore.manifest.id) is of PostgreSQL \(dumpMajor), and the server is \(server.major).",
        hint: "restore into PostgreSQL \(dumpMajor) or newer")
    }
    program = try await ClientPrograms(configured: restore.programs).program("pg_restore", forServer: server.major)
    if let fault = toc.unreadableNames(of: restore.manifest.id) { throw fault }
    try checkSelection()
    try checkRights()
    try checkTies()
    try checkNeeds()
    try await checkReplacement()
  }

  /// Settings of libraries that name one database (`cron.database_name`), by what stands in front of the dot.
  private static func databaseSettings(_ session: PostgresSession) async throws(Fault) -> [String: String] {
    let rows = try await session.query(
      "SELECT name, setting FROM pg_catalog.pg_settings WHERE name LIKE '%.database\\_name' AND setting <> ''")
    return Dictionary(
      rows.compactMap { row in
        row[0].flatMap { name in row[1].map { (String(name.split(separator: ".").first ?? ""), $0) } }
      }, uniquingKeysWith: { first, _ in first })
  }

  // MARK: - Checks

  private func checkSelection() throws(Fault) {
    guard let selection else { return }
    let named = toc.entries.filter { $0.kind == "TABLE" }.map { "\($0.schema ?? "").\($0.tag ?? "")" }
    guard !selection.relations.isEmpty else {
      let what = (request.tables + request.schemas.map { "\($0).*" }).joined(separator: ", ")
      if let table = request.tables.first(where: isOfExtension) { throw ofExtension(table) }
      throw Fault(
        .tableMissing, "\(restore.manifest.id) has no table \(what).",
        cause: "it has " + named.prefix(12).joined(separator: ", ") + (named.count > 12 ? ", …" : ""),
        hint: "pgbackupctl contents \(shell: restore.manifest.id)")
    }
    // Each of several names has to mean something: a misspelt one among them must not pass unseen.
    for table in request.tables {
      let one = TableSelection(toc.entries, tables: [table], schemas: [])
      let schemas = Set(one.relations.filter { $0.tag == table }.compactMap(\.schema)).sorted()
      if schemas.count > 1, request.target == .swap, request.tableTarget == .replaceRows {
        // Rows are taken away for it: whoever means all of them says so.
        throw Fault(
          .tableMissing, "Several schemas have a table \(table): \(schemas.joined(separator: ", ")).",
          hint: "name the schema: --table \(shell: "\(schemas[0]).\(table)")")
      }
      guard one.relations.isEmpty else { continue }
      if isOfExtension(table) { throw ofExtension(table) }
      throw Fault(
        .tableMissing, "\(restore.manifest.id) has no table \(table).",
        hint: "pgbackupctl contents \(shell: restore.manifest.id)")
    }
    for schema in request.schemas {
      let one = TableSelection(toc.entries, tables: [], schemas: [schema], isComplete: request.bringsAll)
      guard one.relations.isEmpty else { continue }
      throw Fault(
        .tableMissing,
        "\(restore.manifest.id) has \(request.bringsAll ? "nothing" : "no table") in a schema \(schema).",
        hint: "pgbackupctl contents \(shell: restore.manifest.id)")
    }
  }

  /// Whether a backup has rows of the table, and not the table: its extension makes it.
  private func isOfExtension(_ table: String) -> Bool {
    toc.entries.contains { entry in
      entry.kind == "TABLE DATA"
        && (table.isExactly(entry.tag ?? "") || table.isExactly("\(entry.schema ?? "").\(entry.tag ?? "")"))
    }
  }

  private func ofExtension(_ table: String) -> Fault {
    Fault(
      .tableMissing, "\(table) is a table of an extension: it comes with the whole database, and not by itself.",
      hint: "pgbackupctl extract \(shell: restore.manifest.id) --table \(shell: table) gives its rows")
  }

  /// What would keep rows from being replaced: told before their tables are locked, and by the preview. And who would hear of it.
  private mutating func checkReplacement() async throws(Fault) {
    guard let selection, request.target == .swap,
      database(names.live) != nil
    else { return }
    let (tables, live, replacesRows) = (tables, names.live, request.tableTarget == .replaceRows)
    (circular, publications) = try await session(live).connect().use { connection throws(Fault) in
      let publications = try await connection.query(
        "SELECT pubname FROM pg_catalog.pg_publication WHERE puballtables ORDER BY 1"
      ).compactMap { $0[0] }
      guard replacesRows else { return ([], publications) }
      let replacement = try await Replacement(tables, chosen: selection.relations, of: live, on: connection)
      return (replacement.circular, publications)
    }
  }

  /// Who subscribes to all tables gets those of a restore too, and stops where he lacks them.
  var published: [Fault] {
    guard !publications.isEmpty else { return [] }
    let schema =
      switch request.tableTarget {
      case .schema(let name): name ?? names.schema
      case .replaceRows: names.safetySchema
      }
    return [
      Fault(
        .replicationLeft,
        "The publication \(publications.joined(separator: ", ")) is of all tables, also of those that come into the schema '\(schema)': a subscriber that lacks them stops.",
        hint:
          "at the subscriber: ALTER SUBSCRIPTION … DISABLE, make the schema and its tables there too (pg_dump --schema-only), and ENABLE; or restore with --into NEW"
      )
    ]
  }

  private func checkRights() throws(Fault) {
    let role = inventory.role
    let replacesRows = request.isPartial && request.target == .swap && request.tableTarget == .replaceRows
    if !replacesRows, !inventory.canCreateDatabases {
      throw Fault(
        .restoreRefused, "The role '\(role)' may not create databases, and a restore needs a new one.",
        hint: "ALTER ROLE \(SQLName.quoted(role)) CREATEDB, or set 'restore_connect' of the database to a role that may"
      )
    }
    if case .beside(let name) = request.target {
      guard name.utf8.count <= 63, !name.isEmpty else {
        throw Fault(.usage, "'\(name)' is no database name: PostgreSQL takes 1 to 63 bytes.")
      }
      guard database(name) == nil else {
        throw Fault(
          .restoreNameTaken, "There is a database '\(name)' already.", hint: "take another name, or drop that one first"
        )
      }
      return
    }
    guard !request.isPartial, let live = database(names.live) else { return }
    guard live.isOurs, inventory.canSignal else {
      throw Fault(
        .restoreRefused,
        live.isOurs
          ? "The role '\(role)' may not end other connections to '\(names.live)'."
          : "The role '\(role)' does not own '\(names.live)' and so can't rename it.",
        hint: live.isOurs
          ? "GRANT pg_signal_backend TO \(SQLName.quoted(role))"
          : "GRANT \(SQLName.quoted(live.owner)) TO \(SQLName.quoted(role)), or set 'restore_connect' of the database to a role that may"
      )
    }
  }

  private func checkNeeds() throws(Fault) {
    let wanted: TableOfContents? = selection.map { chosen in
      TableOfContents(self.toc.entries.filter { chosen.dumpIDs.contains($0.dumpID) })
    }
    let toc: TableOfContents = wanted ?? self.toc
    let missing = Set(toc.extensions).subtracting(inventory.extensions).sorted()
    guard missing.isEmpty else {
      throw Fault(
        .extensionMissing, "The server does not have the extension \(missing.joined(separator: ", ")).",
        hint: "install it on the server (apt install postgresql-\(server.major)-…), then run the restore again")
    }
    // Tables that come into the live database bring their rows and nothing else.
    if request.isPartial, request.target == .swap { return }
    if let one = late.misplaced.first, !request.keepsGoing {
      throw Fault(
        .restoreRefused,
        "The extension \(one.name) can be made in the database '\(one.database)' alone, and this is '\(request.finalName(of: restore.live))'.",
        cause: "the server's setting \(one.name).database_name, or the like, says so",
        hint: "restore it as '\(one.database)', change the setting, or go on without it: --keep-going")
    }
    if request.options.withTablespaces {
      let missing = toc.tablespaces.subtracting(inventory.tablespaces).subtracting(globals?.tablespaces ?? []).sorted()
      guard missing.isEmpty else {
        throw Fault(
          .tablespaceMissing, "The server does not have the tablespace \(missing.joined(separator: ", ")).",
          hint: "create it, or run the restore with --globals, or with --no-tablespaces")
      }
    }
    var roles = toc.beneficiaries.union(request.options.withOwners ? toc.owners : []).exact
    if request.options.withPrivileges { roles.formUnion(toc.grantees.exact) }
    if request.options.withOwners, request.options.withPrivileges { roles.formUnion(toc.settingRoles.exact) }
    if let role = request.options.role { roles.insert(ExactText(role)) }
    let strangers = roles.subtracting(inventory.roles).filter { !$0.text.starts(withBytes: "pg_") }
      .subtracting(request.withGlobals ? globals?.roles ?? [] : []).sortedTexts
    guard strangers.isEmpty else {
      let isNeeded = !toc.beneficiaries.isDisjoint(with: strangers)
      throw Fault(
        .roleMissing, "The server does not have the role \(strangers.joined(separator: ", ")).",
        cause: isNeeded ? "a policy or a user mapping is for it" : nil,
        hint: "create it, or run the restore with --globals"
          + (isNeeded ? "" : ", or with --no-owner --no-privileges"))
    }
  }

  // MARK: - What is loaded

  /// The tables to load, whole or chosen, without those that come later.
  var tables: [Contents.Table] {
    source.contents.tables.filter {
      selection?.dumpIDs.contains($0.dumpID) ?? true && !late.dumpIDs.contains($0.dumpID)
    }
  }

  /// The entries to make, in the archive's order, without those that come later; nil for all.
  var entries: [Int]? {
    if selection == nil, late.dumpIDs.isEmpty { return nil }
    return toc.entries.map(\.dumpID).filter {
      selection?.dumpIDs.contains($0) ?? true && !late.dumpIDs.contains($0)
    }
  }

  var isWhole: Bool { selection == nil }

  /// What of the chosen does not come whole, each with the reason.
  var leftOut: [String] {
    guard let selection else { return [] }
    return selection.unfilled.map {
      "\($0.schema ?? "").\($0.tag ?? "") (materialized view, left empty: tables that it is made of come without their rows)"
    }
      + selection.loose.map {
        "\($0.schema ?? "").\($0.tag ?? "") (foreign key, left out: the table that it leads to comes without its rows)"
      }
  }

  var sequences: [TableOfContents.SequenceState] {
    toc.sequences.filter { selection?.dumpIDs.contains($0.dumpID) ?? true && !late.dumpIDs.contains($0.dumpID) }
  }

  func session(_ database: String) -> LoadSession {
    LoadSession(
      connection: restore.maintenance.database(database), statements: toc.sessionStatements,
      settings: source.contents.settings, role: request.options.role)
  }

  // MARK: - The server

  func withMaintenance<Value: Sendable>(
    _ work: (PostgresSession) async throws(Fault) -> Value
  ) async throws(Fault) -> Value {
    try await PostgresSession.connect(restore.maintenance).use(work)
  }

  func isThere(_ database: String) async throws(Fault) -> Bool {
    try await withMaintenance { session throws(Fault) in
      try await session.query("SELECT FROM pg_catalog.pg_database WHERE datname = $1", [database]).count == 1
    }
  }

  func identifier(of database: String) async throws(Fault) -> UInt32? {
    try await withMaintenance { session throws(Fault) in
      try await session.query("SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", [database]).first?[0]
        .flatMap(UInt32.init)
    }
  }

  var missingGlobals: [Globals.Statement] {
    globals?.missing(
      from: inventory, withTablespaces: request.options.withTablespaces,
      withGrantors: restore.manifest.server.versionNumber >= 160_000 || server.major < 16) ?? []
  }

  /// Returns the settings of roles that a drill's server did not take.
  func makeGlobals() async throws(Fault) -> [String] {
    // All roles or none; a tablespace can't be made in a transaction (CREATE TABLESPACE of the manual).
    let (settings, statements) = apart(
      missingGlobals.map(request.withPasswords ? \.statement : \.withoutPassword))
    let outside = statements.filter { SQLTokens($0).begins(with: "CREATE", "TABLESPACE") }
    let inside = statements.filter { !SQLTokens($0).begins(with: "CREATE", "TABLESPACE") }
    // ALTER TABLESPACE, and GRANT … ON TABLESPACE.
    let later = inside.filter { SQLTokens($0).firstWord("TABLESPACE") != nil }
    let roles = inside.filter { SQLTokens($0).firstWord("TABLESPACE") == nil }
    do throws(Fault) {
      try await run(["BEGIN"] + roles + ["COMMIT"] + outside + later)
    } catch {
      throw Fault(
        error.code, "'\(inventory.role)' could not create the roles and tablespaces that are missing.",
        cause: error.cause ?? error.message,
        hint: "create them by hand (--preview shows them), or set 'restore_connect' of the database to a superuser")
    }
    return try await runLeniently(settings)
  }

  /// Makes all that the archive has but its rows in a database of its own, and drops that again: what can't be made there can't be made
  /// where the live one was. Nor can what the server has no connections for.
  func tryOut() async throws(Fault) {
    try await requireConnections()
    let hold = try await create(names.work)
    do {
      try await hold.use { _ in
        let program = RestoreProgram(
          program, restore.maintenance.database(names.work), serverMajor: server.major, request.options)
        let file = try MemoryFile(head)
        try await program.make(.preData, head: file, entries: entries, jobs: 1)
        for part in LaterEntries(toc, chosen: entries).parts {
          try await program.make(.postData, head: file, entries: part, jobs: 1)
        }
      }
    } catch {
      await takeAway(names.work)
      throw Fault(error)
    }
    try await drop(names.work)
  }

  /// The archived database's own comment: it takes the mark's place when the new one gets its name.
  var archivedComment: String? {
    guard selection == nil else { return nil }
    // That of a database that was put aside when it was backed up begins with our mark.
    return KeptMark.originalComment(toc.databaseComment)
  }

  /// The mark of a database that lacks objects: one line, and behind it the archived database's own comment.
  func incompleteMark(_ incompleteness: Fault) -> String {
    "\(Self.incompleteMark)\(TerminalText.line("\(restore.manifest.id)")): \(TerminalText.line(incompleteness.message))\n\(archivedComment ?? "")"
  }

  static func archivedComment(behind mark: String?) -> String? {
    guard let mark, mark.starts(withBytes: incompleteMark) else { return mark }
    let rest = mark.split(atByte: 10, maxSplits: 1, omittingEmptySubsequences: false).dropFirst().first ?? ""
    return rest.isEmpty ? nil : String(rest)
  }

  func set(_ sequences: [TableOfContents.SequenceState], _ session: LoadSession) async throws(Fault) {
    guard !sequences.isEmpty else { return }
    try await session.connect().use { connection throws(Fault) in
      for sequence in sequences { try await connection.execute(sequence.statement) }
    }
  }
}
