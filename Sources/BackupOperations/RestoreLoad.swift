import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting
import Synchronization

/// Loads tables from an archive into a database whose schema is there, over several connections and without a temporary file. A large table
/// is loaded by all of them at once, so that it is not what the whole restore waits for; small ones go side by side, each fed from its own
/// part of the artifact.
///
/// The rows are metered as they pass. Where they are not what the contents say, the table's COPY is refused before it ends, and the
/// restore with it.
struct RestoreLoad: Sendable {
  let source: ArchiveSource
  let tables: [Contents.Table]
  let session: LoadSession
  let jobs: Int
  /// Whether a table whose rows the server does not take is left empty, and told.
  var goesOn = false
  /// Bytes of the archive that have been loaded so far, and the table that was begun last.
  let progress: @Sendable (Int64, String) -> Void

  /// From this size on, all connections share a table.
  private static let wideTable: UInt64 = 32 << 20
  /// Tables that are smaller share a connection's turn, in the archive's order: they lie in the same frames.
  private static let largeTable: UInt64 = 4 << 20
  /// Rows that go to one connection at a time.
  private static let pieceBytes = 1 << 20

  /// Returns the tables that were left empty, with what the server said.
  @discardableResult
  func run() async throws -> [(table: Contents.Table, fault: Fault)] {
    let postponed = PostponedTables()
    for table in tables.filter({ $0.length >= Self.wideTable }).sorted(by: { $0.length > $1.length }) {
      try await postponed.unlessRefused(table) { try await loadWide(table) }
    }
    try await session.each(Self.units(tables.filter { $0.length < Self.wideTable }), jobs: jobs) { unit, connection in
      for table in unit { try await postponed.unlessRefused(table) { try await load(table, on: connection) } }
    }
    return try await loadAgain(postponed)
  }

  /// Tables whose rows the server did not take: a check, or a column that is computed, may ask another table, whose rows were not there yet.
  /// In the archive's order, as pg_restore would load them; as long as that gets any further.
  private func loadAgain(_ postponed: PostponedTables) async throws -> [(table: Contents.Table, fault: Fault)] {
    var rest = postponed.take()
    while let first = rest.first {
      let again = PostponedTables()
      try await session.connect().use { connection in
        for (table, fault) in rest {
          // Of what several connections have loaded some may have come to its end.
          do throws(Fault) {
            try await connection.execute("TRUNCATE ONLY \(SQLName.quoted(table.schema, table.name))")
          } catch {
            // Then the server has another trouble than the order, and has told it already.
            throw fault
          }
          try await again.unlessRefused(table) { try await load(table, on: connection) }
        }
      }
      let left = again.take()
      guard left.count < rest.count else {
        if goesOn { return left }
        throw first.fault
      }
      rest = left
    }
    return []
  }

  /// The largest first, one by one; then the small ones in bundles.
  static func units(_ tables: [Contents.Table]) -> [[Contents.Table]] {
    let large = tables.filter { $0.length >= largeTable }.sorted { $0.length > $1.length }
    var units = large.map { [$0] }
    var bundle: [Contents.Table] = []
    var bytes: UInt64 = 0
    for table in tables.filter({ $0.length < largeTable }).sorted(by: { $0.offset < $1.offset }) {
      bundle.append(table)
      bytes += table.length
      if bytes >= largeTable || bundle.count == 64 {
        units.append(bundle)
        (bundle, bytes) = ([], 0)
      }
    }
    return bundle.isEmpty ? units : units + [bundle]
  }

  // MARK: - A large table

