import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresArchive
import PostgresTools
import Storage
import Synchronization
import TestSupport
import Testing
import Units

@testable import BackupOperations

/// A local store in a folder of its own, and backups into it.
struct Workshop {
  let folder = TemporaryFolder()
  let store: LocalStore

  init(_ name: String = "local") {
    mkdir(folder.file("store"), 0o700)
    store = LocalStore(name: name, root: folder.file("store"))
  }

  /// Every file in the store, leftovers included.
  var files: [String] { folder.files(below: "store") }

  func backup(
    _ connection: ConnectionSettings, database: String = "shop", stores: [any ObjectStore]? = nil,
    settings: Backup.Settings = .init(), history: Backup.History = .init(),
    at time: Date = Date(timeIntervalSince1970: 1_800_000_000),
    report: @escaping @Sendable (RunProgress) -> Void = { _ in }
  ) -> Backup {
    Backup(
      .init(
        database: database, connection: connection, type: "daily", label: nil, job: "daily", run: "test", keep: nil),
      settings: settings, stores: stores ?? [store], history: history,
      context: OperationContext(now: { time }, report: report), logger: Logger(label: "test"))
  }

  func catalog() async -> Catalog {
    var reader = CatalogReader()
    return await reader.read([store])
  }
}

func connection(_ cluster: PrivateCluster, _ database: String, user: String = "postgres") throws -> ConnectionSettings {
  try ConnectionSettings(parsing: cluster.conninfo(database, user: user))
}

@Suite(.waits) struct BackupTests {
  /// The archive, read back from the artifact, is what the contents say, and the contents are what the server says.
  @Test(arguments: [Compression.standard, Compression(algorithm: .gzip, level: 1), Compression(algorithm: .none)])
  func whatIsStoredIsWhatTheServerHas(_ compression: Compression) async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let workshop = Workshop()
    var settings = Backup.Settings()
    settings.compression = compression
    let outcome = try await workshop.backup(try connection(cluster, database), settings: settings).run()
    #expect(outcome.stores == ["local"])

