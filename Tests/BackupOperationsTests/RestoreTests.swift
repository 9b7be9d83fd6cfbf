import AgeEncryption
import ArtifactFormat
import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import PostgresTools
import Quoting
import Storage
import Synchronization
import TestSupport
import Testing
import Units

/// A database with a backup of it, and restores of that.
struct RestoreFixture {
  let cluster: PrivateCluster
  let workshop = Workshop()
  let database: String
  let manifest: Manifest
  let identity = AgeIdentity.generate()
  let signingKey = SigningKey.generate()

  init(
    cluster: PrivateCluster? = nil, sample: Int? = 1, sql: String? = nil, isEncrypted: Bool = false,
    settings: Backup.Settings = .init(), options: String = "", named name: String? = nil
  ) async throws {
    self.cluster = try cluster ?? .shared()
    let made = try self.cluster.makeDatabase("live", sample: sample, options: options)
    database = name ?? made
    if let name { try self.cluster.sql("postgres", "ALTER DATABASE \(made) RENAME TO \(SQLName.quoted(name))") }
    if let sql { try self.cluster.sql(database, sql) }
    var settings = settings
    settings.programs = [self.cluster.binaries]
    if isEncrypted { settings.encryption = .age([try #require(identity.recipient)]) }
    manifest = try await workshop.backup(
      try connection(self.cluster, database), database: database, settings: settings
    ).run().manifest
  }

  /// Another backup of the same database.
  init(of other: RestoreFixture) async throws {
    cluster = other.cluster
    database = other.database
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    manifest = try await workshop.backup(
      try connection(cluster, database), database: database, settings: settings
    ).run().manifest
  }

  var request: RestoreRequest { RestoreRequest(backup: manifest.id, database: database) }

  func restore(
    _ request: RestoreRequest, from stores: [any ObjectStore]? = nil, user: String = "postgres",
    at time: Date = Date(timeIntervalSince1970: 1_800_100_000), safety: Restore.SafetyBackup? = nil,
    report: @escaping @Sendable (RunProgress) -> Void = { _ in }
  ) throws -> Restore {
    var restore = Restore(
      request, of: manifest, from: stores ?? [workshop.store], identities: [identity],
      on: try connection(cluster, database, user: user), programs: [cluster.binaries],
      context: OperationContext(now: { time }, report: report), logger: Logger(label: "test"), safetyBackup: safety)
    restore.signingKey = signingKey
    return restore
  }

  /// - Parameter recorded: what the ledger knows.
  func rollback(
    at time: Date = Date(timeIntervalSince1970: 1_800_200_000), recorded: Set<String> = []
  ) throws -> Rollback {
    Rollback(
      on: try connection(cluster, database), context: OperationContext(now: { time }, report: { _ in }),
      witnesses: KeptWitnesses(keys: [signingKey.publicKey], recorded: recorded.exact), signingKey: signingKey)
  }

  /// pg_dump's text of a database, without what differs from run to run.
  func text(_ database: String) throws -> [String] {
    try Shell.must(
      "\(cluster.binaries)/pg_dump", ["-E", "UTF8", "-d", cluster.conninfo(database)]
    ).split(separator: "\n").map(String.init).filter { !$0.hasPrefix("\\restrict") && !$0.hasPrefix("\\unrestrict") }
      .sorted()
  }

  /// The databases of the server that begin like ours.
  var databases: [String] {
    get throws {
      try cluster.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE '\(database)%' ORDER BY 1")
        .split(separator: "\n").map(String.init)
    }
  }
}

@Suite(.waits) struct RestoreTests {
  /// Names that fill all the room there is, or more than one line: what a restore puts aside is found again.
  @Test(arguments: [String(repeating: "é", count: 31), "two\nlines\\n' until 2026", "\n"])
  func whateverTheName(_ name: String) async throws {
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(), sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS n", named: name)
    try fixture.cluster.sql(name, "UPDATE t SET n = 2")
    let kept = try #require(try await fixture.restore(fixture.request).run().kept)
    #expect(try fixture.cluster.sql(name, "TABLE t") == "1\n")
    let found = try await fixture.rollback().kept()
    #expect(found.map(\.name) == [kept] && found.map(\.live) == [name] && found.allSatisfy { $0.doubt == nil })
    #expect(try await fixture.rollback().run(name).putBack == kept)
    #expect(try fixture.cluster.sql(name, "TABLE t") == "2\n")
    // What was put aside now is dropped when its time has come.
    let later = Date(timeIntervalSince1970: 1_810_000_000)
    let dropped = try await fixture.rollback(at: later).drop(olderThan: .seconds(1)) { $0.isExactly(name) }
    #expect(dropped.dropped.count == 1 && dropped.failed.isEmpty)
  }

  /// The main job: into a new database, proved, and swapped in; then undone, and undone again.
  @Test(arguments: [false, true]) func swapAndRollBack(_ isEncrypted: Bool) async throws {
    let fixture = try await RestoreFixture(isEncrypted: isEncrypted)
    let before = try fixture.text(fixture.database)
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views; DROP TABLE portal.floats")
    let damaged = try fixture.text(fixture.database)

    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.unproved == [])
    #expect(outcome.provedTables == fixture.manifest.totals.tables)
    #expect(outcome.rows == fixture.manifest.totals.rows)
    #expect(try fixture.text(fixture.database) == before)
    let kept = try #require(outcome.kept)
    #expect(try fixture.databases == [fixture.database, kept].sorted())
    #expect(try fixture.text(kept) == damaged)

    let undone = try await fixture.rollback().run(fixture.database)
    #expect(try fixture.text(fixture.database) == damaged)
    #expect(try fixture.text(try #require(undone.kept)) == before)
    _ = try await fixture.rollback(at: Date(timeIntervalSince1970: 1_800_300_000)).run(fixture.database)
    #expect(try fixture.text(fixture.database) == before)
  }

  @Test func besideTheLiveDatabase() async throws {
    let fixture = try await RestoreFixture()
    var request = fixture.request
    request.target = .beside(fixture.database + "_copy")
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.kept == nil && outcome.isProved)
    #expect(try fixture.text(fixture.database + "_copy") == fixture.text(fixture.database))
    let refusal = await #expect(throws: Fault.self) { try await fixture.restore(request).run() }
    #expect(refusal?.code == .restoreNameTaken)
  }

  @Test func chosenTablesIntoASchema() async throws {
    let fixture = try await RestoreFixture(isEncrypted: true)
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views WHERE viewer = 7")
    var request = fixture.request
    request.tables = ["portal.views", "media", "floats"]
    let outcome = try await fixture.restore(request).run()
    let schema = try #require(outcome.schema)
    let there = try fixture.cluster.sql(
      fixture.database, "SELECT tablename FROM pg_tables WHERE schemaname = '\(schema)' ORDER BY 1")
    #expect(there.split(separator: "\n") == ["floats", "media", "views_2025", "views_2026"])
    #expect(
      try fixture.cluster.sql(
        fixture.database,
        """
        SELECT (SELECT count(*) FROM \(schema).views_2025) + (SELECT count(*) FROM \(schema).views_2026),
               (SELECT count(*) FROM (SELECT id, title, price FROM portal.media EXCEPT SELECT id, title, price FROM \(schema).media) d)
        """) == "27000|0\n")
    #expect(try fixture.databases == [fixture.database])
  }

