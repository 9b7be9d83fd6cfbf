import AgeEncryption
import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Logging
import PostgresTools
import Storage
import Synchronization
import TestSupport
import Testing
import Units

/// Whatever goes wrong in a restore: the live database stays as it was, nothing is left behind, and the reason is told.
@Suite(.waits) struct RestoreFailureTests {
  /// Runs a restore that must fail with this code, and sees that nothing has changed.
  private func expect(
    _ code: FaultCode, _ fixture: RestoreFixture, from stores: [any ObjectStore]? = nil, user: String = "postgres",
    _ request: RestoreRequest? = nil, report: @escaping @Sendable (RunProgress) -> Void = { _ in },
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> Fault? {
    let before = try fixture.text(fixture.database)
    let fault = await #expect(throws: Fault.self, sourceLocation: sourceLocation) {
      try await fixture.restore(request ?? fixture.request, from: stores, user: user, report: report).run()
    }
    #expect(fault?.code == code, "\(fault.map { "\($0)" } ?? "")", sourceLocation: sourceLocation)
    #expect(try fixture.text(fixture.database) == before, sourceLocation: sourceLocation)
    #expect(try fixture.databases == [fixture.database], sourceLocation: sourceLocation)
    return fault
  }

  @Test func theWrongKey() async throws {
    let fixture = try await RestoreFixture(isEncrypted: true)
    let stranger = Restore(
      fixture.request, of: fixture.manifest, from: [fixture.workshop.store], identities: [AgeIdentity.generate()],
      on: try connection(fixture.cluster, fixture.database), programs: [],
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: .init(label: "test"))
    let fault = await #expect(throws: Fault.self) { try await stranger.run() }
    #expect(fault?.code == .keyMissing)
    #expect(try fixture.databases == [fixture.database])
  }

  /// Cut off, changed in the middle, or another file: in whatever way it is compressed and encrypted.
  @Test(arguments: [false, true]) func aDamagedArtifact(_ isEncrypted: Bool) async throws {
    let fixture = try await RestoreFixture(isEncrypted: isEncrypted)
    let name = try #require(fixture.workshop.files.first { $0.contains(".dump") })
    let path = fixture.workshop.folder.file("store/\(name)")
    let whole = try Data(contentsOf: URL(filePath: path))
    for damaged in [whole.prefix(whole.count / 2), changed(whole, at: whole.count / 2), whole.shuffledHalves] {
      try damaged.write(to: URL(filePath: path))
      let fault = await #expect(throws: Fault.self) { try await fixture.restore(fixture.request).run() }
      #expect([.artifactDamaged, .storeFailed].contains(fault?.code), "\(fault.map { "\($0)" } ?? "")")
      #expect(try fixture.databases == [fixture.database])
    }
  }

  private func changed(_ data: Data, at position: Int) -> Data {
    var copy = data
    copy[copy.startIndex + position] ^= 1
    return copy
  }

  /// The store fails, dies or lies at each of its calls in turn. Alone: the restore fails, and nothing has changed, or it is whole and
  /// proved. With another store behind it: it is always whole.
  @Test func aStoreThatFailsAtEachCall() async throws {
    let fixture = try await RestoreFixture(
      sample: nil, sql: "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x", isEncrypted: true)
    let counting = FaultyStore(fixture.workshop.store, .none)
    var request = fixture.request
    request.target = .beside(fixture.database + "_0")
    _ = try await fixture.restore(request, from: [counting]).run()
    #expect(counting.allCalls > 2)
    let behind = LocalStore(name: "behind", root: fixture.workshop.folder.file("store"))
    var number = 0
    for call in 0..<counting.allCalls {
      for fault in [
        FaultyStore.Fault.failsAt(call: call), .diesAt(call: call), .liesAt(call: call), .truncatesAt(call: call),
      ] {
        number += 1
        request.target = .beside("\(fixture.database)_\(number)")
        let alone = FaultyStore(fixture.workshop.store, fault)
        do {
          #expect(try await fixture.restore(request, from: [alone]).run().isProved)
          number += 1
          request.target = .beside("\(fixture.database)_\(number)")
        } catch {
          #expect(try !fixture.databases.contains { $0.contains("restore") || $0 == "\(fixture.database)_\(number)" })
        }
        let first = FaultyStore(fixture.workshop.store, fault)
        let outcome = try await fixture.restore(request, from: [first, behind]).run()
        #expect(outcome.isProved && outcome.rows == 1000)
      }
    }
  }

