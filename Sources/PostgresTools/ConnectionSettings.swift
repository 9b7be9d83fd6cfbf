import CLibPQ
package import Faults
import Glibc
import Quoting
package import Units

/// How to reach a database: libpq's own parameters, with the password kept apart.
///
/// Read from what libpq reads, a URI or `key=value` words, by libpq's own parser. The text form has no secret in it and
/// is what a client program gets on its command line; secrets reach it through files in memory (`ClientProcess`).
package struct ConnectionSettings: Sendable, Hashable {
  /// libpq's keywords in the order that they were given; never a secret one.
  package private(set) var parameters: [Parameter]
  package var password: Secret?
  /// The values of secret keywords other than `password`.
  private(set) var secrets: [String: Secret] = [:]

  /// A password, or another keyword of libpq that holds a secret.
  package var hasSecrets: Bool { password?.revealed.isEmpty == false || !secrets.isEmpty }

  /// The keywords of libpq 18 whose values must not be seen. (libpq manual, "Parameter Key Words")
  static let secretKeywords: Set<String> = [
    "password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key",
  ]

  /// Keywords that came with a later libpq than the oldest one that this builds with, and the major version that
  /// brought them.
  private static let laterKeywords: [String: Int] = [
    "require_auth": 16, "sslcertmode": 16, "load_balance_hosts": 16, "gssdelegation": 17, "sslnegotiation": 17,
    "scram_client_key": 18, "scram_server_key": 18, "oauth_issuer": 18, "oauth_client_id": 18,
    "oauth_client_secret": 18, "oauth_scope": 18, "min_protocol_version": 18, "max_protocol_version": 18,
    "servicefile": 18, "sslkeylogfile": 18,
  ]

  package struct Parameter: Sendable, Hashable {
    package let keyword: String
    package var value: String
  }

  /// A server's socket in a folder.
  package init(socketFolder: String, port: String, user: String, database: String) {
    parameters = [("host", socketFolder), ("port", port), ("user", user), ("dbname", database)].map(Parameter.init)
  }

  package init(parsing text: String, password: Secret? = nil) throws(Fault) {
    var message: UnsafeMutablePointer<CChar>?
    guard let options = PQconninfoParse(text, &message) else {
      let reason =
        message.map { String(cString: $0).lines.filter { !$0.isEmpty }.joined(separator: " ") } ?? "out of memory"
      PQfreemem(message)
      if let fault = Self.tooOld(for: reason) { throw fault }
      // libpq quotes the text in some messages, and the text may hold a secret.
      let mayHoldSecret =
        text.contains(byte: UInt8(ascii: "@")) || Self.secretKeywords.contains { text.contains(bytes: $0) }
      throw Fault(
        .configInvalid, "The connection text is no libpq URI and no list of key=value words.",
        cause: mayHoldSecret ? nil : reason,
        hint: "see 'Connection Strings' in PostgreSQL's libpq manual")
    }
    defer { PQconninfoFree(options) }
    self.init(options: options)
    if let password { self.password = password }
    for (keyword, secret) in secrets.sorted(by: { $0.key < $1.key }) {
      // pg_dump gets it by a service of ours, and libpq takes one service alone.
      guard self["service"] == nil else {
        throw Fault(
          .configInvalid, "'\(keyword)' and 'service' exclude each other in 'connect'.",
          hint: "write \(keyword) into the connection service file")
      }
      guard ServiceFile.takes(keyword, secret.revealed) else {
        throw Fault(
          .configInvalid,
          "The value of '\(keyword)' can't be handed to pg_dump without showing it to other processes.",
          cause: "it has a line break, white space at one of its ends, or 1000 bytes and more",
          hint: "choose another one")
      }
    }
  }

  /// Where libpq does not know a keyword because it is too old for it.
  private static func tooOld(for reason: String) -> Fault? {
    let words = reason.split { !($0.isASCII && ($0.isLetter || $0 == "_")) }.map(String.init)
    guard let keyword = words.first(where: { laterKeywords[$0] != nil }), let major = laterKeywords[keyword] else {
      return nil
    }
    let version = Int(PQlibVersion())
    guard version / 10000 < major else { return nil }
    return Fault(
      .configInvalid, "'\(keyword)' needs libpq \(major) or later, and this machine has \(version / 10000).",
      cause: "libpq is \(version / 10000).\(version % 10000)",
      hint: "install libpq5 of PostgreSQL \(major) or later (apt.postgresql.org), or leave '\(keyword)' out")
  }

  /// Takes the options that have a value, except those that have the one which is compiled in: another version's libpq
  /// may not know them. `options` is libpq's array, ended by a null keyword.
  init(options: UnsafeMutablePointer<PQconninfoOption>) {
    var parameters: [Parameter] = []
    var (password, secrets): (Secret?, [String: Secret]) = (nil, [:])
    var option = options
    while let keyword = option.pointee.keyword {
      let isCompiledIn = option.pointee.compiled.map { compiled in
        option.pointee.val.map { strcmp($0, compiled) == 0 } ?? false
      }
      if let value = option.pointee.val, value.pointee != 0, isCompiledIn != true {
        let name = String(cString: keyword)
        if name == "password" {
          password = Secret(String(cString: value))
        } else if Self.secretKeywords.contains(name) {
          secrets[name] = Secret(String(cString: value))
        } else {
          parameters.append(Parameter(keyword: name, value: String(cString: value)))
        }
      }
      option += 1
    }
    self.parameters = parameters
    self.password = password
    self.secrets = secrets
  }

  package subscript(keyword: String) -> String? {
    get { parameters.first { $0.keyword == keyword }?.value }
    set {
      parameters.removeAll { $0.keyword == keyword }
      if let newValue { parameters.append(Parameter(keyword: keyword, value: newValue)) }
    }
  }

  /// Sets a parameter that was not given.
  package mutating func setDefault(_ keyword: String, _ value: String) {
    if self[keyword] == nil { self[keyword] = value }
  }

  /// `key='value'` words with libpq's quoting; nothing secret is in them. Without `options`, which are ours: for
  /// people.
  package var conninfo: String {
    parameters.filter { $0.keyword != "options" }.map { "\($0.keyword)=\(ConnectionValue.quoted($0.value))" }
      .joined(separator: " ")
  }

  /// The same for a program that `ClientProcess` runs with this connection: it gets the options by its environment, and
  /// secrets by a service. Where there is a service of the user's, its own options would win over the environment's.
  package var programConninfo: String {
    var words = [conninfo]
    if self["service"] != nil, let options = self["options"] {
      words.append("options=\(ConnectionValue.quoted(options))")
    }
    if !secrets.isEmpty { words.append("service=\(ConnectionValue.quoted(ServiceFile.name))") }
    return words.joined(separator: " ")
  }

  /// For people: `backup@db.example:5432/shop`.
  package var summary: String {
    let user = self["user"].map { $0 + "@" } ?? ""
    let port = self["port"].map { ":" + $0 } ?? ""
    let place = self["host"] ?? self["hostaddr"] ?? self["service"].map { "service " + $0 } ?? "local socket"
    return "\(user)\(place)\(port)/\(self["dbname"] ?? "")"
  }

  /// The same connection, host by host where several are named (libpq manual, "Specifying Multiple Hosts"): libpq's own
  /// way through the list has no time limit for each of them when it is driven from outside. `prefer-standby` is two
  /// rounds, as in libpq.
  var candidates: [ConnectionSettings] {
    let lists = ["host", "hostaddr", "port"].compactMap { keyword in
      self[keyword].map {
        (keyword, $0.split(atByte: UInt8(ascii: ","), omittingEmptySubsequences: false).map(String.init))
      }
    }
    let count = lists.filter { $0.0 != "port" }.map(\.1.count).max() ?? 1
    guard count > 1 else { return [self] }
    let singles = (0..<count).map { position in
      var single = self
      for (keyword, values) in lists {
        // One port stands for all hosts.
        let value = values.count == 1 ? values[0] : position < values.count ? values[position] : ""
        single[keyword] = value.isEmpty ? nil : value
      }
      return single
    }
    guard self["target_session_attrs"] == "prefer-standby" else { return singles }
    return ["standby", "any"].flatMap { wanted in
      singles.map { single in
        var single = single
        single["target_session_attrs"] = wanted
        return single
      }
    }
  }
}

