import CLibPQ
import Dispatch
package import Faults
import Glibc
import QueueExecution
import Quoting
import Synchronization
import Units

/// One libpq connection. Calls block its own queue and nobody else; a cancelled task cancels the running query, and
/// hangs up where the server does not end it.
package actor PostgresSession {
  /// One row of a result: each value as PostgreSQL's text, NULL as nil.
  package struct Row: Sendable, Equatable {
    package let values: [String?]

    fileprivate init(_ values: [String?]) { self.values = values }

    /// NULL also where the server has sent no such column: how wide an answer is is the server's word, and who answers
    /// may be code of a backup in its drill.
    package subscript(column: Int) -> String? { values.indices.contains(column) ? values[column] : nil }

    /// About the bytes that it takes.
    fileprivate var memory: Int { values.reduce(24) { $0 + 8 + ($1?.utf8.count ?? 0) } }
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

/// The connection handle and its cancel handle.
///
/// - Safety: `handle` is touched only by the owning session, one call at a time on its queue. `canceller` is made
///   before the first query and freed with the object; `PQcancel` is documented as safe from any thread.
private final class Connection: @unchecked Sendable {
  private(set) var handle: OpaquePointer?
  private var canceller: OpaquePointer?

  /// What another thread has to know to hang up.
  private struct Line {
    var socket: Int32 = -1
    /// Counts the calls; the same number later is the same call.
    var call = 0
    var isBusy = false
    /// It was hung up on, as the answer took too long.
    var isLate = false
  }

  private let line = Mutex(Line())

  /// How long a server may take to end a query that was cancelled: one that hangs never does.
  private static let patience = DispatchTimeInterval.seconds(10)

  var isLate: Bool { line.withLock(\.isLate) }

  /// - Parameter limit: after so long the call is ended.
  func begin(within limit: Duration? = nil) {
    let call = line.withLock { line in
      line.call += 1
      line.isBusy = true
      return line.call
    }
    if let limit { hangUp(on: call, after: .nanoseconds(Int(limit.inSeconds * 1e9)), isLate: true) }
  }

  func end() { line.withLock { $0.isBusy = false } }

  deinit {
    close()
    PQfreeCancel(canceller)
  }

  func close() {
    line.withLock { $0.socket = -1 }
    PQfinish(handle)
    handle = nil
  }

  /// Asks the server to end the running query. PQcancel makes a connection of its own and waits for it, for as long as
  /// a dead network lets it: that is nothing for the thread that cancels.
  func cancel() {
    DispatchQueue.global().async { [self] in
      guard let canceller else { return }
      withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
        _ = PQcancel(canceller, buffer.baseAddress, Int32(buffer.count))
      }
    }
    let call = line.withLock { $0.isBusy ? $0.call : nil }
    guard let call else { return }
    hangUp(on: call, after: Self.patience, isLate: false)
  }

  private func hangUp(on call: Int, after time: DispatchTimeInterval, isLate: Bool) {
    // Who is gone need not be waited for.
    DispatchQueue.global().asyncAfter(deadline: .now() + time) { [weak self] in
      let isConnecting = self?.line.withLock { line in
        guard line.isBusy, line.call == call, line.socket >= 0 else { return line.isBusy && line.call == call }
        line.isLate = isLate
        // libpq's call returns with an error; the descriptor stays its own.
        shutdown(line.socket, Int32(SHUT_RDWR))
        return false
      }
      if isConnecting == true { self?.hangUp(on: call, after: .seconds(1), isLate: isLate) }
    }
  }

  /// Connects to the first of the named hosts that answers and is what `target_session_attrs` asks for.
  func open(_ settings: ConnectionSettings) throws(PostgresError) {
    // Another try would not be hung up on.
    guard !isLate else { throw PostgresError(message: "no answer", state: nil) }
    var failures: [PostgresError] = []
    for candidate in settings.candidates {
      do throws(PostgresError) {
        return try connect(candidate)
      } catch {
        failures.append(error)
      }
    }
    // A host that is down is no reason to hide that another one refused the password.
    throw failures.first { $0.state != nil } ?? failures.last ?? PostgresError(message: "no host is named", state: nil)
  }

  private func connect(_ settings: ConnectionSettings) throws(PostgresError) {
    var parameters = settings.parameters.map { ($0.keyword, $0.value) }
    if let password = settings.password { parameters.append(("password", password.revealed)) }
    parameters += settings.secrets.map { ($0.key, $0.value.revealed) }
    let keywords = parameters.map { strdup($0.0) }
    let values = parameters.map { strdup($0.1) }
    defer { (keywords + values).forEach { free($0) } }
    // `dbname` is a plain name here: expand_dbname is 0.
    handle = PQconnectStartParams(
      keywords.map { UnsafePointer($0) } + [nil], values.map { UnsafePointer($0) } + [nil], 0)
    guard let handle else { throw PostgresError(message: "out of memory", state: nil) }
    // With the SQLSTATE in the message, the reason can be told in whatever language the server speaks.
    PQsetErrorVerbosity(handle, PQERRORS_VERBOSE)
    let seconds = settings["connect_timeout"].flatMap(Int32.init) ?? 10
    guard Self.poll(handle, seconds: max(2, seconds)), PQstatus(handle) == CONNECTION_OK else {
      let text = PQstatus(handle) == CONNECTION_BAD ? Self.message(handle) : "no answer within \(max(2, seconds)) s"
      let needsPassword = PQconnectionNeedsPassword(handle) == 1
      close()
      throw PostgresError(connectionMessage: text, needsPassword: needsPassword)
    }
    PQsetErrorVerbosity(handle, PQERRORS_DEFAULT)
    PQsetNoticeProcessor(handle, { _, _ in }, nil)
    PQfreeCancel(canceller)
    canceller = PQgetCancel(handle)
    line.withLock { $0.socket = PQsocket(handle) }
  }

  /// The server's major version; 0 without a connection.
  var major: Int { handle.map { Int(PQserverVersion($0)) / 10000 } ?? 0 }

  /// Whether all of these settings are nought; not where the session did not live to tell.
  func isNought(_ names: [String]) throws(PostgresError) -> Bool {
    let list = names.map { "pg_catalog.current_setting('\($0)')" }.joined(separator: ", ")
    do throws(PostgresError) {
      return try query("SELECT \(list)", []).first?.values.allSatisfy { $0 == "0" } == true
    } catch {
      // 25P03, 25P04, 57P05: timeouts. Without a state, the connection is gone.
      guard error.state == nil || error.state?.starts(withBytes: "25P") == true || error.state == "57P05" else {
        throw error
      }
      return false
    }
  }

  /// Drives the connection until it is made, refused, or has taken too long.
  private static func poll(_ handle: OpaquePointer, seconds: Int32) -> Bool {
    let deadline = DispatchTime.now().uptimeNanoseconds + UInt64(seconds) * 1_000_000_000
    var state = PGRES_POLLING_WRITING
    while state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED {
      var descriptor = pollfd(
        fd: PQsocket(handle), events: Int16(state == PGRES_POLLING_READING ? POLLIN : POLLOUT), revents: 0)
      let now = DispatchTime.now().uptimeNanoseconds
      guard now < deadline else { return false }
      let ready = Glibc.poll(&descriptor, 1, Int32((deadline - now) / 1_000_000 + 1))
      if ready == 0 { return false }
      if ready < 0 && errno != EINTR { return false }
      state = PQconnectPoll(handle)
    }
    return true
  }

  func query(_ statement: String, _ arguments: [String?]) throws(PostgresError) -> PostgresSession.Rows {
    guard let handle else { throw PostgresError(message: "the connection is closed", state: nil) }
    let values = arguments.map { $0.map { strdup($0) } ?? nil }
    defer { values.forEach { free($0) } }
    // Row by row: what a server sends has no end by itself.
    guard
      PQsendQueryParams(handle, statement, Int32(values.count), nil, values.map { UnsafePointer($0) }, nil, nil, 0)
        == 1,
      PQsetSingleRowMode(handle) == 1
    else { throw PostgresError(message: Self.message(handle), state: nil) }
    var rows: PostgresSession.Rows = []
    var room = Self.answerBytes
    var failure: PostgresError?
    while let result = PQgetResult(handle) {
      defer { PQclear(result) }
      switch PQresultStatus(result) {
      case PGRES_SINGLE_TUPLE:
        let row = Self.row(of: result)
        room -= row.memory
        guard room >= 0 else {
          close()
          throw PostgresError(message: "the answer has more than \(Self.answerBytes >> 20) MiB", state: nil)
        }
        rows.append(row)
      case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: break
      case PGRES_FATAL_ERROR, PGRES_NONFATAL_ERROR, PGRES_BAD_RESPONSE:
        do throws(PostgresError) { try check(result, handle, []) } catch { failure = failure ?? error }
      default:
        // A COPY that nobody has asked for: libpq would give it again and again.
        close()
        throw PostgresError(message: "the server's answer is none to a query", state: nil)
      }
    }
    if let failure { throw failure }
    return rows
  }

  /// All the answers of ours are far smaller, but that a server has millions of large objects.
  private static let answerBytes = 512 << 20

  private static func row(of result: OpaquePointer) -> PostgresSession.Row {
    PostgresSession.Row(
      (0..<PQnfields(result)).map { column in
        PQgetisnull(result, 0, column) == 1 ? nil : PQgetvalue(result, 0, column).map { String(cString: $0) }
      })
  }

  func execute(_ statements: String) throws(PostgresError) {
    guard let handle else { throw PostgresError(message: "the connection is closed", state: nil) }
    let result = PQexec(handle, statements)
    defer { PQclear(result) }
    try check(result, handle, [PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY])
  }

  func beginCopy(_ statement: String, _ direction: ExecStatusType) throws(PostgresError) {
    guard let handle else { throw PostgresError(message: "the connection is closed", state: nil) }
    let result = PQexec(handle, statement)
    defer { PQclear(result) }
    try check(result, handle, [direction])
  }

  func putCopyData(_ rows: [UInt8]) throws(PostgresError) {
    guard let handle else { throw PostgresError(message: "the connection is closed", state: nil) }
    // In small messages: the server parses one while the next is on its way, and holds each of them whole.
    let isTaken = rows.withUnsafeBytes { buffer in
      stride(from: 0, to: buffer.count, by: Self.messageBytes).allSatisfy { start in
        let piece = UnsafeRawBufferPointer(rebasing: buffer[start..<min(buffer.count, start + Self.messageBytes)])
        return PQputCopyData(handle, piece.bindMemory(to: CChar.self).baseAddress, Int32(piece.count)) == 1
      }
    }
    guard isTaken else { throw PostgresError(message: Self.message(handle), state: nil) }
  }

  private static let messageBytes = 64 << 10

  func endCopy(_ reason: String?) throws(PostgresError) {
    guard let handle else { throw PostgresError(message: "the connection is closed", state: nil) }
    guard PQputCopyEnd(handle, reason) == 1 else { throw PostgresError(message: Self.message(handle), state: nil) }
    try drain(handle)
  }

  func getCopyData(_ row: (UnsafeRawBufferPointer) -> Void) throws(PostgresError) {
    guard let handle else { throw PostgresError(message: "the connection is closed", state: nil) }
    var buffer: UnsafeMutablePointer<CChar>?
    while true {
      let count = PQgetCopyData(handle, &buffer, 0)
      guard count > 0 else {
        guard count == -1 else { throw PostgresError(message: Self.message(handle), state: nil) }
        return try drain(handle)
      }
      row(UnsafeRawBufferPointer(start: buffer, count: Int(count)))
      PQfreemem(buffer)
    }
  }

  /// Reads the results of a command to their end; the first failure is thrown after that.
  private func drain(_ handle: OpaquePointer) throws(PostgresError) {
    var failure: PostgresError?
    while let result = PQgetResult(handle) {
      defer { PQclear(result) }
      do throws(PostgresError) {
        try check(result, handle, [PGRES_COMMAND_OK, PGRES_TUPLES_OK])
      } catch {
        failure = failure ?? error
      }
    }
    if let failure { throw failure }
  }

  private func check(
    _ result: OpaquePointer?, _ handle: OpaquePointer, _ wanted: [ExecStatusType]
  ) throws(PostgresError) {
    guard wanted.contains(PQresultStatus(result)) else {
      // PG_DIAG_SQLSTATE is a character macro, 'C'.
      let state = PQresultErrorField(result, Int32(UInt8(ascii: "C"))).map { String(cString: $0) }
      throw PostgresError(message: Self.message(handle), state: state)
    }
  }

  private static func message(_ handle: OpaquePointer) -> String {
    PQerrorMessage(handle).map { String(cString: $0) } ?? ""
  }
}
