import CLibPQ
import Dispatch
package import Faults
import Glibc
import QueueExecution
import Quoting
import Units

/// One libpq connection. Calls block its own queue and nobody else; a cancelled task cancels the running query, and
/// hangs up where the server does not end it.
package actor PostgresSession {
  /// One row of a result: each value as PostgreSQL's text, NULL as nil.
  package struct Row: Sendable, Equatable {
    package let values: [String?]

    init(_ values: [String?]) { self.values = values }

    /// NULL also where the server has sent no such column: how wide an answer is is the server's word, and who answers
    /// may be code of a backup in its drill.
    package subscript(column: Int) -> String? { values.indices.contains(column) ? values[column] : nil }

    /// About the bytes that it takes.
    var memory: Int { values.reduce(24) { $0 + 8 + ($1?.utf8.count ?? 0) } }
  }

  package typealias Rows = [Row]

  private let executor = QueueExecutor(label: "pgbackupd.postgres")
  private let connection: Connection
  package nonisolated let settings: ConnectionSettings
  private let limit: Duration?
  /// For connecting, and what is asked by it.
  private static let openingLimit = Duration.seconds(60)

  package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// Connects, or throws a fault that tells an unreachable server from a refused password and a missing database.
  ///
  /// - Parameters:
  ///   - keepingPresets: goes by what the database and the role have preset, `search_path` among it: for SQL of
  ///     the user's own. Nothing of ours may then be asked of the session.
  ///   - limit: how long the server may take for each answer; for questions that no honest one thinks about for long.
  package static func connect(
    _ settings: ConnectionSettings, keepingPresets: Bool = false, answeringWithin limit: Duration? = nil
  ) async throws(Fault) -> PostgresSession {
    var settings = settings
    settings.setDefault("application_name", "pgbackupd")
    settings.setDefault("connect_timeout", "10")
    // A dead peer is noticed within about two minutes, also while our transaction only waits.
    settings.setDefault("keepalives_idle", "60")
    settings.setDefault("keepalives_interval", "15")
    settings.setDefault("keepalives_count", "4")
    // And one that takes no more of our bytes within a minute.
    settings.setDefault("tcp_user_timeout", "60000")
    settings["client_encoding"] = "UTF8"
    let others = settings["options"] ?? getenv("PGOPTIONS").map { String(cString: $0) }
    let options = { (major: Int?) in
      keepingPresets
        ? SessionSettings.plainOptions(after: others, major: major)
        : SessionSettings.options(after: others, major: major)
    }
    settings["options"] = options(nil)
    let session = PostgresSession(settings, limit)
    try await session.open(options, keepingPresets)
    return session
  }

  private init(_ settings: ConnectionSettings, _ limit: Duration?) {
    self.settings = settings
    self.limit = limit
    connection = Connection()
  }

  /// - Parameter options: for a server of a major version.
  private func open(_ options: (Int?) -> String, _ keepingPresets: Bool) throws(Fault) {
    let limit = limit ?? Self.openingLimit
    connection.begin(within: limit)
    defer { connection.end() }
    do throws(PostgresError) {
      // Older servers refuse an option that they don't know: those that not all versions have are sent once the version
      // is known, where they are preset.
      if let major = try majorWithPresets() {
        var settings = settings
        settings["options"] = options(major)
        connection.close()
        try connection.open(settings)
      }
      let major = connection.major
      guard !keepingPresets else { return }
      let path = try connection.query("SELECT pg_catalog.current_setting('search_path')", []).first?[0]
      // A pooler may leave out `options` (pgbouncer's ignore_startup_parameters).
      if path != "" { try connection.execute(SessionSettings.statements(major: major)) }
    } catch {
      throw connection.isLate ? silence(limit) : error.fault(connecting: settings)
    }
  }

  private func silence(_ limit: Duration) -> Fault {
    Fault(
      .databaseUnreachable,
      "The server of \(settings.summary) took a question, and did not answer within \(limit.spoken).",
      hint: "look at the server, or at what stands between: a pooler, a proxy")
  }

  /// Connects. Returns the server's major version, or one that it has at least, where timeouts that not all versions
  /// know are preset.
  private func majorWithPresets() throws(PostgresError) -> Int? {
    do throws(PostgresError) {
      try connection.open(settings)
      // Before it is asked: one that was ended has no version any more.
      let major = connection.major
      let timeouts = SessionSettings.timeouts(ofMajor: major)
      if timeouts.isEmpty { return nil }
      return try connection.isNought(timeouts) ? nil : major
    } catch {
      // A preset of a millisecond ends the session while it begins, or before it can be asked.
      switch error.state {
      case "25P04": return 17  // transaction_timeout
      case "57P05": return 14  // idle_session_timeout
      default: throw error
      }
    }
  }

  /// The parameters that this connection really uses (defaults, service file and environment resolved), so that a
  /// client program reaches the very same server.
  package func effectiveSettings() -> ConnectionSettings {
    guard let handle = connection.handle, let options = PQconninfo(handle) else { return settings }
    defer { PQconninfoFree(options) }
    var effective = ConnectionSettings(options: options)
    effective.password = effective.password ?? settings.password
    // Of several hosts, the one that answered.
    if let host = PQhost(handle), host.pointee != 0 { effective["host"] = String(cString: host) }
    if let port = PQport(handle), port.pointee != 0 { effective["port"] = String(cString: port) }
    for keyword in ["service", "passfile", "target_session_attrs", "client_encoding", "fallback_application_name"] {
      effective[keyword] = nil
    }
    if effective["host"]?.contains(",") != true, let address = effective["hostaddr"], address.contains(",") {
      effective["hostaddr"] = PQhostaddr(handle).map { String(cString: $0) }
    }
    return effective
  }

  /// Of the server, as it has said when the session began; 0 without a connection.
  package func serverMajor() -> Int { connection.major }

  /// Runs one statement, with `$1` parameters as text, and returns its rows.
  package func query(_ statement: String, _ arguments: [String?] = []) async throws(Fault) -> Rows {
    let connection = connection
    return try await perform { () throws in try connection.query(statement, arguments) }
  }

  /// Runs several statements in one go, as `psql -c` does: one transaction, unless they say otherwise.
  package func execute(_ statements: String) async throws(Fault) {
    let connection = connection
    try await perform { () throws in try connection.execute(statements) }
  }

  // MARK: - COPY

  /// Begins `COPY … FROM stdin`. `putCopyData` and then `endCopy` must follow.
  package func beginCopy(_ statement: String) async throws(Fault) {
    let connection = connection
    try await perform { () throws in try connection.beginCopy(statement, PGRES_COPY_IN) }
  }

  /// Hands rows to the server, and waits while it takes no more.
  package func putCopyData(_ rows: [UInt8]) async throws(Fault) {
    let connection = connection
    try await perform { () throws in try connection.putCopyData(rows) }
  }

  /// Ends the COPY: throws what the server has against the rows. With a reason, it is told to take none of them.
  package func endCopy(abandonedBecause reason: String? = nil) async throws(Fault) {
    let connection = connection
    try await perform { () throws in try connection.endCopy(reason) }
  }

  /// Runs `COPY … TO STDOUT`; `row` gets each row, its newline included, with a state of its own that begins with
  /// `start`.
  package func copyOut<State, Result: Sendable>(
    _ statement: String, start: @escaping @Sendable () -> State,
    row: @escaping @Sendable (inout State, UnsafeRawBufferPointer) -> Void, end: @escaping @Sendable (State) -> Result
  ) async throws(Fault) -> Result {
    let connection = connection
    return try await perform { () throws in
      try connection.beginCopy(statement, PGRES_COPY_OUT)
      var state = start()
      try connection.getCopyData { row(&state, $0) }
      return end(state)
    }
  }

  /// Runs blocking work on the session's own queue, and nowhere else: the cooperative pool has a thread for each core,
  /// and two sessions that wait there for a server, which waits for a third one of ours, would wait for ever.
  private func perform<Value: Sendable>(
    _ work: @escaping @Sendable () throws -> Value
  ) async throws(Fault) -> Value {
    let connection = connection
    let (queue, limit) = (executor.queue, limit)
    do {
      return try await withTaskCancellationHandler {
        try await queue.blocking {
          connection.begin(within: limit)
          defer { connection.end() }
          return try work()
        }
      } onCancel: {
        connection.cancel()
      }
    } catch let error as PostgresError {
      if Task.isCancelled { throw Fault(CancellationError()) }
      if let limit, connection.isLate { throw silence(limit) }
      throw error.fault(in: settings)
    } catch {
      throw Fault(error)
    }
  }

  /// Ends the connection; an open transaction is rolled back by the server.
  package func close() { connection.close() }

  /// Hands the session to `work`, and ends the connection whatever comes of it.
  package nonisolated func use<Value, Failure: Error>(
    _ work: (PostgresSession) async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    do throws(Failure) {
      let value = try await work(self)
      await close()
      return value
    } catch {
      await close()
      throw error
    }
  }
}
