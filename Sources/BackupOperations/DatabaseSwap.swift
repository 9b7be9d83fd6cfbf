import Faults
import Foundation
import PostgresArchive
import PostgresTools
import Quoting
import Synchronization
import Units

/// Puts one database into the place of another by renaming both in one transaction: at any moment, also after a crash, exactly one of
/// them has the name.
///
/// `ALTER DATABASE … RENAME` locks the database against new connections first and then waits up to five seconds for those that are
/// there to go (`CountOtherDBBackends` of procarray.c). So one connection renames, and another one ends the rest meanwhile: nobody can
/// come in between.
struct DatabaseSwap: Sendable {
  let maintenance: ConnectionSettings

  struct Result: Sendable {
    let seconds: Double
    let endedConnections: Int
  }

  /// - Parameters:
  ///   - new: takes the name `live`.
  ///   - kept: the name that the old one gets; nil where there is no database `live`.
  ///   - comment: of the kept one from now on.
  ///   - newComment: the comment that the new one gets; unchanged where nil.
  func run(
    _ new: String, to live: String, keeping kept: String?, comment: String?, newComment: String?? = nil
  ) async throws(Fault) -> Result {
    do {
      return try await PostgresSession.connect(maintenance).use { worker in
        try await PostgresSession.connect(maintenance).use { helper in
          try await swap(worker, helper, new, live, kept, comment, newComment)
        }
      }
    } catch {
      let fault = Fault(error)
      guard [.databaseQuery, .databaseServer].contains(fault.code) else { throw fault }
      let held = await untouchable([live, new])
      guard held.isEmpty else {
        throw Fault(
          .swapFailed, "'\(new)' could not take the place of '\(live)'; all is as it was before.",
          cause: "connected, and superusers alone may end them: \(held.joined(separator: ", "))",
          hint: "end them, then run it again; or set 'restore_connect' of the database to a superuser")
      }
      throw Fault(
        .swapFailed, "'\(new)' could not take the place of '\(live)'; all is as it was before.", cause: fault.cause,
        hint: "look at pg_stat_activity, then run it again")
    }
  }

  private func swap(
    _ worker: PostgresSession, _ helper: PostgresSession, _ new: String, _ live: String, _ kept: String?,
    _ comment: String?, _ newComment: String??
  ) async throws -> Result {
    // Our own sessions in the new one, such as an autovacuum of it, are ended beforehand: that is no downtime.
    _ = try await helper.terminateConnections(to: new)
    try await worker.execute("BEGIN; SET LOCAL lock_timeout = '10s'")
    if kept == nil {
      try await rename(worker, helper, new, live)
      try await self.comment(worker, live, newComment)
      try await worker.execute("COMMIT")
      return Result(seconds: 0, endedConnections: 0)
    }
    let start = ContinuousClock.now
    let ended = try await rename(worker, helper, live, kept ?? "")
    try await rename(worker, helper, new, live)
    try await self.comment(worker, kept ?? "", .some(comment))
    try await self.comment(worker, live, newComment)
    try await worker.execute("COMMIT")
    return Result(seconds: start.duration(to: .now).inSeconds, endedConnections: ended)
  }

  /// Renames a database while everybody is made to leave it.
  @discardableResult
  private func rename(
    _ worker: PostgresSession, _ helper: PostgresSession, _ old: String, _ new: String
  ) async throws -> Int {
    // A flag and no cancellation: cancelling a query may hit the next one on its connection.
    let done = Flag()
    return try await withThrowingTaskGroup(of: Int.self) { group in
      group.addTask {
        defer { done.raise() }
        try await worker.execute("ALTER DATABASE \(SQLName.quoted(old)) RENAME TO \(SQLName.quoted(new))")
        return 0
      }
      group.addTask {
        var ended = 0
        while !done.isRaised {
          ended += try await helper.terminateConnections(to: old)
          // Who was told to go needs a moment; the renaming looks every 100 ms.
          try await Task.sleep(for: .milliseconds(20))
        }
        return ended
      }
      return try await group.reduce(0, +)
    }
  }

  private func untouchable(_ databases: [String]) async -> [String] {
    let found = try? await PostgresSession.connect(maintenance).use { session throws(Fault) in
      var found: [String] = []
      for name in databases { found += try await session.untouchableConnections(to: name) }
      return found
    }
    return found ?? []
  }

  private func comment(_ session: PostgresSession, _ database: String, _ text: String??) async throws {
    guard let text else { return }
    try await session.execute(
      "COMMENT ON DATABASE \(SQLName.quoted(database)) IS \(text.map(SQLName.literal) ?? "NULL")")
  }
}

private final class Flag: Sendable {
  private let value = Mutex(false)
  func raise() { value.withLock { $0 = true } }
  var isRaised: Bool { value.withLock { $0 } }
}
