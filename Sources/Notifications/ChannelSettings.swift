package import HTTPTransport
import Quoting
package import Units

/// A channel as it is configured.
package struct ChannelSettings: Sendable, Hashable {
  package enum Kind: Sendable, Hashable {
    case email(Mail)
    case slack(Address)
    case discord(Address)
    case webhook(Webhook)
    case ping(Ping)
    /// A program and its arguments; the notice comes as JSON on its standard input.
    case command([String])

    package var name: String {
      switch self {
      case .email: "email"
      case .slack: "slack"
      case .discord: "discord"
      case .webhook: "webhook"
      case .ping: "ping"
      case .command: "command"
      }
    }
  }

  package struct Mail: Sendable, Hashable {
    package enum Route: Sendable, Hashable {
      case smtp(
        host: String, port: Int, MailSubmission.Security, user: String?, password: Secret?, authorityFile: String?)
      /// The local sendmail(8) program.
      case sendmail(String)
    }
    package var from: String
    package var to: [String]
    package var route: Route

    package init(from: String, to: [String], route: Route) {
      self.from = from
      self.to = to
      self.route = route
    }
  }

  /// Whoever knows the URL may post: it is a secret.
  package struct Address: Sendable, Hashable {
    package var url: Secret
    package var authorityFile: String?
    package var proxy: String?

    package init(url: Secret, authorityFile: String? = nil, proxy: String? = nil) {
      self.url = url
      self.authorityFile = authorityFile
      self.proxy = proxy
    }
  }

  package struct Webhook: Sendable, Hashable {
    package var address: Address
    /// Signs each request.
    package var secret: Secret?
    /// The notice as JSON where nil.
    package var template: WebhookTemplate?
    package var contentType = "application/json"
    package var headers: [String: Secret] = [:]

    package init(address: Address) { self.address = address }
  }

  package struct Ping: Sendable, Hashable {
    package var address: Address
    /// The jobs whose runs are told; all where nil.
    package var jobs: [String]?

    package init(address: Address, jobs: [String]?) {
      self.address = address
      self.jobs = jobs
    }
  }

  package var name: String
  package var kind: Kind
  package var topics: Set<NoticeTopic>
  /// How often an incident that lasts is told again; nil for once.
  package var every: Duration?
  /// Of which databases; all where nil.
  package var databases: [String]?

  package init(name: String, kind: Kind, topics: Set<NoticeTopic>, every: Duration?, databases: [String]?) {
    self.name = name
    self.kind = kind
    self.topics = topics
    self.every = every
    self.databases = databases
  }

  /// Whether the channel is to be told of something, by topics of which one suffices.
  package func wants(_ wanted: Set<NoticeTopic>, database: String?) -> Bool {
    guard !isPing, !topics.isDisjoint(with: wanted) else { return false }
    return concerns(database)
  }

  /// Whether what concerns this database, or no single one, concerns the channel. A pattern's databases are its own.
  package func concerns(_ database: String?) -> Bool {
    guard let databases, let database else { return true }
    return databases.contains { MemberName.isMeant(database, by: $0) }
  }

  package var isPing: Bool { if case .ping = kind { true } else { false } }

  /// Whether a dead-man ping is to be told of a job's runs on a database.
  package func isPinged(by job: String, on database: String) -> Bool {
    guard case .ping(let ping) = kind else { return false }
    return concerns(database) && ping.jobs?.contains(job) ?? true
  }
}
