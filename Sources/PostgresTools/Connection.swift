import CLibPQ
import Dispatch
import Glibc
import Quoting
import Synchronization
import Units

/// The connection handle and its cancel handle.
///
/// - Safety: `handle` is touched only by the owning session, one call at a time on its queue. `canceller` is made
///   before the first query and freed with the object; `PQcancel` is documented as safe from any thread.
final class Connection: @unchecked Sendable {
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
