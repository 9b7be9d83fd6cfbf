import Foundation
import PostgresTools
import Quoting
import TestSupport
import Testing

/// SQL, connection strings, password files and the server's configuration, read back by PostgreSQL itself.
@Suite(.waits) struct ServerQuotingTests {
  @Test(arguments: ["on", "off"])
  func aLiteralMeansItsTextWhateverStandardConformingStringsSays(setting: String) throws {
    let texts = HostileText.texts(600, seed: 1)
    let statements = texts.map {
      "SELECT pg_catalog.encode(pg_catalog.convert_to(\(SQLName.literal($0)), 'UTF8'), 'hex');"
    }
    let output = try PrivateCluster.shared().sql(
      "postgres",
      "SET standard_conforming_strings = \(setting); SET escape_string_warning = off;\n"
        + statements.joined(separator: "\n"))
    #expect(
      output.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
        == texts.map(\.hexadecimal))
  }

  @Test(arguments: ["on", "off"]) func aQuotedNameIsTheNameInTheServer(setting: String) throws {
    let names = HostileText.texts(600, seed: 2).filter { !$0.isEmpty && $0.utf8.count <= 63 }
    let statements = names.map { name in
      "SELECT pg_catalog.encode(pg_catalog.convert_to(k, 'UTF8'), 'hex') FROM "
        + "(SELECT pg_catalog.json_object_keys(pg_catalog.row_to_json(r)) AS k FROM (SELECT 1 AS \(SQLName.quoted(name))) r) s;"
    }
    let output = try PrivateCluster.shared().sql(
      "postgres", "SET standard_conforming_strings = \(setting);\n" + statements.joined(separator: "\n"))
    #expect(output.split(separator: "\n").map(String.init) == names.map(\.hexadecimal))
  }

  @Test func aNameThatTheServerQuotesIsReadBack() throws {
    let names = HostileText.texts(400, seed: 3).filter { !$0.isEmpty }
    let output = try PrivateCluster.shared().sql(
      "postgres",
      names.map {
        "SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.quote_ident(\(SQLName.literal($0))), 'UTF8'), 'hex');"
      }.joined(separator: "\n"))
    let quoted = output.split(separator: "\n").map { String(decoding: Self.bytes($0), as: UTF8.self) }
    #expect(quoted.count == names.count)
    for (name, text) in zip(names, quoted) {
      var rest = (text + " rest")[...]
      #expect(SQLName.read(&rest)?.bytes == name.bytes)
      #expect(Array(rest.utf8) == " rest".bytes)
    }
  }

  @Test(arguments: [true, false]) func aConstantThatTheServerQuotesIsReadBack(standardStrings: Bool) throws {
    let texts = HostileText.texts(400, seed: 4)
    let output = try PrivateCluster.shared().sql(
      "postgres",
      texts.map {
        "SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.quote_literal(\(SQLName.literal($0))), 'UTF8'), 'hex');"
      }.joined(separator: "\n"))
    let quoted = output.split(separator: "\n").map { String(decoding: Self.bytes($0), as: UTF8.self) }
    #expect(quoted.count == texts.count)
    for (text, constant) in zip(texts, quoted) {
      let tokens = SQLTokens("SELECT \(constant);", standardStrings: standardStrings)
      #expect(tokens.tokens.map(\.kind) == [.word, .string, .symbol])
      #expect(tokens.tokens[1].text.bytes == text.bytes)
    }
  }

  @Test func aConnectionValueIsReadBackByLibpq() throws {
    for text in HostileText.texts(2000, seed: 5) where !text.isEmpty {
      let settings = try ConnectionSettings(
        parsing: "user=\(ConnectionValue.quoted(text)) dbname=\(ConnectionValue.quoted(text)) port=5433")
      #expect(settings["user"]?.bytes == text.bytes)
      #expect(settings["dbname"]?.bytes == text.bytes)
      #expect(settings["port"] == "5433")
      #expect(settings["hostaddr"] == nil)
      // And once more through our own text.
      #expect(try ConnectionSettings(parsing: settings.conninfo)["dbname"]?.bytes == text.bytes)
    }
  }

  @Test func aValueInTheServersFileIsReadBack() throws {
    let cluster = try PrivateCluster()
    let texts = HostileText.texts(300, seed: 6)
    let lines = texts.enumerated().map { "quoting.t\($0) = \(ServerFileValue.quoted($1))" }
    try Shell.must(
      "sh", ["-c", "cat > \"$1\" && chmod 644 \"$1\"", "sh", cluster.folder.file("data/quoting.conf")],
      input: lines.joined(separator: "\n") + "\n")
    try Shell.must(
      "sh", ["-c", "echo \"include 'quoting.conf'\" >> \"$1\"", "sh", cluster.folder.file("data/postgresql.conf")])
    let output = try cluster.sql(
      "postgres",
      """
      SELECT pg_catalog.encode(pg_catalog.convert_to(setting, 'UTF8'), 'hex') FROM pg_catalog.pg_file_settings
      WHERE name LIKE 'quoting.%' ORDER BY sourceline
      """)
    #expect(
      output.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
        == texts.map(\.hexadecimal))
  }

  @Test func libpqFindsThePasswordOfItsUserInAPasswordFile() throws {
    let cluster = try PrivateCluster(authentication: ["local all \"postgres\" trust", "local all all scram-sha-256"])
    let users = ["a:b", "a\\b", "*", "#x", "\u{600}:", "\\\u{301}", "a'b\"c", "\u{202E}u", "plain"]
    let folder = TemporaryFolder()
    for (number, user) in users.enumerated() {
      let password = "\(number):\\*#\u{600}'\(user)"
      try cluster.sql(
        "postgres", "CREATE ROLE \(SQLName.quoted(user)) LOGIN PASSWORD \(SQLName.literal(password))")
      let fields = try [cluster.host, PrivateCluster.port, user, password].map {
        try #require(PasswordFileField.quoted($0))
      }
      // The wrong password for every other user: a field that matches too much is noticed.
      let text = "\(fields[0]):\(fields[1]):*:\(fields[2]):\(fields[3])\n*:*:*:*:wrong\n"
      let file = try folder.write("pgpass\(number)", text)
      try Shell.must("chmod", ["600", file])
      let output = try Shell.must(
        "\(cluster.binaries)/psql",
        [
          "-X", "-At", "-w", "-d",
          "host=\(ConnectionValue.quoted(cluster.host)) port=5432 dbname=postgres user=\(ConnectionValue.quoted(user))",
          "-c", "SELECT session_user",
        ],
        environment: ["PGPASSFILE": file])
      #expect(output.bytes == (user + "\n").bytes)
    }
    #expect(PasswordFileField.quoted("a\nb") == nil)
    #expect(PasswordFileField.quoted("a\r\nb") == nil)
    #expect(PasswordFileField.quoted("a\0b") == nil)
  }

  @Test func aZeroByteNeverCutsASQLStatement() {
    #expect(SQLName.quoted("a\0b") == "\"a\u{FFFD}b\"")
    #expect(SQLName.literal("a\0b") == "'a\u{FFFD}b'")
    #expect(ConnectionValue.quoted("a\0b") == "'a\u{FFFD}b'")
    #expect(ServerFileValue.quoted("a\0b") == "'a\u{FFFD}b'")
  }

  private static func bytes(_ hexadecimal: Substring) -> [UInt8] {
    let digits = Array(hexadecimal.utf8)
    return stride(from: 0, to: digits.count - 1, by: 2).compactMap {
      UInt8(String(decoding: digits[$0...$0 + 1], as: UTF8.self), radix: 16)
    }
  }
}
