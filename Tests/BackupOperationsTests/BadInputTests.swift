import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import PostgresTools
import Storage
import TestSupport
import Testing
import Units

/// What goes wrong outside: each gets its own code, a next command, nothing in the store, and the next run succeeds.
@Suite(.waits) struct BadInputTests {
  /// Runs a backup that must fail with `code`, and one that must succeed, into the same store.
  private func expect(
    _ code: FaultCode, _ bad: ConnectionSettings, then good: ConnectionSettings, settings: Backup.Settings = .init()
  ) async throws -> Fault {
    let workshop = Workshop()
    let fault = try #require(
      await #expect(throws: Fault.self) { try await workshop.backup(bad, settings: settings).run() })
    #expect(fault.code == code, "\(fault)")
    #expect(fault.hint != nil)
    #expect(workshop.files.isEmpty)
    _ = try await workshop.backup(good).run()
    #expect(await workshop.catalog().backups.count == 1)
    return fault
  }

  @Test func anUnreachableServer() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase()
    let good = try connection(cluster, database)
    var bad = good
    bad["host"] = "/nonexistent"
    _ = try await expect(.databaseUnreachable, bad, then: good)
  }

  @Test func aDatabaseThatDoesNotExist() async throws {
    let cluster = try PrivateCluster.shared()
    _ = try await expect(
      .databaseMissing, try connection(cluster, "no_such_db"), then: try connection(cluster, try cluster.makeDatabase())
    )
  }

  /// Wrong, missing and right passwords, with the characters that pgpass escapes; the password is in no message.
  @Test func passwords() async throws {
    let cluster = try PrivateCluster(authentication: ["local all keyed scram-sha-256"])
    let database = try cluster.makeDatabase(sample: 1)
    let password = #"a:b\c 'd"#
    try cluster.sql(
      database,
      "CREATE ROLE keyed LOGIN PASSWORD '\(password.replacing("'", with: "''"))'; GRANT pg_read_all_data TO keyed; GRANT SELECT ON LARGE OBJECT 70001, 70002, 70003 TO keyed"
    )
    var good = try connection(cluster, database, user: "keyed")
    good.password = Secret(password)
    var bad = good
    bad.password = Secret("hunter2")
    let fault = try await expect(.databaseAuthentication, bad, then: good)
    #expect(!"\(fault)".contains("hunter2"))
    bad.password = nil
    _ = try await expect(.databaseAuthentication, bad, then: good)
  }

  /// The password is in no command line and no environment while pg_dump runs.
  @Test func passwordsAreNotSeenByOthers() async throws {
    let cluster = try PrivateCluster(authentication: ["local all keyed scram-sha-256"])
    let database = try cluster.makeDatabase(sample: 1)
    try cluster.sql(
      database,
      "CREATE ROLE keyed LOGIN PASSWORD 'UNMISTAKABLE'; GRANT pg_read_all_data TO keyed; GRANT SELECT ON LARGE OBJECT 70001, 70002, 70003 TO keyed"
    )
    let folder = TemporaryFolder()
    // A pg_dump that looks around before it becomes the real one.
    let wrapper = """
      #!/bin/sh
      case "$*" in *--version*) ;; *)
      { cat /proc/$$/environ; cat /proc/$$/cmdline; env; } >> '\(folder.path)/seen'
      cat "$PGPASSFILE" >> '\(folder.path)/passfile' ;; esac
      exec '\(cluster.binaries)/'$(basename "$0") "$@"
      """
    for name in ["pg_dump", "pg_dumpall"] { _ = try folder.write(name, wrapper, mode: 0o755) }
    var settings = Backup.Settings()
    settings.programs = [folder.path]
    var connection = try connection(cluster, database, user: "keyed")
    connection.password = Secret("UNMISTAKABLE")
    let workshop = Workshop()
    _ = try await workshop.backup(connection, settings: settings).run()
    let seen = try Data(contentsOf: URL(filePath: folder.file("seen")))
    #expect(seen.firstRange(of: Data("UNMISTAKABLE".utf8)) == nil)
    let lines = try String(contentsOfFile: folder.file("passfile"), encoding: .utf8).split(separator: "\n")
    #expect(Set(lines) == ["\(cluster.host):\(PrivateCluster.port):*:keyed:UNMISTAKABLE"])
  }

  @Test func aRoleWithoutSelect() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let role = "weak_\(database)"
    try cluster.sql(
      database,
      "CREATE ROLE \(role) LOGIN; GRANT USAGE ON SCHEMA portal TO \(role); GRANT SELECT ON portal.users TO \(role)")
    let fault = try await expect(
      .databasePrivilege, try connection(cluster, database, user: role), then: try connection(cluster, database))
    #expect(fault.message.contains("portal.child"))
    #expect(!fault.message.contains("portal.users,"))
  }

  /// pg_read_all_data does not open large objects: pg_dump would fail at its end, the preflight says so at once.
  @Test func largeObjectsOfOthers() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let role = "blind_\(database)"
    try cluster.sql(
      database,
      "CREATE ROLE \(role) LOGIN; GRANT pg_read_all_data TO \(role); GRANT SELECT ON LARGE OBJECT 70001 TO \(role)")
    let fault = try await expect(
      .databasePrivilege, try connection(cluster, database, user: role), then: try connection(cluster, database))
    #expect(fault.message.contains("2 large objects"))
  }

  @Test func rowLevelSecurityInTheWay() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let role = "reader_\(database)"
    try cluster.sql(
      database,
      "CREATE ROLE \(role) LOGIN; GRANT pg_read_all_data TO \(role); ALTER TABLE portal.users ENABLE ROW LEVEL SECURITY"
    )
    let fault = try await expect(
      .databaseRowSecurity, try connection(cluster, database, user: role), then: try connection(cluster, database))
    #expect(fault.message.contains("portal.users"))
  }

  /// A role that may read everything but the password hashes makes a whole backup, and the manifest says what is missing.
  @Test func aRoleWithoutPasswordHashes() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let role = "lesser_\(database)"
    try cluster.sql(
      database,
      """
      CREATE ROLE \(role) LOGIN; GRANT USAGE ON SCHEMA portal TO \(role); GRANT SELECT ON ALL TABLES IN SCHEMA portal TO \(role);
      GRANT SELECT ON ALL SEQUENCES IN SCHEMA portal TO \(role); GRANT SELECT ON LARGE OBJECT 70001, 70002, 70003 TO \(role)
      """)
    let workshop = Workshop()
    let outcome = try await workshop.backup(try connection(cluster, database, user: role)).run()
    #expect(outcome.manifest.globals?.hasRolePasswords == false)
  }

  @Test func aMissingPgDump() async throws {
    await #expect(throws: Fault.self) {
      try await ClientPrograms(configured: []).program("pg_no_such_program", forServer: 15)
    }
    do {
      _ = try await ClientPrograms(configured: []).program("pg_no_such_program", forServer: 15)
    } catch {
      #expect(error.code == .toolMissing)
    }
  }

  @Test func aClientOlderThanTheServer() async throws {
    let folder = TemporaryFolder()
    _ = try folder.write("pg_zz", "#!/bin/sh\necho 'pg_zz (PostgreSQL) 12.3'\n", mode: 0o755)
    let fault = await #expect(throws: Fault.self) {
      try await ClientPrograms(configured: [folder.path]).program("pg_zz", forServer: 15)
    }
    #expect(fault?.code == .toolTooOld)
    #expect(try await ClientPrograms(configured: [folder.path]).program("pg_zz", forServer: 11).major == 12)
  }

  /// A pg_dump that is killed half-way, one that hangs, and one that ends well with half an archive.
  @Test(arguments: [
    ("head -c 300000; kill -9 $$", FaultCode.dumpFailed), ("head -c 300000; exec sleep 1000", .dumpStalled),
    ("head -c 300000; exit 0", .archiveMalformed), ("cat; exit 3", .dumpFailed),
  ])
  func aBrokenPgDump(_ behaviour: String, _ code: FaultCode) async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let folder = TemporaryFolder()
    let wrapper = """
      #!/bin/sh
      case "$*" in *--version*) exec '\(cluster.binaries)/pg_dump' --version ;; esac
      '\(cluster.binaries)/pg_dump' "$@" | { \(behaviour.replacing("kill -9 $$", with: "true")); }
      status=$?
      \(behaviour.contains("kill -9") ? "kill -9 $$" : "exit $status")
      """
    _ = try folder.write("pg_dump", wrapper, mode: 0o755)
    var settings = Backup.Settings()
    settings.programs = [folder.path]
    // Only the one that hangs is to be given up: a busy machine may give the others no second for a while.
    settings.stallAfter = code == .dumpStalled ? .seconds(2) : .seconds(300)
    let good = try connection(cluster, database)
    _ = try await expect(code, good, then: good, settings: settings)
  }

  /// A table that somebody has locked is waited for no longer than `lock_wait`.
  @Test func aLockedTable() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let good = try connection(cluster, database)
    let holder = try await PostgresSession.connect(good)
    _ = try await holder.query("BEGIN")
    _ = try await holder.query("LOCK TABLE portal.users IN ACCESS EXCLUSIVE MODE")
    let workshop = Workshop()
    var settings = Backup.Settings()
    settings.lockWait = .seconds(1)
    let fault = await #expect(throws: Fault.self) { try await workshop.backup(good, settings: settings).run() }
    #expect(fault?.code == .dumpLockTimeout, "\(fault.map { "\($0)" } ?? "none")")
    #expect(workshop.files.isEmpty)
    await holder.close()
    _ = try await workshop.backup(good).run()
  }

  /// The server goes away half-way: nothing is committed, and a later run on a living server succeeds.
  @Test func aServerThatStopsHalfWay() async throws {
    let cluster = try PrivateCluster()
    let database = try cluster.makeDatabase(sample: 4)
    let workshop = Workshop()
    let settings = try connection(cluster, database)
    let backup = Backup(
      .init(database: "shop", connection: settings, type: "daily", label: nil, job: nil, run: "r", keep: nil),
      settings: .init(),
      stores: [workshop.store], history: .init(),
      context: OperationContext(now: { Date(timeIntervalSince1970: 0) }) { progress in
        if progress.phase == .dump { cluster.stop() }
      }, logger: Logger(label: "test"))
    let fault = await #expect(throws: Fault.self) { try await backup.run() }
    #expect([.dumpFailed, .databaseUnreachable, .globalsFailed, .databaseServer].contains(fault?.code))
    #expect(workshop.files.isEmpty)
    let living = try PrivateCluster.shared()
    _ = try await workshop.backup(try connection(living, try living.makeDatabase())).run()
  }

  // MARK: - Stores

  /// The store fails at each call in turn: either the backup is whole or the store is empty, and the next run succeeds.
  @Test func aStoreThatFailsAtEachCall() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try connection(cluster, try cluster.makeDatabase(sample: 1))
    let counting = Workshop()
    let counter = FaultyStore(counting.store, .goneAfter(calls: .max))
    _ = try await counting.backup(settings, stores: [counter]).run()
    #expect(counter.calls > 10)
    for calls in 0..<counter.calls {
      let workshop = Workshop()
      await #expect(throws: Fault.self, "gone after \(calls) calls") {
        try await workshop.backup(settings, stores: [FaultyStore(workshop.store, .goneAfter(calls: calls))]).run()
      }
      // The store is gone for deletes too, so leftovers may stay; none of them is a backup.
      let catalog = await workshop.catalog()
      #expect(catalog.backups.isEmpty, "gone after \(calls) calls")
      #expect(catalog.problems.isEmpty)
      _ = try await workshop.backup(settings, at: Date(timeIntervalSince1970: 1_800_000_001)).run()
      #expect(await workshop.catalog().backups.count == 1)
    }
  }

  /// The disk is full at each of many bytes: the fault says so, and nothing is left behind.
  @Test func aDiskThatIsFullAtAnyByte() async throws {
    // A server of its own: the roles of other tests would change the size of the globals.
    let cluster = try PrivateCluster()
    let settings = try connection(cluster, try cluster.makeDatabase(sample: 1))
    let counting = Workshop()
    let counter = FaultyStore(counting.store, .fullAfter(bytes: .max))
    _ = try await counting.backup(settings, stores: [counter]).run()
    let sizes = counting.files.count
    #expect(sizes == 5)
    // The last byte tried lies inside the manifest, which is written in one piece of more than 1000 bytes: a dump's size varies
    // by a few bytes with its time and pg_dumpall's random \restrict key.
    let last = counter.bytes - 1000
    for bytes in stride(from: 0, to: last, by: last / 40) + [last] {
      let workshop = Workshop()
      let fault = await #expect(throws: Fault.self, "full after \(bytes) bytes") {
        try await workshop.backup(settings, stores: [FaultyStore(workshop.store, .fullAfter(bytes: bytes))]).run()
      }
      #expect(fault?.code == .storeFull)
      #expect(workshop.files.isEmpty, "full after \(bytes) bytes")
    }
  }

  /// One store that fails at any call never costs the other store its backup.
  @Test func aFailingStoreDoesNotFailTheOthers() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try connection(cluster, try cluster.makeDatabase(sample: 1))
    for calls in 0..<12 {
      let (good, bad) = (Workshop("good"), Workshop("bad"))
      let outcome = try await good.backup(
        settings, stores: [FaultyStore(bad.store, .goneAfter(calls: calls)), good.store]
      ).run()
      #expect(outcome.stores.contains("good"))
      #expect(await good.catalog().backups.first?.isGood == true)
      if !outcome.stores.contains("bad") {
        #expect(outcome.dropped["bad"] != nil)
        #expect(await bad.catalog().backups.isEmpty)
      }
    }
  }

  @Test func aMissingStore() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try connection(cluster, try cluster.makeDatabase())
    let workshop = Workshop()
    rmdir(workshop.folder.file("store"))
    let fault = await #expect(throws: Fault.self) { try await workshop.backup(settings).run() }
    #expect(fault?.code == .storeMissing)
    mkdir(workshop.folder.file("store"), 0o700)
    _ = try await workshop.backup(settings).run()
  }

  /// The check before the dump: a store without room for what the last backup took is not begun with.
  @Test func tooLittleRoom() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try connection(cluster, try cluster.makeDatabase())
    let workshop = Workshop()
    var last = try await workshop.backup(settings).run().manifest
    last.artifact.file.size = 1 << 60
    let fault = await #expect(throws: Fault.self) {
      try await workshop.backup(settings, history: .init(last: last), at: Date(timeIntervalSince1970: 1_800_000_009))
        .run()
    }
    #expect(fault?.code == .storeSpace)
    #expect(await workshop.catalog().backups.count == 1)
  }
}
