import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Storage
import Synchronization
import TestSupport
import Testing
import Units

@testable import BackupOperations

/// One of two stores is an adversary's. A repair from it must take nothing from the other, and bring nothing into it
/// that is not signed.
struct HostileRepairTests {
  /// Serves what it likes.
  private final class Liar: ObjectStore {
    private let store: any ObjectStore
    /// By name: other bytes from so many readings on, or nil for "there is no such object".
    private let lies: [String: (from: Int, bytes: [UInt8]?)]
    private let asked = Mutex<[String: Int]>([:])

    init(_ store: any ObjectStore, _ lies: [String: (from: Int, bytes: [UInt8]?)]) {
      (self.store, self.lies) = (store, lies)
    }

    var name: String { store.name }
    var location: String { store.location }

    private func lie(_ key: ObjectKey) -> [UInt8]?? {
      guard let lie = lies[String(key.name)] else { return nil }
      let number = asked.withLock { asked in
        asked[String(key.name), default: 0] += 1
        return asked[String(key.name), default: 0]
      }
      return number >= lie.from ? .some(lie.bytes) : nil
    }

    func check() async throws(StorageError) { try await store.check() }
    func list(prefix: String) async throws(StorageError) -> [StoredObject] { try await store.list(prefix: prefix) }

    func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? {
      let truth = try await store.stat(key)
      guard let lie = lie(key), let truth else { return truth }
      return lie.map { StoredObject(key: key, size: UInt64($0.count), modified: truth.modified) }
    }

    func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
      guard let lie = lie(key) else { return try await store.read(key, range: range) }
      guard let lie else { throw StorageError(.missing, store: name, key: key, reason: "gone") }
      return Array(lie[Int(range.lowerBound)..<min(lie.count, Int(range.upperBound))])
    }

