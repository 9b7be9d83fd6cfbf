import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import HTTPTransport
import Logging
import PostgresTools
import Storage
import TestSupport
import Testing
import Units

@testable import BackupOperations
@testable import S3Storage

/// A real S3 server behind a line on which each HTTP request in turn meets a fault: what is committed is never false, nothing good is lost,
/// one fault that passes is no failure, and the next reconcile mends what is left.
@Suite(.waits) struct ServerFaultTests {
  static let faults: [FaultProxy.Fault] = [.refuse, .lose, .truncate, .slow, .lie, .hold, .die, .cut]
  /// Which requests of a long run meet a fault, where it can't be all of them.
  static let seed = UInt64.random(in: 0...UInt64.max)

  /// Backups of a real database, into a bucket alone and into a disk beside it.
  @Test(arguments: faults, [[], ["a"]]) func backingUp(_ fault: FaultProxy.Fault, beside local: [String]) async throws {
    let line = try FaultyLine()
    let connection = try connection(.shared(), try Self.database.get())
    let policy = policy(Dictionary(uniqueKeysWithValues: (local + ["b"]).map { ($0, 36500) }))
    // The third one looks for a free name.
    try await line.sweep(fault, limit: local.isEmpty ? fault == .lose ? 100 : 6 : 5, always: [2]) { round in
      let bench = try Bench(local, and: [line.store("b", round.prefix, isDirect: true)])
      try await bench.makeBackup(at: start.addingTimeInterval(-day), in: local + ["b"])
      var settings = Backup.Settings()
      (settings.compression, settings.signingKey) = (Compression(algorithm: .none), bench.key)
      let backup = Backup(
        .init(database: "shop", connection: connection, type: "daily", label: nil, job: nil, run: "r", keep: nil),
        settings: settings, stores: bench.stores.dropLast() + [try line.store("b", round.prefix)], history: .init(),
        context: OperationContext(now: { start }, report: { _ in }), logger: Logger(label: "test"))
      let (outcome, what) = try await round.run(whileHeld: { try await bench.requireHonesty("held") }) {
        await Result { () async throws(Fault) in try await backup.run() }
      }
      switch outcome {
      case .success(let outcome):
        let isDropped = outcome.dropped["b"] != nil
        #expect(outcome.stores == (isDropped ? local : local + ["b"]), "\(what)")
        #expect(!isDropped || !what.fault.isHarmless, "\(what): \(outcome.dropped)")
        #expect(outcome.dropped["b"]?.code != .storeUntrusted, "\(what): \(outcome.dropped)")
      case .failure(let reason):
        #expect(local.isEmpty && !what.fault.isHarmless, "\(what): \(reason)")
        #expect(reason.code != .storeUntrusted, "\(what): \(reason)")
      }
      try await bench.requireConvergence(policy, keeping: 1, what)
    }
  }

  /// The copies that reconcile makes, into the bucket and out of it.
  @Test(arguments: faults, [true, false]) func copying(_ fault: FaultProxy.Fault, isOutward: Bool) async throws {
    let line = try FaultyLine()
    let policy = policy(["a": 36500, "b": 36500])
    try await line.sweep(fault, limit: 5) { round in
      let bench = try Bench(["a"], and: [line.store("b", round.prefix, isDirect: true)])
      let (source, target) = isOutward ? ("a", "b") : ("b", "a")
      try await bench.makeBackup(at: start, in: [source], bytes: 9 << 20)
      // A cut-off copy of an earlier day lies there already: of the right size, and with other bytes.
      let old = try await bench.makeBackup(at: start.addingTimeInterval(-day), in: ["a", "b"])
      let store = try #require(bench.stores.first { $0.name == target })
      let key = try #require(ObjectKey(old.layout.path(old.artifact.file.name)))
      let manifest = try #require(ObjectKey(old.layout.path(BackupLayout.manifestName)))
      try await store.delete(manifest)
      try await store.delete(key)
      try await store.put(key, [UInt8](repeating: 7, count: 10_000))
      let stores = [bench.stores[0], try line.store("b", round.prefix)]
      let (results, what) = try await round.run(whileHeld: { try await bench.requireHonesty("held") }) {
        await bench.reconcile(policy, at: start, through: stores)
      }
      if what.fault.isHarmless {
        #expect(results.count == 2 && results.allSatisfy { $0.fault == nil }, "\(what): \(results.compactMap(\.fault))")
      }
      #expect(results.allSatisfy { $0.fault?.code != .storeUntrusted }, "\(what)")
      try await bench.requireConvergence(policy, keeping: 2, what)
    }
  }