  private func loadWide(_ table: Contents.Table) async throws {
    guard let statement = table.copyStatement else { return }
    let channel = RowChannel(capacity: jobs + 2)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.read(table, into: channel) }
      for number in 0..<jobs { group.addTask { try await self.copy(statement, table, from: channel, as: number) } }
      try await group.waitForAll()
    }
  }

  /// Reads the table's rows into the channel. It ends only if they are what the contents tell.
  private func read(_ table: Contents.Table, into channel: RowChannel) async throws {
    do {
      try await readRows(table) { rows in
        var start = rows.startIndex
        while start < rows.endIndex {
          let limit = min(rows.endIndex, start + Self.pieceBytes)
          // Each connection's COPY gets whole rows: a piece ends with one where it can.
          let end = rows[start..<limit].lastIndex(of: 10).map { $0 + 1 } ?? limit
          // Where no connection takes them any more, those that took them report why.
          guard await channel.give(Array(rows[start..<end]), isUnfinished: rows[end - 1] != 10) else { return }
          start = end
        }
      }
      await channel.end()
    } catch {
      await channel.abandon()
      throw error
    }
  }

  private func copy(
    _ statement: String, _ table: Contents.Table, from channel: RowChannel, as number: Int
  ) async throws {
    do {
      try await session.connect().use { connection in
        try await connection.beginCopy(statement)
        try await send(from: channel, as: number, to: connection, table)
      }
    } catch {
      await channel.abandon()
      throw error
    }
  }

  /// Sends rows until there are no more. An abandoned COPY is left open: hanging up takes its rows back.
  private func send(
    from channel: RowChannel, as number: Int, to connection: PostgresSession, _ table: Contents.Table
  ) async throws {
    while true {
      switch await channel.take(as: number) {
      case .rows(let rows, _):
        do throws(Fault) {
          try await connection.putCopyData(rows)
        } catch {
          throw await reason(error, table, connection)
        }
      case .end:
        do throws(Fault) {
          return try await connection.endCopy()
        } catch {
          throw Self.refused(table, error)
        }
      case .abandoned:
        return
      }
    }
  }

  // MARK: - A table on one connection

  func load(_ table: Contents.Table, on connection: PostgresSession) async throws {
    guard let statement = table.copyStatement else { return }
    progress(0, "\(table.schema).\(table.name)")
    try await connection.beginCopy(statement)
    do {
      try await readRows(table) { rows in try await connection.putCopyData(Array(rows)) }
    } catch {
      throw await reason(error, table, connection)
    }
    do throws(Fault) {
      try await connection.endCopy()
    } catch {
      throw Self.refused(table, error)
    }
  }

  /// Gives a COPY up. The server's own words are better than ours, where it has ended the COPY itself.
  private func reason(_ error: any Error, _ table: Contents.Table, _ connection: PostgresSession) async -> any Error {
    do throws(Fault) {
      try await connection.endCopy(abandonedBecause: "pgbackupd stops")
    } catch let refusal {
      if let fault = error as? Fault, fault.code == .databaseUnreachable,
        [.databaseQuery, .databaseServer].contains(refusal.code)
      {
        return Self.refused(table, refusal)
      }
    }
    return error
  }

  private static func refused(_ table: Contents.Table, _ fault: Fault) -> Fault {
    let isTrouble = fault.code == .databaseServer
    guard fault.code == .databaseQuery || isTrouble else { return fault }
    return Fault(
      isTrouble ? fault.code : .restoreFailed, "The server did not take the rows of \(table.schema).\(table.name).",
      cause: fault.cause, hint: isTrouble ? fault.hint : "pgbackupctl log")
  }

  /// Hands out a table's rows as they come, in pieces that may end inside a row, and checks at the end that they are
  /// those of the contents. The work is linear in the bytes, however wide a row is.
  private func readRows(_ table: Contents.Table, _ body: (ArraySlice<UInt8>) async throws -> Void) async throws {
    var block = CopyBlock(dumpID: table.dumpID, at: table.offset)
    var failure: ArchiveError?
    do {
      try await source.read(table.offset..<table.offset + table.length) { bytes in
        try Task.checkCancellation()
        var rows: [UInt8] = []
        rows.reserveCapacity(bytes.count)
        do throws(ArchiveError) {
          try block.consume(bytes, appendingTo: &rows)
        } catch {
          failure = error
          throw error
        }
        if !rows.isEmpty { try await body(rows[...]) }
        progress(Int64(bytes.count), "\(table.schema).\(table.name)")
      }
    } catch {
      if let failure { throw Self.damaged(table, source.manifest.id, failure.description) }
      guard let fault = error as? Fault, fault.code == .artifactDamaged else { throw error }
      throw Self.damaged(table, source.manifest.id, "\(fault.message)\n\(fault.cause ?? "")")
    }
    let summary: ArchiveIndex.RowSummary
    do throws(ArchiveError) {
      summary = try block.finish()
    } catch {
      throw Self.damaged(table, source.manifest.id, error.description)
    }
    guard summary.fingerprint.description == table.fingerprint, Int64(summary.count) == table.rows else {
      throw Self.damaged(table, source.manifest.id, "its rows are not those that the contents tell")
    }
  }

  private static func damaged(_ table: Contents.Table, _ id: BackupID, _ reason: String) -> Fault {
    Fault(
      .artifactDamaged, "The data of \(table.schema).\(table.name) in \(id) is damaged; nothing of it was loaded.",
      cause: reason, hint: "pgbackupctl show \(shell: id)")
  }
}

/// Tables that are loaded once more when all others are there, each with what the server said.
private final class PostponedTables: Sendable {
  private let list = Mutex<[(table: Contents.Table, fault: Fault)]>([])

  func unlessRefused(_ table: Contents.Table, _ work: () async throws -> Void) async throws {
    do {
      try await work()
    } catch let fault as Fault where fault.code == .restoreFailed && !Task.isCancelled {
      // Rows that go through a partitioned table can't be taken back for one of its partitions.
      guard
        table.copyStatement.flatMap(CopyStatement.target) ?? [table.schema, table.name] == [table.schema, table.name]
      else { throw fault }
      list.withLock { $0.append((table, fault)) }
    }
  }

  /// In the archive's order.
  func take() -> [(table: Contents.Table, fault: Fault)] {
    list.withLock { list in
      defer { list = [] }
      return list.sorted { $0.table.offset < $1.table.offset }
    }
  }
}

