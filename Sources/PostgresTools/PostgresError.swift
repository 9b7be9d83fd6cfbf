import Faults
import Quoting

/// What the server or libpq said, with the SQLSTATE where there is one.
package struct PostgresError: Error, Sendable, Equatable {
  package let message: String
  /// Five characters, as in appendix A of PostgreSQL's manual.
  package let state: String?
  var needsPassword = false

  init(message: String, state: String?) {
    self.message = message.lines.filter { !$0.isEmpty }.joined(separator: "\n")
    self.state = state
  }

  /// A failed connection has no result to ask for the SQLSTATE: it stands in the verbose message, `FATAL:  28P01: …`.
  init(connectionMessage text: String, needsPassword: Bool) {
    let lines = text.lines.filter { !$0.isEmpty && !$0.starts(withBytes: "LOCATION:") }
    var state: String?
    var cleaned: [String] = []
    for line in lines {
      let words = line.split(separator: " ", omittingEmptySubsequences: false)
      if let code = words.first(where: { Self.isState($0) }) {
        state = String(code.dropLast())
        cleaned.append(words.filter { $0 != code }.joined(separator: " "))
      } else {
        cleaned.append(String(line))
      }
    }
    self.init(message: cleaned.joined(separator: "\n"), state: state)
    self.needsPassword = needsPassword
  }

  private static func isState(_ word: Substring) -> Bool {
    word.count == 6 && word.ends(withBytes: ":")
      && word.dropLast().allSatisfy { $0.isASCII && ($0.isNumber || $0.isUppercase) } && word.first?.isNumber == true
  }

  /// A connection that failed.
  func fault(connecting settings: ConnectionSettings) -> Fault {
    let place = settings.summary
    if needsPassword || state?.starts(withBytes: "28") == true {
      return Fault(
        .databaseAuthentication, "The server refused the login to \(place).", cause: message,
        hint: "check 'password_file' or the passfile, and pg_hba.conf on the server; then: pgbackupctl status")
    }
    if state == "3D000" {
      return Fault(
        .databaseMissing, "The database '\(settings["dbname"] ?? "")' does not exist on \(place).", cause: message,
        hint: "psql -l shows what is there; then mend 'connect' and: pgbackupctl reload")
    }
    return Fault(
      .databaseUnreachable, "No connection to \(place).", cause: message,
      hint: "pg_isready -d \(shell: settings.conninfo)")
  }

  /// A statement that failed.
  func fault(in settings: ConnectionSettings) -> Fault {
    switch state {
    case "42501":
      Fault(
        .databasePrivilege, "The role may not read all that a backup needs from \(settings.summary).", cause: message,
        hint: "grant pg_read_all_data to \(settings["user"] ?? "the role")")
    // Class 57, operator intervention: an administrator, a crash or a shutdown of the server has ended the session, and not the statement.
    case "57P01", "57P02", "57P03":
      Fault(
        .databaseUnreachable, "The server ended the connection to \(settings.summary).", cause: message,
        hint: "pg_isready -d \(shell: settings.conninfo)")
    case .some(let state) where ServerTrouble.isTold(byState: state):
      ServerTrouble.fault("A query on \(settings.summary) could not be done.", cause: message)
    case .some:
      Fault(.databaseQuery, "A query on \(settings.summary) failed.", cause: message, hint: "pgbackupctl log")
    case nil:
      Fault(
        .databaseUnreachable, "The connection to \(settings.summary) broke.", cause: message,
        hint: "pg_isready -d \(shell: settings.conninfo)")
    }
  }
}
