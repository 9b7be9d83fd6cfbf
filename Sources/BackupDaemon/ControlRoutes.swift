import BackupOperations
import ControlAPI
import Faults
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import Quoting

/// The control API's paths: each is one call on the core. A fault becomes a reply of its HTTP status with the fault as JSON.
struct ControlRoutes {
  let core: DaemonCore

  /// More than any request needs: a client that sends a gigabyte is refused at this.
  private static let requestLimit = 65_536

  func router(_ access: ControlServer.Access) -> Router<ControlContext> {
    let router = Router(context: ControlContext.self, options: .autoGenerateHeadEndpoints)
    switch access {
    case .operators:
      router.add(middleware: PeerMiddleware(core: core, isReadOnly: false))
      addReports(to: router)
      addCommands(to: router)
      PageRoutes(core: core).addMetrics(to: router)
    case .everybody:
      router.add(middleware: PeerMiddleware(core: core, isReadOnly: true))
      addPublicReports(to: router)
      PageRoutes(core: core).addMetrics(to: router)
    case .page(let page):
      router.add(middleware: PageMiddleware(access: page))
      PageRoutes(core: core).add(to: router)
    }
    return router
  }

  /// What a kind of listener serves, as `ControlAccess` has its keys.
  func routes(_ access: ControlServer.Access) -> Set<String> {
    Set(router(access).routes.map { ControlAccess.key($0.method, $0.path.description) })
  }

  private func addReports(to router: Router<ControlContext>) {
    let core = core
    router.get("v1/status") { _, _ in try Self.reply(await core.status()) }
    router.get("v1/jobs") { _, _ in try Self.reply(await core.jobs()) }
    router.get("v1/backups") { request, _ in
      try Self.reply(try await core.backups(of: request.uri.queryParameters["database"].map(String.init)))
    }
    router.get("v1/unread") { _, _ in try Self.reply(await core.unreadStores()) }
    router.get("v1/report") { _, _ in try Self.reply(await core.report()) }
    router.get("v1/ledger/verify") { _, _ in try Self.reply(await core.verifyLedger()) }
    router.get("v1/backup") { request, _ in try Self.reply(try await core.backup(Self.identifier(request))) }
  }

  /// What everybody may know: states, ages and sizes. No sentence of a fault, which may name a table; no label, path or person.
  private func addPublicReports(to router: Router<ControlContext>) {
    let core = core
    router.get("v1/status") { _, _ in try Self.reply(await core.status(.recent).forEverybody) }
    router.get("v1/jobs") { _, _ in try Self.reply(await core.jobs().map(\.forEverybody)) }
    router.get("v1/backups") { request, _ in
      let database = request.uri.queryParameters["database"].map(String.init)
      return try Self.reply(await core.knownBackups(of: database).map(\.forEverybody))
    }
  }

