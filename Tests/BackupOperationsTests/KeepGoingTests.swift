import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import PostgresTools
import TestSupport
import Testing

/// Where the server does not take an object, the rows come back all the same, and each object is told with what mends it.
@Suite(.waits) struct KeepGoingTests {
  /// A foreign key that does not hold, an index over a function that finds its table by the search_path alone, and a
  /// materialized view over it.
  private static let flawed = """
    CREATE TABLE public.customers (id int PRIMARY KEY);
    CREATE TABLE public.orders (id int PRIMARY KEY, customer int REFERENCES public.customers);
    CREATE TABLE public.factors (n int); INSERT INTO public.factors VALUES (2);
    CREATE FUNCTION public.scaled(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * n FROM factors';
    INSERT INTO public.customers VALUES (1);
    SET session_replication_role = replica;
    INSERT INTO public.orders SELECT n, n FROM generate_series(1, 100) AS n;
    RESET session_replication_role;
    CREATE INDEX scaled_orders ON public.orders (public.scaled(id));
    CREATE MATERIALIZED VIEW public.sums AS SELECT sum(public.scaled(id)) FROM public.orders;
    """

  @Test func whatLacksObjectsWaitsBesideTheLiveDatabase() async throws {
    let fixture = try await RestoreFixture(cluster: PrivateCluster(), sample: nil, sql: Self.flawed)
    let before = try fixture.text(fixture.database)
    // Without the option nothing is restored, and nothing stays behind.
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(fixture.request).run() }
    #expect(fault?.code == .restoreFailed)
    #expect(try fixture.databases == [fixture.database])

