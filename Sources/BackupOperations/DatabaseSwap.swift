import ArtifactFormat
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
  ///   - kept: what becomes of the old one; nil where there is no database `live`.
  ///   - identifier: the OID of `new`, where it was looked up before: another one of that name does not take the place.
  ///   - newComment: the comment that the new one gets; unchanged where nil.
  func run(
    _ new: String, _ identifier: UInt32? = nil, to live: String, keeping kept: KeptAside?, newComment: String?? = nil
  ) async throws(Fault) -> Result {
    try await run(new, live) { worker, helper in
      try await swap(worker, helper, new, identifier, live, kept, newComment)
    }
  }

  /// Takes the name of a database, and puts nothing in its place.
  func putAside(_ live: String, as kept: KeptAside) async throws(Fault) {
    _ = try await run(live, kept.name) { worker, helper in
      try await worker.execute("BEGIN; SET LOCAL lock_timeout = '10s'")
      try await rename(worker, helper, live, kept.name)
      try await mark(worker, kept)
      try await worker.execute("COMMIT")
      return Result(seconds: 0, endedConnections: 0)
    }
  }

  private func run(
    _ new: String, _ live: String,
    _ work: (_ worker: PostgresSession, _ helper: PostgresSession) async throws -> Result
  ) async throws(Fault) -> Result {
    do {
      return try await PostgresSession.connect(maintenance).use { worker in
        try await PostgresSession.connect(maintenance).use { helper in
          // Our own sessions in the new one, such as an autovacuum of it, are ended beforehand: that is no downtime.
          _ = try await helper.terminateConnections(to: new)
          return try await work(worker, helper)
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
    _ worker: PostgresSession, _ helper: PostgresSession, _ new: String, _ identifier: UInt32?, _ live: String,
    _ kept: KeptAside?, _ newComment: String??
  ) async throws -> Result {
    try await worker.execute("BEGIN; SET LOCAL lock_timeout = '10s'")
    guard let kept else {
      try await rename(worker, helper, new, live)
      try await require(identifier, as: live, worker)
      try await self.comment(worker, live, newComment)
      try await worker.execute("COMMIT")
      return Result(seconds: 0, endedConnections: 0)
    }
    let start = ContinuousClock.now
    let ended = try await rename(worker, helper, live, kept.name)
    try await rename(worker, helper, new, live)
    try await require(identifier, as: live, worker)
    try await mark(worker, kept)
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

  private func require(_ identifier: UInt32?, as name: String, _ session: PostgresSession) async throws {
    guard let identifier else { return }
    let found = try await session.query("SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", [name]).first?[0]
    guard found.flatMap({ UInt32($0) }) == identifier else { throw Self.stranger(name) }
  }

  /// Marks the database that was put aside, as it is then.
  private func mark(_ session: PostgresSession, _ kept: KeptAside) async throws {
    let row = try await session.query(
      "SELECT oid, datdba FROM pg_catalog.pg_database WHERE datname = $1", [kept.name]
    ).first
    guard let identifier = row?[0].flatMap({ UInt32($0) }), let owner = row?[1].flatMap({ UInt32($0) }) else {
      throw Fault(.databaseQuery, "'\(kept.name)' is not there, which was put aside.")
    }
    guard identifier == kept.identifier else { throw Self.stranger(kept.live) }
    let comment = try KeptMark.comment(
      name: kept.name, live: kept.live, at: kept.time, identifier: identifier, owner: owner, before: kept.before,
      key: kept.key)
    try await self.comment(session, kept.name, .some(comment))
  }

  /// Somebody has made a database of this name since we have looked.
  private static func stranger(_ name: String) -> Fault {
    Fault(
      .swapFailed, "'\(name)' is another database than the one that was there before; all is as it was.",
      cause: "somebody has dropped or renamed that one, and made this one meanwhile",
      hint: "look whose it is, then run it again")
  }

  private func comment(_ session: PostgresSession, _ database: String, _ text: String??) async throws {
    guard let text else { return }
    try await session.execute(
      "COMMENT ON DATABASE \(SQLName.quoted(database)) IS \(text.map(SQLName.literal) ?? "NULL")")
  }
}

/// What a database becomes that makes room for another one.
struct KeptAside: Sendable {
  let name: String
  /// Whose place it had.
  let live: String
  let time: Date
  /// The comment that it had.
  let before: String?
  /// Signs its mark.
  let key: SigningKey?
  /// Its OID, as it was seen before: another database of its name is not put aside for it.
  let identifier: UInt32
}

private final class Flag: Sendable {
  private let value = Mutex(false)
  func raise() { value.withLock { $0 = true } }
  var isRaised: Bool { value.withLock { $0 } }
}
