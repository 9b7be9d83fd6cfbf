import BackupCatalog
import Faults
import Foundation
import TestSupport
import Testing

@testable import BackupOperations

/// Chosen tables into the live database, and what hangs on them there.
@Suite(.waits) struct ReplacementTests {
  private func request(_ fixture: RestoreFixture, _ tables: String...) -> RestoreRequest {
    var request = fixture.request
    (request.tables, request.tableTarget) = (tables, .replaceRows)
    return request
  }

  /// Partitions and what inherits draw from their parents' sequences, and several tables from one that is nobody's.
  @Test func sequencesStandBehindTheRows() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE TABLE ev (id bigserial, at int) PARTITION BY RANGE (at);
        CREATE TABLE "ev 1" PARTITION OF ev FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (at);
        CREATE TABLE ev_1_1 PARTITION OF "ev 1" FOR VALUES FROM (0) TO (10);
        CREATE TABLE ev_2 (at int, id bigint NOT NULL); ALTER TABLE ev ATTACH PARTITION ev_2 FOR VALUES FROM (10) TO (20);
        CREATE SEQUENCE "shared Seq"; CREATE TABLE s1 (id int DEFAULT nextval('"shared Seq"'), t text);
        CREATE TABLE s2 (t text DEFAULT 'no ' || nextval('"shared Seq"'), id numeric DEFAULT nextval('"shared Seq"'));
        CREATE TABLE par (id serial, t text); CREATE TABLE kid (more int) INHERITS (par);
        CREATE TABLE idt (id int GENERATED ALWAYS AS IDENTITY, at int) PARTITION BY RANGE (at);
        CREATE TABLE idt_1 PARTITION OF idt FOR VALUES FROM (0) TO (10);
        INSERT INTO ev (at) VALUES (1), (2), (11), (12); INSERT INTO s1 (t) VALUES ('a'); INSERT INTO s2 (t) VALUES ('b'), ('c');
        INSERT INTO s1 (t) VALUES ('d'); INSERT INTO par (t) VALUES ('x'); INSERT INTO kid (t) VALUES ('y'), ('z');
        INSERT INTO idt (at) VALUES (1), (2), (3);
        """)
    let back = """
      SELECT setval('ev_id_seq', 1), setval('"shared Seq"', 1), setval('par_id_seq', 1), setval('idt_id_seq', 1)
      """
    try fixture.cluster.sql(fixture.database, back)
    let next = """
      SELECT nextval('ev_id_seq'), nextval('"shared Seq"'), nextval('par_id_seq'), nextval('idt_id_seq')
      """
    let all = try await fixture.restore(request(fixture, "ev", "s1", "s2", "par", "kid", "idt")).run()
    #expect(all.isProved && all.warnings == [], "\(all)")
    #expect(try fixture.cluster.sql(fixture.database, next) == "5|5|4|4\n")
    // One by one, and never back behind what another table has.
    try fixture.cluster.sql(fixture.database, back)
    for table in ["ev_2", "s1", "s2", "kid", "par", "idt_1"] {
      _ = try await fixture.restore(request(fixture, table)).run()
    }
    #expect(try fixture.cluster.sql(fixture.database, next) == "5|5|4|4\n")
  }

  /// A sequence that the role may not set is named, and the rows are replaced.
  @Test func aSequenceOfSomebodyElse() async throws {
    let role = "rows_\(UUID().uuidString.prefix(6).lowercased())"
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE ROLE \(role) LOGIN; CREATE SEQUENCE theirs; CREATE TABLE t (id int DEFAULT nextval('theirs'), t text);
        ALTER TABLE t OWNER TO \(role); INSERT INTO t (t) VALUES ('a'), ('b'); GRANT SELECT ON SEQUENCE theirs TO \(role);
        DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO \(role)', current_database()); END $$;
        """)
    try fixture.cluster.sql(fixture.database, "DELETE FROM t; SELECT setval('theirs', 1)")
    let outcome = try await fixture.restore(request(fixture, "t"), user: role).run()
    #expect(outcome.isProved && outcome.warnings.map(\.code) == [.databasePrivilege], "\(outcome)")
    #expect(outcome.warnings.first?.cause?.contains("theirs") == true)
    #expect(try fixture.cluster.sql(fixture.database, "SELECT nextval('theirs'), count(*) FROM t") == "2|2\n")
  }

  /// What has taken a table's name since has no rows that could be replaced: the preview says so.
  @Test func aViewInItsPlace() async throws {
    let fixture = try await RestoreFixture(sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS n")
    try fixture.cluster.sql(fixture.database, "ALTER TABLE t RENAME TO rows; CREATE VIEW t AS TABLE rows")
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(request(fixture, "t")).preview() }
    #expect(fault?.code == .restoreRefused && fault?.message.contains("is no table") == true)
  }

  /// A publication of all tables has those that come for a restore, too: whoever subscribes to it is told beforehand.
  @Test func publicationsOfAllTables() async throws {
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: "CREATE TABLE t AS SELECT 1 AS n; SET client_min_messages = error; CREATE PUBLICATION part FOR TABLE t")
    var requests = [request(fixture, "t"), request(fixture, "t")]
    requests[0].tableTarget = .schema("rescue")
    for request in requests {
      #expect(try await fixture.restore(request).preview().warnings == [])
      #expect(try await fixture.restore(request).run().warnings == [])
      try fixture.cluster.sql(fixture.database, "DROP SCHEMA IF EXISTS rescue CASCADE")
    }
    try fixture.cluster.sql(fixture.database, "CREATE PUBLICATION \"all\" FOR ALL TABLES")
    for request in requests {
      let preview = try await fixture.restore(request).preview().warnings
      #expect(preview.map(\.code) == [.replicationLeft], "\(preview)")
      #expect(preview.first?.message.contains("publication all ") == true, "\(preview)")
      let outcome = try await fixture.restore(request).run()
      #expect(outcome.warnings.map(\.code) == [.replicationLeft], "\(outcome.warnings)")
    }
    // Beside it nothing is published.
    requests[0].target = .beside(fixture.database + "_beside")
    #expect(try await fixture.restore(requests[0]).preview().warnings == [])
  }
}