  private func addCommands(to router: Router<ControlContext>) {
    let core = core
    router.get("v1/damaged") { request, _ in try Self.reply(await core.damaged(try Self.identifier(request))) }
    router.post("v1/damaged/delete") { request, context in
      let reference: BackupReference = try await Self.body(request)
      return try Self.reply(try await core.deleteDamaged(reference.id, by: context.caller))
    }
    router.get("v1/contents") { request, _ in try Self.reply(try await core.contents(Self.identifier(request))) }
    router.get("v1/history") { request, _ in
      let query = request.uri.queryParameters
      guard let database = query["database"], let table = query["table"] else {
        throw Fault(.usage, "The query needs 'database' and 'table'.", hint: "pgbackupctl history --help")
      }
      return try Self.reply(try await core.history(of: String(table), in: String(database)))
    }
    router.get("v1/extract") { request, _ in
      let query = request.uri.queryParameters
      guard let table = query["table"],
        let format = Extract.Format(rawValue: query["format"].map(String.init) ?? "copy")
      else {
        throw Fault(
          .usage, "The query needs 'table', and 'format' is copy, csv or json.", hint: "pgbackupctl extract --help")
      }
      let columns = query["columns"].map { $0.split(atByte: UInt8(ascii: ",")).map(String.init) } ?? []
      let source = try await core.source(
        Self.identifier(request), acceptUntrusted: query["accept_untrusted"].map(String.init) == "true")
      // A misspelt table, and damage where it begins, are told before the reply does.
      let rows = ExtractedRows(try Extract(String(table), columns: columns, format: format, from: source))
      try await rows.begin()
      return Self.pour(rows, request, core)
    }
    router.post("v1/jobs/:job/run") { request, context in
      try await Self.requireEnd(request)
      let job = context.parameters.get("job") ?? ""
      return try Self.reply(try await core.run(job: job, options: RunOptions(reason: "on demand", by: context.caller)))
    }
    router.post("v1/backups") { request, context in
      try Self.reply(try await core.backup(try await Self.body(request), by: context.caller))
    }
    router.post("v1/verify") { request, context in
      try Self.reply(try await core.verify(try await Self.body(request), by: context.caller))
    }
    router.post("v1/drill") { request, context in
      try Self.reply(try await core.drill(try await Self.body(request), by: context.caller))
    }
    router.post("v1/accept") { request, context in
      try Self.reply(try await core.accept(try await Self.body(request), by: context.caller))
    }
    router.post("v1/pin") { request, context in
      try Self.reply(try await core.pin(try await Self.body(request), by: context.caller))
    }
    router.post("v1/unpin") { request, context in
      try Self.reply(try await core.unpin(try await Self.body(request), by: context.caller))
    }
    router.post("v1/delete") { request, context in
      try Self.reply(try await core.delete(try await Self.body(request), by: context.caller))
    }
    router.post("v1/reconcile") { request, context in
      let command: ReconcileCommand = try await Self.body(request)
      return try Self.reply(try await core.reconcile(apply: command.apply, by: context.caller))
    }
    router.post("v1/restores/preview") { request, context in
      let command: RestoreCommand = try await Self.body(request)
      // The preview then reads a backup without a trusted signature.
      if command.acceptUntrusted {
        let rule = ControlAccess.Rule(role: .restorer, deed: "Reading a backup without a trusted signature")
        try await core.authorize(context.peer, for: rule)
      }
      return try Self.reply(try await core.previewRestore(command))
    }
    router.post("v1/restores") { request, context in
      try Self.reply(try await core.beginRestore(try await Self.body(request), by: context.caller))
    }
    router.post("v1/adoptions/preview") { request, _ in
      try Self.reply(try await core.adoptable(try await Self.body(request)))
    }
    router.post("v1/adoptions") { request, context in
      try Self.reply(try await core.beginAdoption(try await Self.body(request), by: context.caller))
    }
    router.post("v1/rollback") { request, context in
      try Self.reply(try await core.rollback(try await Self.body(request), by: context.caller))
    }
    router.post("v1/swap") { request, context in
      try Self.reply(try await core.swap(try await Self.body(request), by: context.caller))
    }
    router.post("v1/runs/:run/cancel") { request, context in
      try await Self.requireEnd(request)
      let run = context.parameters.get("run") ?? ""
      try await core.authorizeCancel(context.peer, of: run)
      return try Self.reply(try await core.cancel(run, by: context.caller))
    }
    router.post("v1/alerts/test") { request, _ in
      try Self.reply(try await core.testAlerts(try await Self.body(request)))
    }
    router.post("v1/reload") { request, context in
      try await Self.requireEnd(request)
      return try Self.reply(try await core.reload(by: context.caller))
    }
    router.get("v1/runs/:run/events") { request, context in
      let id = context.parameters.get("run") ?? ""
      guard let events = core.board.follow(id) else {
        throw Fault(.jobMissing, "There is no run '\(id)' any more.", hint: "pgbackupctl log")
      }
      return Self.stream(events, request)
    }
    router.get("v1/log") { request, _ in
      let count = request.uri.queryParameters["lines"].flatMap { Int($0) } ?? 20
      let records = await core.ledger.records(
        last: max(0, min(count, 100_000)), andFollowing: request.uri.queryParameters["follow"] == "1")
      return Self.stream(records, request)
    }
  }

  // MARK: - Replies

  static func response(_ fault: Fault) -> Response {
    let status: HTTPResponse.Status =
      switch fault.code.exitCode {
      case .usage: .badRequest
      case .notAllowed: .forbidden
      case .notFound: .notFound
      case .conflict: .conflict
      case .unreachable: .badGateway
      case .preflightFailed, .problemsFound: .unprocessableContent
      default: .internalServerError
      }
    let data = (try? ControlJSON.encode(fault)) ?? Data("{}".utf8)
    return Response(
      status: status, headers: [.contentType: "application/json"], body: .init(byteBuffer: ByteBuffer(bytes: data)))
  }

