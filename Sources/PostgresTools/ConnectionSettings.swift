import CLibPQ
package import Faults
import Glibc
import Quoting
package import Units

/// How to reach a database: libpq's own parameters, with the password kept apart.
///
/// Read from what libpq reads, a URI or `key=value` words, by libpq's own parser. The text form has no secret in it and is
/// what a client program gets on its command line.
package struct ConnectionSettings: Sendable, Hashable {
  /// libpq's keywords in the order that they were given; never a password.
  package private(set) var parameters: [Parameter]
  package var password: Secret?

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
      // libpq quotes the text in some messages, and the text may hold a password.
      throw Fault(
        .configInvalid, "The connection text is no libpq URI and no list of key=value words.",
        cause: text.contains(bytes: "password") || text.contains(byte: UInt8(ascii: "@")) ? nil : reason,
        hint: "see 'Connection Strings' in PostgreSQL's libpq manual")
    }
    defer { PQconninfoFree(options) }
    self.init(options: options)
    if let password { self.password = password }
    if parameters.contains(where: { $0.keyword == "sslpassword" }) {
      throw Fault(
        .configInvalid, "sslpassword can't be handed to pg_dump without showing it to other processes.",
        hint: "use a client key without a pass phrase, mode 0600")
    }
  }

  /// Takes the options that have a value, except those that have the one which is compiled in: another version's libpq may not
  /// know them. `options` is libpq's array, ended by a null keyword.
  init(options: UnsafeMutablePointer<PQconninfoOption>) {
    var parameters: [Parameter] = []
    var password: Secret?
    var option = options
    while let keyword = option.pointee.keyword {
      let isCompiledIn = option.pointee.compiled.map { compiled in
        option.pointee.val.map { strcmp($0, compiled) == 0 } ?? false
      }
      if let value = option.pointee.val, value.pointee != 0, isCompiledIn != true {
        let name = String(cString: keyword)
        if name == "password" {
          password = Secret(String(cString: value))
        } else {
          parameters.append(Parameter(keyword: name, value: String(cString: value)))
        }
      }
      option += 1
    }
    self.parameters = parameters
    self.password = password
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

  /// `key='value'` words with libpq's quoting; nothing secret is in them.
  package var conninfo: String {
    parameters.map { "\($0.keyword)=\(ConnectionValue.quoted($0.value))" }.joined(separator: " ")
  }

  /// For people: `backup@db.example:5432/shop`.
  package var summary: String {
    let user = self["user"].map { $0 + "@" } ?? ""
    let port = self["port"].map { ":" + $0 } ?? ""
    let place = self["host"] ?? self["hostaddr"] ?? self["service"].map { "service " + $0 } ?? "local socket"
    return "\(user)\(place)\(port)/\(self["dbname"] ?? "")"
  }

  /// The same connection, host by host where several are named (libpq manual, "Specifying Multiple Hosts"): libpq's own way through
  /// the list has no time limit for each of them when it is driven from outside. `prefer-standby` is two rounds, as in libpq.
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
