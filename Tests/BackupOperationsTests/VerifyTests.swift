import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import PostgresArchive
import Storage
import TestSupport
import Testing

@testable import BackupOperations

/// Every way to harm a backup, and the level that says that it notices.
@Suite(.waits) struct VerifyTests {
  private static let key = SigningKey.generate()

  private static func fixture(isEncrypted: Bool) async throws -> RestoreFixture {
    var settings = Backup.Settings()
    settings.signingKey = key
    // Several frames, and the last one short.
    return try await RestoreFixture(sample: 2, isEncrypted: isEncrypted, settings: settings)
  }

  private static func verify(
    _ fixture: RestoreFixture, _ level: VerifyLevel, of manifest: Manifest? = nil, identities: Keyring? = nil
  ) async throws -> Verification {
    try await Verify(
      manifest ?? fixture.manifest, in: fixture.workshop.store, level: level,
      identities: identities ?? [fixture.identity], trusted: [key.publicKey],
      now: { Date(timeIntervalSince1970: 1_800_100_000) }
    ).run()
  }

  @Test(arguments: [false, true]) func aSoundBackupPasses(_ isEncrypted: Bool) async throws {
    let fixture = try await Self.fixture(isEncrypted: isEncrypted)
    for level in VerifyLevel.allCases {
      let result = try await Self.verify(fixture, level)
      #expect(result.fault == nil && result.level == level && result.note == nil)
      #expect(result.storedBytes == fixture.manifest.storedBytes)
      #expect(result.rows == (level == .archive ? fixture.manifest.totals.rows : 0))
      #expect(result.archiveBytes == (level == .archive ? fixture.manifest.artifact.archiveBytes : 0))
    }
  }

  /// What was not looked into is not said to be sound.
  @Test func withoutTheIdentity() async throws {
    let fixture = try await Self.fixture(isEncrypted: true)
    for (identities, note) in [([], "no identity here"), ([.generate()], "none of the identities")]
      as [(Keyring, String)]
    {
      let result = try await Self.verify(fixture, .archive, identities: identities)
      #expect(result.fault == nil && result.level == .checksum && result.rows == 0)
      #expect(result.note?.contains(note) == true)
    }
  }

  /// Stored bytes that were changed: both levels see each of them.
  @Test(arguments: [false, true]) func storedBytes(_ isEncrypted: Bool) async throws {
    let fixture = try await Self.fixture(isEncrypted: isEncrypted)
    let store = fixture.workshop.store
    for file in fixture.manifest.committed {
      let path = "\(store.location)/\(fixture.manifest.layout.path(file.name))"
      let whole = try Data(contentsOf: URL(filePath: path))
      let places = [0, whole.count / 2, whole.count - 1]
      var harms = places.map { place in
        var bytes = whole
        bytes[place] ^= 1
        return ("a bit at \(place)", bytes)
      }
      harms.append(("a byte less", whole.dropLast()))
      harms.append(("a byte more", whole + [0]))
      for (what, bytes) in harms {
        try bytes.write(to: URL(filePath: path))
        for level in VerifyLevel.allCases {
          let result = try await Self.verify(fixture, level)
          #expect(result.fault?.code == .artifactDamaged && result.isDamaged, "\(what) of \(file.name), \(level)")
        }
      }
      try FileManager.default.removeItem(atPath: path)
      // What no restore needs is written anew, and is no damage where it is missing.
      let expected: FaultCode? = file.name == BackupLayout.recoverName ? nil : .objectMissing
      #expect(try await Self.verify(fixture, .checksum).fault?.code == expected, "\(file.name)")
      try whole.write(to: URL(filePath: path))
    }
    #expect(try await Self.verify(fixture, .archive).fault == nil)
  }

  @Test func forgedManifests() async throws {
    let fixture = try await Self.fixture(isEncrypted: false)
    let folder = "\(fixture.workshop.store.location)/\(fixture.manifest.layout.folder)/"
    let signature = URL(filePath: folder + BackupLayout.signatureName)
    let manifest = URL(filePath: folder + BackupLayout.manifestName)
    let (good, text) = (try Data(contentsOf: manifest), try Data(contentsOf: signature))
    try Data(try SigningKey.generate().sign(Array(good)).utf8).write(to: signature)
    #expect(try await Self.verify(fixture, .checksum).fault?.code == .signatureInvalid)
    try FileManager.default.removeItem(at: signature)
    #expect(try await Self.verify(fixture, .checksum).fault?.code == .signatureInvalid)
    try text.write(to: signature)
    var other = fixture.manifest
    other.totals.rows += 1
    try Data(try other.encoded()).write(to: manifest)
    #expect(try await Self.verify(fixture, .checksum).fault?.code == .manifestInvalid)
    try Data("{".utf8).write(to: manifest)
    #expect(try await Self.verify(fixture, .checksum).fault?.code == .manifestInvalid)
    // Another backup's files under this one's name, all of them.
    let stranger = try await RestoreFixture(of: fixture)
    for (name, file) in zip(
      [BackupLayout.manifestName, fixture.manifest.artifact.file.name],
      [BackupLayout.manifestName, stranger.manifest.artifact.file.name])
    {
      let path = "\(stranger.workshop.store.location)/\(stranger.manifest.layout.folder)/\(file)"
      try Data(contentsOf: URL(filePath: path)).write(to: URL(filePath: folder + name))
    }
    #expect(try await Self.verify(fixture, .checksum).fault?.code == .manifestInvalid)
  }

