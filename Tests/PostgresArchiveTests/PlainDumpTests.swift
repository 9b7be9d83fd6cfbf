import Foundation
import PostgresArchive
import Testing

/// Statements about databases and lines for psql go; whatever looks like them inside of something else stays.
@Suite struct PlainDumpTests {
  private static func pass(_ text: String, by size: Int, isOfOurName: Bool = true) -> (text: String, PlainDumpScanner) {
    var scanner = PlainDumpScanner(isOfOurName: isOfOurName)
    var passed: [UInt8] = []
    let bytes = Array(text.utf8)
    for start in stride(from: 0, to: bytes.count, by: size) {
      passed += scanner.pass(Array(bytes[start..<min(bytes.count, start + size)]))
    }
    passed += scanner.finish()
    return (String(decoding: passed, as: UTF8.self), scanner)
  }

  static let left: [String] = [
    "INSERT INTO t VALUES ('a\nDROP DATABASE shop;\n\\connect x\n\\restrict y\n');\nSELECT 1;\n",
    "INSERT INTO t VALUES (E'it\\'s\n\\connect x\n', 'it''s\nCREATE DATABASE y;\n');\n",
    "INSERT INTO t VALUES ('C:\\', '\n\\connect x\n');\n",
    "INSERT INTO t VALUES (E'a''\\'\nDROP DATABASE x;\n');\n",
    "CREATE FUNCTION f() RETURNS text AS $$\nDROP DATABASE x;\n\\connect y\n$$ LANGUAGE sql;\n",
    "CREATE FUNCTION f() RETURNS text AS $_$\n$$\nDROP DATABASE x;\n$ $_ \n$_$;\n",
    "CREATE FUNCTION f(int) RETURNS int BEGIN ATOMIC\n SELECT $1;\nEND;\nSELECT a$b, $1, $2;\n",
    "COPY public.t (a, b) FROM stdin;\nDROP DATABASE x;\t'\n\\connect x\n\\N\t$$\n\\\\.\n\\.\nSELECT 1;\n",
    "COPY public.t (a) FROM stdin;\n\\.\n\nCOPY public.u (a) FROM stdin;\n\\\\restrict x\n\\.\n",
    "-- it's\nSELECT 'x'; -- DROP DATABASE \"x;\n/* '\nDROP DATABASE x;\n */ SELECT 2;\n",
    "ALTER TABLE \"a;\nDROP DATABASE x;\n\" OWNER TO me;\nDROP TABLE x;\nCREATE TABLE d (a int);\nDELETE FROM d;\n",
    "SELECT 4 - 3, 8 / 2, 2 * 3, a->'b', c->>'d;\nDROP DATABASE x;\n';\n", "\\echo x\n", "\\unrestrict\n", "C",
    "\\conn",
  ]
  @Test(arguments: left, [1, 2, 3, 7, 4096]) func whatStays(_ text: String, _ size: Int) {
    #expect(Self.pass(text, by: size).text == text)
  }

  @Test(arguments: [1, 2, 5, 4096]) func whatGoes(_ size: Int) {
    let dump = """
      \\restrict abc
      DROP DATABASE IF EXISTS "a;b";
      CREATE DATABASE "a;b" WITH TEMPLATE = template0 ENCODING = 'UTF8';
      ALTER DATABASE "a;b" OWNER TO boss;
      \\connect -reuse-previous=on "dbname='a;b'"
      SET client_encoding = 'LATIN1';
      COPY public.t (a) FROM stdin;
      GRANT ALL ON t TO nobody;
      \\.
      INSERT INTO t VALUES ('
      GRANT ALL ON t TO no_one;');
      GRANT SELECT ON TABLE t
        TO reader;
      COMMENT ON DATABASE "a;b" IS 'ours;';
      \\unrestrict abc

      """
    let (text, scanner) = Self.pass(dump, by: size)
    for gone in ["\\restrict", "DROP", "CREATE DATABASE", "\\connect", "\\unrestrict"] { #expect(!text.contains(gone)) }
    #expect(text.contains("ALTER DATABASE \"a;b\" OWNER TO boss;") && text.contains("COMMENT ON DATABASE"))
    #expect(
      scanner.commands == ["\\restrict abc", "\\connect -reuse-previous=on \"dbname='a;b'\"", "\\unrestrict abc"])
    #expect(
      scanner.statements == [
        "CREATE DATABASE \"a;b\" WITH TEMPLATE = template0 ENCODING = 'UTF8';", "ALTER DATABASE \"a;b\" OWNER TO boss;",
        "SET client_encoding = 'LATIN1';",
        "GRANT SELECT ON TABLE t\n  TO reader;",
      ])
    #expect(!Self.pass(dump, by: size, isOfOurName: false).text.contains("COMMENT ON"))
  }

  /// Where the dump itself turns `standard_conforming_strings` off, a backslash hides a quote in every constant: what
  /// then looks like a statement is none, and what looks like a row may be one.
  @Test func aDumpIsReadUnderItsOwnSetting() {
    let dump = #"""
      SET standard_conforming_strings = off;
      COMMENT ON TABLE t IS 'a\'; \
      CREATE DATABASE x; --';
      ALTER TABLE t OWNER TO boss;
      SET standard_conforming_strings = on;
      COMMENT ON TABLE t IS 'a\';
      CREATE DATABASE y;
      ALTER TABLE t OWNER TO staff;

      """#
    let (text, scanner) = Self.pass(dump, by: 4096)
    #expect(
      scanner.statements.filter { $0.hasPrefix("ALTER") } == [
        "ALTER TABLE t OWNER TO boss;", "ALTER TABLE t OWNER TO staff;",
      ])
    #expect(text.contains("CREATE DATABASE x") && !text.contains("CREATE DATABASE y"))
  }

  /// A space before a combining mark is a space to psql.
  @Test func psqlsOwnLinesAreKnownByTheirBytes() {
    let (text, scanner) = Self.pass("\\connect \u{301}other\nSELECT 1;\n\\restrict \u{200D}x\r\n", by: 4096)
    #expect(scanner.commands.count == 2 && !text.contains("other") && text.contains("SELECT 1"))
  }
}
