import Foundation
import TestSupport
import Testing

/// A server whose owner names everything to harm whoever looks: each command and each output, and the rows are proved
/// all the same.
@Suite(.serialized, .waits) struct HostileNamesEndToEndTests {
  /// What objects are called, 63 bytes at most.
  private static let names = [
    "\u{600}'\"x", "'\u{301}\"\u{301}\\\u{301}", "a'b\"c\\d", "a\nnext:  rm -rf /", "a\r\n<3>forged run=1",
    "\u{1B}[2J\u{1B}[31mx",
    "\u{9B}31mx", "\u{202E}x\u{2066}\u{200B}", "\u{2028}x\u{2029}", "a" + String(repeating: "\u{301}", count: 31),
    "x-- y",
    "$$x$$", "%s%n{{host}}", "..", "a/b", "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>",
    "'; DROP TABLE t; --",
    #"\'; DROP TABLE t; --"#, "a|b=c", "`id`$(id)", "*", "?", "=", "-rf", "#", "{a=\"b\"} 1\n# EOF", "\u{E9}",
    "e\u{301}",
  ]
  private static let database = "\u{600}'\"<b>\u{1B}[2J\n\r\n\u{202E}$(id)|`%s\\/"

  private static func quoted(_ name: String) -> String {
    "\"" + String(decoding: name.utf8.flatMap { $0 == 34 ? [34, 34] : [$0] }, as: UTF8.self) + "\""
  }

  private static func literal(_ text: String) -> String {
    "E'" + String(decoding: text.utf8.flatMap { $0 == 39 || $0 == 92 ? [92, $0] : [$0] }, as: UTF8.self) + "'"
  }

  /// Every kind of object under every name, each with a comment that is no better.
  private static var objects: String {
    names.enumerated().map { number, name in
      let (object, text) = (quoted(name), literal(name))
      let schema = quoted("s" + String(name.unicodeScalars.prefix(20)) + "\(number)")
      return """
        CREATE SCHEMA \(schema); COMMENT ON SCHEMA \(schema) IS \(text);
        CREATE TYPE \(schema).\(object) AS ENUM (\(text));
        CREATE TABLE \(schema).\(quoted("t" + String(name.unicodeScalars.prefix(24)))) (\(object) integer PRIMARY KEY, other text DEFAULT \(text), kind \(schema).\(object));
        CREATE TABLE public.\(object) (\(object) integer PRIMARY KEY, other text);
        INSERT INTO public.\(object) SELECT n, \(text) FROM generate_series(1, 3) n;
        COMMENT ON TABLE public.\(object) IS \(text); COMMENT ON COLUMN public.\(object).\(object) IS \(text);
        INSERT INTO \(schema).\(quoted("t" + String(name.unicodeScalars.prefix(24)))) VALUES (7, \(text), \(text));
        CREATE SEQUENCE \(schema).\(quoted("q" + String(name.unicodeScalars.prefix(24)))); SELECT nextval(\(literal("\(schema).\(quoted("q" + String(name.unicodeScalars.prefix(24))))")));
        CREATE FUNCTION \(schema).\(object)() RETURNS text LANGUAGE sql AS \(literal("SELECT \(text)::text"));
        CREATE VIEW \(schema).\(quoted("v" + String(name.unicodeScalars.prefix(24)))) AS SELECT \(object) FROM public.\(object);
        CREATE MATERIALIZED VIEW \(schema).\(quoted("m" + String(name.unicodeScalars.prefix(24)))) AS SELECT \(object) FROM public.\(object);
        CREATE ROLE \(object); COMMENT ON ROLE \(object) IS \(text);
        ALTER ROLE \(object) SET my.role = \(text);
        GRANT SELECT ON public.\(object) TO \(object); ALTER SEQUENCE \(schema).\(quoted("q" + String(name.unicodeScalars.prefix(24)))) OWNER TO \(object);
        CREATE POLICY \(object) ON public.\(object) FOR SELECT TO \(object) USING (other = \(text));
        ALTER DEFAULT PRIVILEGES FOR ROLE \(object) IN SCHEMA \(schema) GRANT SELECT ON TABLES TO \(object);
        SELECT lo_from_bytea(\(number + 1), convert_to(\(text), 'UTF8')); COMMENT ON LARGE OBJECT \(number + 1) IS \(text);
        """
    }.joined(separator: "\n")
  }

