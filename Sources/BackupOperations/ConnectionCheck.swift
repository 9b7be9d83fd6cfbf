package import Faults
package import PostgresTools

/// Whether a configured connection is as safe as it could be: whether the server proves who it is, whether the role that
/// only reads may do everything, and whether anybody has tried such a server.
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
    guard let answer = await ask(within: limit) else { return [unverified(connection)].compactMap { $0 } }
    return [
      unverified(answer.settings), readsOnly && answer.isSuperuser ? superuser(answer.role, answer.settings) : nil,
      Self.untested(answer.major, of: user),
    ].compactMap { $0 }
  }

  /// Nil where the server does not answer. A cancelled session ends within seconds, and a connection has a time limit
  /// of its own.
  private func ask(within limit: Duration) async -> Answer? {
    await withTaskGroup(of: Answer?.self) { group in
      let connection = connection
      group.addTask {
        try? await PostgresSession.connect(connection).use { session throws(Fault) in
          let role = try await session.role()
          return Answer(
            settings: await session.effectiveSettings(), role: role.name, isSuperuser: role.isSuperuser,
            major: await session.serverMajor())
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

  private struct Answer: Sendable {
    let settings: ConnectionSettings
    let role: String
    let isSuperuser: Bool
    let major: Int
  }

  /// The major versions that the tests run on.
  private static let tested = 13...18

  static func untested(_ major: Int, of user: String) -> Fault? {
    guard major > tested.upperBound else { return nil }
    return Fault(
      .databaseUntested, "The server of \(user) is PostgreSQL \(major), on which this pgbackupd was not tested yet.",
      cause: "it was on \(tested.lowerBound) to \(tested.upperBound)",
      hint: "look for a newer pgbackupd; until then let drills show that what is backed up comes back")
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
