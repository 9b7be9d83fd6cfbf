import Foundation
import HTTPTransport
import Notifications
import Quoting
import Units

/// Reads what leads outward: the `alerts`, `hooks` and `metrics` sections.
struct AlertsReader {
  let surroundings: ConfigurationSurroundings
  let checkName: (String, ConfigurationNode, String) -> Void
  let secret: (String, [String: ConfigurationNode]) -> Secret?

  private enum Kind: String, CaseIterable { case email, slack, discord, webhook, ping, command }

  private static let shared = ["on", "every", "databases"]
  private static let keys: [Kind: [String]] = [
    .email: ["to", "from", "smtp", "tls", "user", "password", "password_file", "ca_file", "sendmail"],
    .slack: ["url", "url_file", "ca_file", "proxy", "proxy_file"],
    .discord: ["url", "url_file", "ca_file", "proxy", "proxy_file"],
    .webhook: [
      "url", "url_file", "ca_file", "proxy", "proxy_file", "secret", "secret_file", "template", "content_type",
      "headers",
    ],
    .ping: ["url", "url_file", "ca_file", "proxy", "proxy_file", "jobs"], .command: ["run"],
  ]

  /// What all channels have unless they say otherwise.
  private struct Defaults {
    var topics: Set<NoticeTopic> = [.failure, .warning, .objective]
    var every: Duration? = .seconds(6 * 3600)
  }

  func channels(_ section: ConfigurationNode, databases: [String], jobs: [String]) -> [ChannelSettings] {
    guard let values = section.section(["on", "every", "channels"] + Kind.allCases.map(\.rawValue)) else { return [] }
    var defaults = Defaults()
    if let node = values["on"] { defaults.topics = topics(node) }
    if let node = values["every"] { defaults.every = node.offOr { $0.duration(atLeast: .seconds(60), orOff: true) } }
    var channels = Kind.allCases.compactMap { kind in
      values[kind.rawValue].flatMap { channel(kind.rawValue, kind, $0, defaults, extra: []) }
    }
    for (name, node) in values["channels"]?.entries() ?? [] {
      checkName(name, node, "a channel")
      if Kind(rawValue: name) != nil {
        node.report("'\(name)' is a kind of channel: give this one another name")
        continue
      }
      let isKnown = Kind.allCases.flatMap { Self.keys[$0] ?? [] }
      guard let all = node.section(["kind"] + Self.shared + Set(isKnown).sorted()) else { continue }
      guard let kind = all["kind"] else {
        node.report("'kind' is missing: \(Kind.allCases.map(\.rawValue).joined(separator: ", "))")
        continue
      }
      guard let kind = kind.word(Kind.self), let channel = channel(name, kind, node, defaults, extra: ["kind"]) else {
        continue
      }
      channels.append(channel)
    }
    if channels.isEmpty, !values.isEmpty { section.report("there is no channel in it: nobody is told of anything") }
    for channel in channels { check(channel, section, databases: databases, jobs: jobs) }
    return channels
  }

  private func check(_ channel: ChannelSettings, _ section: ConfigurationNode, databases: [String], jobs: [String]) {
    if channel.databases?.isEmpty == true {
      section.report("channel '\(channel.name)': 'databases' is empty: leave it out for all of them")
    }
    for name in channel.databases ?? [] where !databases.containsExactly(name) {
      section.report(
        "channel '\(channel.name)': there is no database '\(name)'" + suggestion(for: name, among: databases))
    }
    guard case .ping(let ping) = channel.kind else { return }
    for name in ping.jobs ?? [] where !jobs.contains(name) {
      section.report("channel '\(channel.name)': there is no job '\(name)'" + suggestion(for: name, among: jobs))
    }
  }

  private func topics(_ node: ConfigurationNode) -> Set<NoticeTopic> {
    let topics = Set((node.texts() ?? []).compactMap { $0.word(NoticeTopic.self) })
    if node.texts()?.isEmpty == true { node.report("it names nothing to be told of: leave the channel out instead") }
    if topics == [.recovered] { node.report("who is told of no beginning is told of no end: add 'failure'") }
    return topics
  }

  private func channel(
    _ name: String, _ kind: Kind, _ node: ConfigurationNode, _ defaults: Defaults, extra: [String]
  ) -> ChannelSettings? {
    guard let values = node.section(extra + Self.shared + (Self.keys[kind] ?? [])) else { return nil }
    if kind == .ping {
      for key in ["on", "every"] {
        values[key]?.report("a ping tells of each run's beginning and end, and nothing else")
      }
    }
    let made: ChannelSettings.Kind? =
      switch kind {
      case .email: email(node, values)
      case .slack: address(node, values).map { .slack($0) }
      case .discord: address(node, values).map { .discord($0) }
      case .webhook: webhook(node, values)
      case .ping:
        address(node, values).map {
          .ping(.init(address: $0, jobs: values["jobs"]?.texts()?.compactMap { $0.text() }))
        }
      case .command: command(node, values["run"]).map { .command($0) }
      }
    guard let made else { return nil }
    let every = values["every"].map { $0.offOr { $0.duration(atLeast: .seconds(60), orOff: true) } }
    return ChannelSettings(
      name: name, kind: made, topics: values["on"].map(topics) ?? defaults.topics, every: every ?? defaults.every,
      databases: values["databases"]?.texts()?.compactMap { $0.text() })
  }

