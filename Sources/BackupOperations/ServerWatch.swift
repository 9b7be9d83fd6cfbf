import Faults
package import PostgresTools

/// Looks whether a server works for us while a statement of ours runs there for hours: making an index tells nothing, and is no standstill.
package struct ServerWatch: Sendable {
  private let connection: ConnectionSettings
  private let alive: @Sendable () -> Void
  private let every: Duration

  /// - Parameters:
  ///   - connection: to the database where the work is done.
  ///   - alive: told each time that a session there is at work. One that waits for a lock is not.
  package init(_ connection: ConnectionSettings, every: Duration = .seconds(10), alive: @escaping @Sendable () -> Void)
  {
    self.connection = connection
    self.every = every
    self.alive = alive
  }

  /// Does the work, and watches meanwhile. A server that can't be asked is no sign of life.
  package func during<Value: Sendable>(_ work: @escaping @Sendable () async throws -> Value) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
      group.addTask { try await work() }
      group.addTask {
        while !Task.isCancelled {
          try? await Task.sleep(for: every)
          if await isAtWork() { alive() }
        }
        return nil
      }
      defer { group.cancelAll() }
      while let ended = try await group.next() {
        if let ended { return ended }
      }
      throw CancellationError()
    }
  }

  private func isAtWork() async -> Bool {
    let count = try? await PostgresSession.connect(connection).use { session throws(Fault) in
      try await session.query(
        """
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()
          AND pid <> pg_catalog.pg_backend_pid() AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Lock'
        """
      ).first?[0]
    }
    return count != nil && count != "0"
  }
}
