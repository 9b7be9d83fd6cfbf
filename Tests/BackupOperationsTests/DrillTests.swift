import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresTools
import Storage
import Synchronization
import TestSupport
import Testing

@testable import BackupOperations

extension RestoreFixture {
  /// Puts other contents in the place of the own ones of the backup.
  fileprivate func replacing(_ contents: Contents) async throws -> Manifest {
    var manifest = manifest
    let packed = try PackedFile("contents.json", try contents.encoded(), .standard, .none)
    manifest.contents = packed.file
    let key = try #require(ObjectKey(manifest.layout.path(packed.file.name)))
    try await workshop.store.delete(key)
    try await workshop.store.put(key, packed.bytes)
    return manifest
  }
}

/// A drill restores into a server of its own, proves it there, and leaves nothing.
@Suite(.waits) struct DrillTests {
  static func drill(
    _ fixture: RestoreFixture, _ manifest: Manifest? = nil, assertions: [String] = [], folder: TemporaryFolder,
    jobs: Int = 2, report: @escaping @Sendable (RunProgress) -> Void = { _ in }
  ) -> Drill {
    var settings = Drill.Settings(folder: folder.file("drills"))
    settings.jobs = jobs
    return Drill(
      manifest ?? fixture.manifest, from: [fixture.workshop.store], identities: [fixture.identity], settings: settings,
      programs: [fixture.cluster.binaries], assertions: assertions, run: "run1",
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: report),
      logger: Logger(label: "test"))
  }

  /// Servers whose data lies below a folder.
  private static func servers(_ folder: TemporaryFolder) throws -> [String] {
    try Shell.run("pgrep", ["-f", "postgres.*-D.*\(folder.path)"]).output.split(separator: "\n").map(String.init)
  }

  /// On every major version, with all that a database can have; the odd settings of the source are no false alarm.
  @Test(arguments: RestoreMatrixTests.majors) func everyVersion(_ major: Int) async throws {
    let cluster = try PrivateCluster(settings: ["wal_level=logical"], major: major)
    // A library that the source has, and the drill's machine does not.
    let library = cluster.folder.file("library.so")
    let installed = try Shell.must(
      "find", ["-L", URL(filePath: cluster.binaries).deletingLastPathComponent().path, "-name", "auto_explain.so"])
    try Shell.must("cp", [String(try #require(installed.split(separator: "\n").first)), library])
    let fixture = try await RestoreFixture(
      cluster: cluster,
      sql: RestoreMatrixTests.everything(major) + """

        CREATE ROLE keeper LOGIN PASSWORD 'secret' IN ROLE reader; GRANT "Odd, role" TO keeper WITH ADMIN OPTION;
        DO $$ BEGIN
          EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kathmandu''', current_database());
          EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
          EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''1ms''', current_database());
          EXECUTE format('ALTER DATABASE %I SET datestyle = ''German, DMY''', current_database());
          EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -9', current_database());
          EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
          EXECUTE format('ALTER DATABASE %I SET intervalstyle = ''iso_8601''', current_database());
          EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database());
          EXECUTE format('ALTER DATABASE %I SET work_mem = ''100GB''', current_database());
          EXECUTE format('ALTER DATABASE %I SET lc_monetary = ''C.UTF-8''', current_database());
        END $$;
        ALTER ROLE keeper SET lc_monetary = 'C.UTF-8';
        -- It stands for a locale that this machine does not have.
        DO $$ BEGIN
          EXECUTE format('ALTER DATABASE %I SET session_preload_libraries = ''\(library)''', current_database());
        END $$;
        CREATE ROLE "q TO r"; CREATE TABLE granted (); GRANT SELECT ON granted TO "q TO r"; GRANT "q TO r" TO keeper;
        UPDATE pg_db_role_setting SET setconfig = array_replace(setconfig, 'lc_monetary=C.UTF-8', 'lc_monetary=xx_XX');
        """ + (major < 17 ? "" : Self.refusingLogins))
    // The source is down: whatever changes in its files is the drill's doing.
    try cluster.crash()
    try FileManager.default.removeItem(atPath: library)
    let folder = TemporaryFolder()
    let before = try Self.filesOf(cluster)
    let report = try await Self.drill(
      fixture,
      assertions: ["SELECT count(*) = 500 FROM more.types", "SELECT current_database() = '\(fixture.database)'"],
      folder: folder)()
    #expect(report.unproved == [])
    // What no backup has rows of is named.
    #expect(
      report.derived?.filter { !$0.contains("lc_monetary") } == [
        "more.mv (materialized view)", "more.types.d (generated column)",
      ]
        + (major >= 18 ? ["more.virtual.y (generated column)"] : [])
        + ["portal.media.kilobytes (generated column)", "portal.views_by_day (materialized view)"])
    let refused = report.derived?.filter { $0.contains("lc_monetary (not taken here") } ?? []
    #expect(
      refused.contains { $0.hasPrefix("ALTER DATABASE ") } && refused.contains { $0.hasPrefix("ALTER ROLE keeper ") })
    #expect(report.proof.isWhole && report.proof.rows == fixture.manifest.totals.rows)
    #expect(report.proof.tables == fixture.manifest.totals.tables && report.proof.assertions == 2)
    // What times of restores are scaled by is counted as what they loaded.
    #expect(report.proof.archiveBytes == fixture.manifest.artifact.dataBytes)
    #expect(report.proof.phases.map(\.name).contains("server") && report.proof.phases.map(\.name).contains("load"))
    // Nothing is left of the server, and the source's files are what they were.
    #expect(folder.files(below: "drills") == [])
    #expect(try Self.servers(folder) == [])
    #expect(try Self.filesOf(cluster) == before)
  }

  /// A database in which everybody is somebody who may not make a thing.
  @Test func whereEverybodyIsAnotherRole() async throws {
    let role = "only_reads_\(UUID().uuidString.prefix(6).lowercased())"
    let fixture = try await RestoreFixture(
      sample: nil,
      sql: """
        CREATE ROLE \(role) IN ROLE pg_read_all_data; CREATE TABLE t AS SELECT 1 AS x;
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET role = \(role)', current_database()); END $$;
        """)
    let folder = TemporaryFolder()
    let report = try await Self.drill(
      fixture, assertions: ["SELECT current_user <> '\(role)' AND count(*) = 1 FROM t"], folder: folder)()
    #expect(report.proof.isWhole && report.unproved == [] && report.proof.assertions == 1)
  }

  /// Every file of a cluster, with its size, its times and its digest.
  private static func filesOf(_ cluster: PrivateCluster) throws -> [String] {
    let data = cluster.folder.file("data")
    let times = try Shell.must("find", [data, "-printf", "%p %y %s %T@ %C@\n"])
    let digests = try Shell.must("find", [data, "-type", "f", "-exec", "sha256sum", "{}", "+"])
    let lines = (times + "\n" + digests).split(separator: "\n").map(String.init).sorted()
    #expect(lines.count > 1000)
    return lines
  }

  /// Of PostgreSQL 17 and later: nobody gets into a server of a drill, if that is asked.
  private static let refusingLogins = """

    CREATE FUNCTION no_drills() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN
      IF current_setting('cluster_name') = 'pgbackupd_drill' THEN RAISE 'nobody logs in here'; END IF; END $f$;
    CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION no_drills();
    """

  /// Into a server that is there: a database of its own, gone afterwards. One that is backed up is refused, and one of which nobody can say.
  @Test func aServerThatIsThere() async throws {
    // A subscription that is loaded, disabled as it is, makes the database one that can't simply be dropped.
    let fixture = try await RestoreFixture(
      sql: "CREATE SUBSCRIPTION s CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = 'in_use')"
    )
    let spare = try PrivateCluster()
    let source = try #require(fixture.manifest.server.systemIdentifier)
    func drill(on cluster: PrivateCluster, _ production: Set<String>?, _ assertion: String = "SELECT true") throws
      -> Drill
    {
      var settings = Drill.Settings(folder: "/nonexistent")
      settings.server = try connection(cluster, "postgres")
      return Drill(
        fixture.manifest, from: [fixture.workshop.store], identities: [], settings: settings,
        programs: [fixture.cluster.binaries], assertions: [assertion], run: "RUN1", production: production,
        context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
        logger: Logger(label: "test"))
    }
    func databases(_ cluster: PrivateCluster) throws -> String {
      try Shell.must("psql", ["-XAtc", "SELECT datname FROM pg_database ORDER BY 1", cluster.conninfo("postgres")])
    }
    let before = try databases(spare)
    let report = try await drill(on: spare, [source])()
    #expect(report.proof.isWhole && report.proof.rows == fixture.manifest.totals.rows && report.unproved == [])
    #expect(try databases(spare) == before)
    // One that fails leaves nothing either.
    let failed = await #expect(throws: Fault.self) { try await drill(on: spare, [source], "SELECT false")() }
    #expect(failed?.code == .assertionFailed)
    #expect(try databases(spare) == before)

    for (cluster, production, words) in [
      (fixture.cluster, [source], "one that is backed up"), (fixture.cluster, nil, "Nobody can say"),
      (spare, nil, "Nobody can say"),
    ] as [(PrivateCluster, Set<String>?, String)] {
      let refused = await #expect(throws: Fault.self) { try await drill(on: cluster, production)() }
      #expect(
        refused?.code == .drillFailed && refused?.message.contains(words) == true, "\(String(describing: refused))")
    }
    // Another database's server, which this backup is not from.
    let other = try await PostgresSession.connect(connection(spare, "postgres")).use { session in
      try await session.serverFacts().systemIdentifier
    }
    let refused = await #expect(throws: Fault.self) { try await drill(on: spare, [source, try #require(other)])() }
    #expect(refused?.message.contains("one that is backed up") == true)
    // Other tests make databases there meanwhile; none of them is a drill's.
    #expect(try !databases(fixture.cluster).contains("pgbackupd_drill"))
  }

  /// While it runs, the server listens nowhere but on its socket, in a folder that nobody else can enter.
  @Test func itIsReachedBySocketOnly() async throws {
    let fixture = try await RestoreFixture(isEncrypted: true)
    let folder = TemporaryFolder()
    let seen = Mutex<[String]>([])
    // A line of this process that no program of its own is to have: as libraries open them, to be inherited.
    let line = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(line) }
    try #require(line >= 0 && listen(line, 1) == 0)
    _ = try await Self.drill(fixture, folder: folder) { progress in
      guard progress.phase == .load, seen.withLock({ $0.isEmpty }) else { return }
      let server = folder.file("drills/pgbackupd-drill-run1")
      let pid = (try? String(contentsOfFile: server + "/data/postmaster.pid", encoding: .utf8))?
        .split(separator: "\n").first.map(String.init)
      let mode = (try? FileManager.default.attributesOfItem(atPath: server))?[.posixPermissions]
      let sockets = (try? Self.sockets(pid ?? "none")) ?? ["unknown"]
      seen.withLock { $0 = sockets + ["mode \((mode as? NSNumber)?.intValue ?? 0)"] }
    }()
    #expect(seen.withLock { $0 } == ["listens on a path", "mode \(0o700)"])
  }

  /// What a process has open that others could reach: by the kernel's tables, so that the test needs no tool.
  private static func sockets(_ pid: String) throws -> [String] {
    // Read by `ls` and `cat`: files of /proc have no size, which Foundation goes by.
    let listing = try Shell.must("ls", ["-l", "/proc/\(pid)/fd"])
    let inodes = Set(listing.components(separatedBy: "socket:[").dropFirst().map { $0.prefix(while: \.isNumber) })
    var found: Set<String> = []
    for (table, column) in [("tcp", 9), ("tcp6", 9), ("udp", 9), ("udp6", 9), ("unix", 6)] {
      let text = try Shell.must("cat", ["/proc/\(pid)/net/\(table)"])
      for line in text.split(separator: "\n").dropFirst() {
        let words = line.split(separator: " ")
        guard words.count > column, inodes.contains(words[column]) else { continue }
        found.insert(table == "unix" ? "listens on a path" : "has \(table)")
      }
    }
    return found.sorted()
  }

  /// Nor does it reach anybody, whatever code a backup has: not the server that was backed up, on the very same machine. A materialized
  /// view that would need that stays empty, and is named; the rest is proved.
  @Test func itReachesNobody() async throws {
    let cluster = try PrivateCluster()
    let folder = cluster.folder.path
    try cluster.sql("postgres", "CREATE DATABASE prod")
    try cluster.sql("prod", "CREATE TABLE hits (at timestamptz DEFAULT now())")
    let fixture = try await RestoreFixture(
      cluster: cluster,
      sql: """
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER live FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '\(folder)', dbname 'prod');
        CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (user 'postgres', password_required 'false');
        CREATE FOREIGN TABLE hits (at timestamptz) SERVER live;
        CREATE FUNCTION touch() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.hits VALUES (now()); RETURN 1; END $$;
        CREATE FUNCTION memory() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
          COPY (SELECT 1) TO PROGRAM 'cat >memory; ulimit -d >memory'; RETURN trim(E'\\n' FROM pg_read_file('memory')); END $$;
        CREATE TABLE own AS SELECT generate_series(1, 10) AS n;
        CREATE MATERIALIZED VIEW afar AS SELECT public.touch() AS x;
        CREATE MATERIALIZED VIEW behind AS SELECT x + 1 AS y FROM afar;
        CREATE MATERIALIZED VIEW near AS SELECT sum(n) FROM own;
        """)
    #expect(try cluster.sql("prod", "SELECT count(*) FROM hits") == "1\n", "made once, where it belongs")
    let drills = TemporaryFolder()
    let report = try await Self.drill(
      fixture,
      assertions: [
        "SELECT sum = 55 FROM near",
        // Each of its processes has 4 GiB at most: in units of 1024 bytes, as the shell tells.
        "SELECT memory() = '4194304'",
      ], folder: drills)()
    #expect(report.proof.isWhole && report.unproved == [])
    #expect(report.derived?.filter { $0.contains("left empty") }.count == 2, "\(report.derived ?? [])")
    #expect(try cluster.sql("prod", "SELECT count(*) FROM hits") == "1\n")
    // Whoever restores it for real gets it all.
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.isProved)
    #expect(try cluster.sql("prod", "SELECT count(*) FROM hits") == "2\n")
  }

  /// A locale that the machine lacks matters only where there is money.
  @Test func aMonetaryLocaleThatIsNotHere() async throws {
    let fixture = try await RestoreFixture()
    var contents = try await ContentsReader(store: fixture.workshop.store, identities: []).read(fixture.manifest)
    #expect(contents.settings["lc_monetary"] != nil)
    contents.settings["lc_monetary"] = "xx_YY.nowhere"
    let manifest = try await fixture.replacing(contents)
    let folder = TemporaryFolder()
    #expect(try await Self.drill(fixture, manifest, folder: folder)().proof.isWhole)
  }

  /// A tablespace of the source is a place on a disk that a drill must not touch.
  @Test func tablespacesAreRemapped() async throws {
    let cluster = try PrivateCluster()
    let place = cluster.folder.file("space")
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
    if geteuid() == 0 { try Shell.must("chown", ["postgres", place]) }
    try cluster.sql("postgres", "CREATE TABLESPACE fast LOCATION '\(place)'")
    try cluster.sql("postgres", "CREATE ROLE mover; GRANT CREATE ON TABLESPACE fast TO mover")
    let fixture = try await RestoreFixture(
      cluster: cluster,
      sql:
        "CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n; CREATE INDEX ON t (n) TABLESPACE fast")
    let folder = TemporaryFolder()
    let before = try Shell.must("find", [place])
    let report = try await Self.drill(
      fixture, assertions: ["SELECT count(*) = 0 FROM pg_tablespace WHERE spcname NOT LIKE 'pg_%'"], folder: folder)()
    #expect(report.proof.isWhole && report.proof.assertions == 1)
    #expect(try Shell.must("find", [place]) == before)
  }

  /// Code of the backup is a superuser there: it finds roles, and none of their passwords.
  @Test func noPasswordGoesIntoADrill() async throws {
    let cluster = try PrivateCluster()
    try cluster.sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'hunter2' VALID UNTIL '2040-01-01'")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS n; ALTER TABLE t OWNER TO app")
    let folder = TemporaryFolder()
    let report = try await Self.drill(
      fixture,
      assertions: [
        "SELECT count(*) = 0 FROM pg_authid WHERE rolpassword IS NOT NULL",
        "SELECT count(*) = 1 FROM pg_authid WHERE rolname = 'app' AND rolcanlogin",
      ], folder: folder)()
    #expect(report.proof.isWhole && report.proof.assertions == 2)
  }

  @Test func assertionsThatDoNotHold() async throws {
    let fixture = try await RestoreFixture()
    let folder = TemporaryFolder()
    for (assertion, code, words) in [
      ("SELECT count(*) > 1000000 FROM portal.users", FaultCode.assertionFailed, "answered f, not true"),
      ("SELECT 1 WHERE false", .assertionFailed, "answered no row"),
      ("SELECT NULL::bool", .assertionFailed, "answered null"),
      ("SELECT true, true", .assertionFailed, "answered t, t"),
      // One that can't be asked is no word about the backup.
      ("SELECT nonsense", .assertionInvalid, "does not exist"), ("selec 1", .assertionInvalid, "syntax error"),
      ("DELETE FROM portal.users", .assertionInvalid, "read-only transaction"),
    ] {
      let fault = await #expect(throws: Fault.self) {
        try await Self.drill(fixture, assertions: ["SELECT true", assertion], folder: folder)()
      }
      #expect(fault?.code == code && fault?.cause?.contains(words) == true, "\(fault.map { "\($0)" } ?? "")")
    }
    #expect(folder.files(below: "drills") == [])
  }

  /// Rows that were written under other settings than the contents tell are not the same rows.
  @Test(arguments: [("TimeZone", "Asia/Tokyo"), ("extra_float_digits", "-10"), ("bytea_output", "escape")])
  func wrongSettings(_ name: String, _ value: String) async throws {
    let fixture = try await RestoreFixture(
      sql: "CREATE TABLE odd AS SELECT now() AS t, pi() AS f, '\\x00ff'::bytea AS b")
    var contents = try await ContentsReader(store: fixture.workshop.store, identities: []).read(fixture.manifest)
    #expect(contents.settings[name] != nil)
    contents.settings[name] = value
    let manifest = try await fixture.replacing(contents)
    let folder = TemporaryFolder()
    let fault = await #expect(throws: Fault.self) { try await Self.drill(fixture, manifest, folder: folder)() }
    #expect(fault?.code == .proofFailed && fault?.cause?.contains("not the same ones") == true)
  }

  @Test func aCancelledDrillLeavesNothing() async throws {
    let fixture = try await RestoreFixture(sample: 3)
    let folder = TemporaryFolder()
    let task = Mutex<Task<DrillReport, any Error>?>(nil)
    let drill = Self.drill(fixture, folder: folder) { progress in
      if progress.phase == .load { task.withLock { $0?.cancel() } }
    }
    let work = Task { () throws -> DrillReport in try await drill() }
    task.withLock { $0 = work }
    let result = await work.result
    #expect(throws: Fault.self) { try result.get() }
    #expect(folder.files(below: "drills") == [])
    #expect(try Self.servers(folder) == [])
  }

  /// What a dead process has left is ended and swept.
  @Test func leftoversAreSwept() async throws {
    let cluster = try PrivateCluster.shared()
    let folder = TemporaryFolder()
    let programs = ClientPrograms(configured: [cluster.binaries])
    let major = try #require(Int(try cluster.sql("postgres", "SHOW server_version_num").prefix(2)))
    let server = try await ThrowawayServer.start(
      major: major, superuser: "boss", programs: programs, root: folder.file("drills"), name: "dead", connections: 4)
    #expect(try !Self.servers(folder).isEmpty)
    // Not while somebody has it: another daemon may use the same folder.
    #expect(await ThrowawayServer.sweep(root: folder.file("drills"), patience: .zero) == 0)
    #expect(try !Self.servers(folder).isEmpty)
    server.abandon()
    // Another test's child has a copy of the lock's descriptor until it has become its program.
    try await eventually("it is swept") {
      await ThrowawayServer.sweep(root: folder.file("drills"), patience: .zero) == 1
    }
    #expect(try Self.servers(folder) == [])
    #expect(folder.files(below: "drills") == [])
    #expect(await ThrowawayServer.sweep(root: folder.file("drills"), patience: .zero) == 0)
  }

  /// A number that outlives its server is another process's sooner or later, and code of a backup can write any number:
  /// only a process of the folder's own account, begun with that data directory, is ended.
  @Test func onlyTheServerIsEnded() async throws {
    let folder = TemporaryFolder()
    let data = folder.file("drills/pgbackupd-drill-gone/data")
    let other = try ChildProcess("sleep", ["1000"])
    let impostor = try ChildProcess("env", PrivateCluster.asUser + ["sh", "-c", "sleep 1000; :", data])
    try eventually("it runs") {
      try Shell.must("cat", ["/proc/\(impostor.processIdentifier)/cmdline"]).hasPrefix("sh")
    }
    // Where both accounts are one, it might be the server.
    for process in geteuid() == 0 ? [other, impostor] : [other] {
      try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
      try "15\n".write(toFile: "\(data)/PG_VERSION", atomically: false, encoding: .utf8)
      // As miscinit.c writes it: number, directory, and more.
      try "\(process.processIdentifier)\n\(data)\n".write(
        toFile: "\(data)/postmaster.pid", atomically: false, encoding: .utf8)
      #expect(await ThrowawayServer.sweep(root: folder.file("drills"), patience: .zero) == 1)
      #expect(!process.hasEnded)
      #expect(folder.files(below: "drills") == [])
    }
    // With the `sleep` that it waits for.
    try Shell.must("pkill", ["-P", "\(impostor.processIdentifier)"])
  }

  @Test func mistakesAreTold() async throws {
    let fixture = try await RestoreFixture()
    let folder = TemporaryFolder()
    var manifest = fixture.manifest
    manifest.server.versionNumber = 990_000
    let missing = await #expect(throws: Fault.self) { try await Self.drill(fixture, manifest, folder: folder)() }
    #expect(missing?.code == .toolMissing && missing?.hint?.contains("postgresql-99") == true)
    var settings = Drill.Settings(folder: folder.file("no/such"))
    settings.jobs = 1
    let drill = Drill(
      fixture.manifest, from: [fixture.workshop.store], identities: [], settings: settings,
      programs: [fixture.cluster.binaries], assertions: [], run: "r",
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: Logger(label: "test"))
    let folderless = await #expect(throws: Fault.self) { try await drill() }
    #expect(folderless?.code == .drillFailed && folderless?.hint?.contains("drill: folder:") == true)
  }

  /// Beside the backup, signed: read back by the catalog, and believed only with a signature.
  @Test func theProofIsKept() async throws {
    let key = SigningKey.generate()
    var settings = Backup.Settings()
    settings.signingKey = key
    let fixture = try await RestoreFixture(settings: settings)
    let folder = TemporaryFolder()
    let report = try await Self.drill(fixture, folder: folder)()
    let store = fixture.workshop.store
    func proof() async -> Proof? {
      var reader = CatalogReader(trusted: [key.publicKey])
      return await reader.read([store]).backups.first?.proof
    }
    #expect(await proof() == nil)
    let failed = await ProofRecord.write(
      report.proof, of: fixture.manifest, signingKey: key, policy: RetentionPolicy(rules: [:]), to: [store])
    #expect(failed.isEmpty)
    #expect(await proof() == report.proof)
    var forged = report.proof
    forged.finished += 60
    _ = await ProofRecord.write(
      forged, of: fixture.manifest, signingKey: .generate(), policy: RetentionPolicy(rules: [:]), to: [store])
    #expect(await proof() == report.proof, "one that nobody trusted has signed is no proof")
    forged.finished += 60
    forged.backup = BackupID(database: "other", time: forged.finished)
    _ = await ProofRecord.write(
      forged, of: fixture.manifest, signingKey: key, policy: RetentionPolicy(rules: [:]), to: [store])
    #expect(await proof() == report.proof, "nor one of another backup")
  }
}
