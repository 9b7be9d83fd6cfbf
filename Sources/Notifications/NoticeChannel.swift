import Crypto
package import Faults
package import Foundation
package import HTTPTransport
import OutsidePrograms
import Quoting
import Units

/// Takes a notice to people, or says why it could not. Nothing here waits longer than a minute, and nothing it throws tells a secret.
package struct NoticeChannel: Sendable {
  package let settings: ChannelSettings
  private let transport: any HTTPTransport
  private let mailer = CurlMailer()

  package init(_ settings: ChannelSettings) {
    let transport: any HTTPTransport
    switch settings.kind {
    case .slack(let address), .discord(let address): transport = Self.transport(address)
    case .webhook(let webhook): transport = Self.transport(webhook.address)
    case .ping(let ping): transport = Self.transport(ping.address)
    case .email, .command: transport = CurlTransport()
    }
    self.init(settings, transport: transport)
  }

  /// - Parameter transport: for tests.
  package init(_ settings: ChannelSettings, transport: any HTTPTransport) {
    self.settings = settings
    self.transport = transport
  }

  private static func transport(_ address: ChannelSettings.Address) -> any HTTPTransport {
    CurlTransport(.init(authorityFile: address.authorityFile, proxy: address.proxy))
  }

  /// - Parameter now: signed with it; a receiver may refuse what was signed long ago.
  /// - Returns: what is wrong though the message was taken: a mail server has refused some of its addresses.
  /// - Throws: `E-ALERT-UNDELIVERED` where nobody took it.
  @discardableResult package func deliver(_ notice: Notice, at now: Date? = nil) async throws(Fault) -> Fault? {
    do {
      switch settings.kind {
      case .email(let mail):
        let refused = try await send(mail, notice)
        return refused.isEmpty
          ? nil
          : Fault(
            .alertUndelivered,
            "The mail server refused some addresses of the channel '\(settings.name)'; the others got the message.",
            cause: NoticeText.cut(redact(refused.joined(separator: "\n")), 500),
            hint: "mend 'to', then: pgbackupctl alert test \(shell: settings.name)")
      case .slack(let address): try await post(address, try SlackBody.make(notice))
      case .discord(let address): try await post(address, try DiscordBody.make(notice))
      case .webhook(let webhook): try await call(webhook, notice, at: now ?? notice.time)
      case .ping(let ping): try await tellRun(ping, notice)
      case .command(let words): try await run(words, notice)
      }
      return nil
    } catch let fault as Fault {
      throw fault
    } catch let error as HTTPError {
      throw fault(error.reason)
    } catch {
      throw fault(String(describing: error))
    }
  }

  private func fault(_ reason: String) -> Fault {
    Fault(
      .alertUndelivered, "The channel '\(settings.name)' (\(settings.kind.name)) did not take a message.",
      cause: NoticeText.cut(redact(reason), 500), hint: "pgbackupctl alert test \(shell: settings.name)")
  }

  // MARK: - HTTP

  private func post(
    _ address: ChannelSettings.Address, path: String = "", _ body: [UInt8], type: String = "application/json",
    headers: [(name: String, value: String)] = []
  ) async throws {
    let request = HTTPRequest(
      "POST", Self.appending(path, to: address.url.revealed), headers: [("Content-Type", type)] + headers, body: body,
      replyLimit: .mebibytes(1), timeout: .seconds(30))
    let response = try await transport.send(request)
    guard !(200..<300).contains(response.status) else { return }
    if (300..<400).contains(response.status) {
      throw fault(
        "it answers with a redirect (\(response.status)), which is not followed: configure the URL that it leads to")
    }
    let words = String(decoding: response.body.prefix(300), as: UTF8.self)
      .lines.filter { !$0.isEmpty }.joined(separator: " ")
    throw fault("it answers \(response.status)\(words.isEmpty ? "" : ": \(words)")")
  }

  /// Before the query, where there is one.
  private static func appending(_ path: String, to url: String) -> String {
    guard !path.isEmpty else { return url }
    let parts = url.split(atByte: UInt8(ascii: "?"), maxSplits: 1, omittingEmptySubsequences: false)
    let base = parts[0].ends(withBytes: "/") ? parts[0].dropLast() : parts[0]
    return base + path + (parts.count > 1 ? "?\(parts[1])" : "")
  }

  private func call(_ webhook: ChannelSettings.Webhook, _ notice: Notice, at now: Date) async throws {
    let body: [UInt8]
    if let template = webhook.template {
      body = try template.body(notice)
    } else {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      encoder.dateEncodingStrategy = .iso8601
      body = Array(JSONText.shown(String(decoding: try encoder.encode(notice), as: UTF8.self)).utf8)
    }
    var headers = webhook.headers.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value.revealed) }
    headers.append(
      ("Idempotency-Key", "\(notice.id)-\(notice.kind.rawValue)-\(Int(notice.time.timeIntervalSince1970))"))
    if let secret = webhook.secret {
      let stamp = "\(Int(now.timeIntervalSince1970))"
      headers.append(("X-Pgbackupd-Timestamp", stamp))
      headers.append(("X-Pgbackupd-Signature", "sha256=" + Self.signature(stamp, body, secret)))
    }
    try await post(webhook.address, body, type: webhook.contentType, headers: headers)
  }

  /// HMAC-SHA256 (RFC 2104) of `timestamp.body`, in hexadecimal.
  static func signature(_ stamp: String, _ body: [UInt8], _ secret: Secret) -> String {
    let code = HMAC<SHA256>.authenticationCode(
      for: Array("\(stamp).".utf8) + body, using: SymmetricKey(data: Array(secret.revealed.utf8)))
    return code.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
  }

  private func tellRun(_ ping: ChannelSettings.Ping, _ notice: Notice) async throws {
    let path =
      switch notice.kind {
      case .runBegan: "/start"
      case .runFailed: "/fail"
      case .test: "/log"
      default: ""
      }
    // Healthchecks takes 100 kB. What is too much goes from the middle: the end of a log says why.
    let body = Array(([NoticeText(notice).plain] + notice.log).joined(separator: "\n").utf8)
    let whole = body.count <= 90_000 ? body : body.prefix(4_000) + Array("\n…\n".utf8) + body.suffix(80_000)
    try await post(
      ping.address, path: path, whole,
      type: "text/plain; charset=utf-8")
  }

  // MARK: - Mail and programs

  /// Returns what the server said of addresses that it refused.
  private func send(_ mail: ChannelSettings.Mail, _ notice: Notice) async throws -> [String] {
    let message = MailMessage(from: mail.from, to: mail.to, notice: notice).bytes
    switch mail.route {
    case .smtp(let host, let port, let security, let user, let password, let authorityFile):
      return try await mailer.send(
        MailSubmission(
          host: host, port: port, security: security, user: user, password: password, authorityFile: authorityFile,
          from: mail.from, to: mail.to, message: message))
    case .sendmail(let program):
      // sendmail(8): -i, a line with a single dot is no end; the message has lines of this system.
      let lines = String(decoding: message, as: UTF8.self).replacingBytes(of: "\r\n", with: "\n")
      try await OutsideCommand([program, "-i", "-f", mail.from, "--"] + mail.to, timeout: .seconds(60)).run(
        input: Array(lines.utf8))
      return []
    }
  }

  private func run(_ words: [String], _ notice: Notice) async throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.dateEncodingStrategy = .iso8601
    let text = NoticeText(notice)
    try await OutsideCommand(
      words,
      environment: [
        "PGBACKUPD_KIND": notice.kind.rawValue, "PGBACKUPD_TOPIC": notice.topic.rawValue,
        "PGBACKUPD_TITLE": text.title, "PGBACKUPD_CODE": notice.code ?? "",
        "PGBACKUPD_DATABASE": notice.database ?? "", "PGBACKUPD_JOB": notice.job ?? "",
      ], timeout: .seconds(60)
    ).run(input: Array(JSONText.shown(String(decoding: try encoder.encode(notice), as: UTF8.self)).utf8))
  }

  // MARK: - Secrets

  /// Without whatever of the channel's secrets somebody has repeated.
  private func redact(_ text: String) -> String {
    var secrets: [String] = []
    func add(_ address: ChannelSettings.Address) {
      let url = address.url.revealed
      secrets.append(url)
      // Tokens are parts of the path, or of the query.
      let rest = url.split(atByte: UInt8(ascii: "/")).dropFirst(2)
      secrets.append(rest.joined(separator: "/"))
      secrets += rest.flatMap { $0.split { "?&=".contains($0) } }.map(String.init).filter { $0.count >= 8 }
    }
    switch settings.kind {
    case .slack(let address), .discord(let address): add(address)
    case .webhook(let webhook):
      add(webhook.address)
      secrets += webhook.headers.values.map(\.revealed)
      if let secret = webhook.secret { secrets.append(secret.revealed) }
    case .ping(let ping): add(ping.address)
    case .email(let mail):
      if case .smtp(_, _, _, _, let password?, _) = mail.route { secrets.append(password.revealed) }
    case .command: break
    }
    return secrets.filter { !$0.isEmpty }.sorted { $0.count > $1.count }
      .reduce(text) { $0.replacingBytes(of: $1, with: "•••") }
  }
}