  // MARK: - Kinds

  private func address(
    _ node: ConfigurationNode, _ values: [String: ConfigurationNode]
  ) -> ChannelSettings.Address? {
    guard let url = secret("url", values) else {
      if values["url"] == nil, values["url_file"] == nil { node.report("'url' or 'url_file' is missing") }
      return nil
    }
    // Not the text itself: whoever knows the URL may post.
    guard url.revealed.utf8.allSatisfy({ $0 > 32 && $0 < 127 }), let parsed = URL(string: url.revealed),
      ["http", "https"].contains(parsed.scheme), parsed.host?.isEmpty == false
    else {
      (values["url"] ?? values["url_file"])?.report("it is no http or https URL")
      return nil
    }
    return ChannelSettings.Address(
      url: url, authorityFile: values["ca_file"].flatMap(file), proxy: proxy(values))
  }

  private func proxy(_ values: [String: ConfigurationNode]) -> String? {
    (values["proxy"] ?? values["proxy_file"])?.proxy(secret("proxy", values))
  }

  private func file(_ node: ConfigurationNode) -> String? {
    guard let path = node.text() else { return nil }
    if !FileManager.default.isReadableFile(atPath: path) { node.report("'\(path)' can't be read") }
    return path
  }

  private func webhook(_ node: ConfigurationNode, _ values: [String: ConfigurationNode]) -> ChannelSettings.Kind? {
    guard let address = address(node, values) else { return nil }
    var webhook = ChannelSettings.Webhook(address: address)
    webhook.secret = secret("secret", values)
    if let type = values["content_type"]?.text() { webhook.contentType = type }
    if let template = values["template"], let text = template.text() {
      if let name = WebhookTemplate.unknownName(in: text) {
        template.report(
          "there is no '{{\(name)}}'" + suggestion(for: name, among: WebhookTemplate.names)
            + "; there are \(WebhookTemplate.names.joined(separator: ", "))")
      }
      if text.ranges(of: "{{").count != text.ranges(of: "}}").count { template.report("a '{{' in it has no '}}'") }
      webhook.template = WebhookTemplate(text)
      if webhook.contentType.contains("json"), webhook.template?.makesJSON == false {
        template.report("filled in, it is no JSON: name another 'content_type', or mend it")
      }
    }
    let headers = Dictionary(
      (values["headers"]?.entries() ?? []).map { ($0.0, $0.1) }, uniquingKeysWith: { first, _ in first })
    for (key, value) in headers {
      // `Authorization_file: /path`, as for all secrets.
      let name = key.ends(withBytes: "_file") ? String(key.dropLast(5)) : key
      guard let text = secret(name, headers)?.revealed else { continue }
      let isToken = !name.isEmpty && name.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 58 }
      if !isToken || text.utf8.contains(where: { $0 < 32 }) { value.report("it is no header") }
      webhook.headers[name] = Secret(text)
    }
    return .webhook(webhook)
  }

  private func email(_ node: ConfigurationNode, _ values: [String: ConfigurationNode]) -> ChannelSettings.Kind? {
    let to = values["to"]?.texts()?.compactMap(mailAddress) ?? []
    if values["to"] == nil { node.report("'to' is missing: an address, or a list of them") }
    if let list = values["to"], list.texts()?.isEmpty == true { list.report("there is no address in it") }
    let from = values["from"].flatMap(mailAddress) ?? "pgbackupd@\(ProcessInfo.processInfo.hostName)"
    guard let server = values["smtp"] else {
      for key in ["tls", "user", "password", "password_file", "ca_file"] {
        values[key]?.report("it goes with 'smtp'; without it, the local sendmail takes the mail")
      }
      let program = values["sendmail"]?.text() ?? "/usr/sbin/sendmail"
      if !FileManager.default.isExecutableFile(atPath: program) {
        (values["sendmail"] ?? node).report("there is no '\(program)': name a mail server with 'smtp', or install one")
      }
      return .email(.init(from: from, to: to, route: .sendmail(program)))
    }
    values["sendmail"]?.report("'smtp' and 'sendmail' exclude each other")
    guard let text = server.text() else { return nil }
    let security = values["tls"]?.word(MailSubmission.Security.self)
    guard let (host, port) = Self.hostAndPort(text) else {
      server.report("'\(text)' is no server: write mail.example:587")
      return nil
    }
    // RFC 8314: 465 is TLS from the first byte on.
    let chosen = security ?? (port == 465 ? .tls : .startTLS)
    let password = secret("password", values)
    if chosen == .off, password != nil, !["localhost", "127.0.0.1", "::1"].contains(host) {
      values["tls"]?.report("without TLS the password would be readable by everybody on the way")
    }
    if (values["user"] == nil) != (password == nil) {
      node.report("'user' and 'password' (or 'password_file') go together")
    }
    return .email(
      .init(
        from: from, to: to,
        route: .smtp(
          host: host, port: port ?? (chosen == .tls ? 465 : chosen == .off ? 25 : 587), chosen,
          user: values["user"]?.text(), password: password, authorityFile: values["ca_file"].flatMap(file))))
  }

  /// Strict: it goes onto a command line and into a protocol of lines.
  private func mailAddress(_ node: ConfigurationNode) -> String? {
    node.value(
      { text in
        let isPlain =
          text.range(
            of: "^[A-Za-z0-9._%+'=/-]+@?[A-Za-z0-9._-]*$", options: .regularExpression) != nil
        return isPlain && !text.starts(withBytes: "-") && text.count <= 254 ? text : nil
      }, "is no mail address")
  }

  /// `host`, `host:port`, `[::1]:port`.
  private static func hostAndPort(_ text: String) -> (String, Int?)? {
    let pattern = "^(?:\\[([0-9a-fA-F:]+)\\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?$"
    guard let expression = try? NSRegularExpression(pattern: pattern),
      let match = expression.firstMatch(in: text, range: NSRange(text.startIndex..., in: text))
    else { return nil }
    func group(_ number: Int) -> String? { Range(match.range(at: number), in: text).map { String(text[$0]) } }
    guard let host = group(1) ?? group(2) else { return nil }
    guard let port = group(3) else { return (host, nil) }
    guard let number = Int(port), (1...65_535).contains(number) else { return nil }
    return (host, number)
  }

  // MARK: - The page

  /// Only this machine's own interface: whoever is elsewhere comes through a proxy that knows who it is, and has TLS.
  func metrics(_ section: ConfigurationNode) -> Configuration.Metrics? {
    guard let values = section.section(["listen", "names", "user", "password", "password_file"]) else { return nil }
    guard let listen = values["listen"] else {
      section.report("'listen' is missing: 127.0.0.1:9847")
      return nil
    }
    guard let text = listen.text() else { return nil }
    guard case (let host, let port?)? = Self.hostAndPort(text) else {
      listen.report("'\(text)' is no address and port: write 127.0.0.1:9847")
      return nil
    }
    let address = host == "localhost" ? "127.0.0.1" : host
    if address.wholeMatch(of: /127(\.\d{1,3}){3}/) == nil, address != "::1" {
      listen.report(
        "'\(host)' is not this machine's own interface: listen on 127.0.0.1, behind a proxy with TLS and passwords")
    }
    var metrics = Configuration.Metrics(host: address, port: port)
    metrics.names =
      values["names"]?.texts()?.compactMap { node in
        node.value(
          { text in
            text.isEmpty || text.contains(where: { ":/ ".contains($0) }) && !text.starts(withBytes: "[") ? nil : text
          },
          "is no host name: write it without scheme and port")
      } ?? []
    metrics.user = values["user"]?.text()
    metrics.password = secret("password", values)
    if (metrics.user == nil) != (metrics.password == nil) {
      section.report("'user' and 'password' (or 'password_file') go together")
    }
    return metrics
  }

  // MARK: - Commands

  /// A list is a program and its arguments; a text is for a shell.
  private func command(_ owner: ConfigurationNode, _ node: ConfigurationNode?) -> [String]? {
    guard let node else {
      owner.report("'run' is missing: a command for the shell, or a list of a program and its arguments")
      return nil
    }
    if node.isScalar { return node.text().map { ["/bin/sh", "-c", $0] } }
    let words = node.texts()?.compactMap { $0.text() } ?? []
    if words.isEmpty { node.report("it is empty") }
    return words.isEmpty ? nil : words
  }

  /// The commands of each moment, by its name.
  func hooks(_ section: ConfigurationNode, moments: [String]) -> (commands: [String: [[String]]], timeout: Duration?) {
    guard let values = section.section(moments + ["timeout"]) else { return ([:], nil) }
    var commands: [String: [[String]]] = [:]
    for moment in moments {
      guard let node = values[moment] else { continue }
      // A list of commands, each a text for the shell or a list of its own.
      commands[moment] = (node.texts() ?? []).compactMap { command(node, $0) }
    }
    return (commands, values["timeout"]?.duration())
  }
}