  /// What whoever holds the signing key could have written, or a faulty writer: sums and signature are right, the rows are not. Only the
  /// level of the archive sees it.
  @Test(arguments: Lie.allCases, [false, true]) func rowsThatAreNotThose(_ lie: Lie, _ isEncrypted: Bool) async throws {
    let fixture = try await Self.fixture(isEncrypted: isEncrypted)
    let manifest = try await Forgery(fixture, Self.key).tell(lie)
    let sums = try await Self.verify(fixture, .checksum, of: manifest)
    #expect(sums.fault == nil, "\(sums.fault.map { "\($0)" } ?? "")")
    let archive = try await Self.verify(fixture, .archive, of: manifest)
    if lie == .nothing {
      #expect(archive.fault == nil, "\(archive.fault.map { "\($0)" } ?? "")")
    } else {
      #expect(archive.fault?.code == .artifactDamaged && archive.level == .archive)
    }
  }

  enum Lie: CaseIterable, Sendable {
    /// The forgery itself is not what is noticed.
    case nothing
    case aByte, aRowLess, aRowTwice, twoTablesSwapped, aTruncatedArchive, anOldArtifact, otherTotals, aLargeObject
  }

  @Test func theLeastRecentlyVerifiedComeFirst() throws {
    var catalog = Catalog()
    let start = Date(timeIntervalSince1970: 1_800_000_000)
    func add(_ day: Double, harmed: Bool = false) {
      let id = BackupID(database: "shop", time: start.addingTimeInterval(day * 86400))
      let file = Manifest.StoredFile(name: "f", size: 1, sha256: String(repeating: "0", count: 64))
      let manifest = Manifest(
        id: id, type: "daily", label: nil, job: nil, run: "r", keepSeconds: nil, started: id.time, finished: id.time,
        host: "h", software: "s", dumpProgram: "d",
        server: .init(
          version: "15", versionNumber: 150_000, systemIdentifier: nil, database: "shop", encoding: "UTF8",
          databaseBytes: 1, isStandby: false),
        artifact: .init(file: file, archiveBytes: 1, compression: "zstd", level: 3), contents: file, globals: nil,
        totals: .init(tables: 0, rows: 0, rowBytes: 0, largeObjects: 0))
      catalog.add(
        Catalog.Backup(
          manifest: manifest,
          placements: [.init(store: "a", missing: []), .init(store: "b", missing: harmed ? ["f"] : [])], pin: nil))
    }
    for day in 0..<5 { add(Double(day), harmed: day == 1) }
    var last: [PlacementKey: Date] = [:]
    func plan(_ budget: VerifyBudget) -> [String] {
      VerifyPlan(catalog, of: "shop", stores: ["a", "b"], last: last, budget: budget).items.map {
        "\(Int($0.manifest.id.time.timeIntervalSince(start) / 86400))\($0.store)"
      }
    }
    #expect(plan(.everything).count == 10, "also what lacked files when it was looked at last")
    #expect(plan(VerifyBudget(newest: .all, restPercent: 0)) == ["4a", "4b"])
    #expect(plan(VerifyBudget(newest: .one, restPercent: 0)) == ["4a"])
    #expect(plan(VerifyBudget(newest: .off, restPercent: 0)) == [])
    // Every placement has its turn within the stated number of runs, whatever the share.
    for percent in [1, 10, 30, 50, 99, 100] {
      let budget = VerifyBudget(newest: .all, restPercent: percent)
      last = [:]
      var seen: Set<String> = []
      for run in 0..<(try #require(budget.runsForAll)) {
        let now = start.addingTimeInterval(Double(10 + run) * 86400)
        for item in VerifyPlan(catalog, of: "shop", stores: ["a", "b"], last: last, budget: budget).items {
          last[PlacementKey(backup: item.manifest.id, store: item.store)] = now
          seen.insert("\(item.manifest.id)\(item.store)")
        }
      }
      #expect(seen.count == 10, "\(percent) %")
    }

    // Where new backups come faster than they are read, the old ones have their turn all the same.
    let budget = VerifyBudget(newest: .all, restPercent: 10)
    last = Dictionary(
      uniqueKeysWithValues: catalog.backups.flatMap { backup in
        backup.placements.map { (PlacementKey(backup: backup.id, store: $0.store), start) }
      })
    for run in 0..<(try #require(budget.runsForAll)) {
      for hour in 0..<6 { add(Double(10 + run) + Double(hour) / 6) }
      for item in VerifyPlan(catalog, of: "shop", stores: ["a", "b"], last: last, budget: budget).items {
        last[PlacementKey(backup: item.manifest.id, store: item.store)] = start.addingTimeInterval(
          Double(10 + run) * 86400)
      }
    }
    for backup in catalog.backups.prefix(5) {
      for store in ["a", "b"] { #expect(last[PlacementKey(backup: backup.id, store: store)] != start, "\(backup.id)") }
    }
  }
}

/// A backup whose signer lies.
private struct Forgery {
  let fixture: RestoreFixture
  let key: SigningKey