/// How the connections of a restore are made.
struct LoadSession: Sendable {
  let connection: ConnectionSettings
  /// What the archive wants to be set, such as its encoding.
  let statements: [String]
  /// Under which its text was written.
  let settings: [String: String]
  let role: String?
  func connect() async throws(Fault) -> PostgresSession {
    let session = try await PostgresSession.connect(connection)
    do throws(Fault) {
      for statement in statements { try await session.execute(statement) }
      for (name, value) in settings.sorted(by: { $0.key < $1.key }) where name != "client_encoding" {
        do throws(Fault) {
          try await session.execute("SET \(SQLName.quoted(name)) = \(SQLName.literal(value))")
        } catch  where name == TextSettings.ofServer {
          // A locale that is not on this machine: without money in the tables nobody misses it, and with it the rows are refused.
        }
      }
      // As pg_restore sets them (`_doSetFixedOutputState` of pg_backup_archiver.c).
      try await session.execute(
        """
        SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
        SET check_function_bodies = false; SET xmloption = content; SET client_min_messages = warning;
        SET row_security = off; SET synchronous_commit = off; SET default_transaction_read_only = off
        """)
      if let role { try await session.execute("SET ROLE \(SQLName.quoted(role))") }
    } catch {
      await session.close()
      throw error
    }
    return session
  }

  /// Works through the items over several connections; each takes the next one as soon as it is free. The first failure ends all.
  func each<Item: Sendable>(
    _ items: [Item], jobs: Int, _ work: @escaping @Sendable (Item, PostgresSession) async throws -> Void
  ) async throws {
    let queue = WorkQueue(items)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<min(max(1, jobs), items.count) {
        group.addTask {
          try await self.connect().use { connection in
            while let item = queue.next() { try await work(item, connection) }
          }
        }
      }
      try await group.waitForAll()
    }
  }
}

/// Work that several tasks take from, in order.
private final class WorkQueue<Item: Sendable>: Sendable {
  private let items: Mutex<[Item]>

  init(_ items: [Item]) { self.items = Mutex(items.reversed()) }

  func next() -> Item? { items.withLock { $0.popLast() } }
}

/// The archive's `COPY … FROM stdin;` and what is made of it.
enum CopyStatement {
  private static let tail = "FROM stdin;"

  /// `COPY [schema.]table [(columns)] FROM stdin;`, as pg_dump writes it (`dumpTableData`).
  private struct Parts {
    let tokens: SQLTokens
    /// Behind the table's name.
    let end: Int
    /// The word that begins the tail.
    let from: Int

    init?(_ statement: String) {
      tokens = SQLTokens(statement)
      guard tokens.isWord("COPY", at: 0), tokens.name(at: 1) != nil, let last = tokens.lastWord("FROM"),
        tokens.isWord("stdin", at: last + 1)
      else { return nil }
      end = tokens.isSymbol(".", at: 2) && tokens.name(at: 3) != nil ? 4 : 2
      from = last
      guard end <= from else { return nil }
    }

    /// The column list without its parentheses; nil where there is none.
    var columns: Range<Int>? {
      guard tokens.isSymbol("(", at: end), tokens.isSymbol(")", at: from - 1) else { return nil }
      return end + 1..<from - 1
    }
  }

  /// The same columns of the same table, out.
  static func out(_ statement: String) -> String {
    guard let parts = Parts(statement) else { return statement }
    return parts.tokens.text(before: parts.from) + " TO STDOUT;"
  }

  /// Of the rows that a condition chooses: pg_dump's own way with an extension's tables.
  static func out(_ statement: String, from table: String, where condition: String) -> String {
    "COPY (SELECT \(columns(statement) ?? "") FROM ONLY \(table) \(condition)) TO STDOUT"
  }

  /// The table that it loads, schema and name: not always the one whose rows they are (`pg_dump --load-via-partition-root`, which pg_dump
  /// also does by itself where a table is partitioned by the hash of an enumeration).
  static func target(_ statement: String) -> [String]? {
    guard let parts = Parts(statement), parts.end == 4, let schema = parts.tokens.name(at: 1) else { return nil }
    return parts.tokens.name(at: 3).map { [schema, $0] }
  }

  /// The same columns of another table, out, without what inherits from it.
  static func out(_ statement: String, from table: String) -> String {
    "COPY \(table) \(columns(statement).map { "(\($0)) " } ?? "")TO STDOUT"
  }

  /// `a, "B c"`, as it stands between the parentheses; nil for a table without columns.
  static func columns(_ statement: String) -> String? {
    guard let parts = Parts(statement), let range = parts.columns, let first = range.first, let last = range.last
    else { return nil }
    let tokens = parts.tokens.tokens
    return String(statement[tokens[first].range.lowerBound..<tokens[last].range.upperBound])
  }

  /// The columns' names, without quotes.
  static func columnNames(_ statement: String) -> [String] {
    guard let parts = Parts(statement), let range = parts.columns else { return [] }
    return range.compactMap { parts.tokens.name(at: $0) }
  }

  /// The same columns of another table, in.
  static func into(_ table: String, _ statement: String) -> String {
    "COPY \(table) \(columns(statement).map { "(\($0)) " } ?? "")\(tail)"
  }
}