    var request = fixture.request
    request.keepsGoing = true
    let outcome = try await fixture.restore(request).run()
    let unmade = try #require(outcome.unmade)
    #expect(
      Set(unmade.map(\.label)) == [
        "FK CONSTRAINT public.orders orders_customer_fkey", "INDEX public.scaled_orders",
        "MATERIALIZED VIEW DATA public.sums",
      ], "\(unmade)")
    #expect(unmade.first { $0.kind == "FK CONSTRAINT" }?.reason.contains("is not present in table") == true)
    #expect(unmade.first { $0.kind == "INDEX" }?.reason.contains(#"relation "factors" does not exist"#) == true)
    // Every row is there.
    #expect(outcome.isProved && outcome.provedTables == 3 && outcome.rows == 102)
    #expect(outcome.incompleteness?.code == .schemaIncomplete)
    #expect(outcome.database == "\(fixture.database)_incomplete_20270116t114640z" && outcome.kept == nil)
    #expect(try fixture.text(fixture.database) == before)
    #expect(try fixture.cluster.sql(outcome.database, "SELECT count(*) FROM public.orders") == "100\n")

    // What is told makes it, when the cause is mended.
    try fixture.cluster.sql(
      outcome.database,
      """
      DELETE FROM public.orders WHERE customer > 1;
      CREATE OR REPLACE FUNCTION public.scaled(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * n FROM public.factors';
      """)
    for object in unmade { try fixture.cluster.sql(outcome.database, try #require(object.sql)) }

    let identifier = try #require(outcome.awaitsSwap)
    let stranger = await #expect(throws: Fault.self) {
      try await fixture.rollback().swapIn(outcome.database, identifier + 1, for: fixture.database)
    }
    #expect(stranger?.code == .rollbackMissing)
    let swapped = try await fixture.rollback().swapIn(outcome.database, identifier, for: fixture.database)
    #expect(try fixture.cluster.sql(fixture.database, "SELECT count(*) FROM public.orders") == "1\n")
    #expect(
      try fixture.cluster.sql(
        fixture.database,
        "SELECT shobj_description(oid, 'pg_database') IS NULL FROM pg_database WHERE datname = current_database()")
        == "t\n")
    let undone = try await fixture.rollback(at: Date(timeIntervalSince1970: 1_800_300_000)).run(fixture.database)
    #expect(undone.putBack == swapped.kept)
    #expect(try fixture.text(fixture.database) == before)
  }

  /// What can be known of it is told by the backup already, and not where the function says where it looks.
  @Test func theBackupWarnsOfIt() async throws {
    let cluster = try PrivateCluster()
    let database = try cluster.makeDatabase("shop", sample: nil)
    try cluster.sql(database, Self.flawed)
    let workshop = Workshop()
    func warnings(_ time: Double) async throws -> [Fault] {
      var settings = Backup.Settings()
      settings.programs = [cluster.binaries]
      return try await workshop.backup(
        try connection(cluster, database), database: database, settings: settings,
        at: Date(timeIntervalSince1970: time)
      ).run().warnings
    }
    let warning = try #require(try await warnings(1_800_000_000).first { $0.code == .schemaIncomplete })
    #expect(
      warning.cause == """
        INDEX public.scaled_orders: public.scaled(integer) finds 'factors' by the search_path, which is empty in a restore
        MATERIALIZED VIEW public.sums: public.scaled(integer) finds 'factors' by the search_path, which is empty in a restore
        """)
    try cluster.sql(database, "ALTER FUNCTION public.scaled SET search_path = public")
    #expect(try await warnings(1_800_000_100).allSatisfy { $0.code != .schemaIncomplete })
  }

  @Test func whoSaysYesHasItSwapped() async throws {
    let fixture = try await RestoreFixture(cluster: PrivateCluster(), sample: nil, sql: Self.flawed)
    var request = fixture.request
    request.keepsGoing = true
    var restore = try fixture.restore(request)
    restore.acceptsIncomplete = { $0.unmade?.count == 3 }
    let outcome = try await restore.run()
    #expect(outcome.database == fixture.database && outcome.kept != nil && outcome.awaitsSwap == nil)
  }

  /// Many at once, from several workers: each error is told of its own object.
  @Test func errorsOfSeveralWorkersAreKeptApart() async throws {
    let count = 40
    let tables = (1...count).map { number in
      """
      CREATE TABLE c\(number) (id int PRIMARY KEY REFERENCES p); INSERT INTO c\(number) VALUES (\(1000 + number));
      """
    }
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(), sample: nil,
      sql: "CREATE TABLE p (id int PRIMARY KEY); SET session_replication_role = replica; \(tables.joined())")
    var request = fixture.request
    request.keepsGoing = true
    request.jobs = 8
    let unmade = try #require(try await fixture.restore(request).run().unmade)
    #expect(unmade.count == count)
    for number in 1...count {
      let one = unmade.filter { $0.name == "public.c\(number) c\(number)_id_fkey" }
      #expect(one.count == 1 && one[0].reason.contains("Key (id)=(\(1000 + number))"), "\(one)")
      #expect(one.first?.sql?.contains("ALTER TABLE ONLY public.c\(number)\n") == true)
    }
  }

  /// A table that can't be made, and one whose rows are refused, cost their own rows.
  @Test func tablesThatLackAreNamedAndNotProved() async throws {
    let cluster = try PrivateCluster()
    try cluster.sql("postgres", "CREATE ROLE restorer LOGIN CREATEDB")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: """
        CREATE TYPE odd;
        CREATE FUNCTION odd_in(cstring) RETURNS odd STRICT IMMUTABLE LANGUAGE internal AS 'textin';
        CREATE FUNCTION odd_out(odd) RETURNS cstring STRICT IMMUTABLE LANGUAGE internal AS 'textout';
        CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = text);
        CREATE TABLE oddities (id serial PRIMARY KEY, value odd); INSERT INTO oddities (value) VALUES ('a'), ('b');
        CREATE TABLE limits (n int); INSERT INTO limits VALUES (5);
        CREATE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 < n FROM limits';
        CREATE TABLE small (n int CHECK (public.fits(n))); INSERT INTO small VALUES (1), (2), (3);
        CREATE TABLE plain AS SELECT 1 AS n;
        """)
    var request = fixture.request
    request.keepsGoing = true
    request.target = .beside("half")
    request.options.withOwners = false
    let outcome = try await fixture.restore(request, user: "restorer").run()
    #expect(outcome.tables == 4 && outcome.provedTables == 2 && !outcome.isProved)
    #expect(
      outcome.unproved == [
        "public.oddities: the table could not be made, and its 2 rows have no place",
        "public.small: the server did not take its 3 rows",
      ])
    #expect(outcome.incompleteness?.code == .restoreFailed)
    let labels = Set((outcome.unmade ?? []).map(\.label))
    #expect(labels.isSuperset(of: ["TABLE public.oddities", "TABLE DATA public.small"]), "\(labels)")
    #expect(try cluster.sql("half", "SELECT count(*) FROM plain") == "1\n")
  }

  /// Of a secret neither the report nor a log has anything.
  @Test func passwordsAreNotAmongTheSQL() async throws {
    let cluster = try PrivateCluster()
    try cluster.sql("postgres", "CREATE ROLE restorer LOGIN CREATEDB")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: """
        CREATE EXTENSION postgres_fdw; CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'away');
        CREATE USER MAPPING FOR postgres SERVER away OPTIONS (user 'u', password 'hunter2');
        CREATE TABLE plain AS SELECT 1 AS n;
        """)
    var request = fixture.request
    request.keepsGoing = true
    request.target = .beside("mapped")
    request.options.withOwners = false
    let outcome = try await fixture.restore(request, user: "restorer").run()
    #expect(outcome.unmade?.contains { $0.kind == "USER MAPPING" } == true, "\(outcome.unmade ?? [])")
    #expect(!"\(outcome)".contains("hunter2"))
  }

  /// A drill goes on too: it proves the rows, and fails for the schema.
  @Test func aDrillTellsRowsFromSchema() async throws {
    let fixture = try await RestoreFixture(cluster: PrivateCluster(), sample: nil, sql: Self.flawed)
    let folder = TemporaryFolder()
    let report = try await DrillTests.drill(fixture, folder: folder)()
    #expect(report.incompleteness?.code == .schemaIncomplete)
    #expect(report.incompleteness?.message.hasPrefix("Every row is proved, and 3 of ") == true)
    #expect(report.proof.isOfRows && !report.proof.isWhole && report.proof.unmade == 3)
    #expect(report.proof.provedTables == 3 && report.proof.checkedRelations != nil)
    let read = try Proof(decoding: try report.proof.encoded(), from: "here")
    #expect(read == report.proof)
  }
}

