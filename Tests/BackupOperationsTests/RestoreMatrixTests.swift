import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import PostgresTools
import TestSupport
import Testing

/// Everything that a database can have, on each major version of PostgreSQL: what is restored is what was there, by pg_dump's text of both
/// and by every fingerprint.
@Suite(.waits) struct RestoreMatrixTests {
  static let majors = [14, 15, 16, 17, 18]

  @Test(arguments: majors) func allOfIt(_ major: Int) async throws {
    let cluster = try PrivateCluster(settings: ["wal_level=logical"], major: major)
    let fixture = try await RestoreFixture(cluster: cluster, sql: Self.everything(major))
    let before = try fixture.text(fixture.database)
    try cluster.sql(fixture.database, "DROP SCHEMA portal CASCADE; DROP TABLE more.cycle_a CASCADE")
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.unproved == [])
    #expect(outcome.provedTables == fixture.manifest.totals.tables)
    let after = try fixture.text(fixture.database)
    #expect(Set(before).symmetricDifference(after).sorted() == [])
    #expect(after == before)
    // What the database itself had came along.
    #expect(
      try cluster.sql(
        "postgres",
        """
        SELECT d.datconnlimit, s.setconfig, shobj_description(d.oid, 'pg_database'), d.datacl IS NOT NULL
        FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
        WHERE datname = '\(fixture.database)'
        """) == "17|{work_mem=12MB}|all of it|t\n")

    var request = fixture.request
    request.tables = ["Odd*", "more.*", "portal.media"]
    request.target = .beside("some")
    #expect(try await fixture.restore(request).run().isProved)
    request.target = .swap
    #expect(try await fixture.restore(request).run().isProved)
  }

  /// What an old server had comes back on a new one.
  @Test func fromOldToNew() async throws {
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(settings: ["wal_level=logical"], major: 14), sql: Self.everything(14))
    let new = try PrivateCluster(settings: ["wal_level=logical"], major: 18)
    try new.sql("postgres", Self.roles)
    let restore = Restore(
      fixture.request, of: fixture.manifest, from: [fixture.workshop.store], identities: [],
      on: try connection(new, "postgres"), programs: [new.binaries],
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: Logger(label: "test"), liveName: fixture.database)
    let outcome = try await restore.run()
    #expect(outcome.isProved && outcome.kept == nil)
    #expect(outcome.rows == fixture.manifest.totals.rows)
  }

  /// Names and rows that are no ASCII, in databases that are no UTF-8.
  @Test(arguments: ["LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII"]) func otherEncodings(_ encoding: String) async throws {
    let words = encoding == "EUC_JP" ? ("表", "行") : ("tä", "schö")
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        SET client_encoding = '\(encoding == "SQL_ASCII" ? "SQL_ASCII" : "UTF8")';
        CREATE SCHEMA "\(words.1)"; CREATE TABLE "\(words.1)"."\(words.0)" (id serial, "\(words.1)" text);
        INSERT INTO "\(words.1)"."\(words.0)" ("\(words.1)") SELECT '\(words.0)' || i FROM generate_series(1, 20) i;
        CREATE MATERIALIZED VIEW "m\(words.0)" AS SELECT * FROM "\(words.1)"."\(words.0)";
        """, options: "ENCODING '\(encoding)' LOCALE 'C'")
    let before = try fixture.text(fixture.database)
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.isProved && outcome.rows == 20 && outcome.provedTables == 1)
    #expect(try fixture.text(fixture.database) == before)
    var request = fixture.request
    request.tables = [words.0]
    #expect(try await fixture.restore(request, at: Date(timeIntervalSince1970: 1_800_150_000)).run().rows == 20)
  }

  /// Bytes that are no text in any encoding are told at the backup, and refused before a restore touches anything; RECOVER.txt's way is
  /// open.
  @Test func namesThatAreNoText() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("bytes", options: "ENCODING 'SQL_ASCII' LOCALE 'C'")
    try cluster.sql(
      database,
      """
      DO $$ BEGIN
        EXECUTE format('CREATE TABLE %I AS SELECT 1 AS n', convert_from('\\x74e4', 'SQL_ASCII')); END $$
      """)
    let workshop = Workshop()
    let outcome = try await workshop.backup(try connection(cluster, database), database: database).run()
    #expect(outcome.warnings.contains { $0.code == .restoreRefused && $0.hint?.contains("RECOVER.txt") == true })
    for target in [RestoreRequest.Target.swap, .inPlace, .beside("elsewhere")] {
      var request = RestoreRequest(backup: outcome.manifest.id, database: database)
      request.target = target
      let restore = Restore(
        request, of: outcome.manifest, from: [workshop.store], identities: [], on: try connection(cluster, database),
        programs: [cluster.binaries], context: OperationContext(now: { .distantPast }, report: { _ in }),
        logger: Logger(label: "test"))
      let fault = await #expect(throws: Fault.self) { try await restore.run() }
      #expect(fault?.code == .restoreRefused)
    }
    #expect(try cluster.sql(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "1\n")
  }

  @Test(arguments: majors) func anEmptyDatabase(_ major: Int) async throws {
    let fixture = try await RestoreFixture(cluster: PrivateCluster(major: major), sample: nil)
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.isProved && outcome.tables == 0 && outcome.kept != nil)
  }

  static let roles = "CREATE ROLE reader; CREATE ROLE \"Odd, role\";"

  static func everything(_ major: Int) -> String {
    """
    \(roles)
    CREATE SCHEMA more;
    CREATE EXTENSION pg_trgm SCHEMA more;
    CREATE EXTENSION hstore;
    CREATE TYPE more.pair AS (a int, b text);
    CREATE TYPE more.span AS RANGE (subtype = float8);
    CREATE DOMAIN more.positive AS int CHECK (VALUE > 0);
    CREATE COLLATION more.plain (locale = 'C');
    CREATE FUNCTION more.double(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE FUNCTION more.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.seen := NEW.seen + 1; RETURN NEW; END $$;
    CREATE TABLE more.types (
      id serial PRIMARY KEY, p more.pair, s more.span, m int4multirange, n more.positive, h hstore, j jsonb, x xml,
      t text COLLATE more.plain, a int[][], b bit varying(9), ip inet, u uuid, v tsvector, g point,
      d int GENERATED ALWAYS AS (more.double(n)) STORED, money numeric, seen int DEFAULT 0, price money DEFAULT 1234.5, rel regclass DEFAULT 'more.types'::regclass);
    CREATE TRIGGER note BEFORE INSERT ON more.types FOR EACH ROW EXECUTE FUNCTION more.note();
    INSERT INTO more.types (p, s, m, n, h, j, x, t, a, b, ip, u, v, g, money)
    SELECT (i, 'x"y')::more.pair, more.span(i, i + 0.1), int4multirange(int4range(i, i + 5), int4range(i + 9, NULL)), i,
           hstore('k' || i, NULL), jsonb_build_object('e', E'\\u00e9\\n'), '<a b="c"/>', 'ä' || i, ARRAY[[1, i], [NULL, 3]],
           B'101', '10.0.0.1/8', md5(i::text)::uuid, to_tsvector('simple', 'a b ' || i), point(i, -i), 'NaN'
    FROM generate_series(1, 500) i;
    CREATE INDEX ON more.types USING gin (t more.gin_trgm_ops);
    CREATE INDEX "an Odd index" ON more.types ((n + 1)) WHERE n > 10;
    CREATE STATISTICS more.st ON n, seen FROM more.types;
    CREATE TABLE more.cycle_a (id int PRIMARY KEY, b int);
    CREATE TABLE more.cycle_b (id int PRIMARY KEY, a int REFERENCES more.cycle_a);
    INSERT INTO more.cycle_a VALUES (1, 1); INSERT INTO more.cycle_b VALUES (1, 1);
    ALTER TABLE more.cycle_a ADD FOREIGN KEY (b) REFERENCES more.cycle_b DEFERRABLE;
    CREATE TABLE more.self (id int PRIMARY KEY, parent int REFERENCES more.self);
    INSERT INTO more.self VALUES (1, NULL), (2, 1);
    CREATE TABLE more.hidden (who text, what text);
    INSERT INTO more.hidden SELECT 'w' || i, 'x' FROM generate_series(1, 50) i;
    ALTER TABLE more.hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE more.hidden FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON more.hidden FOR SELECT TO reader USING (who = current_user);
    CREATE UNLOGGED TABLE more.fleeting AS SELECT 1 AS x;
    CREATE VIEW more.v AS SELECT id, n FROM more.types;
    CREATE MATERIALIZED VIEW more.mv AS SELECT count(*) FROM more.types;
    CREATE TYPE more.mood AS ENUM ('good', 'bad', 'indifferent');
    CREATE TABLE more.moods (m more.mood, n int) PARTITION BY HASH (m);
    CREATE TABLE more.moods_0 PARTITION OF more.moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE more.moods_1 PARTITION OF more.moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO more.moods SELECT (enum_range(NULL::more.mood))[1 + i % 3], i FROM generate_series(1, 60) i;
    CREATE TABLE more.commands (tag text);
    CREATE RULE nothing AS ON DELETE TO more.self DO INSTEAD NOTHING;
    CREATE FUNCTION more.audit() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO more.commands SELECT command_tag FROM pg_event_trigger_ddl_commands(); END $$;
    CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION more.audit();
    CREATE PUBLICATION everything FOR ALL TABLES;
    CREATE SEQUENCE more.counting INCREMENT BY -3 MAXVALUE 100 START WITH 90 CYCLE;
    SELECT nextval('more.counting'), nextval('more.counting') \\g /dev/null
    CREATE SEQUENCE more.untouched;
    GRANT USAGE ON SCHEMA more TO reader; GRANT SELECT (id, n) ON more.types TO "Odd, role" WITH GRANT OPTION;
    ALTER DEFAULT PRIVILEGES IN SCHEMA more GRANT SELECT ON TABLES TO reader;
    ALTER TABLE more.self OWNER TO "Odd, role";
    COMMENT ON TABLE more.types IS 'it''s "all"'; COMMENT ON COLUMN more.types.n IS 'n';
    \(major >= 15 ? "CREATE TABLE more.distinct_nulls (x int UNIQUE NULLS NOT DISTINCT); INSERT INTO more.distinct_nulls VALUES (NULL);" : "")
    \(major >= 18 ? "CREATE TABLE more.virtual (x int, y int GENERATED ALWAYS AS (x + 1) VIRTUAL); INSERT INTO more.virtual VALUES (1);" : "")
    DO $$ BEGIN
      EXECUTE format('ALTER DATABASE %I SET work_mem = ''12MB''', current_database());
      EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 17', current_database());
      EXECUTE format('COMMENT ON DATABASE %I IS ''all of it''', current_database());
      EXECUTE format('GRANT CONNECT ON DATABASE %I TO reader', current_database());
    END $$;
    """
  }
}
