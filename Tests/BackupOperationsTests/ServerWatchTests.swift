import BackupOperations
import PostgresTools
import TestSupport
import Testing

/// Work on a server that tells nothing is told from a standstill by looking.
@Suite(.waits) struct ServerWatchTests {
  @Test func workIsSeen() async throws {
    let cluster = try PrivateCluster.shared()
    let connection = try connection(cluster, try cluster.makeDatabase())
    let (looked, told) = AsyncStream<Void>.makeStream()
    let watch = ServerWatch(connection, every: .milliseconds(20)) { told.yield() }
    let working = Task {
      try await watch.during {
        try await PostgresSession.connect(connection).use { session in
          _ = try await session.query("SELECT pg_catalog.pg_sleep(600)")
        }
      }
    }
    var seen = 0
    for await _ in looked {
      seen += 1
      if seen == 3 { break }
    }
    working.cancel()
    _ = await working.result
  }
}
