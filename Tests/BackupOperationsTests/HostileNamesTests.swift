import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import PostgresTools
import TestSupport
import Testing
import Units

/// Attackers who may choose names and settings: of tables, of databases, of their own roles.
@Suite(.waits) struct HostileNamesTests {
  /// A role that gains from it if anything of it is run as SQL.
  private static func mallory(_ cluster: PrivateCluster) throws -> String {
    let name = "mallory_\(UUID().uuidString.prefix(8).lowercased())"
    try cluster.sql("postgres", "CREATE ROLE \(name)")
    return name
  }

  private static func isSuperuser(_ role: String, _ cluster: PrivateCluster) throws -> Bool {
    try cluster.sql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = '\(role)'") == "t\n"
  }

  private static func quoted(_ name: String) -> String {
    "\"" + String(decoding: name.utf8.flatMap { $0 == 34 ? [34, 34] : [$0] }, as: UTF8.self) + "\""
  }

  /// What a table's owner calls it to end the constant in which our note on the old rows stands: `'` behind a Prepend
  /// and before an Extend, and behind a backslash where the database has `standard_conforming_strings` off.
  @Test(arguments: ["\u{600}'; ", "'\u{301}; ", "\u{600}\"'; ", #"\'; "#, #"\\\'; "#], [true, false])
  func noTableNameRunsAtAReplacement(beginning: String, standardStrings: Bool) async throws {
    let cluster = try PrivateCluster.shared()
    let mallory = try Self.mallory(cluster)
    let name = "\(beginning)ALTER ROLE \(mallory) SUPERUSER; --"
    let database = try cluster.makeDatabase("live")
    try cluster.sql(
      "postgres", "ALTER DATABASE \"\(database)\" SET standard_conforming_strings = \(standardStrings ? "on" : "off")")
    try cluster.sql(
      database,
      "CREATE TABLE \(Self.quoted(name)) (\(Self.quoted("c" + beginning)) integer); INSERT INTO \(Self.quoted(name)) VALUES (1), (2)"
    )
    let workshop = Workshop()
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    let manifest = try await workshop.backup(
      try connection(cluster, database), database: database, settings: settings
    ).run().manifest
    var request = RestoreRequest(backup: manifest.id, database: database)
    (request.tables, request.tableTarget) = (["*"], .replaceRows)
    try cluster.sql(database, "DELETE FROM \(Self.quoted(name))")
    let outcome = try await Self.restore(request, manifest, workshop, cluster, database).run()
    #expect(outcome.provedTables == 1 && outcome.rows == 2)
    #expect(try cluster.sql(database, "SELECT count(*) FROM \(Self.quoted(name))") == "2\n")
    // Our note on what was there names the table.
    let note = try cluster.sql(
      database,
      "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = '\(try #require(outcome.kept))'::regnamespace AND relkind = 'r'"
    )
    #expect(note.utf8.starts(with: "Rows of \"public\".\(Self.quoted(name)) that".utf8))
    // And the whole, swapped in.
    (request.tables, request.tableTarget, request.target) = ([], .schema(nil), .swap)
    let whole = try await Self.restore(request, manifest, workshop, cluster, database, hour: 2).run()
    #expect(whole.isProved)
    #expect(try Self.isSuperuser(mallory, cluster) == false)
  }

  private static func recoverText(_ workshop: Workshop) throws -> String {
    let path = try #require(workshop.files.first { $0.hasSuffix("RECOVER.txt") })
    return try String(contentsOfFile: workshop.folder.file("store/\(path)"), encoding: .utf8)
  }

  private static func restore(
    _ request: RestoreRequest, _ manifest: Manifest, _ workshop: Workshop, _ cluster: PrivateCluster,
    _ database: String,
    hour: Double = 1
  ) throws -> Restore {
    let time = Date(timeIntervalSince1970: 1_800_100_000 + hour * 3600)
    return Restore(
      request, of: manifest, from: [workshop.store], identities: [], on: try connection(cluster, database),
      programs: [cluster.binaries], context: OperationContext(now: { time }, report: { _ in }),
      logger: Logger(label: "test"))
  }

  /// The text of a setting looks like the statement's own head, for a name in quotes and a bare one.
  @Test(arguments: ["live", "Live x"]) func aSettingsValueThatNamesTheDatabaseStaysAsItIs(prefix: String) async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(prefix)
    let value = "see DATABASE \(database) and DATABASE \"\(database)\" TO x"
    let role = try Self.mallory(cluster)
    try cluster.sql(
      "postgres",
      """
      ALTER DATABASE "\(database)" SET my.note = '\(value)';
      ALTER ROLE \(role) IN DATABASE "\(database)" SET my.note = '\(value)';
      ALTER DATABASE "\(database)" CONNECTION LIMIT 37;
      GRANT CONNECT ON DATABASE "\(database)" TO \(role);
      COMMENT ON DATABASE "\(database)" IS '\(value)';
      """)
    try cluster.sql(database, "CREATE TABLE t AS SELECT 1 AS a")
    let workshop = Workshop()
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    let manifest = try await workshop.backup(
      try connection(cluster, database), database: "shop", settings: settings
    ).run().manifest
    var request = RestoreRequest(backup: manifest.id, database: database)
    request.target = .swap
    let outcome = try await Self.restore(request, manifest, workshop, cluster, database).run()
    #expect(outcome.isProved)
    let facts = try cluster.sql(
      "postgres",
      """
      SELECT datconnlimit, shobj_description(oid, 'pg_database') = '\(value)', has_database_privilege('\(role)', oid, 'CONNECT'),
        (SELECT count(*) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND setconfig = ARRAY['my.note=\(value)'])
      FROM pg_database d WHERE datname = '\(database)'
      """)
    #expect(facts == "37|t|t|2\n")
  }

  /// A database's name that ends its word in a connection string and names another server. What is asked for must be a
  /// database of that name, of the server that was meant.
  @Test func noDatabaseNameSendsThePasswordElsewhere() async throws {
    let cluster = try PrivateCluster(authentication: ["local all backup scram-sha-256"])
    try cluster.sql("postgres", "CREATE ROLE backup LOGIN SUPERUSER PASSWORD 's3cret'")
    let thief = try PasswordThief()
    // The thief does take passwords.
    _ = try Shell.run(
      "\(cluster.binaries)/psql",
      ["-d", "host=\(thief.address) user=u dbname=d sslmode=disable gssencmode=disable", "-c", ""],
      environment: ["PGPASSWORD": "control"])
    let names = ["\u{600}'", "'\u{301}", #"\'"#, "'"].map {
      "x\($0) hostaddr=\(thief.address) sslmode=disable dbname='y"
    }
    for name in names {
      try cluster.sql("postgres", "CREATE DATABASE \(Self.quoted(name))")
      var settings = try ConnectionSettings(
        parsing: "host=\(cluster.host) port=\(PrivateCluster.port) user=backup", password: Secret("s3cret"))
      settings["dbname"] = name
      let workshop = Workshop()
      var options = Backup.Settings()
      options.programs = [cluster.binaries]
      let outcome = try await workshop.backup(settings, settings: options).run()
      #expect(outcome.manifest.server.database.utf8.elementsEqual(name.utf8))
      #expect(outcome.manifest.globals != nil)
      let recover = try Self.recoverText(workshop)
      #expect(recover.contains("hostaddr"))
    }
    #expect(thief.heard() == ["connected", "password control"])
  }

  @Test func aPasswordFileNamesOneServerAndOneUser() throws {
    func text(_ words: String, _ password: String = "s:3\\c*") throws -> String {
      try ConnectionSettings(parsing: words, password: Secret(password)).passwordFile()
    }
    #expect(try text("host=db.example user=backup") == "db.example:5432:*:backup:s\\:3\\\\c\\*\n")
    #expect(try text("hostaddr=::1 port=6000 user=a:b") == "\\:\\:1:6000:*:a\\:b:s\\:3\\\\c\\*\n")
    #expect(try text("host=/srv/pg user=* ") == "/srv/pg:5432:*:\\*:s\\:3\\\\c\\*\n")
    #expect(try text("host=a,b port=1,2 user=u", "p") == "a:1:*:u:p\nb:2:*:u:p\n")
    #expect(try text("user=u", "p") == "localhost:5432:*:u:p\n")
    #expect(
      try text("host=/var/run/postgresql user=u", "p") == "/var/run/postgresql:5432:*:u:p\nlocalhost:5432:*:u:p\n")
    let refusal = #expect(throws: Fault.self) { try text("host=h user=u", "a\r\nb") }
    #expect(refusal?.code == .configInvalid)
    #expect(refusal?.message.contains("a\r\nb") == false)
  }