/// What `pg_restore` says, taken apart.
struct RestoreRefusalTests {
  private func read(_ text: String, _ definitions: [Int: String]) -> [RestoreRefusal] {
    RestoreRefusal.all(in: text) { definitions[$0] }
  }

  @Test func oneAfterTheOther() {
    let refusals = read(
      """
      pg_restore: while PROCESSING TOC:
      pg_restore: from TOC entry 7; 2606 16402 FK CONSTRAINT b b_fk postgres
      pg_restore: error: could not execute query: ERROR:  it does not hold
      DETAIL:  Key (a)=(7).
      Command was: ALTER TABLE ONLY public.b
          ADD CONSTRAINT b_fk;


      pg_restore: from TOC entry 9; 1259 16403 INDEX i postgres
      pg_restore: error: could not execute query: ERROR:  role "x" does not exist
      Command was: ALTER INDEX i OWNER TO x;

      pg_restore: warning: errors ignored on restore: 2
      """, [7: "ALTER TABLE ONLY public.b\n    ADD CONSTRAINT b_fk;\n", 9: "CREATE INDEX i ON t (n);\n"])
    #expect(
      refusals == [
        RestoreRefusal(entry: 7, words: "ERROR:  it does not hold\nDETAIL:  Key (a)=(7).", isOfDefinition: true),
        RestoreRefusal(entry: 9, words: "ERROR:  role \"x\" does not exist", isOfDefinition: false),
      ])
  }

  /// The pieces of two workers' lines, as they were seen to lie in one file.
  @Test func workersInterleaved() {
    let refusals = read(
      """
      pg_restore:pg_restore:  from TOC entry 7; 0 0 FK CONSTRAINT b b_fk postgres
       from TOC entry 8; 0 0 FK CONSTRAINT c c_fk postgres
      pg_restore: pg_restore: error: error: could not execute query: ERROR:  of c
      Command was: ADD c_fk;

      could not execute query: ERROR:  of b
      Command was: ADD b_fk;

      """, [7: "ADD b_fk;", 8: "ADD c_fk;"])
    #expect(refusals.map(\.entry) == [8, 7] && refusals.map(\.words) == ["ERROR:  of c", "ERROR:  of b"])
  }

  /// What an error quotes of a row names no other object.
  @Test func entriesThatAreNone() {
    let refusals = read(
      "pg_restore: from TOC entry 99; x\npg_restore: error: could not execute query: ERROR:  e\nCommand was: x\n",
      [7: "y"])
    #expect(refusals.map(\.entry) == [nil])
  }
}
