import Quoting
import Testing

@testable import PostgresArchive

/// What a restore learns from an archive's entries before it begins, for entries by hand.
@Suite struct TableOfContentsTests {
  private static func entry(
    _ id: Int, _ kind: String, _ tag: String, _ definition: String = "", schema: String? = "public",
    section: TocEntry.Section = .preData, hasData: Bool = false, owner: String? = "owner", tablespace: String? = nil,
    isRepaired: Bool = false
  ) -> TocEntry {
    TocEntry(
      dumpID: id, hasData: hasData, catalogTable: "0", catalogOID: "0", tag: tag, kind: kind, section: section,
      definition: definition, copyStatement: nil, schema: schema, tablespace: tablespace, owner: owner,
      dependencies: [], isRepaired: isRepaired)
  }

  private let contents = TableOfContents([
    entry(1, "ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n"),
    entry(2, "STDSTRINGS", "STDSTRINGS", "SET standard_conforming_strings = 'on';\n"),
    entry(3, "DATABASE", "shop", "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';\n", owner: "boss"),
    entry(4, "COMMENT", "DATABASE shop", "COMMENT ON DATABASE shop IS 'it''s';\n"),
    entry(
      5, "DATABASE PROPERTIES", "shop",
      "ALTER DATABASE shop SET work_mem TO '5MB';\nALTER ROLE \"a b\" IN DATABASE shop SET x TO 'DATABASE shop ';\n"
        + "ALTER ROLE c IN DATABASE shop SET y TO '1';\n"),
    entry(6, "ACL", "DATABASE shop", "GRANT CONNECT ON DATABASE shop TO reader;\n"),
    entry(7, "ACL", "TABLE t", "REVOKE ALL ON TABLE t FROM x;\nGRANT ALL ON TABLE t TO \"to TO me\";\n"),
    entry(
      8, "DEFAULT ACL", "t", "ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT ALL ON TABLES TO PUBLIC;\n"),
    entry(9, "POLICY", "t p", "CREATE POLICY p ON public.t AS RESTRICTIVE FOR SELECT TO \"p q\", r USING (true);\n"),
    entry(10, "POLICY", "t all", "CREATE POLICY \"all\" ON public.t USING ((a > 0));\n"),
    entry(11, "USER MAPPING", "u", "CREATE USER MAPPING FOR mapped SERVER s;\n"),
    entry(12, "USER MAPPING", "u", "CREATE USER MAPPING FOR PUBLIC SERVER s;\n"),
    entry(13, "EXTENSION", "pgcrypto"), entry(14, "TABLE", "t", tablespace: "fast", isRepaired: true),
    entry(15, "EVENT TRIGGER", "e"), entry(16, "COMMENT", "EVENT TRIGGER e", section: .none),
    entry(17, "SEQUENCE SET", "q", "SELECT pg_catalog.setval('public.q', 7, true);\n", section: .data),
    entry(18, "SEQUENCE SET", "broken", "SELECT 1;\n", section: .data),
    entry(19, "BLOB METADATA", "1..2", "SELECT pg_catalog.lo_create('1');\n", section: .data),
    entry(20, "ACL", "LARGE OBJECT 1", "GRANT SELECT ON LARGE OBJECT 1 TO GROUP lo_reader;\n", section: .none),
    entry(21, "TABLE DATA", "t", section: .data, hasData: true),
    entry(22, "MATERIALIZED VIEW DATA", "m", "REFRESH MATERIALIZED VIEW public.m;\n", section: .postData),
    entry(23, "SECURITY LABEL", "DATABASE shop", "SECURITY LABEL FOR x ON DATABASE shop IS 'l';\n"),
  ])

  @Test func whomARestoreNeedsIsFound() {
    #expect(contents.owners == ["owner"])
    #expect(contents.databaseOwner == "boss")
    #expect(contents.grantees == ["reader", "to TO me", "maker", "lo_reader"])
    #expect(contents.beneficiaries == ["p q", "r", "mapped"])
    #expect(contents.settingRoles == ["a b", "c"])
    #expect(contents.extensions == ["pgcrypto"])
    #expect(contents.tablespaces == ["fast"])
  }

  @Test func whatIsRunApartIsFound() {
    #expect(contents.sessionStatements.count == 2)
    #expect(contents.dataStatements == [19, 20])
    #expect(contents.refreshes.map(\.dumpID) == [22])
    #expect(contents.eventTriggers.map(\.dumpID) == [15, 16])
    #expect(contents.unreadable.map(\.dumpID) == [14])
    #expect(contents.sequences.map(\.name) == ["q"])
    #expect(contents.sequences.first?.value == "7" && contents.sequences.first?.isCalled == true)
    #expect(contents.entries.first { $0.dumpID == 21 }?.label == "TABLE DATA public.t")
  }

  @Test func theDatabaseItselfIsMadeAgainUnderAnotherName() throws {
    #expect(contents.databaseOptions == "WITH TEMPLATE = template0 ENCODING = 'UTF8'")
    #expect(contents.databaseComment == "it's")
    let statements = try contents.databaseStatements(for: "new", withPrivileges: true, roles: ["a b"])
    #expect(
      statements == [
        "ALTER DATABASE \"new\" SET work_mem TO '5MB';",
        "ALTER ROLE \"a b\" IN DATABASE \"new\" SET x TO 'DATABASE shop ';",
        "GRANT CONNECT ON DATABASE \"new\" TO reader;", "SECURITY LABEL FOR x ON DATABASE \"new\" IS 'l';",
      ])
    #expect(
      try !contents.databaseStatements(for: "new", withPrivileges: false, roles: []).contains { $0.contains("GRANT") })
    let none = TableOfContents([])
    #expect(none.databaseOptions == nil && none.databaseComment == nil && none.databaseOwner == nil)
    #expect(try none.databaseStatements(for: "new", withPrivileges: true, roles: []).isEmpty)
  }
}
