package import Faults
package import PostgresTools

/// Whether a configured connection is as safe as it could be: whether the server proves who it is, and whether the role
/// that only reads may do everything.
package struct ConnectionCheck: Sendable {
  private let connection: ConnectionSettings
  private let user: String
  private let readsOnly: Bool

  /// - Parameters:
  ///   - user: whose connection it is, for messages: `'shop'`, `'shop' for restores`.
  ///   - readsOnly: whether it is for backups alone.
  package init(_ connection: ConnectionSettings, of user: String, readsOnly: Bool) {
    self.connection = connection
    self.user = user
    self.readsOnly = readsOnly
  }

  /// What can be said, by the server where that answers in time, else by the configuration alone.
  package func warnings(within limit: Duration) async -> [Fault] {
    guard let (effective, role) = await ask(within: limit) else { return [unverified(connection)].compactMap { $0 } }
    return [unverified(effective), readsOnly && role.isSuperuser ? superuser(role.name, effective) : nil]
      .compactMap { $0 }
  }

  /// Nil where the server does not answer. A cancelled session ends within seconds, and a connection has a time limit
  /// of its own.
  private func ask(within limit: Duration) async -> (ConnectionSettings, (name: String, isSuperuser: Bool))? {
    await withTaskGroup(of: (ConnectionSettings, (name: String, isSuperuser: Bool))?.self) { group in
      let connection = connection
      group.addTask {
        try? await PostgresSession.connect(connection).use { session throws(Fault) in
          (await session.effectiveSettings(), try await session.role())
        }
      }
      group.addTask {
        try? await Task.sleep(for: limit)
        return nil
      }
      defer { group.cancelAll() }
      return await group.next() ?? nil
    }
  }

  private func unverified(_ settings: ConnectionSettings) -> Fault? {
    guard let mode = settings.unverifiedMode else { return nil }
    let host = settings["host"] ?? settings["hostaddr"] ?? ""
    return Fault(
      .databaseUnverified,
      "The server of \(user) at '\(host)' need not prove who it is (sslmode \(mode)).",
      cause: "a machine in between can read what is backed up, and may get the role's password",
      hint: "add sslmode=verify-full to its connect, and sslrootcert=… where the authority is your own")
  }

  private func superuser(_ role: String, _ settings: ConnectionSettings) -> Fault {
    Fault(
      .databaseSuperuser, "The role '\(role)' that backs up \(user) is a superuser, and needs to be none.",
      cause: "a role with pg_read_all_data can back up; see 'The role for backups' in the README",
      hint: "createuser backup && psql -c 'GRANT pg_read_all_data TO backup'")
  }
}