  private static func reply(_ value: some Encodable) throws -> Response {
    let data = try ControlJSON.encode(value)
    return Response(
      status: .ok, headers: [.contentType: "application/json"], body: .init(byteBuffer: ByteBuffer(bytes: data)))
  }

  /// Values as JSON lines, each sent as it comes, until the sequence or the client ends.
  private static func stream<Values: AsyncSequence & Sendable>(_ values: Values, _ request: Request) -> Response
  where Values.Element: Encodable {
    Response(
      status: .ok, headers: [.contentType: "application/x-ndjson"],
      body: .init { writer in
        try await request.body.consumeWithCancellationOnInboundClose { _ in
          for try await value in values {
            try await writer.write(ByteBuffer(bytes: try ControlJSON.encode(value) + [10]))
          }
        }
        try await writer.finish(nil)
      })
  }

  /// A table's rows, each piece as it comes. Where they turn out damaged, the connection breaks: what came then is not whole, and the
  /// daemon's log says why.
  private static func pour(_ rows: ExtractedRows, _ request: Request, _ core: DaemonCore) -> Response {
    Response(
      status: .ok, headers: [.contentType: "application/octet-stream"],
      body: .init { writer in
        try await request.body.consumeWithCancellationOnInboundClose { _ in
          do {
            while let bytes = try await rows.next() { try await writer.write(ByteBuffer(bytes: bytes)) }
          } catch let fault as Fault {
            if !Task.isCancelled { await core.extractFailed(fault) }
            throw fault
          }
        }
        try await writer.finish(nil)
      })
  }

  private static func identifier(_ request: Request) throws -> String {
    guard let id = request.uri.queryParameters["id"] else {
      throw Fault(.usage, "The query needs 'id'.", hint: "pgbackupctl list")
    }
    return String(id)
  }

  /// A request that was cut off is none, also where its body says nothing.
  private static func requireEnd(_ request: Request) async throws {
    guard (try? await request.body.collect(upTo: requestLimit)) != nil else {
      throw Fault(.usage, "The request is larger than \(requestLimit) bytes, or was cut off.")
    }
  }

  private static func body<Value: Decodable>(_ request: Request) async throws -> Value {
    guard let buffer = try? await request.body.collect(upTo: requestLimit) else {
      throw Fault(.usage, "The request is larger than \(requestLimit) bytes, or was cut off.")
    }
    do {
      return try ControlJSON.decode(Value.self, from: Data(buffer.readableBytesView))
    } catch {
      throw Fault(.usage, "The request's body is not what this path takes.", cause: String(describing: error))
    }
  }
}

/// Finds out who is asking and whether they may, and turns faults into replies.
private struct PeerMiddleware: RouterMiddleware {
  let core: DaemonCore
  /// The socket for everybody: its few routes need no role.
  let isReadOnly: Bool

  @concurrent func handle(
    _ request: Request, context: ControlContext, next: @concurrent (Request, ControlContext) async throws -> Response
  ) async throws -> Response {
    guard !isReadOnly || request.method == .get else {
      // Said plainly: a monitor that tries should not think that the path is wrong.
      return ControlRoutes.response(
        Fault(.notAllowed, "This socket only answers questions.", hint: "use the control socket"))
    }
    var context = context
    context.peer = try? await context.channel.peer()
    do {
      if !isReadOnly {
        try await core.authorize(context.peer, for: ControlAccess.rule(request.method, context.endpointPath))
      }
      return try await next(request, context)
    } catch let fault as Fault {
      return ControlRoutes.response(fault)
    }
  }
}

/// The rows of an extract on their way into a reply: its first pieces are read before that begins, and once.
private actor ExtractedRows {
  private var extract: Extract
  private var ahead: [[UInt8]] = []

  init(_ extract: sending Extract) { self.extract = extract }

  /// The head, where the format has one, and the first rows.
  func begin() async throws {
    while ahead.count < 2, let piece = try await read() { ahead.append(piece) }
  }

  func next() async throws(Fault) -> [UInt8]? {
    guard ahead.isEmpty else { return ahead.removeFirst() }
    do {
      return try await read()
    } catch {
      throw Fault(error)
    }
  }

  private func read() async throws -> [UInt8]? {
    var current = extract
    defer { extract = current }
    return try await current.next()
  }
}
