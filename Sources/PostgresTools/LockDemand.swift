package import Faults
import Quoting

/// The locks that a dump takes, and those that the server has room for: pg_dump locks every table and reads every
/// sequence in one transaction.
package struct LockDemand: Sendable, Equatable {
  /// Tables, partitioned tables and sequences of the database.
  package let wanted: Int64
  package let perTransaction: Int64
  /// `max_connections` and `max_prepared_transactions`.
  package let transactions: Int64

  package init(wanted: Int64, perTransaction: Int64, transactions: Int64) {
    (self.wanted, self.perTransaction, self.transactions) = (wanted, perTransaction, transactions)
  }

  /// For all transactions together, by PostgreSQL's documentation ("Lock Management"). Its shared memory has some room
  /// beyond that, which is why a dump that wants more may still succeed.
  package var room: Int64 { perTransaction * max(1, transactions) }

  package var isTooSmall: Bool { wanted > room }

  /// A value of `max_locks_per_transaction` with which the dump has its locks and the others theirs.
  package var needed: Int64 {
    let each = (wanted + wanted / 4) / max(1, transactions) + perTransaction
    return (each + 63) / 64 * 64
  }

  package func fault(in database: String) -> Fault {
    Fault(
      .dumpLocks,
      "A dump of '\(database)' takes \(wanted) locks, and the server is made for \(room): it may fail, or make others fail.",
      cause:
        "max_locks_per_transaction is \(perTransaction), for \(transactions) connections and prepared transactions",
      hint: "ALTER SYSTEM SET max_locks_per_transaction = \(needed); then restart the server")
  }
}

extension PostgresSession {
  package func lockDemand() async throws(Fault) -> LockDemand {
    let row = try await query(
      """
      SELECT pg_catalog.count(*), pg_catalog.current_setting('max_locks_per_transaction'),
             pg_catalog.current_setting('max_connections')::pg_catalog.int4
               + pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int4
      FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'f', 'S') AND oid >= 16384 AND relpersistence <> 't'
      """
    ).first
    func number(_ column: Int) -> Int64 { row?[column].flatMap { Int64($0) }.map { min(max(0, $0), 1 << 30) } ?? 0 }
    return LockDemand(wanted: number(0), perTransaction: number(1), transactions: number(2))
  }
}
