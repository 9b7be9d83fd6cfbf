import Faults
import Foundation
import PostgresTools
import Quoting

/// Whether the server gives a restore the connections that it takes: told while the live database is still there.
extension Preparation {
  /// What works at once at most: those that load, the one that holds the new database, and one that asks now and then.
  private var connectionsAtOnce: Int { max(1, request.jobs) + 2 }

  /// Opens as many as the restore will have at once. They are gone when this ends, so that they stand in nobody's way.
  func requireConnections() async throws(Fault) {
    var sessions: [PostgresSession] = []
    var refusal: Fault?
    while sessions.count < connectionsAtOnce, refusal == nil {
      do throws(Fault) {
        sessions.append(try await PostgresSession.connect(restore.maintenance))
      } catch {
        refusal = error
      }
    }
    await Self.close(sessions)
    guard let refusal else { return }
    guard refusal.code == .databaseUnreachable, !sessions.isEmpty else { throw refusal }
    throw Fault(
      .restoreRefused,
      "The server gives '\(inventory.role)' \(sessions.count) of the \(connectionsAtOnce) connections that the restore takes.",
      cause: refusal.cause,
      hint:
        "ALTER ROLE \(SQLName.quoted(inventory.role)) CONNECTION LIMIT …, or raise max_connections, or restore with fewer --jobs"
    )
  }

  /// Closes them all. A server counts a session until its process has ended, which the last one sees.
  private static func close(_ sessions: [PostgresSession]) async {
    guard let last = sessions.last else { return }
    let processes = await uncancelled { () async -> [String] in
      var processes: [String] = []
      for session in sessions.dropLast() {
        if let process = try? await session.query("SELECT pg_catalog.pg_backend_pid()").first?[0] {
          processes.append(process)
        }
        await session.close()
      }
      return processes
    }
    let list = "{\(processes.joined(separator: ","))}"
    // It takes them milliseconds; whoever is slower than that is one of few.
    for _ in 0..<100 {
      let left = try? await last.query(
        "SELECT FROM pg_catalog.pg_stat_activity WHERE pid = ANY ($1::pg_catalog.int4[])", [list])
      guard left?.isEmpty == false else { break }
      try? await Task.sleep(for: .milliseconds(20))
    }
    await last.close()
  }
}
