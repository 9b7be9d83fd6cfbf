import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import PostgresTools
import Storage
import Units

/// What is not as safe as it could be about the connections to databases. That breaks nothing and may be what somebody
/// wants: `status` shows it, the journal has it once, and nobody is called for it.
extension DaemonCore {
  /// Called at each beat.
  func lookAtConnectionsWhenDue() async {
    guard SystemClock.running() - connectionsLookedAt >= 3600 else { return }
    await lookAtConnections()
  }

  /// Asks each server: at the start, after a reload and every hour. One that does not answer is judged by its
  /// configuration.
  func lookAtConnections() async {
    connectionsLookedAt = SystemClock.running()
    let plan = plan
    var found: [Fault] = []
    for database in plan.databases {
      found += await ConnectionCheck(
        database.connection, of: "'\(database.name)'", readsOnly: true
      ).warnings(within: .seconds(20))
      guard let connection = database.restoreConnection else { continue }
      found += await ConnectionCheck(
        connection, of: "'\(database.name)' for restores", readsOnly: false
      ).warnings(within: .seconds(20))
    }
    if let server = plan.drill.server {
      found += await ConnectionCheck(server, of: "drills", readsOnly: false).warnings(within: .seconds(20))
    }
    for warning in found where !connectionWarnings.contains(where: { $0.message == warning.message }) {
      logger.notice("a connection is not as safe as it could be", metadata: ["what": "\(warning.message)"])
    }
    connectionWarnings = found
  }
}
