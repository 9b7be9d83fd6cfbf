import Foundation
import Glibc

/// Holds a lock on a table until it is released, so that a dump stands still at a known place.
package final class LockHolder {
  private let process: ChildProcess
  private let output: LinePipe
  private let inputEnd: Int32
  private let cluster: PrivateCluster
  private let table: String
  private let database: String

  package init(_ cluster: PrivateCluster, _ database: String, _ table: String) throws {
    (self.cluster, self.database, self.table) = (cluster, database, table)
    let (reader, writer) = makePipe()
    inputEnd = writer
    output = LinePipe()
    process = try ChildProcess(
      "\(cluster.binaries)/psql", ["-X", "-q", "-A", "-t", "-d", cluster.conninfo(database)], input: reader,
      output: output.writer)
    close(reader)
    output.closeWriter()
    let statements = Array("BEGIN; LOCK TABLE \(table) IN ACCESS EXCLUSIVE MODE; SELECT 'locked';\n".utf8)
    // psql answers when it has the lock.
    guard write(inputEnd, statements, statements.count) == statements.count, output.next() == "locked" else {
      throw Shell.Failure(description: "no lock on \(table)")
    }
  }

  /// Waits until somebody waits for the lock, for two minutes at most. The server itself waits for us, inside one statement.
  package func waitForWaiter(rounds: Int = 12_000) throws {
    try cluster.sql(
      database,
      """
      DO $$ BEGIN
        FOR attempt IN 1..\(rounds) LOOP
          IF EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = '\(table)'::regclass) THEN RETURN; END IF;
          PERFORM pg_sleep(0.01);
        END LOOP;
        RAISE EXCEPTION 'nobody waits for the lock on %', '\(table)';
      END $$
      """)
  }

  package func release() {
    close(inputEnd)
    process.wait()
  }
}
