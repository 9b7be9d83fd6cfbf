import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Storage
import TestSupport
import Testing
import Units

@testable import BackupOperations

let day: TimeInterval = 86400
let start = Date(timeIntervalSince1970: 1_800_000_000)

/// Daily backups belong in these stores, for so many days.
func policy(_ days: [String: Double], quorum: Int = 1) -> RetentionPolicy {
  RetentionPolicy(
    rules: [
      "daily": TypePolicy(
        stores: days.keys.sorted(), keep: .forDuration(.seconds(7 * 86400)),
        keepByStore: days.mapValues { .forDuration(.seconds($0 * day)) })
    ], quorum: quorum)
}

/// Two or three stores, and backups in them that need no database: the bytes are noise, the manifests and digests are real.
struct Bench {
  let folder = TemporaryFolder()
  let key = SigningKey.generate()
  let stores: [any ObjectStore]

  /// Stores on the disk of these names, each in a folder of its own, and others.
  init(_ names: [String], and others: [any ObjectStore] = []) throws {
    let folder = folder
    stores =
      try names.map { name in
        try FileManager.default.createDirectory(atPath: folder.file(name), withIntermediateDirectories: false)
        return LocalStore(name: name, root: folder.file(name))
      } + others
  }

  /// Commits a backup into stores, as a run does: the manifest last.
  @discardableResult
  func makeBackup(
    of database: String = "shop", at time: Date, type: String = "daily", keepSeconds: Int64? = nil, in names: [String],
    seed: Int = 0, bytes: Int = 10_000
  ) async throws -> Manifest {
    let id = BackupID(database: database, time: time)
    let layout = BackupLayout(id: id, type: type)
    func noise(_ count: Int) -> [UInt8] {
      var bytes = (0..<min(count, 10_000)).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 167 >> 3) }
      while bytes.count < count { bytes += bytes.prefix(count - bytes.count) }
      return bytes
    }
    let artifact = (layout.artifactName(suffix: ".zst"), noise(bytes))
    let contents = ("contents.json.zst", noise(300))
    func file(_ named: (String, [UInt8])) -> Manifest.StoredFile {
      .init(name: named.0, size: Int64(named.1.count), sha256: Digest.hexadecimal(of: named.1))
    }
    let manifest = Manifest(
      id: id, type: type, label: nil, job: type, run: "r", keepSeconds: keepSeconds, started: time, finished: time,
      host: "h",
      software: "s", dumpProgram: "d",
      server: .init(
        version: "15", versionNumber: 150_000, systemIdentifier: nil, database: "shop", encoding: "UTF8",
        databaseBytes: 1, isStandby: false),
      artifact: .init(file: file(artifact), archiveBytes: 1, compression: "zstd", level: 3), contents: file(contents),
      globals: nil, totals: .init(tables: 0, rows: 0, rowBytes: 0, largeObjects: 0))
    let committing = try CommittingFiles(manifest, key)
    for store in stores where names.contains(store.name) {
      for (name, bytes) in [artifact, contents] + committing.all.map({ ($0.name, $0.bytes) }) {
        try await store.put(try #require(ObjectKey(layout.path(name))), bytes)
      }
    }
    return committing.manifest
  }

  func catalog(_ stores: [any ObjectStore]? = nil) async -> Catalog {
    var reader = CatalogReader(trusted: [key.publicKey])
    return await reader.read(stores ?? self.stores)
  }

  /// One reconcile, as the daemon does it: removals, then each copy with a plan of its own.
  @discardableResult
  func reconcile(
    _ policy: RetentionPolicy, at now: Date, through stores: [any ObjectStore]? = nil,
    locks: [String: [String: Date]] = [:]
  ) async -> [Reconcile.Result] {
    let stores = stores ?? self.stores
    let reconcile = Reconcile(stores: stores, policy: policy, trusted: [key.publicKey])
    func plan(_ unfinished: [Catalog.Unfinished] = []) async -> ReconcilePlan {
      let catalog = await catalog(stores)
      return ReconcilePlan(
        catalog, policy: policy, stores: stores.map(\.name), unknown: catalog.unread, at: now,
        unfinished: unfinished, locks: locks)
    }
    var results: [Reconcile.Result] = []
    for step in await plan(reconcile.unfinished().uploads).removals {
      if let result = await reconcile.apply(step) { results.append(result) }
    }
    for store in stores {
      var walk = CopyWalk(into: store.name)
      while let step = walk.next(in: await plan()) {
        if let result = await reconcile.apply(step) { results.append(result) }
      }
    }
    return results
  }

  /// The promise about what is committed: where a manifest stands and its signature holds, every file has the digest that it names.
  func requireHonesty(_ what: String) async throws {
    for backup in await catalog().backups {
      for placement in backup.placements where placement.isWhole {
        let store = try #require(stores.first { $0.name == placement.store })
        for file in backup.manifest.files {
          let key = try #require(ObjectKey(backup.manifest.layout.path(file.name)))
          let bytes = try await store.read(key, range: 0..<UInt64(file.size))
          #expect(Digest.hexadecimal(of: bytes) == file.sha256, "\(what): \(key) in \(store.name)")
        }
      }
    }
  }
}