extension ConnectionSettings {
  /// The mode of TLS where a server on another machine need not prove who it is; nil where it must, or is on this
  /// machine.
  ///
  /// `require` looks at the certificate where an authority is named (libpq manual, "Client Verification of Server
  /// Certificates"); `sslrootcert=system` implies `verify-full`; GSSAPI knows its server.
  package var unverifiedMode: String? {
    func list(_ text: String) -> [Substring] {
      text.split(atByte: UInt8(ascii: ","), omittingEmptySubsequences: false)
    }
    let (names, addresses) = (list(self["host"] ?? self["hostaddr"] ?? ""), list(self["hostaddr"] ?? ""))
    let isElsewhere = names.enumerated().contains { position, name in
      let address = position < addresses.count && !addresses[position].isEmpty ? addresses[position] : name
      return !Self.isHere(String(address))
    }
    guard isElsewhere, self["gssencmode"] != "require", self["sslrootcert"] != "system" else { return nil }
    switch self["sslmode"] {
    case "verify-full", "verify-ca": return nil
    case "require" where self["sslrootcert"] != nil: return nil
    case let mode: return mode ?? "prefer"
    }
  }

  /// A socket, or an address of this machine's own.
  private static func isHere(_ host: String) -> Bool {
    host.isEmpty || host.starts(withBytes: "/") || host.starts(withBytes: "@") || host == "localhost" || host == "::1"
      || host.starts(withBytes: "127.") && host.utf8.allSatisfy { (48...57).contains($0) || $0 == 46 }
  }
}
