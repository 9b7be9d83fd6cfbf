import ArtifactFormat
import BackupCatalog
import BackupOperations
import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import MetricsText
import NIOCore
import Pages
import Quoting
package import Units

/// The port for browsers and Prometheus: where it is, and who may look.
package struct PageAccess: Sendable, Hashable {
  /// An address of the loopback interface.
  package var host: String
  package var port: Int
  /// Names that a proxy may ask for, besides those of this machine.
  package var names: [String]
  package var user: String?
  package var password: Secret?

  package init(host: String, port: Int, names: [String] = [], user: String? = nil, password: Secret? = nil) {
    self.host = host
    self.port = port
    self.names = names
    self.user = user
    self.password = password
  }

  /// Whether a request's Host header is one that leads here. A page of somebody else's, whose name was made to lead here as well (DNS
  /// rebinding), has another one.
  func isOwn(_ authority: String?) -> Bool {
    guard var name = authority?.lowercased() else { return false }
    if let colon = name.lastIndex(of: ":"), name[name.index(after: colon)...].allSatisfy(\.isNumber),
      !name.ends(withBytes: "]")
    {
      name = String(name[..<colon])
    }
    return ["localhost", "127.0.0.1", "[::1]", host, "[\(host)]"].contains(name)
      || names.contains { $0.lowercased() == name }
  }

  /// Basic authentication (RFC 7617), where it is asked for.
  func isKnown(_ authorization: String?) -> Bool {
    guard let user, let password else { return true }
    let wanted = Array("Basic \(Data("\(user):\(password.revealed)".utf8).base64EncodedString())".utf8)
    let given = Array((authorization ?? "").utf8)
    // As long for a good beginning as for a bad one.
    var difference = UInt8(wanted.count == given.count ? 0 : 1)
    for (position, byte) in wanted.enumerated() { difference |= byte ^ (position < given.count ? given[position] : 0) }
    return difference == 0
  }
}

/// The status page, what keeps it fresh, and metrics.
struct PageRoutes {
  let core: DaemonCore

  func add(to router: Router<ControlContext>) {
    let core = core
    router.get("/") { _, _ in
      Self.text(await core.statusPage(), type: "text/html; charset=utf-8")
    }
    router.get("events") { request, _ in Self.events(core, request) }
    addMetrics(to: router)
  }

  func addMetrics(to router: Router<ControlContext>) {
    let core = core
    router.get("metrics") { request, _ in
      let format = MetricsText.Format(accept: request.headers[.accept])
      return Self.text(MetricsText.render(await core.metrics(), format), type: format.contentType)
    }
  }

  private static func text(_ text: String, type: String) -> Response {
    Response(status: .ok, headers: [.contentType: type], body: .init(byteBuffer: ByteBuffer(string: text)))
  }

  /// Server-sent events (HTML Living Standard, 9.2): the runs as they go on, and a word when the rest of the page is old.
  private static func events(_ core: DaemonCore, _ request: Request) -> Response {
    Response(
      status: .ok, headers: [.contentType: "text/event-stream"],
      body: .init { writer in
        try await request.body.consumeWithCancellationOnInboundClose { _ in
          var ended = core.board.ended
          try await writer.write(event("runs", await core.runsPart()))
          for await _ in beaten(core.board.watch()) {
            try await writer.write(event("runs", await core.runsPart()))
            if core.board.ended != ended {
              ended = core.board.ended
              try await writer.write(event("changed", ""))
            }
            // A fast run must not make a browser busy.
            try await Task.sleep(for: .milliseconds(500))
          }
        }
        try await writer.finish(nil)
      })
  }

