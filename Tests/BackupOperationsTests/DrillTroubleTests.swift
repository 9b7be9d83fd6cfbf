import BackupCatalog
import Faults
import Foundation
import TestSupport
import Testing

@testable import BackupOperations
@testable import PostgresTools

/// Whatever the machine of a drill has: it is no word about the backup.
@Suite(.waits) struct DrillTroubleTests {
  /// Code of the backup that finds itself in a drill, and raises what a server raises that lacks something, or ends its own process.
  private static let functions = """
    CREATE FUNCTION in_drill(who text) RETURNS bool LANGUAGE sql
      AS $f$ SELECT current_setting('cluster_name') = 'pgbackupd_drill' AND current_setting('application_name') ~ who $f$;
    CREATE FUNCTION full_disk(x int, who text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
      IF public.in_drill(who) THEN
        RAISE 'could not extend file "base/1/2": No space left on device' USING ERRCODE = 'disk_full';
      END IF;
      RETURN x; END $f$;
    CREATE FUNCTION ended(x int, who text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
      IF public.in_drill(who) THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;
      RETURN x; END $f$;
    CREATE FUNCTION kill_this() RETURNS void LANGUAGE plpgsql
      AS $f$ BEGIN COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'; END $f$;
    CREATE FUNCTION killed(x int, who text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
      IF public.in_drill(who) THEN PERFORM public.kill_this(); END IF;
      RETURN x; END $f$;
    CREATE TABLE t AS SELECT 1 AS x;
    """

  /// In the load, in the making of an index, in an assertion.
  @Test(
    arguments: [
      ("ALTER TABLE t ADD CHECK (full_disk(x, '^pgbackupd$') = x)", nil, [.databaseServer]),
      ("CREATE INDEX ON t (full_disk(x, 'pg_restore'))", nil, [.databaseServer]),
      ("CREATE INDEX ON t (ended(x, 'pg_restore'))", nil, [.databaseUnreachable]),
      ("CREATE INDEX ON t (killed(x, 'pg_restore'))", nil, [.drillFailed]),
      ("", "SELECT full_disk(1, '') = 1", [.databaseServer]),
      ("", "SELECT ended(1, '') = 1", [.databaseServer, .databaseUnreachable]),
      // The server may take one more connection before it knows of its loss.
      ("", "SELECT killed(1, '') = 1", [.drillFailed, .databaseUnreachable]),
    ] as [(String, String?, Set<FaultCode>)])
  func itIsNoVerdict(_ more: String, _ assertion: String?, _ expected: Set<FaultCode>) async throws {
    let fixture = try await RestoreFixture(sample: nil, sql: Self.functions + more)
    let folder = TemporaryFolder()
    let fault = await #expect(throws: Fault.self) {
      try await DrillTests.drill(fixture, assertions: assertion.map { [$0] } ?? [], folder: folder)()
    }
    #expect(expected.contains(try #require(fault).code), "\(fault.map { "\($0)" } ?? "")")
    #expect(folder.files(below: "drills") == [])
  }

  /// What pg_restore says of its own end, told apart.
  @Test func theWordsOfPgRestore() {
    let before = "pg_restore: error: could not execute query: ERROR:  "
    #expect(
      RestoreProgram.unknownSetting(in: before + #"unrecognized configuration parameter "transaction_timeout""#)
        == .ofNewerVersion)
    #expect(
      RestoreProgram.unknownSetting(in: before + #"unrecognized configuration parameter "cron.database_name""#)
        == .ofLibrary("cron"))
    #expect(
      RestoreProgram.unknownSetting(in: before + "relation exists\nDETAIL:  unrecognized configuration parameter \"x\"")
        == nil)
    let died = "pg_restore: error: a worker process died unexpectedly\npg_restore: terminated by user"
    #expect(RestoreProgram.isLossOfWorker(died))
    #expect(!RestoreProgram.isLossOfWorker(before + "division by zero\n" + died))
    #expect(!RestoreProgram.isLossOfWorker(""))
  }

  /// amcheck asks the index's own order, and that asks for what is not there.
  @Test(
    arguments: [("full_disk", [.databaseServer]), ("killed", [.drillFailed, .databaseUnreachable])]
      as [(String, Set<FaultCode>)])
  func inTheCheckOfIndexes(_ function: String, _ expected: Set<FaultCode>) async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: Self.functions + """
        CREATE FUNCTION ordered(a int, b int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
          PERFORM public.\(function)(1, '^pgbackupd$'); RETURN btint4cmp(a, b); END $f$;
        CREATE OPERATOR CLASS odd FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
          OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 ordered(int, int);
        CREATE TABLE many AS SELECT generate_series(1, 100) AS n; CREATE INDEX ON many (n odd);
        """)
    let folder = TemporaryFolder()
    let fault = await #expect(throws: Fault.self) { try await DrillTests.drill(fixture, folder: folder)() }
    #expect(expected.contains(try #require(fault).code), "\(fault.map { "\($0)" } ?? "")")
  }

  /// What a program tells, which gives no SQLSTATE.
  @Test(arguments: [
    ("pg_restore: error: could not execute query: ERROR:  could not extend file: No space left on device", true),
    (
      "pg_restore: error: x: ERROR:  could not extend file \"base/5/16384\": wrote only 4096 of 8192 bytes at block 7",
      true
    ),
    ("pg_restore: error: could not execute query: server closed the connection unexpectedly", true),
    ("pg_restore: error: x: FATAL:  terminating connection due to administrator command", true),
    ("pg_restore: error: x: ERROR:  could not create unique index \"i\"", false),
    ("pg_restore: error: x: ERROR:  duplicate key\nDETAIL:  Key (t)=(No space left on device) already exists.", false),
    ("", false),
  ]) func words(_ words: String, _ expected: Bool) { #expect(ServerTrouble.isTold(byWords: words) == expected) }

  /// A lost connection is one, whatever stands behind the first error; and no command is told, in however many lines it is.
  @Test func lostConnections() {
    let told = """
        PASSWORD 'a secret';
      pg_restore: error: could not execute query: ERROR:  relation "x" does not exist
      Command was: CREATE SUBSCRIPTION s CONNECTION 'password=hunter2'
        PUBLICATION p;

      pg_restore: error: could not execute query: server closed the connection unexpectedly
      \tThis probably means the server terminated abnormally
      Command was: CREATE INDEX i ON t (x);
      pg_restore: warning: errors ignored on restore: 2
      """
    let words = RestoreProgram.withoutCommands(told)
    #expect(
      !words.contains("secret") && !words.contains("hunter2") && !words.contains("CREATE") && !words.contains("p;"))
    #expect(words.contains("relation") && words.contains("errors ignored") && ServerTrouble.isLoss(byWords: words))
    #expect(
      !ServerTrouble.isLoss(byWords: "pg_restore: error: x: ERROR:  could not extend file: No space left on device"))
  }

  @Test(arguments: [("53100", true), ("57P01", true), ("58030", true), ("23505", false), ("XX002", false)])
  func states(_ state: String, _ expected: Bool) { #expect(ServerTrouble.isTold(byState: state) == expected) }
}
