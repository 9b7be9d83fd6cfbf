import BackupCatalog
import Faults
import Foundation
import PostgresTools
import TestSupport
import Testing

@testable import BackupOperations

/// A dump locks every table and sequence of a database at once; a server has room for so many locks.
@Suite(.waits) struct LockDemandTests {
  @Test(
    arguments: [
      (LockDemand(wanted: 6400, perTransaction: 64, transactions: 100), false, 192),
      (LockDemand(wanted: 6401, perTransaction: 64, transactions: 100), true, 192),
      (LockDemand(wanted: 24_000, perTransaction: 64, transactions: 100), true, 384),
      (LockDemand(wanted: 1, perTransaction: 0, transactions: 0), true, 64),
      (LockDemand(wanted: 1 << 30, perTransaction: 1 << 30, transactions: 1 << 30), false, 1 << 30),
    ] as [(LockDemand, Bool, Int64)])
  func theRuleIsTheDocumentedOne(_ demand: LockDemand, _ isTooSmall: Bool, _ needed: Int64) {
    #expect(demand.isTooSmall == isTooSmall)
    #expect(abs(demand.needed - needed) <= 64, "\(demand.needed)")
  }

  /// On a server with few locks: what is too small is said before, and names the setting where it fails.
  @Test func theSettingToRaiseIsNamed() async throws {
    let cluster = try PrivateCluster(settings: ["max_connections=10", "max_locks_per_transaction=10"])
    try cluster.sql("postgres", "CREATE DATABASE many")
    // In portions: making them takes locks as well.
    for start in stride(from: 0, to: 3000, by: 20) {
      try cluster.sql(
        "many",
        "DO $$ BEGIN FOR i IN \(start)..\(start + 19) LOOP EXECUTE 'CREATE TABLE t' || i || ' (x serial)'; END LOOP; END $$"
      )
    }
    let demand = try await PostgresSession.connect(connection(cluster, "many")).use { try await $0.lockDemand() }
    #expect(demand == LockDemand(wanted: 6000, perTransaction: 10, transactions: 10))
    let workshop = Workshop()
    let fault = await #expect(throws: Fault.self) {
      try await workshop.backup(connection(cluster, "many"), database: "many").run()
    }
    #expect(fault?.code == .dumpLocks)
    #expect(fault?.hint == "ALTER SYSTEM SET max_locks_per_transaction = \(demand.needed); then restart the server")
    #expect(workshop.files == [])
  }
}