  /// The same, and a word every 20 s in any case: it shows who has gone.
  private static func beaten(_ changes: AsyncStream<Void>) -> AsyncStream<Void> {
    let (stream, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    let forward = Task {
      for await _ in changes { continuation.yield() }
      continuation.finish()
    }
    let beat = Task {
      while !Task.isCancelled {
        try await Task.sleep(for: .seconds(20))
        continuation.yield()
      }
    }
    continuation.onTermination = { @Sendable _ in
      forward.cancel()
      beat.cancel()
    }
    return stream
  }

  private static func event(_ name: String, _ data: String) -> ByteBuffer {
    let lines = data.lines.map { "data: \($0)\n" }.joined()
    return ByteBuffer(string: "event: \(name)\n\(lines)\n")
  }
}

/// Who may look, and what a browser may do with what it gets.
struct PageMiddleware: RouterMiddleware {
  let access: PageAccess

  @concurrent func handle(
    _ request: Request, context: ControlContext, next: @concurrent (Request, ControlContext) async throws -> Response
  ) async throws -> Response {
    var response: Response
    if !access.isOwn(request.head.authority) {
      response = Self.refusal(
        .misdirectedRequest,
        "This is pgbackupd on another name; add the name to 'metrics: names:' where a proxy uses it.\n")
    } else if !access.isKnown(request.headers[.authorization]) {
      response = Self.refusal(.unauthorized, "Who are you?\n")
      response.headers[.wwwAuthenticate] = "Basic realm=\"pgbackupd\", charset=\"UTF-8\""
    } else if request.method != .get, request.method != .head {
      response = Self.refusal(.methodNotAllowed, "This port only answers questions.\n")
      response.headers[.allow] = "GET, HEAD"
    } else {
      do {
        response = try await next(request, context)
      } catch let error as HTTPError where error.status == .notFound {
        response = Self.refusal(.notFound, "There is / and /metrics.\n")
      }
    }
    for (name, value) in Self.headers { response.headers[name] = value }
    return response
  }

  private static func refusal(_ status: HTTPResponse.Status, _ text: String) -> Response {
    Response(
      status: status, headers: [.contentType: "text/plain; charset=utf-8"],
      body: .init(byteBuffer: ByteBuffer(string: text)))
  }

  /// Nothing but the page's own style and script, by their digests (CSP Level 3); no frame, no form, no foreign reader.
  private static let headers: [(HTTPField.Name, String)] = {
    let policy = [
      "default-src 'none'", "style-src \(digest(of: StatusPage.style))", "script-src \(digest(of: StatusPage.script))",
      "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ]
    let texts = [
      ("Content-Security-Policy", policy.joined(separator: "; ")), ("X-Content-Type-Options", "nosniff"),
      ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store"),
      ("Cross-Origin-Resource-Policy", "same-origin"), ("Cross-Origin-Opener-Policy", "same-origin"),
    ]
    return texts.compactMap { name, value in HTTPField.Name(name).map { ($0, value) } }
  }()

  private static func digest(of text: String) -> String {
    let hexadecimal = Array(Digest.hexadecimal(of: Array(text.utf8)).utf8)
    let bytes = stride(from: 0, to: hexadecimal.count, by: 2).map { position in
      UInt8(String(decoding: hexadecimal[position..<position + 2], as: UTF8.self), radix: 16) ?? 0
    }
    return "'sha256-\(Data(bytes).base64EncodedString())'"
  }
}

extension DaemonCore {
  func statusPage() async -> String {
    let overview = await overview(.known)
    let proofs = await proofs(overview.catalog)
    let backups = overview.decisions.map { decision in
      var summary = BackupSummary(decision.backup, retention: "")
      summary.note(proofs)
      return summary
    }
    let totals = await ledger.history.totals
    let days = totals.days.mapValues { days in
      days.mapValues { DayResult(succeeded: $0.succeeded, failed: $0.failed) }
    }
    let growth = totals.growth.mapValues { all in
      all.map { BackupFigures(time: $0.time, storedBytes: $0.storedBytes, rows: $0.rows, seconds: $0.seconds) }
    }
    return StatusPage(
      overview.report, jobs: await jobs(), backups: backups, days: days, growth: growth, host: HostName.current
    ).html
  }

  func runsPart() -> String { StatusPage.runs(board.active, copies.copies, now: now()) }
}