  init(_ fixture: RestoreFixture, _ key: SigningKey) { (self.fixture, self.key) = (fixture, key) }

  /// Puts the lie in the backup's place.
  func tell(_ lie: VerifyTests.Lie) async throws -> Manifest {
    let store = fixture.workshop.store
    var manifest = fixture.manifest
    let source = try await ArchiveSource(manifest, in: [store], identities: [fixture.identity])
    var archive: [UInt8] = []
    try await source.read(0..<source.contents.archiveBytes) { archive += $0 }
    var contents = source.contents
    let tables = contents.tables.filter { ($0.rows ?? 0) > 3 }.sorted { $0.offset < $1.offset }
    let table = try #require(tables.first { $0.name == "users" })
    // A block: its type, its number (a sign and four bytes), then chunks of a length (five bytes) and a row.
    let first = Int(table.offset) + 6
    func length(_ at: Int) -> Int {
      Int(archive[at + 1]) | Int(archive[at + 2]) << 8 | Int(archive[at + 3]) << 16
    }
    let row = first..<first + 5 + length(first)
    switch lie {
    case .nothing: break
    case .aByte: archive[row.upperBound - 3] ^= 1
    case .aRowLess: archive.removeSubrange(row)
    case .aRowTwice: archive.insert(contentsOf: archive[row], at: row.upperBound)
    case .twoTablesSwapped:
      // The contents' story: each has the other's rows.
      let other = try #require(tables.first { $0.name == "media" })
      let places = contents.tables.indices.filter { [table, other].contains(contents.tables[$0]) }
      contents.tables[places[0]].fingerprint =
        tables.first { $0.dumpID == contents.tables[places[1]].dumpID }?.fingerprint
      contents.tables[places[1]].fingerprint =
        tables.first { $0.dumpID == contents.tables[places[0]].dumpID }?.fingerprint
    case .aTruncatedArchive: archive.removeLast(1000)
    case .anOldArtifact:
      contents = contents.named(BackupID(database: "shop", time: Date(timeIntervalSince1970: 1_700_000_000)))
    case .otherTotals: manifest.totals.rows += 1
    case .aLargeObject:
      let objects = try #require(contents.largeObjects.first { ($0.bytes ?? 0) > 0 })
      archive[Int(objects.offset + objects.length) - 24] ^= 1
    }
    let compression = Compression.standard
    let encryption: Encryption = manifest.encryption == nil ? .none : .age([try #require(fixture.identity.recipient)])
    var stored: [UInt8] = []
    var index = FrameIndex()
    let codec = try compression.makeCodec()
    for start in stride(from: 0, to: archive.count, by: index.frameBytes) {
      let plain = archive[start..<min(archive.count, start + index.frameBytes)]
      let frame = try plain.withUnsafeBytes { try codec.encode($0) }
      index.append(plain: plain.count, stored: frame.count, digest: Digest.hexadecimal(of: frame))
      stored += frame
    }
    contents.frames = .init(plainBytes: index.frameBytes, storedSizes: index.storedSizes, digests: index.digests)
    // What a reader needs to find its way; the tables stay where the lie has them.
    contents.archiveBytes = index.plainBytes
    let artifact = try encryption.encrypt(stored)
    let packed = try PackedFile("contents.json", try contents.encoded(), compression, encryption)
    manifest.artifact.file = .init(
      name: manifest.artifact.file.name, size: Int64(artifact.count), sha256: Digest.hexadecimal(of: artifact))
    manifest.contents = packed.file
    let committing = try CommittingFiles(manifest, key)
    let files =
      [(manifest.artifact.file.name, artifact), (packed.file.name, packed.bytes)]
      + committing.all.map { ($0.name, $0.bytes) }
    for (name, bytes) in files {
      let place = try #require(ObjectKey(manifest.layout.path(name)))
      try await store.delete(place)
      try await store.put(place, bytes)
    }
    return committing.manifest
  }
}

extension Contents {
  fileprivate func named(_ id: BackupID) -> Contents {
    var copy = self
    copy.id = id
    return copy
  }
}