  /// RECOVER.txt is read, and its commands are pasted: a name in it is no line of its own.
  @Test(arguments: [
    "x\nrm -rf /tmp/all\n", "x\r\nrm -rf /tmp/all\r\n", "x\u{2028}rm -rf /tmp/all", "\u{1B}[2Jx\u{202E}",
  ])
  func aNameIsNoInstructionInTheRecoveryText(name: String) async throws {
    let cluster = try PrivateCluster.shared()
    let name = name + UUID().uuidString.prefix(4)
    try cluster.sql("postgres", "CREATE DATABASE \(Self.quoted(name)) TEMPLATE template0")
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    var place = try connection(cluster, "postgres")
    place["dbname"] = name
    let workshop = Workshop()
    let outcome = try await workshop.backup(place, database: "server.\(name)", settings: settings).run()
    #expect(BackupID(parsing: outcome.manifest.id.description) == outcome.manifest.id)
    let text = try Self.recoverText(workshop)
    #expect(!text.utf8.contains { $0 < 32 && $0 != 10 })
    #expect(!text.unicodeScalars.contains { ["\u{1B}", "\u{202E}", "\u{2028}", "\r"].contains($0) })
    #expect(!text.split(separator: "\n").contains { $0.hasPrefix("rm -rf") })
    // And the catalog finds it again, under its name.
    let found = await workshop.catalog().backups.map(\.id.database)
    #expect(found.map { Array($0.utf8) } == [Array("server.\(name)".utf8)])
  }
}