  private static func start(_ cluster: PrivateCluster, _ folder: TemporaryFolder, _ port: Int) throws -> DaemonProcess {
    try cluster.sql("postgres", "CREATE DATABASE \(quoted(database)) TEMPLATE template0")
    try cluster.sql(hostile: database, objects)
    try cluster.sql(
      "postgres",
      """
      ALTER DATABASE \(quoted(database)) SET my.note = \(literal("DATABASE \(quoted(database)) "));
      COMMENT ON DATABASE \(quoted(database)) IS \(literal(names.joined()));
      """)
    let daemon = try DaemonProcess(
      """
      databases: { srv: { connect: "\(cluster.conninfo("postgres"))", include: "*", exclude: "postgres" } }
      jobs: { manual: , daily: { schedule: "0 2 * * *", keep: 7d } }
      metrics: { listen: "127.0.0.1:\(port)" }
      objectives: { rpo: 24h, proved: 8d, rto: 1h }
      drill: { folder: \(folder.file("drills")), jobs: 2 }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    return daemon
  }

  /// No byte and no code point that acts, beside newlines and tabs of ours.
  private static func expectHarmless(
    _ text: String, _ what: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let bad = text.unicodeScalars.first { scalar in
      switch scalar.value {
      case 9, 10: false
      case 0..<32, 0x7F..<0xA0, 0x61C, 0x200B, 0x200E, 0x200F, 0x2028...0x202E, 0x2066...0x2069, 0xFEFF: true
      default: false
      }
    }
    #expect(
      bad == nil, "\(what): U+\(String(bad?.value ?? 0, radix: 16)) in\n\(text.debugDescription.prefix(2000))",
      sourceLocation: sourceLocation)
    #expect(
      !text.split(separator: "\n").contains {
        $0.hasPrefix("next:") || $0.hasPrefix("<3>forged") || $0.hasPrefix("# EOF")
      },
      "\(what): a forged line", sourceLocation: sourceLocation)
  }

  @Test func everyCommandAndEveryOutputKeepsHostileNamesHarmless() throws {
    let (cluster, folder, port) = (try PrivateCluster(), TemporaryFolder(), try FreePorts.take(1)[0])
    let daemon = try Self.start(cluster, folder, port)
    let name = "srv.\(Self.database)"
    func ctl(_ arguments: [String], status: Set<Int32> = [0]) throws -> String {
      let result = try Shell.run(
        DaemonProcess.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": daemon.socket])
      #expect(
        status.contains(result.status),
        "\(arguments.prefix(2)): \(result.status) \(result.errors) \(result.output.suffix(500))")
      Self.expectHarmless(result.output + result.errors, arguments.joined(separator: " "))
      return result.output
    }
    func json(_ arguments: [String], status: Set<Int32> = [0]) throws -> Any {
      let text = try ctl(arguments + ["--json"], status: status)
      if arguments == ["log"] {
        return try text.utf8.split(separator: 10).map { try JSONSerialization.jsonObject(with: Data($0)) }
      }
      return try JSONSerialization.jsonObject(with: Data(text.utf8))
    }

    _ = try ctl(["backup", name])
    // Rows vanish: anomalies and problems name tables.
    _ = try ctl(["restore", "\(name)/latest", "--preview"])
    for command in [
      ["status"], ["jobs"], ["list"], ["list", name], ["show", "\(name)/latest"], ["contents", "\(name)/latest"],
      ["check"],
      ["log"], ["ledger", "verify"], ["reconcile"], ["report"], ["report", "--format", "markdown"],
    ] {
      _ = try ctl(command, status: [0, 10])
      if command.count < 3 { _ = try json(command, status: [0, 10]) }
    }
    let contents = try #require(try json(["contents", "\(name)/latest"]) as? [String: Any])
    let tables = try #require(contents["tables"] as? [[String: Any]])
    let told = Set(
      tables.compactMap { $0["schema"] as? String == "public" ? ($0["name"] as? String).map { Array($0.utf8) } : nil })
    #expect(told == Set(Self.names.map { Array($0.utf8) }))
    #expect(tables.allSatisfy { $0["rows"] as? Int == ($0["schema"] as? String == "public" ? 3 : 1) })

    try extract(daemon, name)
    for table in Self.names.prefix(8) {
      _ = try ctl(["history", name, "public.\(table)"])
      _ = try ctl(["restore", "\(name)/latest", "--table", "public.\(table)", "--preview"])
    }

    // The rows of all tables at once, then the whole: proved, swapped in, and undone.
    try cluster.sql(
      hostile: Self.database, Self.names.map { "DELETE FROM public.\(Self.quoted($0));" }.joined(separator: "\n"))
    _ = try ctl(["restore", "\(name)/latest", "--schema", "public", "--replace", "--force"])
    _ = try ctl(["restore", "\(name)/latest", "--table", "public.*", "--into-schema", Self.names[0]])
    let whole = try #require(try json(["restore", "\(name)/latest", "--globals", "--force"]) as? [[String: Any]])
    let outcome = try #require(whole.first?["restore"] as? [String: Any])
    #expect(outcome["tables"] as? Int == Self.names.count * 2)
    #expect(outcome["provedTables"] as? Int == Self.names.count * 2)
    let note = try cluster.sql(
      "postgres",
      "SELECT setconfig[1] = 'my.note=' || \(Self.literal("DATABASE \(Self.quoted(Self.database)) ")) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = \(Self.literal(Self.database))"
    )
    #expect(note == "t\n")
    _ = try ctl(["rollback", name, "--force"], status: [0, 6])
    _ = try ctl(["restore", "\(name)/latest", "--into", "copy\u{600}'\"\n"])

    _ = try ctl(["backup", name, "--label", "again"], status: [0])
    _ = try ctl(["diff", "\(name)/oldest", "\(name)/latest", "--all"])
    _ = try ctl(["verify", "--all", "--level", "archive"])
    _ = try ctl(["drill", "\(name)/latest"])
    _ = try ctl(["pin", "\(name)/latest", "--note", "x"])
    _ = try ctl(["unpin", "\(name)/latest"])
    let plugin = try ctl(["check", "--nagios"], status: [0, 1, 2])
    #expect(plugin.utf8.count { $0 == 10 } == 1 && plugin.utf8.count { $0 == UInt8(ascii: "|") } <= 1)
    for command in [["status"], ["report"], ["log"]] {
      _ = try ctl(command, status: [0, 10])
      _ = try json(command, status: [0, 10])
    }
    try pages(daemon, port, name)
    _ = try ctl(["delete", "\(name)/oldest", "--force"])
    try logs(daemon, cluster)
    #expect(try cluster.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolsuper") == "1\n")
  }

  /// Rows come out under the columns' own names, for programs that read CSV and JSON.
  private func extract(_ daemon: DaemonProcess, _ name: String) throws {
    for table in Self.names {
      let csv = try Shell.must(
        DaemonProcess.program("pgbackupctl"),
        ["extract", "\(name)/latest", "--table=public.\(table)", "--format", "csv"],
        environment: ["PGBACKUPD_SOCKET": daemon.socket])
      let rows = try Shell.must(
        "python3",
        [
          "-c",
          "import csv,io,json,sys; sys.stdin.reconfigure(newline=''); print(json.dumps(list(csv.reader(io.StringIO(sys.stdin.read(), newline='')))))",
        ],
        input: csv)
      let read = try JSONDecoder().decode([[String]].self, from: Data(rows.utf8))
      #expect(read.count == 4)
      #expect(read.first.map { Array($0[0].utf8) } == Array(table.utf8))
      #expect(read.last.map { Array($0[1].utf8) } == Array(table.utf8))
      let lines = try Shell.must(
        DaemonProcess.program("pgbackupctl"),
        ["extract", "\(name)/latest", "--table=public.\(table)", "--format", "json"],
        environment: ["PGBACKUPD_SOCKET": daemon.socket])
      for line in lines.utf8.split(separator: 10) {
        let object = try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any]
        #expect((object?["other"] as? String).map { Array($0.utf8) } == Array(table.utf8))
      }
    }
  }

  /// The page, the report and metrics are what they are without such names: no element, no attribute, no line comes of
  /// one.
  private func pages(_ daemon: DaemonProcess, _ port: Int, _ name: String) throws {
    let page = try Shell.must("curl", ["-sS", "--noproxy", "*", "http://127.0.0.1:\(port)/"])
    let report = try Shell.run(
      DaemonProcess.program("pgbackupctl"), ["report", "--format", "html"],
      environment: ["PGBACKUPD_SOCKET": daemon.socket]
    ).output
    for (html, scripts) in [(page, 1), (report, 0)] {
      Self.expectHarmless(html, "HTML")
      let found = try Shell.must(
        "python3",
        [
          "-c",
          """
          import html.parser, json, sys
          class P(html.parser.HTMLParser):
            def __init__(s): super().__init__(); s.tags=[]; s.handlers=[]
            def handle_starttag(s, t, a):
              s.tags.append(t); s.handlers += [k for k, v in a if k.startswith('on')]
          p = P(); p.feed(sys.stdin.read()); p.close()
          print(p.tags.count('script'), p.tags.count('img'), p.tags.count('b'), len(p.handlers))
          """,
        ], input: html)
      #expect(found == "\(scripts) 0 0 0\n", "\(found)")
    }
    for accept in ["text/plain", "application/openmetrics-text"] {
      let text = try Shell.must(
        "curl", ["-sS", "--noproxy", "*", "-H", "Accept: \(accept)", "http://127.0.0.1:\(port)/metrics"])
      let lines = text.utf8.split(separator: 10)
      let beginning = "pgbackupd_database_backups{database=\"srv.\u{600}"
      let series = try #require(lines.first { $0.starts(with: beginning.utf8) })
      #expect(series.suffix(3).elementsEqual("} 2".utf8))
      let beginnings = ["pgbackupd_", "process_", "# HELP ", "# TYPE "]
      #expect(
        lines.allSatisfy { line in
          beginnings.contains { line.starts(with: $0.utf8) } || line.elementsEqual("# EOF".utf8)
        })
      #expect(lines.count { $0.elementsEqual("# EOF".utf8) } == (accept == "text/plain" ? 0 : 1))
      if accept == "text/plain" {
        let lint = try Shell.run("promtool", ["check", "metrics"], input: text)
        #expect(lint.status == 0, "\(lint.errors.prefix(500))")
      }
    }
  }

  /// Each event is one line of the log; RECOVER.txt has no line of a name's.
  private func logs(_ daemon: DaemonProcess, _ cluster: PrivateCluster) throws {
    Self.expectHarmless(daemon.log, "log")
    for line in daemon.log.split(separator: "\n") { #expect(line.hasPrefix("<"), "\(line)") }
    let stores = daemon.folder.files(below: "state").filter { $0.hasSuffix("RECOVER.txt") }
    #expect(!stores.isEmpty)
    for file in stores {
      let text = try String(contentsOfFile: daemon.folder.file("state/\(file)"), encoding: .utf8)
      Self.expectHarmless(text, file)
    }
  }
}

extension PrivateCluster {
  /// Runs statements in a database of any name.
  fileprivate func sql(hostile database: String, _ statements: String) throws {
    let name = String(decoding: database.utf8.flatMap { $0 == 39 || $0 == 92 ? [92, $0] : [$0] }, as: UTF8.self)
    try Shell.must(
      "\(binaries)/psql",
      [
        "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "host=\(host) port=\(Self.port) user=postgres dbname='\(name)'",
        "-f", "-",
      ],
      input: statements)
  }
}
