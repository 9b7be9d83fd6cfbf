package import Faults
import Quoting
import Units

/// pg_dump as this product runs it: custom format, uncompressed, one snapshot, bounded lock waits.
package struct DumpProgram: Sendable {
  private let program: ClientProgram
  private let connection: ConnectionSettings

  /// Of the archive: UTF-8, which every name can be read in, but where the server can't tell what its bytes mean.
  package let encoding: String

  /// - Parameters:
  ///   - encoding: the database's, as `pg_encoding_to_char` names it.
  ///   - serverMajor: the server's major version.
  package init(_ program: ClientProgram, _ connection: ConnectionSettings, encoding: String, serverMajor: Int) {
    self.program = program
    self.encoding = ["SQL_ASCII", "MULE_INTERNAL"].contains(encoding) ? encoding : "UTF8"
    var connection = connection
    connection["options"] = SessionSettings.options(
      after: TextSettings.options(after: connection["options"]), major: serverMajor)
    connection["application_name"] = "pgbackupd pg_dump"
    self.connection = connection
  }

  /// Dumps into `body`, and returns what `body` returned. `body` gets the archive's bytes and must read to their end; what it
  /// returns counts only if this returns.
  package func dump<Value: Sendable>(
    snapshot: Snapshot, lockWait: Duration, stallAfter: Duration,
    _ body: @Sendable (ProgramOutput) async throws -> Value
  ) async throws -> Value {
    let process = ClientProcess(
      path: program.path,
      arguments: [
        "--format=custom", "--compress=0", "--no-password", "--encoding=\(encoding)",
        "--snapshot=\(snapshot.identifier)",
        "--lock-wait-timeout=\(Int64(lockWait.inSeconds * 1000))", "--dbname=\(connection.programConninfo)",
      ], login: connection)
    let outcome = try await process.stream(stallDeadline: stallAfter, body)
    guard outcome.status.isSuccess else { throw fault(outcome.status, outcome.complaint) }
    return outcome.value
  }

  private func fault(_ status: ClientProcess.Status, _ complaint: String) -> Fault {
    let place = connection.summary
    // pg_dump bounds its wait for locks by a statement timeout, and sets none for anything else.
    if complaint.contains(bytes: "statement timeout") || complaint.contains(bytes: "lock timeout") {
      return Fault(
        .dumpLockTimeout, "A table of \(place) stayed locked, and pg_dump did not wait longer.", cause: complaint,
        hint: "find the holder in pg_locks, or raise 'lock_wait'; then run the job again")
    }
    if complaint.contains(bytes: "max_locks_per_transaction") {
      return Fault(
        .dumpLocks, "The server has too few locks for a dump of \(place).", cause: complaint,
        hint: "raise max_locks_per_transaction and restart the server; then run the job again")
    }
    if complaint.contains(bytes: "row-level security") {
      return Fault(
        .databaseRowSecurity, "Row-level security hides rows of \(place) from the role.", cause: complaint,
        hint: "ALTER ROLE … BYPASSRLS; then run the job again")
    }
    if complaint.contains(bytes: "permission denied") {
      return Fault(
        .databasePrivilege, "The role may not read all of \(place).", cause: complaint,
        hint: "GRANT pg_read_all_data TO the role; then run the job again")
    }
    return Fault(
      .dumpFailed, "pg_dump of \(place) failed (\(status.text)); nothing of it was kept.",
      cause: complaint.isEmpty ? nil : complaint, hint: "pgbackupctl log")
  }
}

/// pg_dumpall for what no dump of a database holds: roles, their memberships and settings, tablespaces.
package struct GlobalsProgram: Sendable {
  private let program: ClientProgram
  private let connection: ConnectionSettings

  package init(_ program: ClientProgram, _ connection: ConnectionSettings, serverMajor: Int) {
    self.program = program
    var connection = connection
    // pg_dump and pg_restore say some of this for themselves; pg_dumpall goes by what a database or a role has set.
    connection["options"] = SessionSettings.options(after: connection["options"], major: serverMajor)
    self.connection = connection
  }

  /// The SQL text. Without the right to read password hashes they are left out, as `--no-role-passwords` does.
  package func dump(withRolePasswords: Bool) async throws(Fault) -> [UInt8] {
    var arguments = ["--globals-only", "--no-password", "--dbname=\(connection.programConninfo)"]
    // As a connection text: libpq would read a bare name with `=` in it as one.
    if let database = connection["dbname"] {
      arguments.append("--database=dbname=\(ConnectionValue.quoted(database))")
    }
    if !withRolePasswords { arguments.append("--no-role-passwords") }
    do {
      let process = ClientProcess(path: program.path, arguments: arguments, login: connection)
      let output = try await process.capture(limit: 256 << 20)
      guard output.status.isSuccess else {
        throw Fault(
          .globalsFailed, "pg_dumpall of the roles and tablespaces failed (\(output.status.text)).",
          cause: output.complaint, hint: "pgbackupctl log")
      }
      return output.standardOutput
    } catch {
      throw Fault(error)
    }
  }
}