    func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
      try await store.upload(key, options)
    }
    func delete(_ key: ObjectKey) async throws(StorageError) { try await store.delete(key) }
    func sweepUnfinished() async throws(StorageError) -> Int { 0 }
    func availableSpace() async throws(StorageError) -> ByteCount? { nil }
  }

  private static let lost = "contents.json.zst"

  /// `a` lacks a file of the backup, and `b` is asked for it.
  private static func repair(
    _ lies: (Bench, Manifest) async throws -> [String: (from: Int, bytes: [UInt8]?)]
  ) async throws -> (bench: Bench, before: [String], after: [String], results: [Reconcile.Result]) {
    let bench = try Bench(["a", "b"])
    let manifest = try await bench.makeBackup(at: start, in: ["a", "b"])
    try await bench.stores[0].delete(#require(ObjectKey(manifest.layout.path(lost))))
    let before = bench.folder.files(below: "a")
    let liar = Liar(bench.stores[1], try await lies(bench, manifest))
    let results = await bench.reconcile(
      policy(["a": 7, "b": 7]), at: start + 60, through: [bench.stores[0], liar])
    return (bench, before, bench.folder.files(below: "a"), results)
  }

  /// That it was deleted meanwhile is the store's word alone.
  @Test func aSourceThatSaysItIsGoneTakesNothingFromTheOther() async throws {
    // The catalog reads it once, the copy once; then it is gone.
    for from in 2...4 {
      let (_, before, after, _) = try await Self.repair { _, _ in [BackupLayout.manifestName: (from, nil)] }
      #expect(Set(after).isSuperset(of: before), "from \(from)")
    }
  }

  @Test func aSourceWithWrongBytesLeavesTheOthersManifestInPlace() async throws {
    let (bench, before, after, results) = try await Self.repair { bench, manifest in
      let key = try #require(ObjectKey(manifest.layout.path(Self.lost)))
      var bytes = try await bench.stores[1].read(key, range: 0..<UInt64(manifest.contents.size))
      bytes[0] ^= 1
      return [Self.lost: (1, bytes)]
    }
    #expect(after == before)
    #expect(results.contains { $0.fault?.code == .artifactDamaged })
    let placements = await bench.catalog().backups.first?.placements ?? []
    #expect(placements.contains { $0.store == "a" && $0.signature == .valid })
  }

  /// The signature that counted when the catalog was read is the one that is copied.
  @Test func aSignatureThatChangesMeanwhileIsNotCopied() async throws {
    let stranger = try SigningKey.generate().sign(Array("other".utf8))
    var faults: [FaultCode?] = []
    // The catalog asks for it some times, and then the copy does.
    for from in 2...6 {
      let bench = try Bench(["a", "b"])
      try await bench.makeBackup(at: start, in: ["b"])
      let liar = Liar(bench.stores[1], [BackupLayout.signatureName: (from, Array(stranger.utf8))])
      let results = await bench.reconcile(policy(["a": 7, "b": 7]), at: start + 60, through: [bench.stores[0], liar])
      faults += results.map(\.fault?.code)
      let copies = await bench.catalog().backups.flatMap(\.placements).filter { $0.store == "a" }
      #expect(copies.allSatisfy { $0.signature == .valid }, "from \(from)")
    }
    #expect(faults.contains(.signatureInvalid), "\(faults)")
    let bench = try Bench(["a", "b"])
    try await bench.makeBackup(at: start, in: ["b"])
    // An honest one is copied whole.
    _ = await bench.reconcile(policy(["a": 7, "b": 7]), at: start + 60)
    #expect(await bench.catalog().backups.map(\.wholeCopies) == [2])
  }

  /// Somebody has deleted it on purpose: a store that shows it again gives it to no other.
  @Test func whatWasDeletedIsNotBroughtBack() async throws {
    let bench = try Bench(["a", "b"])
    let manifest = try await bench.makeBackup(at: start, in: ["b"])
    let catalog = await bench.catalog()
    func steps(_ dismissed: Set<BackupID>) -> [ReconcilePlan.Step] {
      ReconcilePlan(
        catalog, policy: policy(["a": 7, "b": 7]), stores: ["a", "b"], at: start + 60, dismissed: dismissed
      ).steps
    }
    #expect(steps([]).map(\.store) == ["a"])
    #expect(steps([manifest.id]).isEmpty)
  }

  /// Thousands of manifests that nobody has signed cost a number, and no more.
  @Test func ofStrangersBackupsFewAreShown() async throws {
    let bench = try Bench(["b"])
    let signed = try await bench.makeBackup(at: start, in: ["b"])
    let count = CatalogReader.mostUntrusted + 50
    for number in 0..<count {
      let other = try await bench.makeBackup(of: "x\(number)", at: start + 60 + Double(number), in: ["b"], bytes: 10)
      try await bench.stores[0].delete(#require(ObjectKey(other.layout.path(BackupLayout.signatureName))))
    }
    let store = WatchedStore(bench.stores[0])
    var reader = CatalogReader(trusted: [bench.key.publicKey])
    for _ in 0..<2 {
      let catalog = await reader.read([store])
      #expect(catalog.backups.count == CatalogReader.mostUntrusted + 1)
      #expect(catalog.newestGood(of: "shop")?.manifest == signed)
      let problem = try #require(catalog.problems.first)
      #expect(problem.fault.message.contains("has 50 more backups that nobody trusted has signed"))
      #expect(catalog.unread.isEmpty)
    }
    #expect(store.counts.reads == count + 2, "each is read once")
  }

  @Test func whatIsHeldInMemoryHasABound() async throws {
    let bench = try Bench(["b"])
    var manifest = try await bench.makeBackup(at: start, in: ["b"])
    #expect(manifest.flaw == nil)
    manifest.contents.size = 1 << 43
    #expect(manifest.flaw == "the size of its contents, globals or key")
    manifest.contents.size = 100
    manifest.label = String(repeating: "x", count: 15 << 20)
    #expect(manifest.flaw == "its texts")
    // No memory is taken for what a manifest says and a file lacks.
    let error = await #expect(throws: StorageError.self) {
      try await bench.stores[0].read(
        #require(ObjectKey(manifest.layout.path(BackupLayout.manifestName))), range: 0..<(1 << 43))
    }
    #expect(error?.kind == .failed)
  }
}