  @Test(arguments: faults) func expiring(_ fault: FaultProxy.Fault) async throws {
    let line = try FaultyLine()
    let policy = policy(["a": 36500, "b": 7])
    try await line.sweep(fault, limit: 6) { round in
      let bench = try Bench(["a"], and: [line.store("b", round.prefix, isDirect: true)])
      for age: Double in [0, 9, 10] {
        try await bench.makeBackup(at: start.addingTimeInterval(-age * day), in: ["a", "b"])
      }
      let stores = [bench.stores[0], try line.store("b", round.prefix)]
      let (results, what) = try await round.run(whileHeld: { try await bench.requireHonesty("held") }) {
        await bench.reconcile(policy, at: start, through: stores)
      }
      if what.fault.isHarmless {
        #expect(results.count == 2 && results.allSatisfy { $0.fault == nil }, "\(what): \(results.compactMap(\.fault))")
        #expect(try await bench.stores[1].list(prefix: "").count == 5, "\(what)")
      }
      try await bench.requireHonesty("\(what)")
      await bench.reconcile(policy, at: start)
      let placed = await bench.catalog().backups.map { $0.placements.map(\.store) }
      #expect(placed == [["a"], ["a"], ["a", "b"]], "\(what)")
      await bench.reconcile(policy, at: start.addingTimeInterval(2 * day))
      #expect(try await bench.stores[1].list(prefix: "").count == 5, "\(what): leftovers")
    }
  }