  @Test func chosenTablesIntoADatabase() async throws {
    let fixture = try await RestoreFixture()
    var request = fixture.request
    request.tables = ["portal.media", "portal.users"]
    request.target = .beside(fixture.database + "_some")
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.tables == 2 && outcome.provedTables == 2)
    #expect(
      try fixture.cluster.sql(
        fixture.database + "_some",
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'portal'::regnamespace"
      ) == "media users\n")
    // The foreign key between the two came along, and the index.
    #expect(
      try fixture.cluster.sql(
        fixture.database + "_some",
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'portal.media'::regclass") == "1\n")
  }

  /// A server on which everybody only reads, unless he says otherwise.
  @Test func whereReadingIsTheRule() async throws {
    let fixture = try await RestoreFixture(cluster: PrivateCluster())
    let before = try fixture.text(fixture.database)
    try fixture.cluster.sql(fixture.database, "DELETE FROM portal.views")
    try fixture.cluster.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on")
    try fixture.cluster.sql("postgres", "SELECT pg_reload_conf()")
    #expect(try await fixture.restore(fixture.request).run().isProved)
    #expect(try fixture.text(fixture.database) == before)
    _ = try await fixture.rollback().run(fixture.database)
    var request = fixture.request
    request.tables = ["portal.views"]
    request.tableTarget = .replaceRows
    #expect(try await fixture.restore(request).run().rows == 27_000)
  }

  /// All of a schema into a new database: views, functions, types, sequences, and what they rest on; a materialized view is filled where its
  /// tables come with their rows.
  @Test func aWholeSchema() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE SCHEMA s; CREATE SCHEMA only_views; CREATE SCHEMA other;
        CREATE TYPE s.mood AS ENUM ('good', 'bad'); CREATE SEQUENCE s.free; SELECT nextval('s.free'), nextval('s.free');
        CREATE TABLE s.t AS SELECT 1 AS n, 'good'::s.mood AS m; CREATE TABLE other.far AS SELECT 2 AS n;
        CREATE FUNCTION s.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
        CREATE VIEW s.v AS SELECT s.twice(n) AS n FROM s.t; COMMENT ON VIEW s.v IS 'a view';
        CREATE MATERIALIZED VIEW s.full AS TABLE s.t; CREATE UNIQUE INDEX ON s.full (n);
        CREATE MATERIALIZED VIEW s.never AS TABLE other.far WITH NO DATA;
        CREATE MATERIALIZED VIEW s.empty AS TABLE other.far; CREATE VIEW only_views.far AS TABLE other.far;
        """)
    var request = fixture.request
    request.schemas = ["s"]
    request.target = .beside(fixture.database + "_s")
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.tables == 1 && outcome.provedTables == 1 && outcome.isProved, "\(outcome)")
    #expect(outcome.derived?.contains { $0.hasPrefix("s.empty (materialized view, left empty") } == true, "\(outcome)")
    #expect(outcome.derived?.contains { $0.contains("s.never") } == false, "it never had rows: \(outcome)")
    func ask(_ query: String) throws -> String { try fixture.cluster.sql(fixture.database + "_s", query) }
    #expect(try ask("SELECT n, obj_description('s.v'::regclass) FROM s.v") == "2|a view\n")
    #expect(try ask("SELECT n, m FROM s.full") == "1|good\n")
    #expect(try ask("SELECT nextval('s.free'), 'bad'::s.mood, count(*) FROM other.far") == "3|bad|0\n")
    #expect(try ask("SELECT count(*) FROM pg_index WHERE indrelid = 's.full'::regclass") == "1\n")
    #expect(try ask("SELECT relispopulated FROM pg_class WHERE oid = 's.empty'::regclass") == "f\n")
    request.schemas = ["only_views"]
    request.target = .beside(fixture.database + "_v")
    #expect(try await fixture.restore(request).run().tables == 0)
    #expect(try fixture.cluster.sql(fixture.database + "_v", "SELECT count(*) FROM only_views.far") == "0\n")
    request.schemas = ["nothing"]
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(request).run() }
    #expect(fault?.code == .tableMissing && fault?.message.contains("nothing.*") == true)
    // Into the live database come rows, which are tables'.
    request.target = .swap
    request.schemas = ["only_views"]
    #expect(await #expect(throws: Fault.self) { try await fixture.restore(request).run() }?.code == .tableMissing)
  }

  /// Chosen tables bring what their triggers, policies and indexes need, and schemas their grants; a foreign key to a table without rows is
  /// left out, and named.
  @Test(arguments: [["a.doc", "a.cust", "a.ex"], []]) func whatTablesNeed(_ tables: [String]) async throws {
    let cluster = try PrivateCluster.shared()
    let role = "app_\(UUID().uuidString.prefix(6).lowercased())"
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: """
        CREATE ROLE \(role); CREATE SCHEMA lib; CREATE SCHEMA a; CREATE EXTENSION btree_gist SCHEMA lib; CREATE EXTENSION pg_trgm SCHEMA lib;
        CREATE FUNCTION lib.tenant() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION lib.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TABLE lib.base (id int PRIMARY KEY); INSERT INTO lib.base VALUES (1);
        CREATE TABLE a.doc (id int PRIMARY KEY REFERENCES lib.base, tenant int); INSERT INTO a.doc VALUES (1, 1);
        ALTER TABLE a.doc ENABLE ROW LEVEL SECURITY; CREATE POLICY everyone ON a.doc USING (true);
        CREATE POLICY mine ON a.doc AS RESTRICTIVE USING (tenant = lib.tenant());
        CREATE TABLE a.cust (n text, doc int REFERENCES a.doc); INSERT INTO a.cust VALUES ('x', 1);
        CREATE TRIGGER touch BEFORE INSERT ON a.cust FOR EACH ROW EXECUTE FUNCTION lib.touch();
        CREATE INDEX ix ON a.cust USING gin (n lib.gin_trgm_ops);
        CREATE TABLE a.ex (r int4range, k int, EXCLUDE USING gist (k WITH =, r WITH &&));
        GRANT USAGE ON SCHEMA a TO \(role); COMMENT ON SCHEMA a IS 'ours';
        ALTER DEFAULT PRIVILEGES IN SCHEMA a GRANT SELECT ON TABLES TO \(role);
        """)
    var request = fixture.request
    if tables.isEmpty { request.schemas = ["a"] } else { request.tables = tables }
    let name = fixture.database + "_some\(tables.count)"
    request.target = .beside(name)
    let preview = try await fixture.restore(request).preview()
    #expect(preview.steps.contains { $0.contains("leave out: a.doc doc_id_fkey (foreign key") }, "\(preview.steps)")
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.isProved && outcome.tables == 3)
    #expect(
      outcome.derived?.contains { $0.hasPrefix("a.doc doc_id_fkey (foreign key, left out") } == true, "\(outcome)")
    /// What psql tells of the three tables, but for that key.
    func tell(_ database: String) throws -> [Substring] {
      try Shell.must(
        "\(cluster.binaries)/pg_dump", ["-s", "-n", "a", "-d", cluster.conninfo(database)]
      ).split(separator: "\n").filter { !$0.contains("restrict ") && !$0.hasPrefix("--") }
    }
    let (before, after) = (try tell(fixture.database), try tell(name))
    let missing = before.filter { !after.contains($0) }
    #expect(
      missing.allSatisfy { $0.contains("doc_id_fkey") || tables.count == 3 && $0.contains("DEFAULT PRIVILEGES") },
      "\(missing)")
  }

  /// Whoever is to own it makes it: a role that is no superuser, and has never seen the new database.
  @Test func asAnotherRole() async throws {
    let fixture = try await RestoreFixture(sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS x")
    let role = "owner_\(UUID().uuidString.prefix(6).lowercased())"
    try fixture.cluster.sql("postgres", "CREATE ROLE \(role)")
    var request = fixture.request
    (request.options.withOwners, request.options.role) = (false, role)
    request.target = .beside(fixture.database + "_theirs")
    #expect(try await fixture.restore(request).run().isProved)
    #expect(
      try fixture.cluster.sql(fixture.database + "_theirs", "SELECT tableowner FROM pg_tables WHERE tablename = 't'")
        == "\(role)\n")
  }

  /// A check asks another table, whose rows were not there yet: it is loaded again, in the archive's order.
  @Test func rowsThatNeedOthers() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE TABLE a_small (id int PRIMARY KEY); INSERT INTO a_small SELECT generate_series(1, 10);
        CREATE FUNCTION in_a(int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.a_small WHERE id = $1)';
        CREATE TABLE b_big (x int CHECK (in_a(x)), pad text);
        INSERT INTO b_big SELECT i % 10 + 1, repeat('x', 1000) FROM generate_series(1, 40000) i;
        CREATE TABLE never (x int);
        """)
    var request = fixture.request
    request.target = .beside(fixture.database + "_again")
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.isProved && outcome.rows == 40_010)
    // What no order loads is refused.
    let broken = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE FUNCTION ok(int) RETURNS boolean LANGUAGE sql AS 'SELECT current_database() NOT LIKE ''%restore%''';
        CREATE TABLE t (x int CHECK (ok(x))); INSERT INTO t VALUES (1);
        """)
    let fault = await #expect(throws: Fault.self) { try await broken.restore(broken.request).run() }
    #expect(fault?.code == .restoreFailed && fault?.cause?.contains("check") == true)
    #expect(try broken.databases == [broken.database])
  }

  /// Partitions that are none any more, and rows whose place depends on the database.
  @Test func partitionsThatHaveChanged() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE TYPE color AS ENUM ('red', 'blue');
        CREATE TABLE h (c color, n int) PARTITION BY HASH (c);
        CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO h VALUES ('red', 1), ('blue', 2);
        CREATE TABLE p (n int) PARTITION BY RANGE (n); CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (9);
        INSERT INTO p VALUES (1);
        """)
    try fixture.cluster.sql(fixture.database, "ALTER TABLE p DETACH PARTITION p0; UPDATE p0 SET n = 2")
    var request = fixture.request
    request.tableTarget = .replaceRows
    for (table, words) in [
      ("p", "public.p0 is no partition of public.p any more"), ("h", "which of them belong into which"),
    ] {
      request.tables = [table]
      let fault = await #expect(throws: Fault.self) { try await fixture.restore(request).preview() }
      #expect(
        fault?.code == .restoreRefused && fault?.message.contains(words) == true, "\(fault.map { "\($0)" } ?? "")")
    }
    #expect(try fixture.cluster.sql(fixture.database, "TABLE p0") == "2\n")
  }

  /// Names with dots are named as they are; one that two schemas have is replaced in neither before it is said which.
  @Test func oddNamesAreChosen() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE SCHEMA "we.ird"; CREATE TABLE "we.ird"."ta.ble" AS SELECT 1 AS n; CREATE TABLE "we.ird".plain AS SELECT 2 AS n;
        CREATE TABLE "ta.ble" AS SELECT 3 AS n; CREATE TABLE plain AS SELECT 4 AS n;
        """)
    for (table, rows) in [("we.ird.ta.ble", 1), ("we.ird.plain", 1), ("ta.ble", 2), ("public.ta.ble", 1)] {
      var request = fixture.request
      request.tables = [table]
      let preview = try await fixture.restore(request).preview()
      #expect(preview.rows == Int64(rows), "\(table): \(preview.tables)")
    }
    var request = fixture.request
    request.tables = ["plain"]
    request.tableTarget = .replaceRows
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(request).run() }
    #expect(fault?.code == .tableMissing && fault?.message.contains("public, we.ird") == true)
    request.tables = ["we.ird.plain"]
    #expect(try await fixture.restore(request).run().rows == 1)
  }

  /// Triggers of partitions, which PostgreSQL 14 calls internal, are as they were.
  @Test(arguments: [14, 18]) func rowsOfPartitionsAreReplaced(_ major: Int) async throws {
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(major: major), sample: nil,
      sql: """
        CREATE TABLE part (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF part FOR VALUES FROM (0) TO (100);
        CREATE TABLE seen (id int);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END $$;
        CREATE TRIGGER tr AFTER INSERT ON part FOR EACH ROW EXECUTE FUNCTION see();
        INSERT INTO part VALUES (1), (2);
        """)
    var request = fixture.request
    request.tables = ["part"]
    request.tableTarget = .replaceRows
    _ = try await fixture.restore(request).run()
    #expect(
      try fixture.cluster.sql(
        fixture.database, "INSERT INTO part VALUES (3); SELECT count(*) FROM part; SELECT max(id), count(*) FROM seen")
        == "3\n3|3\n")
  }

  /// Foreign keys in a circle, deferrable or not, between partitioned tables and within one: checked at the end, and then what they were.
  @Test(arguments: [14, 18]) func circlesAreReplaced(_ major: Int) async throws {
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(major: major), sample: nil,
      sql: """
        CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
        ALTER TABLE a ADD CONSTRAINT "a to b" FOREIGN KEY (b) REFERENCES b;
        CREATE TABLE c (id int PRIMARY KEY, d int); CREATE TABLE d (id int PRIMARY KEY, c int REFERENCES c DEFERRABLE);
        ALTER TABLE c ADD FOREIGN KEY (d) REFERENCES d DEFERRABLE INITIALLY DEFERRED;
        CREATE TABLE zt (id int PRIMARY KEY);
        CREATE TABLE p (id int PRIMARY KEY, q int, up int, t int REFERENCES zt) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
        CREATE TABLE q (id int PRIMARY KEY, p int REFERENCES p) PARTITION BY RANGE (id);
        CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10);
        CREATE TABLE leads (id int REFERENCES q);
        ALTER TABLE p ADD FOREIGN KEY (q) REFERENCES q; ALTER TABLE p ADD FOREIGN KEY (up) REFERENCES p;
        INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 2), (2, 1); UPDATE a SET b = 3 - id;
        INSERT INTO c VALUES (1), (2); INSERT INTO d VALUES (1, 2), (2, 1); UPDATE c SET d = 3 - id;
        INSERT INTO zt VALUES (7);
        INSERT INTO p VALUES (1, NULL, NULL, 7), (11, NULL, 1, 7); INSERT INTO q VALUES (1, 11); UPDATE p SET q = 1, up = 12 - id;
        INSERT INTO leads VALUES (1);
        CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER stop BEFORE TRUNCATE ON p EXECUTE FUNCTION stop();
        """)
    let before = try fixture.text(fixture.database)
    try fixture.cluster.sql(
      fixture.database,
      "UPDATE a SET b = NULL; UPDATE c SET d = NULL; UPDATE p SET q = NULL, up = NULL; DELETE FROM leads")
    var request = fixture.request
    request.tableTarget = .replaceRows
    request.tables = ["p", "q", "zt"]
    let refusal = await #expect(throws: Fault.self) { try await fixture.restore(request).preview() }
    #expect(refusal?.code == .restoreRefused && refusal?.cause == "public.leads to public.q, public.leads to public.q1")
    request.tables = ["nothing"]
    await #expect(throws: Fault.self) { try await fixture.restore(request).preview() }
    request.tables = ["*"]
    let preview = try await fixture.restore(request).preview()
    let step = try #require(preview.steps.first { $0.contains("circle") })
    #expect(step.contains("a to b of public.a") && step.contains("p_q_fkey of public.p"), "\(step)")
    let outcome = try await fixture.restore(request).run()
    #expect(outcome.isProved && outcome.rows == 13, "\(outcome)")
    let kept = try #require(outcome.kept)
    try fixture.cluster.sql(fixture.database, "SET client_min_messages = error; DROP SCHEMA \(kept) CASCADE")
    #expect(try fixture.text(fixture.database) == before)
    // What was there before the backup's rows would break a key is refused, and nothing is changed.
    try fixture.cluster.sql(
      fixture.database,
      "CREATE TABLE later (id int PRIMARY KEY); ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES later NOT VALID")
    request.tables = ["a", "b"]
    await #expect(throws: Fault.self) { try await fixture.restore(request).run() }
    #expect(try fixture.cluster.sql(fixture.database, "TABLE a") == "1|2\n2|1\n")
  }

  @Test func rowsAreReplaced() async throws {
    let fixture = try await RestoreFixture()
    let before = try fixture.text(fixture.database)
    try fixture.cluster.sql(
      fixture.database, "UPDATE portal.floats SET f4 = 7; DELETE FROM portal.views WHERE viewer = 3")
    var request = fixture.request
    request.tables = ["portal.floats", "portal.views"]
    request.tableTarget = .replaceRows
    let outcome = try await fixture.restore(request).run()
    let kept = try #require(outcome.kept)
    #expect(try fixture.cluster.sql(fixture.database, "SELECT DISTINCT f4 FROM \(kept).portal_floats") == "7\n")
    try fixture.cluster.sql(fixture.database, "SET client_min_messages = error; DROP SCHEMA \(kept) CASCADE")
    #expect(try fixture.text(fixture.database) == before)

    // Triggers are as they were, and the next row gets a number of its own.
    try fixture.cluster.sql(
      fixture.database,
      """
      CREATE TABLE numbered (id serial PRIMARY KEY, x int); INSERT INTO numbered (x) VALUES (1), (2), (3);
      CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
      CREATE TRIGGER a BEFORE TRUNCATE ON numbered EXECUTE FUNCTION stop();
      CREATE TRIGGER b BEFORE DELETE ON numbered EXECUTE FUNCTION stop(); ALTER TABLE numbered ENABLE ALWAYS TRIGGER b;
      CREATE TRIGGER c BEFORE DELETE ON numbered EXECUTE FUNCTION stop(); ALTER TABLE numbered DISABLE TRIGGER c;
      """)
    let second = try await RestoreFixture(of: fixture)
    try fixture.cluster.sql(fixture.database, "SELECT setval('numbered_id_seq', 1)")
    var again = second.request
    again.tables = ["numbered"]
    again.tableTarget = .replaceRows
    _ = try await second.restore(again).run()
    #expect(
      try fixture.cluster.sql(
        fixture.database,
        "SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'numbered'::regclass AND NOT tgisinternal"
      ) == "OAD\n")
    #expect(try fixture.cluster.sql(fixture.database, "INSERT INTO numbered (x) VALUES (4) RETURNING id") == "4\n")
    try fixture.cluster.sql(
      fixture.database,
      "SET client_min_messages = error; DROP TABLE numbered; DROP FUNCTION stop; DO $$ BEGIN EXECUTE (SELECT 'DROP SCHEMA ' || string_agg(nspname, ', ') || ' CASCADE' FROM pg_namespace WHERE nspname LIKE 'replaced%'); END $$"
    )

    // What other tables lead to by foreign keys is refused, and nothing is changed.
    request.tables = ["portal.users"]
    let refusal = await #expect(throws: Fault.self) { try await fixture.restore(request).run() }
    #expect(refusal?.code == .restoreRefused)
    #expect(try fixture.text(fixture.database) == before)
  }
}