  /// A backend is killed, and the server restarts itself as after any crash.
  @Test func theServerCrashes() async throws {
    let fixture = try await RestoreFixture(cluster: PrivateCluster(), sample: 5)
    let cluster = fixture.cluster
    let once = Once()
    let before = try fixture.text(fixture.database).filter { !$0.contains("setval") }
    let fault = await #expect(throws: Fault.self) {
      try await fixture.restore(
        fixture.request,
        report: { progress in
          guard progress.phase == .load, progress.archiveBytes > 0, once.first else { return }
          let pid = try? cluster.sql(
            "postgres",
            "SELECT pid FROM pg_stat_activity WHERE datname LIKE '%restore%' AND backend_type = 'client backend' LIMIT 1"
          )
          if let pid = pid.flatMap({ Int32($0.filter(\.isNumber)) }) { kill(pid, SIGKILL) }
        }
      ).run()
    }
    #expect(fault?.code == .databaseUnreachable, "\(fault.map { "\($0)" } ?? "")")
    try cluster.waitUntilReady()
    // A crash lets sequences skip values (`SEQ_LOG_VALS` of sequence.c); nothing else may differ.
    #expect(try fixture.text(fixture.database).filter { !$0.contains("setval") } == before)
    // What could not be dropped while the server was down is swept later.
    _ = try await fixture.rollback().sweepUnfinished(of: fixture.database)
    #expect(try fixture.databases == [fixture.database])
  }

  /// No space is left on the server's disk, half-way.
  @Test(arguments: [nil, 18]) func theServersDiskIsFull(_ major: Int?) async throws {
    let fixture = try await RestoreFixture(
      cluster: PrivateCluster(major: major, diskMayFill: true), sample: nil,
      sql: "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 70000) i")
    defer { fixture.cluster.emptyDisk() }
    let once = Once()
    let fault = try await expect(.databaseServer, fixture) { progress in
      if progress.phase == .load, progress.archiveBytes > 0, once.first { fixture.cluster.fillDisk() }
    }
    #expect(fault?.cause?.contains("No space left on device") == true, "\(fault.map { "\($0)" } ?? "")")
  }

  /// Somebody changes the new database before it is compared: every kind of difference is seen.
  @Test(arguments: [
    ("UPDATE portal.users SET name = 'x' WHERE id = 7", "portal.users"),
    ("DELETE FROM portal.views_2025 WHERE ctid = (SELECT min(ctid) FROM portal.views_2025)", "portal.views_2025"),
    ("SELECT setval('portal.users_id_seq', 1)", "users_id_seq"),
    ("SELECT lo_put(max(oid), 0, 'xy') FROM pg_largeobject_metadata", "large objects"),
  ]) func whatIsNotTheSameIsSeen(_ change: String, _ told: String) async throws {
    let fixture = try await RestoreFixture()
    let cluster = fixture.cluster
    let database = fixture.database
    let once = Once()
    let fault = try await expect(.proofFailed, fixture) { progress in
      guard progress.phase == .proof, once.first else { return }
      let work = try? cluster.sql(
        "postgres", "SELECT datname FROM pg_database WHERE datname LIKE '\(database)\\_restore%'")
      _ = try? cluster.sql(work?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "", change)
    }
    #expect(fault?.cause?.contains(told) == true, "\(fault.map { "\($0)" } ?? "")")
  }

  /// A session that an administrator ends, or a server that goes down, is no fault of the statement: that can be tried again.
  @Test func aSessionThatIsEnded() async throws {
    let session = try await PostgresSession.connect(try connection(.shared(), "postgres"))
    let fault = await #expect(throws: Fault.self) {
      try await session.query("SELECT pg_terminate_backend(pg_backend_pid())")
    }
    #expect(fault?.code == .databaseUnreachable, "\(fault.map { "\($0)" } ?? "")")
    #expect(fault?.cause?.contains("administrator") == true, "\(fault.map { "\($0)" } ?? "")")
    await session.close()
  }

  @Test func rolesThatAreMissing() async throws {
    let cluster = try PrivateCluster.shared()
    let role = "app \(UUID().uuidString.prefix(6))"
    try cluster.sql("postgres", "CREATE ROLE \"\(role)\" LOGIN PASSWORD 'secret'")
    try cluster.sql(
      "postgres", "ALTER ROLE \"\(role)\" SET search_path = E'x\\nCREATE ROLE intruder SUPERUSER;\\n'")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql:
        "CREATE TABLE t AS SELECT 1 AS x; ALTER TABLE t OWNER TO \"\(role)\"; CREATE TABLE u (); GRANT SELECT ON u TO \"\(role)\""
    )
    try cluster.sql(fixture.database, "DROP OWNED BY \"\(role)\"; DROP ROLE \"\(role)\"")
    let fault = try await expect(.roleMissing, fixture)
    #expect(fault?.message.contains(role) == true)

    var request = fixture.request
    (request.options.withOwners, request.options.withPrivileges) = (false, false)
    request.target = .beside(fixture.database + "_plain")
    #expect(try await fixture.restore(request).run().isProved)

    request = fixture.request
    request.withGlobals = true
    let preview = try await fixture.restore(request).preview()
    #expect(preview.globals.contains { $0.contains("CREATE ROLE") })
    #expect(!preview.globals.contains { $0.contains("SCRAM") })
    // A setting that anybody may give himself is text, whatever it looks like.
    #expect(!preview.globals.contains { $0.hasPrefix("CREATE ROLE intruder") })
    #expect(try await fixture.restore(request).run().isProved)
    #expect(try cluster.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'intruder'") == "0\n")
    #expect(try cluster.sql(fixture.database, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == "\(role)\n")
  }

  /// Without a right that is needed: refused before anything begins. With all of them, an ordinary role restores what it owns.
  @Test func anOrdinaryRole() async throws {
    let cluster = try PrivateCluster.shared()
    let role = "owner_\(UUID().uuidString.prefix(6).lowercased())"
    try cluster.sql("postgres", "CREATE ROLE \(role) LOGIN")
    let fixture = try await RestoreFixture(
      cluster: cluster, sample: nil,
      sql: "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x; ALTER TABLE t OWNER TO \(role)")
    let noCreation = try await expect(.restoreRefused, fixture, user: role)
    #expect(noCreation?.message.contains("create databases") == true)
    try cluster.sql("postgres", "ALTER ROLE \(role) CREATEDB")
    let noOwner = try await expect(.restoreRefused, fixture, user: role)
    #expect(noOwner?.message.contains("does not own") == true)
    try cluster.sql("postgres", "ALTER DATABASE \"\(fixture.database)\" OWNER TO \(role)")
    let noSignal = try await expect(.restoreRefused, fixture, user: role)
    #expect(noSignal?.hint?.contains("pg_signal_backend") == true)
    try cluster.sql("postgres", "GRANT pg_signal_backend TO \(role)")
    try cluster.sql(fixture.database, "DELETE FROM t")
    var request = fixture.request
    // The archived database belonged to another.
    request.options.withOwners = false
    #expect(try await fixture.restore(request, user: role).run().isProved)
    #expect(try cluster.sql(fixture.database, "SELECT count(*) FROM t") == "1000\n")
  }

  /// Connections come all the time while the databases change places: the swap is quick, and each of them meets one or the other.
  @Test func aStormOfConnections() async throws {
    let fixture = try await RestoreFixture(sample: nil, sql: "CREATE TABLE t AS SELECT 1 AS x")
    try fixture.cluster.sql(fixture.database, "UPDATE t SET x = 2")
    let storm = try ChildProcess(
      "/bin/sh",
      [
        "-c",
        "for i in 1 2 3 4 5 6; do (while :; do \"$0\" -XqAt -d \"$1\" -c 'SELECT x FROM t'; done) & done; trap 'kill 0' TERM; wait",
        "\(fixture.cluster.binaries)/psql", fixture.cluster.conninfo(fixture.database),
      ], isGroupLeader: true)
    defer {
      kill(-storm.processIdentifier, SIGKILL)
      storm.wait()
    }
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.downtimeSeconds ?? 99 < 30)
    #expect(try fixture.cluster.sql(fixture.database, "SELECT x FROM t") == "1\n")
    _ = try await fixture.rollback().run(fixture.database)
    #expect(try fixture.cluster.sql(fixture.database, "SELECT x FROM t") == "2\n")
  }
}

extension Data {
  fileprivate var shuffledHalves: Data { suffix(count - count / 2) + prefix(count / 2) }
}

final class Counter: Sendable {
  private let count = Mutex(0)
  /// From 1 on.
  func next() -> Int {
    count.withLock { count in
      count += 1
      return count
    }
  }
}

final class Once: Sendable {
  private let isUsed = Mutex(false)
  /// True for the first who asks.
  var first: Bool {
    isUsed.withLock { used in
      defer { used = true }
      return !used
    }
  }
}
