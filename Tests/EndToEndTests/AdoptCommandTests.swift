import Foundation
import TestSupport
import Testing

/// Dumps of the time before become backups like any other; what is none, or is not whole, is refused with the reason.
@Suite(.waits) struct AdoptCommandTests {
  private let folder = TemporaryFolder()

  private func start(_ connect: String) throws -> DaemonProcess {
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(connect)" } }
      jobs: { manual: }
      drill: { folder: \(folder.file("drills")) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    return daemon
  }

  /// Definitions alone would be the newest good backup, with nothing in it.
  @Test func withoutRows() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop", sample: 1)
    mkdir(folder.file("dumps"), 0o755)
    try Shell.must(
      "\(cluster.binaries)/pg_dump", ["-s", "-f", folder.file("dumps/schema.sql"), "-d", cluster.conninfo(database)])
    let daemon = try start(cluster.conninfo(database))
    let adopt = try daemon.ctl("adopt", folder.file("dumps"), "--database", "shop")
    #expect(
      adopt.status != 0 && (adopt.output + adopt.errors).contains("not one row"), "\(adopt.output)\(adopt.errors)")
    #expect(try (daemon.ctlJSON("list") as? [Any])?.isEmpty == true)
  }

  /// A folder leads nowhere else: neither a link in it nor a name in its table of contents.
  @Test func aFolderThatLeadsElsewhere() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop", sample: nil)
    try cluster.sql(database, "CREATE TABLE t (line text); INSERT INTO t VALUES ('mine')")
    let dumps = folder.file("dumps")
    try Shell.must("mkdir", [dumps])
    for name in ["sound", "linked", "named"] {
      try Shell.must(
        "\(cluster.binaries)/pg_dump", ["-Fd", "-Z0", "-f", "\(dumps)/\(name)", "-d", cluster.conninfo(database)])
    }
    _ = try folder.write("secret.sec", "the signing key\n\\.\n")
    func data(_ name: String) throws -> String {
      try #require(folder.files(below: "dumps/\(name)").first { $0.hasSuffix(".dat") && !$0.hasSuffix("toc.dat") })
    }
    let member = try data("linked")
    let file = String(member.split(separator: "/").last ?? "")
    try FileManager.default.removeItem(atPath: "\(dumps)/linked/\(file)")
    try FileManager.default.createSymbolicLink(
      atPath: "\(dumps)/linked/\(file)", withDestinationPath: folder.file("secret.sec"))
    // Of the same length, so that the table of contents stays one: `3012.dat` and `../s.dat`.
    let named = String(try data("named").split(separator: "/").last ?? "")
    let short = "../" + String(repeating: "s", count: named.utf8.count - 7) + ".dat"
    try FileManager.default.moveItem(atPath: "\(dumps)/named/\(named)", toPath: "\(dumps)/named/\(named).old")
    try Data("the signing key\n\\.\n".utf8).write(to: URL(filePath: "\(dumps)/\(short.dropFirst(3))"))
    var toc = try Data(contentsOf: URL(filePath: "\(dumps)/named/toc.dat"))
    let place = try #require(toc.range(of: Data(named.utf8)))
    toc.replaceSubrange(place, with: Data(short.utf8))
    try toc.write(to: URL(filePath: "\(dumps)/named/toc.dat"))

    let daemon = try start(cluster.conninfo(database))
    let linked = try daemon.ctl("adopt", "\(dumps)/linked", "--database", "shop")
    #expect((linked.output + linked.errors).contains("which is no file"), "\(linked.output)\(linked.errors)")
    let wrong = try daemon.ctl("adopt", "\(dumps)/named", "--database", "shop")
    #expect((wrong.output + wrong.errors).contains("could not open input file"), "\(wrong.output)\(wrong.errors)")
    #expect(try (daemon.ctlJSON("list") as? [Any])?.isEmpty == true)
    let sound = try daemon.ctl("adopt", "\(dumps)/sound", "--database", "shop")
    #expect(sound.status == 0, "\(sound.output)\(sound.errors)")
    #expect(try daemon.ctl("extract", "shop/latest:adopted", "--table", "public.t").output.contains("mine"))
  }

  /// Nobody waits for whoever never writes.
  @Test func aPipeAmongDumps() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop", sample: nil)
    mkdir(folder.file("dumps"), 0o755)
    mkfifo(folder.file("dumps/a.sql"), 0o666)
    let daemon = try start(cluster.conninfo(database))
    let listed = try daemon.ctl("adopt", folder.file("dumps"), "--list")
    #expect(
      (listed.output + listed.errors).contains("is neither a file nor a folder"), "\(listed.output)\(listed.errors)")
    #expect(try daemon.ctl("adopt", folder.file("dumps/a.sql"), "--database", "shop").status == 4)
    #expect(try daemon.ctl("status").status != 8)
  }

  @Test func everyFormat() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("old", sample: 1)
    let owner = "Odd, owner \(database)"
    try cluster.sql(
      database,
      """
      CREATE ROLE "\(owner)"; CREATE TABLE "text lines" (line text); ALTER TABLE "text lines" OWNER TO "\(owner)";
      INSERT INTO "text lines" VALUES (E'\\\\connect nowhere'), ('CREATE DATABASE x'), ('SET client_encoding = ''LATIN1'';');
      INSERT INTO "text lines" VALUES (E'a\\nDROP DATABASE shop;\\n\\\\connect elsewhere\\n\\\\restrict x\\nGRANT ALL TO nobody_at_all;\\n');
      CREATE FUNCTION lines() RETURNS text LANGUAGE sql AS E'SELECT ''a\\nALTER DATABASE x\\nCREATE DATABASE y\\n'' ';
      GRANT SELECT ON portal.users TO "\(owner)";
      """)
    let dumps = folder.file("dumps")
    try Shell.must("mkdir", [dumps])
    func dump(_ name: String, _ arguments: [String], _ packer: String? = nil) throws {
      try Shell.must(
        "\(cluster.binaries)/pg_dump", ["-d", cluster.conninfo(database), "-f", "\(dumps)/\(name)"] + arguments)
      if let packer { try Shell.must(packer, ["-q", "\(dumps)/\(name)"]) }
    }
    try dump("plain.sql", [])
    try dump("create.sql", ["--create", "--clean", "--if-exists"], "gzip")
    try dump("inserts.sql", ["--inserts"], "xz")
    try dump("custom.dump", ["-Fc"])
    try dump("packed.dump", ["-Fc", "-Z0"], "bzip2")
    try dump("folder", ["-Fd", "-j", "2"])
    try dump("archive.tar", ["-Ft"])
    let names = [
      "archive.tar", "create.sql.gz", "custom.dump", "folder", "inserts.sql.xz", "packed.dump.bz2", "plain.sql",
    ]
    // What is no whole dump.
    let plain = try String(contentsOfFile: "\(dumps)/plain.sql", encoding: .utf8)
    _ = try folder.write("dumps/cut.sql", String(plain.prefix(plain.count * 2 / 3)))
    _ = try folder.write("dumps/notes.txt", "remember the milk\n")
    try Shell.must(
      "\(cluster.binaries)/pg_dumpall",
      ["-d", cluster.conninfo("postgres"), "--globals-only", "-f", "\(dumps)/all.sql"])
    let daemon = try start(cluster.conninfo(database))

    let listed = try daemon.ctl("adopt", dumps, "--list")
    #expect(listed.status == 0, "\(listed.errors)")
    #expect(names.allSatisfy(listed.output.contains))
    for word in ["is not whole", "is no dump", "a whole server", "can be adopted", "15."] {
      #expect(listed.output.contains(word), "\(word): \(listed.output)")
    }
    let adopted = try daemon.ctl("adopt", dumps, "--database", "shop")
    #expect(adopted.status == 4, "\(adopted.output)\(adopted.errors)")
    #expect(
      names.allSatisfy { adopted.output.contains("\(dumps)/\($0)\n  shop/") }, "\(adopted.output)\(adopted.errors)")
    #expect(adopted.errors.contains("cut.sql") && adopted.errors.contains("E-ADOPT-REFUSED"))
    #expect(try Shell.must("ls", [folder.file("drills")]) == "", "no server stays")

    // Seven backups, each as whole as one of our own: verified, and the same in every table.
    #expect(try daemon.ctl("verify", "--all", "--level", "archive").status == 0)
    let list = try daemon.ctl("list", "--json").output
    let backups = try #require(
      try JSONSerialization.jsonObject(with: Data(list.utf8)) as? [[String: Any]])
    let ids = backups.compactMap { $0["id"] as? String }
    #expect(ids.count == names.count, "\(list)")
    let rows = try cluster.sql(database, "SELECT count(*) FROM portal.views").filter(\.isNumber)
    for id in ids {
      let same = try daemon.ctl("diff", ids[0], id)
      #expect(same.status == 0 && !same.output.contains("changed"), "\(id): \(same.output)\(same.errors)")
      let lines = try daemon.ctl("extract", id, "--table", "public.text lines")
      #expect(lines.output.contains("\\\\connect nowhere") && lines.output.contains("CREATE DATABASE x"), "\(id)")
    }
    let target = "\(database)_back"
    let restored = try daemon.ctl("restore", ids[2], "--into", target)
    #expect(restored.status == 0, "\(restored.errors)")
    #expect(try cluster.sql(target, "SELECT count(*) FROM portal.views").filter(\.isNumber) == rows)
    #expect(
      try cluster.sql(target, "SELECT tableowner FROM pg_tables WHERE tablename = 'text lines'") == "\(owner)\n")
    #expect(try cluster.sql(target, "SELECT lines()") == "a\nALTER DATABASE x\nCREATE DATABASE y\n\n", "no statement")
    // Once is enough.
    let again = try daemon.ctl("adopt", "\(dumps)/plain.sql")
    #expect(again.status == 0 && again.output.contains("adopted before, as shop/"), "\(again.output)\(again.errors)")
    #expect(try daemon.ctl("status").output.contains("shop"))
    // Another dump under the same path is another one; made by a clock that was ahead, it has its file's time.
    let future = plain.replacing(/\n-- Started on [^\n]*/, with: "")
      .replacing("-- Dumped by pg_dump", with: "-- Started on 2041-01-01 00:00:00 UTC\n-- Dumped by pg_dump")
    _ = try folder.write("dumps/plain.sql", future)
    try Shell.must("touch", ["-d", "2026-01-02T03:04:05Z", "\(dumps)/plain.sql"])
    let unknown = try daemon.ctl("adopt", "\(dumps)/plain.sql", "--database", "late")
    #expect(
      unknown.status == 4 && unknown.errors.contains("does not say what its database's locale was"),
      "\(unknown.output)\(unknown.errors)")
    let other = try daemon.ctl("adopt", "\(dumps)/plain.sql", "--database", "late", "--locale", "C.UTF-8")
    #expect(
      other.status == 0 && other.output.contains("late/20260102T030405Z"),
      "\(other.output)\(other.errors)")
  }

  /// By its locale text is sorted, compared and found in an index: it comes back with the rows, and so do the database's
  /// own settings.
  @Test func theLocaleAndTheSettings() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("old")
    let role = "reader_\(database)"
    try cluster.sql("postgres", "DROP DATABASE \(database)")
    try cluster.sql(
      "postgres",
      "CREATE DATABASE \(database) TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LOCALE 'C.UTF-8'")
    try cluster.sql(
      database,
      """
      CREATE TABLE t AS SELECT x FROM (VALUES ('z'), ('ä'), ('a')) AS v(x); CREATE ROLE \(role);
      ALTER DATABASE \(database) SET work_mem = '7MB'; ALTER ROLE \(role) IN DATABASE \(database) SET work_mem = '9MB';
      """)
    let dumps = ["custom.dump": ["-Fc"], "folder": ["-Fd"], "create.sql": ["--create"], "plain.sql": []]
    for (name, options) in dumps {
      try Shell.must(
        "\(cluster.binaries)/pg_dump", options + ["-f", folder.file(name), "-d", cluster.conninfo(database)])
    }
    let daemon = try start(cluster.conninfo(database))
    // The last one says nothing of itself, and it is the configured database that is asked; the other one by its backup.
    try Shell.must("cp", [folder.file("plain.sql"), folder.file("again.sql")])
    try Shell.must("touch", ["-d", "2026-01-02T03:04:05Z", folder.file("again.sql")])
    for name in ["plain.sql", "again.sql"] + dumps.keys.sorted().filter({ $0 != "plain.sql" }) {
      let adopted = try daemon.ctl("adopt", folder.file(name), "--database", "shop")
      #expect(adopted.status == 0, "\(name): \(adopted.errors)")
      let id = try #require(adopted.output.firstMatch(of: /shop\/\d{8}T\d{6}Z/)?.0)
      let target = "back_\(database)"
      let restored = try daemon.ctl("restore", String(id), "--into", target)
      #expect(restored.status == 0, "\(name): \(restored.errors)")
      #expect(
        try cluster.sql(
          "postgres", "SELECT datlocprovider, daticulocale, datctype FROM pg_database WHERE datname = '\(target)'")
          == "i|de-AT|C.UTF-8\n", "\(name)")
      #expect(try cluster.sql(target, "SELECT string_agg(x, '' ORDER BY x) FROM t") == "aäz\n", "\(name)")
      let settings = try cluster.sql(
        "postgres",
        """
        SELECT string_agg(array_to_string(setconfig, ','), ' ' ORDER BY setrole) FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = '\(target)'
        """)
      // Text without --create has none.
      if dumps[name]?.isEmpty == false { #expect(settings == "work_mem=7MB work_mem=9MB\n", "\(name)") }
      try cluster.sql("postgres", "DROP DATABASE \(target)")
    }
    try Shell.must("cp", [folder.file("plain.sql"), folder.file("other.sql")])
    let missing = try daemon.ctl(
      "adopt", folder.file("other.sql"), "--database", "other", "--locale", "tlh_KX.UTF-8")
    #expect(missing.status != 0 && missing.errors.contains("locale -a"), "\(missing.errors)")
    let odd = try daemon.ctl("adopt", folder.file("other.sql"), "--database", "other", "--locale", "icu:")
    #expect(odd.status == 2 && odd.errors.contains("is no locale"), "\(odd.errors)")
  }

  /// What a file's name and a dump's own words say of it; and text that an editor or another shell has written.
  @Test func whatFilesTell() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("old")
    try cluster.sql(database, "CREATE TABLE t AS SELECT 'ü' AS x")
    mkdir(folder.file("dumps"), 0o755)
    func dump(_ name: String, _ arguments: String...) throws {
      try Shell.must(
        "\(cluster.binaries)/pg_dump",
        arguments + ["-f", folder.file("dumps/\(name)"), "-d", cluster.conninfo(database)])
    }
    try dump("crm_2024-03-01_0200.sql")
    try dump("theirs.dump", "-Fc")
    let plain = try String(contentsOfFile: folder.file("dumps/crm_2024-03-01_0200.sql"), encoding: .utf8)
    _ = try folder.write("dumps/crm_2024-03-01_0200.sql", "\u{FEFF}" + plain)
    try Data([0xFF, 0xFE] + plain.utf16.flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }).write(
      to: URL(filePath: folder.file("dumps/wide.sql")))
    let daemon = try start(cluster.conninfo(database))
    let listed = try daemon.ctl("adopt", folder.file("dumps"), "--database", "shop", "--list")
    #expect(listed.output.contains("can be adopted, but is of '\(database)'"), "\(listed.output)")
    #expect(listed.output.contains("is UTF-16 text"), "\(listed.output)")
    let own = try daemon.ctl("adopt", folder.file("dumps/theirs.dump"), "--list")
    #expect(!own.output.contains("but is of"), "\(own.output)")
    let time = try Shell.must(
      "bash", ["-c", "date -u -d @$(date -d '2024-03-01 02:00' +%s) +%Y%m%dT%H%M%SZ"]
    ).filter { !$0.isNewline }
    let adopted = try daemon.ctl("adopt", folder.file("dumps"), "--database", "shop")
    #expect(adopted.output.contains("shop/\(time)"), "\(adopted.output)\(adopted.errors)")
    #expect(adopted.errors.contains("is of '\(database)'") && adopted.errors.contains("iconv"), "\(adopted.errors)")
    #expect(try daemon.ctl("extract", "shop/\(time)", "--table", "t").output == "ü\n")
    #expect(try daemon.ctl("show", "latest").output.contains("theirs.dump"))
  }

  /// A dump is data: psql's own commands in it are refused, and nothing of it is kept.
  @Test func aDumpWithCommands() throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("old", sample: nil)
    try Shell.must("mkdir", [folder.file("dumps")])
    let mark = folder.file("mark")
    for (name, line) in [
      ("shell", "\\! touch '\(mark)'"), ("late", "SELECT 1 \\g |touch '\(mark)'"),
      ("free", "\\unrestrict\n\\! touch '\(mark)'"),
    ] {
      _ = try folder.write(
        "dumps/\(name).sql",
        """
        --
        -- PostgreSQL database dump
        --
        -- Dumped from database version 15.1
        \(line)
        --
        -- PostgreSQL database dump complete
        --

        """)
    }
    let daemon = try start(cluster.conninfo(database))
    let refused = try daemon.ctl("adopt", folder.file("dumps"), "--database", "shop")
    #expect(refused.status == 4, "\(refused.output)\(refused.errors)")
    #expect(refused.errors.contains("restrict"), "\(refused.errors)")
    #expect(!FileManager.default.fileExists(atPath: mark))
    #expect(try daemon.ctl("list", "--json").output.filter { !$0.isWhitespace } == "[]")
  }
}