    let contents = try await ContentsReader(store: workshop.store, identities: []).read(outcome.manifest)
    for table in contents.tables {
      let count = try cluster.sql(
        database, "SELECT count(*) FROM ONLY \"\(table.schema)\".\"\(table.name.replacing("\"", with: "\"\""))\"")
      #expect(count == "\(table.rows ?? -1)\n", "\(table.name)")
    }
    #expect(contents.tables.count == 11)
    #expect(contents.largeObjects.compactMap(\.count).reduce(0, +) == 3)
    #expect(contents.settings["client_encoding"] == "UTF8")

    let index = try #require(contents.frameIndex)
    let key = try #require(ObjectKey(outcome.manifest.layout.path(outcome.manifest.artifact.file.name)))
    let reader = try ArtifactReader(index: index, compression: compression) {
      try await workshop.store.read(key, range: $0)
    }
    var scanner = ArchiveScanner()
    try await reader.readAll { try scanner.consume($0) }
    let scanned = try scanner.finish()
    #expect(scanned.tables.map { $0.rows?.fingerprint.description } == contents.tables.map(\.fingerprint))
  }

  /// Encrypted: nothing that is stored opens without an identity, ranges of the archive come back by reading their chunks alone,
  /// and the contents tell of them as before.
  @Test func anEncryptedBackup() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 2)
    let workshop = Workshop()
    let identity = AgeIdentity.generate()
    let escrow = AgeIdentity.generate()
    var settings = Backup.Settings()
    settings.encryption = .age([identity, escrow].compactMap(\.recipient))
    let outcome = try await workshop.backup(try connection(cluster, database), settings: settings).run()
    let manifest = outcome.manifest
    #expect(manifest.files.allSatisfy { $0.name.hasSuffix(".zst.age") } == true)
    #expect(manifest.encryption?.recipients == settings.encryption.recipients)
    for file in manifest.files {
      let bytes = try Data(contentsOf: URL(filePath: workshop.folder.file("store/\(manifest.layout.path(file.name))")))
      #expect(bytes.starts(with: Data("age-encryption.org/v1\n".utf8)))
      #expect(Int64(bytes.count) == file.size)
      #expect(Digest.hexadecimal(of: [UInt8](bytes)) == file.sha256)
    }
    await #expect(throws: Fault.self) {
      try await ContentsReader(store: workshop.store, identities: [.generate()]).read(manifest)
    }
    let contents = try await ContentsReader(store: workshop.store, identities: [escrow]).read(manifest)
    let key = try #require(ObjectKey(manifest.layout.path(manifest.artifact.file.name)))
    let size = UInt64(manifest.artifact.file.size)
    let age = try await AgeRangeReader(storedBytes: size, identities: [identity]) {
      try await workshop.store.read(key, range: $0)
    }
    let index = try #require(contents.frameIndex)
    let reader = try ArtifactReader(index: index, compression: settings.compression) { range in
      try await age.read(range) { try await workshop.store.read(key, range: $0) }
    }
    var scanner = ArchiveScanner()
    try await reader.readAll { try scanner.consume($0) }
    let scanned = try scanner.finish()
    #expect(scanned.tables.map { $0.rows?.fingerprint.description } == contents.tables.map(\.fingerprint))
  }

  /// RECOVER.txt is executed to the letter on another server, which has none of the roles, and the restored database equals the source,
  /// table by table.
  @Test(arguments: [
    ("none", ""), ("age", "LOCALE 'C'"),
    ("gpg", "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C.UTF-8'"),
  ]) func recoverTextDoesWhatItSays(_ encryption: String, _ options: String) async throws {
    let (cluster, other) = (try PrivateCluster.shared(), try PrivateCluster())
    let database = try cluster.makeDatabase(options: options)
    try Shell.must(
      "\(cluster.binaries)/psql",
      ["-X", "-q", "-v", "scale=1", "-d", cluster.conninfo(database), "-f", "\(repositoryRoot)/etc/demo/sample.sql"],
      environment: ["PGCLIENTENCODING": "UTF8"])
    let owner = "Owner of \(database)"
    try cluster.sql(
      database,
      "CREATE ROLE \"\(owner)\"; ALTER TABLE portal.users OWNER TO \"\(owner)\"; GRANT SELECT ON portal.views TO \"\(owner)\""
    )
    let workshop = Workshop()
    var settings = Backup.Settings()
    let key = workshop.folder.file("key")
    let gpgHome = encryption == "gpg" ? try GnuPGHome() : nil
    settings.gpg = gpgHome?.gpg
    if encryption == "age" {
      try Shell.must("age-keygen", ["-o", key])
      let identities = try AgeIdentity.identities(inFile: String(contentsOfFile: key, encoding: .utf8))
      settings.encryption = .age(identities.compactMap(\.recipient))
    }
    let outcome = try await workshop.backup(try connection(cluster, database), settings: settings).run()
    let folder = workshop.folder.file("store/\(outcome.manifest.layout.folder)")
    let text = try String(contentsOfFile: "\(folder)/RECOVER.txt", encoding: .utf8)
    let restored = "restored_\(database)"
    // The commands are the lines that begin with a program's name; the sums are a here-document up to END.
    var script = ["set -eu", "cd '\(folder)'"]
    var inDocument = false
    for line in text.split(separator: "\n").map(String.init) {
      let isCommand = ["sha256sum", "createdb", "psql", "zstd", "age", "export", "(umask"].contains {
        line.hasPrefix($0 + " ")
      }
      if isCommand || inDocument {
        let isTable = line.contains("--table=NAME")
        script.append(
          line.replacing("restored", with: restored).replacing(
            "--schema=public --table=NAME", with: "--schema=portal --table=users")
            + (isTable ? " > '\(workshop.folder.file("users.sql"))'" : ""))
      }
      if line.hasSuffix("<<END") { inDocument = true } else if line == "END" { inDocument = false }
    }
    #expect(script.count >= 9)
    if encryption == "gpg" { script.append("rm \"$KEY\"") }
    try Shell.must(
      "sh", ["-c", script.joined(separator: "\n")],
      environment: [
        "KEY": key, "GNUPGHOME": gpgHome?.folder.path ?? "", "PGHOST": other.host, "PGPORT": PrivateCluster.port,
        "PGUSER": "postgres",
        "PATH": "\(cluster.binaries):/usr/bin:/bin",
      ])
    for table in try cluster.sql(database, Self.tables).split(separator: "\n") {
      let query = "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM ONLY \(table) AS t"
      #expect(try cluster.sql(database, query) == other.sql(restored, query), "\(table)")
    }
    let likeness =
      "SELECT encoding, datcollate, datctype, datlocprovider, daticulocale FROM pg_database WHERE datname = "
    #expect(
      try other.sql("postgres", likeness + "'\(restored)'") == cluster.sql("postgres", likeness + "'\(database)'"))
    #expect(try other.sql(restored, "SELECT tableowner FROM pg_tables WHERE tablename = 'users'") == "\(owner)\n")
    #expect(
      try String(contentsOfFile: workshop.folder.file("users.sql"), encoding: .utf8).contains("COPY portal.users "))
    let objects = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid"
    #expect(try cluster.sql(database, objects) == other.sql(restored, objects))
  }

  private static let tables = """
    SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'm') AND nspname = 'portal' ORDER BY 1
    """

  /// Two backups of unchanged data have the same fingerprints; a changed row changes just its table's.
  @Test func fingerprintsTellChange() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let workshop = Workshop()
    let settings = try connection(cluster, database)
    var fingerprints: [[String: String]] = []
    for (number, change) in ["", "", "UPDATE portal.duplicates SET word = 'other' WHERE ctid = '(0,7)'"].enumerated() {
      try cluster.sql(database, change)
      let outcome = try await workshop.backup(settings, at: Date(timeIntervalSince1970: 1_800_000_000 + Double(number)))
        .run()
      let contents = try await ContentsReader(store: workshop.store, identities: []).read(outcome.manifest)
      fingerprints.append(Dictionary(uniqueKeysWithValues: contents.tables.map { ($0.name, $0.fingerprint ?? "") }))
    }
    #expect(fingerprints[0] == fingerprints[1])
    #expect(fingerprints[2].filter { fingerprints[0][$0.key] != $0.value }.map(\.key) == ["duplicates"])
  }

  /// An empty database is a backup too.
  @Test func anEmptyDatabase() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase()
    let workshop = Workshop()
    let outcome = try await workshop.backup(try connection(cluster, database)).run()
    #expect((outcome.manifest.totals.tables, outcome.manifest.totals.rows) == (0, 0))
  }

  /// Where a disk takes it, a dump waits for no line with a rate_limit: that one gets its copy later.
  @Test func slowStoresDoNotHoldTheDumpUp() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let (workshop, other) = (Workshop(), Workshop("offsite"))
    func slow(_ store: any ObjectStore) -> ThrottledStore {
      ThrottledStore(FaultyStore(store, .none, isRemote: true), bytesPerSecond: .mebibytes(64))
    }
    let disk = ThrottledStore(workshop.store, bytesPerSecond: .mebibytes(256))
    for (number, local) in [workshop.store as any ObjectStore, disk].enumerated() {
      let outcome = try await workshop.backup(
        try connection(cluster, database), stores: [local, slow(other.store)],
        at: Date(timeIntervalSince1970: 1_800_000_000 + Double(number) * 100)
      ).run()
      #expect(outcome.stores == ["local"] && outcome.later == ["offsite"] && outcome.dropped.isEmpty)
      #expect(other.files.isEmpty)
    }
    // Where there is no disk, all are waited for.
    let both = try await workshop.backup(
      try connection(cluster, database),
      stores: [FaultyStore(workshop.store, .none, isRemote: true), slow(other.store)],
      at: Date(timeIntervalSince1970: 1_800_000_900)
    ).run()
    #expect(both.stores == ["local", "offsite"] && both.later.isEmpty)
  }

  /// Where the disk that it went to fails in the middle, the slow lines get a dump of their own: of the rows of then, not of before.
  @Test func slowStoresStandInForFailedOnes() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let (workshop, other) = (Workshop(), Workshop("offsite"))
    try cluster.sql(database, "CREATE TABLE marks (n int)")
    let failing = FaultyStore(
      workshop.store, .diesTelling(call: 6) { _ = try? cluster.sql(database, "INSERT INTO marks VALUES (1)") })
    let slow = ThrottledStore(FaultyStore(other.store, .none, isRemote: true), bytesPerSecond: .mebibytes(64))
    let outcome = try await workshop.backup(try connection(cluster, database), stores: [failing, slow]).run()
    #expect(outcome.stores == ["offsite"] && outcome.later.isEmpty)
    #expect(outcome.dropped["local"] != nil)
    let contents = try await ContentsReader(store: other.store, identities: []).read(outcome.manifest)
    #expect(contents.tables.first { $0.name == "marks" }?.rows == 1)
    #expect(await workshop.catalog().backups.isEmpty)
    #expect(!other.files.isEmpty)
  }

  /// A second that is taken is not taken twice, also where the clock was set back.
  @Test func idsAreUnique() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try connection(cluster, try cluster.makeDatabase())
    let workshop = Workshop()
    let time = Date(timeIntervalSince1970: 1_800_000_000)
    var times: Set<Date> = []
    for _ in 0..<3 {
      let outcome = try await workshop.backup(settings, history: .init(takenTimes: times), at: time).run()
      times.insert(outcome.manifest.id.time)
    }
    #expect(times == [time, time.addingTimeInterval(1), time.addingTimeInterval(2)])
    #expect(await workshop.catalog().backups.count == 3)
  }

  /// Two daemons that share a store and a second: both backups stay whole, and neither run takes the other's away.
  @Test func twoRunsOnOneStoreInOneSecond() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try connection(cluster, try cluster.makeDatabase(sample: 1))
    let workshop = Workshop()
    let succeeded = await withTaskGroup(of: Bool.self) { group in
      for _ in 0..<6 {
        group.addTask { (try? await workshop.backup(settings).run()) != nil }
      }
      return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
    }
    let catalog = await workshop.catalog()
    #expect(succeeded >= 1)
    #expect(catalog.backups.count == succeeded)
    #expect(!catalog.backups.map(\.isGood).contains(false))
    #expect(catalog.problems.isEmpty && catalog.leftovers.isEmpty)
  }

  /// Names that libpq would read as connection texts, and others that are odd.
  @Test(arguments: ["a=b c", "host=127.0.0.1 port=1", "it's", "back\\slash", "Füße %s"])
  func oddDatabaseNames(_ name: String) async throws {
    let cluster = try PrivateCluster.shared()
    try cluster.sql("postgres", "CREATE DATABASE \"\(name)\" TEMPLATE template0")
    var settings = try connection(cluster, "postgres")
    settings["dbname"] = name
    let workshop = Workshop()
    let outcome = try await workshop.backup(settings, database: name).run()
    #expect(outcome.manifest.server.database == name)
    #expect(await workshop.catalog().backups.map(\.id.database) == [name])
  }

  /// Whenever a run is cancelled, it takes away what it has written, also from a store that a cancelled task can't ask.
  @Test func aCancelledRunLeavesNothingBehindANetwork() async throws {
    let cluster = try PrivateCluster.shared()
    let connection = try connection(cluster, try cluster.makeDatabase(sample: 1))
    let first = Workshop()
    let whole = FaultyStore(first.store, .none)
    _ = try await first.backup(connection, stores: [whole]).run()
    #expect(whole.allCalls > 10)
    for position in 0..<whole.allCalls {
      let workshop = Workshop()
      let work = Mutex<Task<Backup.Outcome, any Error>?>(nil)
      let store = FaultyStore(workshop.store, .cancelsAt(call: position) { work.withLock { $0?.cancel() } })
      let (begin, begun) = AsyncStream<Void>.makeStream()
      let task = Task {
        for await _ in begin { break }
        return try await workshop.backup(connection, stores: [store]).run()
      }
      work.withLock { $0 = task }
      begun.yield()
      // One that was committed before it heard of it is whole.
      if case .success = await task.result {
        #expect(await workshop.catalog().backups.first?.isGood == true, "\(position)")
      } else {
        #expect(workshop.files == [], "\(position)")
      }
    }
  }

  /// Whenever the line is cut behind a request that was carried out, no manifest stays alone: what is there is a whole backup, or none.
  @Test func aLineThatIsCut() async throws {
    let cluster = try PrivateCluster.shared()
    let connection = try connection(cluster, try cluster.makeDatabase(sample: 1))
    let first = Workshop()
    let whole = FaultyStore(first.store, .none)
    _ = try await first.backup(connection, stores: [whole]).run()
    for position in 0..<whole.allCalls {
      for fault in [FaultyStore.Fault.losesAnswerOf(call: position), .isCutAfter(call: position)] {
        let workshop = Workshop()
        let outcome = try? await workshop.backup(connection, stores: [FaultyStore(workshop.store, fault)]).run()
        let catalog = await workshop.catalog()
        #expect(catalog.backups.count == (outcome == nil ? 0 : 1) || catalog.backups.first?.isGood == true, "\(fault)")
        #expect(catalog.problems.isEmpty && !catalog.backups.map(\.isGood).contains(false), "\(fault)")
      }
    }
  }

  /// A cancelled run leaves nothing.
  @Test func aCancelledRunLeavesNothing() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 4)
    let workshop = Workshop()
    let settings = try connection(cluster, database)
    let started = AsyncStream<Void>.makeStream()
    let backup = Backup(
      .init(database: "shop", connection: settings, type: "daily", label: nil, job: nil, run: "r", keep: nil),
      settings: .init(),
      stores: [workshop.store], history: .init(),
      context: OperationContext(now: { Date(timeIntervalSince1970: 0) }) { progress in
        if progress.phase == .dump { started.continuation.yield() }
      }, logger: Logger(label: "test"))
    let work = Task { try await backup.run() }
    var events = started.stream.makeAsyncIterator()
    await events.next()
    work.cancel()
    let fault = await #expect(throws: Fault.self) { try await work.value }
    #expect(fault?.code == .runAborted)
    #expect(workshop.files.isEmpty)
    let dumps =
      "SELECT count(*) FROM pg_stat_activity WHERE datname = '\(database)' AND application_name LIKE '%pg_dump%'"
    // The server ends a session some time after its client has gone.
    try eventually("no session of pg_dump is left") { try cluster.sql("postgres", dumps) == "0\n" }
  }
}