  /// Locks that are made longer, and a proof that goes beside every copy: the next reconcile brings both to where they belong.
  @Test(arguments: faults) func lockingAndProving(_ fault: FaultProxy.Fault) async throws {
    let line = try FaultyLine(locks: true)
    let policy = policy(["a": 30, "b": 60])
    try await line.sweep(fault, limit: 6) { round in
      let direct = try line.store("b", round.prefix, isDirect: true)
      let bench = try Bench(["a"], and: [direct])
      let manifest = try await bench.makeBackup(at: start, in: ["a", "b"])
      let proof = Proof(
        backup: manifest.id, finished: start.addingTimeInterval(60), host: "h", software: "s", server: "15",
        stores: ["a"], outcome: RestoreOutcome(database: "shop"), assertions: 0, checkedRelations: nil)
      let unwritten = await ProofRecord.write(
        proof, of: manifest, signingKey: bench.key, policy: policy, to: [bench.stores[0]])
      #expect(unwritten.isEmpty)
      func locks() async throws -> [String: [String: Date]] {
        let end = try await Reconcile(stores: [direct], policy: policy, trusted: []).lockEnd(
          of: manifest.layout, in: "b")
        return ["b": [manifest.layout.folder: try #require(end)]]
      }
      let (before, stores) = (try await locks(), [bench.stores[0], try line.store("b", round.prefix)])
      let (results, what) = try await round.run {
        await bench.reconcile(policy, at: start, through: stores, locks: before)
      }
      if what.fault.isHarmless {
        #expect(results.count == 2 && results.allSatisfy { $0.fault == nil }, "\(what): \(results.compactMap(\.fault))")
      }
      let mended = await bench.reconcile(policy, at: start, locks: try await locks())
      #expect(mended.allSatisfy { $0.fault == nil }, "\(what): \(mended.compactMap(\.fault))")
      let end = start.addingTimeInterval(60 * day)
      for object in try await direct.list(prefix: "") {
        let locked = try await direct.lockEnd(of: object.key)
        #expect(locked == end.timeIntervalSince1970, "\(what): \(object.key)")
      }
      let backup = try #require(await bench.catalog().backups.first)
      #expect(
        backup.placements.map(\.proof) == [Proof.name(at: proof.finished), Proof.name(at: proof.finished)], "\(what)")
      #expect(backup.wholeCopies == 2, "\(what)")
      #expect(await bench.reconcile(policy, at: start, locks: try await locks()).isEmpty, "\(what)")
    }
  }

  /// A bit that is another on the way is always noticed, and what passes is whole.
  @Test(arguments: faults, [VerifyLevel.checksum, .archive])
  func verifying(_ fault: FaultProxy.Fault, _ level: VerifyLevel) async throws {
    let line = try FaultyLine()
    let bench = try Bench([], and: [line.store("b", "verified", isDirect: true)])
    var settings = Backup.Settings()
    settings.signingKey = bench.key
    let manifest = try await Backup(
      .init(
        database: "shop", connection: try connection(.shared(), try Self.small.get()), type: "daily", label: nil,
        job: nil, run: "r", keep: nil), settings: settings, stores: bench.stores, history: .init(),
      context: OperationContext(now: { start }, report: { _ in }), logger: Logger(label: "test")
    ).run().manifest
    try await line.sweep(fault, limit: level == .checksum ? 40 : 5) { round in
      let verify = Verify(
        manifest, in: try line.store("b", "verified"), level: level, identities: [], trusted: [bench.key.publicKey],
        now: { start })
      let (verification, what) = try await round.run {
        try await verify.run()
      }
      // A signature's comment is not signed.
      let isNoticed =
        what.fault == .lie ? what.request.hasPrefix("GET") && !what.request.hasSuffix(".sig") : !what.fault.isHarmless
      if isNoticed { #expect(verification.fault != nil, "\(what)") }
      if what.fault.isHarmless {
        #expect(verification.fault == nil, "\(what): \(String(describing: verification.fault))")
      }
    }
  }

  /// What a restore makes is proved, or not there.
  @Test(arguments: [FaultProxy.Fault.refuse, .truncate, .slow, .lie, .die]) func restoring(
    _ fault: FaultProxy.Fault
  ) async throws {
    let line = try FaultyLine()
    let (cluster, database) = (try PrivateCluster.shared(), try PrivateCluster.shared().makeDatabase(sample: 1))
    let connection = try connection(cluster, database)
    let manifest = try await Backup(
      .init(
        database: database, connection: connection, type: "daily", label: nil, job: nil, run: "r", keep: nil),
      settings: .init(), stores: [line.store("b", "restored", isDirect: true)], history: .init(),
      context: OperationContext(now: { start }, report: { _ in }), logger: Logger(label: "test")
    ).run().manifest
    try await line.sweep(fault, limit: 4) { round in
      var request = RestoreRequest(backup: manifest.id, database: database)
      let name = "\(database)_\(round.fault)_\(round.position)"
      request.target = .beside(name)
      let restore = Restore(
        request, of: manifest, from: [try line.store("b", "restored")], identities: [], on: connection,
        programs: [cluster.binaries], context: OperationContext(now: { start }, report: { _ in }),
        logger: Logger(label: "test"))
      let (outcome, what) = try await round.run {
        await Result { () async throws(Fault) in try await restore.run() }
      }
      let there = try cluster.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = '\(name)'")
      switch outcome {
      case .success(let outcome):
        #expect(outcome.isProved && there == "1\n", "\(what)")
        try cluster.sql("postgres", "DROP DATABASE \"\(name)\"")
      case .failure(let reason):
        #expect(!what.fault.isHarmless, "\(what): \(reason)")
        #expect(there == "0\n", "\(what): \(reason)")
      }
    }
  }

  /// Once the dump has come, a store that takes its time keeps no old rows alive on the server: the object is put there whole, or in parts.
  @Test(arguments: [("PUT .*[.]dump$", false), ("POST .*uploadId=", true)]) func theSnapshotEndsBeforeSlowStoresDo(
    _ pattern: String, isLarge: Bool
  ) async throws {
    let line = try FaultyLine()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase()
    try cluster.sql(database, Self.noise(isLarge ? 8800 : 10))
    var settings = Backup.Settings()
    settings.compression = Compression(algorithm: .none)
    let backup = Backup(
      .init(
        database: "shop", connection: try connection(cluster, database), type: "daily", label: nil, job: nil, run: "r",
        keep: nil), settings: settings, stores: [try line.store("b", "snapshot")], history: .init(),
      context: OperationContext(now: { start }, report: { _ in }), logger: Logger(label: "test"))
    try line.proxy.plan(.stall, of: pattern)
    async let outcome = backup.run()
    #expect(try await line.proxy.held() != nil)
    let old = "SELECT count(*) FROM pg_stat_activity WHERE datname = '\(database)' AND "
    // The server ends a session some time after its client has gone; the store is held all the while.
    try eventually("the snapshot has ended") {
      try cluster.sql("postgres", old + "(backend_xmin IS NOT NULL OR xact_start IS NOT NULL)") == "0\n"
    }
    try line.proxy.release()
    #expect(try await outcome.stores == ["b"])
  }

  /// More than a part of an upload, uncompressed.
  private static let database = Result {
    let name = try PrivateCluster.shared().makeDatabase()
    try PrivateCluster.shared().sql(name, noise(8800))
    return name
  }
  /// About a kilobyte a row.
  private static func noise(_ rows: Int) -> String {
    "CREATE TABLE noise AS SELECT n, repeat(md5(n::text), 30) AS words FROM generate_series(1, \(rows)) AS n"
  }
  private static let small = Result { try PrivateCluster.shared().makeDatabase(sample: 1) }
}

/// A bucket, and the way to it.
private struct FaultyLine {
  let proxy: FaultProxy
  let server: S3Server
  let bucket: String

  /// Where in a run the fault was, for people.
  struct Place: CustomStringConvertible {
    let fault: FaultProxy.Fault
    let position: Int
    let requests: [String]

    /// That met the fault.
    var request: String { position < requests.count ? requests[position] : "" }
    var description: String {
      "\(fault) at request \(position) of \(requests.count), '\(request)', seed \(ServerFaultTests.seed)"
    }
  }

  /// One run, in a place of its own in the bucket.
  struct Round {
    let proxy: FaultProxy
    let prefix: String
    let fault: FaultProxy.Fault
    let position: Int
    /// In the answer.
    let place: Double
    /// The requests of the last run.
    let counted: SharedValue<Int>

    /// Does the work, under the fault.
    func run<Value: Sendable>(
      whileHeld: @escaping @Sendable () async throws -> Void = {}, _ work: @Sendable () async throws -> Value
    ) async throws -> (Value, Place) {
      try proxy.plan(fault, at: position, place: place)
      let (proxy, isHeld) = (proxy, fault == .hold)
      async let watched: Void = {
        guard isHeld, try await proxy.held() != nil else { return }
        // Also where that fails: nobody else lets it go.
        let outcome = await Result { try await whileHeld() }
        try proxy.release()
        try outcome.get()
      }()
      let outcome = await Result { try await work() }
      let place = Place(fault: fault, position: position, requests: try proxy.requests())
      counted.set(place.requests.count)
      try proxy.plan(.none)
      try await watched
      return (try outcome.get(), place)
    }
  }

  private let locks: Bool

  init(locks: Bool = false) throws {
    server = try .shared()
    proxy = try FaultProxy(to: server)
    bucket = try server.makeBucket(withLock: locks)
    self.locks = locks
  }

  func store(_ name: String, _ prefix: String, isDirect: Bool = false) throws -> S3Store {
    var settings = S3Settings(bucket: bucket, endpoint: isDirect ? server.endpoint : proxy.endpoint)
    settings.prefix = prefix
    if locks { settings.lock = .governance }
    settings.credentials = S3Credentials(accessKey: S3Server.accessKey, secretKey: Secret(S3Server.secretKey))
    var retry = RetryPolicy()
    (retry.firstWait, retry.longestWait) = (0.001, 0.002)
    return S3Store(
      name: name, settings: settings, transport: CurlTransport(.init(authorityFile: server.authorityFile)),
      environment: [:], readFile: { _ in "" }, retry: retry, now: { Date.now })
  }

  /// Does a round without a fault, which counts the requests, and then one with the fault at each of them; where they are more than the
  /// limit, at the first, the last, those that are named and some between.
  func sweep(
    _ fault: FaultProxy.Fault, limit: Int, always: [Int] = [], _ round: (Round) async throws -> Void
  ) async throws {
    var random = SeededGenerator(ServerFaultTests.seed)
    let counted = SharedValue(0)
    try await round(Round(proxy: proxy, prefix: "round/none", fault: .none, position: 0, place: 0, counted: counted))
    let count = counted.get()
    #expect(count > 2)
    var positions = Array(0..<count)
    if count > limit {
      let named = [0, count - 1] + always
      positions = named + positions.filter { !named.contains($0) }.shuffled(using: &random).prefix(limit - named.count)
    }
    for position in positions {
      try await round(
        Round(
          proxy: proxy, prefix: "round/\(position)", fault: fault, position: position,
          place: .random(in: 0..<1, using: &random), counted: counted))
    }
  }
}

extension Bench {
  /// Without the fault, the next reconcile brings everything to where it belongs, and two days later nothing unfinished is left.
  fileprivate func requireConvergence(
    _ policy: RetentionPolicy, keeping count: Int, _ what: some CustomStringConvertible
  )
    async throws
  {
    try await requireHonesty("\(what)")
    let good = await catalog().backups.filter(\.isGood)
    #expect(good.count >= count, "\(what): something good is lost")
    let later = max(start, Date.now).addingTimeInterval(2 * day)
    let mended = await reconcile(policy, at: later)
    #expect(mended.allSatisfy { $0.fault == nil }, "\(what): \(mended.compactMap(\.fault))")
    try await requireHonesty("\(what), mended")
    let catalog = await catalog()
    #expect(catalog.backups.count == good.count, "\(what)")
    #expect(catalog.backups.allSatisfy { $0.wholeCopies == stores.count }, "\(what): \(catalog.backups)")
    #expect(await reconcile(policy, at: later).isEmpty, "\(what)")
    #expect(catalog.leftovers.isEmpty && catalog.problems.isEmpty, "\(what): \(catalog.problems)")
    for store in stores { #expect(try await store.unfinished().isEmpty, "\(what)") }
  }
}

extension Result where Success: Sendable {
  /// What comes of the work.
  fileprivate init(_ work: () async throws(Failure) -> Success) async {
    do {
      self = .success(try await work())
    } catch {
      self = .failure(error)
    }
  }
}
