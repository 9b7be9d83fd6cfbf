package import Faults
import Glibc
import Quoting
import Units

extension ConnectionSettings {
  /// A password file's text for this server and this user, on any database of it: pg_dumpall and pg_restore connect to
  /// several.
  ///
  /// Every host that is named gets a line of its own, with its port. libpq looks up `host`, and `hostaddr` where there
  /// is no host; it looks up the compiled-in socket folder as `localhost` (`passwordFromFile` of fe-connect.c).
  ///
  /// - Throws: where the password, or a name, has a zero byte, CR or LF: no password file can hold them.
  package func passwordFile() throws(Fault) -> String {
    let lines = places.flatMap { place in
      Self.lookedUp(place.host).map { host in
        [host, place.port, user, password?.revealed ?? ""].map { PasswordFileField.quoted($0) }
      }
    }
    var text = ""
    for fields in lines {
      guard let host = fields[0], let port = fields[1], let user = fields[2], let password = fields[3] else {
        throw Fault(
          .configInvalid, "The password or the user's name has a newline, which a password file can't hold.",
          hint: "ALTER ROLE … PASSWORD '…', with a password of one line")
      }
      text += "\(host):\(port):*:\(user):\(password)\n"
    }
    return text
  }

  private var places: [(host: String, port: String)] {
    candidates.map { one in
      (one["host"] ?? one["hostaddr"] ?? "", one["port"] ?? "5432")
    }
  }

  /// libpq's default is the name of the account that the process runs under.
  private var user: String { self["user"] ?? getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } ?? "" }

  /// Debian compiles `/var/run/postgresql` in, PostgreSQL itself `/tmp`.
  private static func lookedUp(_ host: String) -> [String] {
    switch host {
    case "": ["localhost"]
    case "/var/run/postgresql", "/tmp": [host, "localhost"]
    default: [host]
    }
  }
}
