import ArtifactFormat
import BackupCatalog
import Foundation
import Storage
import Synchronization
import TestSupport
import Testing

@testable import BackupOperations

/// How a store is read: in few requests, many at a time, the newest first, and once.
struct CatalogReaderTests {
  private static let count = 60

  private static func filledBench() async throws -> Bench {
    let bench = try Bench(["offsite"])
    for number in 0..<count {
      try await bench.makeBackup(at: start + Double(number) * 3600, in: ["offsite"], bytes: 10)
    }
    return bench
  }

  private static func read(_ bench: Bench, _ cache: RecordCache?) async -> (Catalog, WatchedStore.Counts) {
    let store = WatchedStore(bench.stores[0])
    var reader = CatalogReader(trusted: [bench.key.publicKey], cache: cache)
    return (await reader.read([store]), store.counts)
  }

  @Test func eachRecordIsOneRequestAndSixteenGoOnAtOnce() async throws {
    let bench = try await Self.filledBench()
    let store = WatchedStore(bench.stores[0], permits: 0)
    let told = Mutex<[(Catalog, StoreReading)]>([])
    let reading = Task {
      var reader = CatalogReader(trusted: [bench.key.publicKey])
      return await reader.read([store]) { part, reading, _ in told.withLock { $0.append((part, reading)) } }
    }
    try eventually("sixteen wait, \(store.waiting) do") { store.waiting == 16 }
    #expect(store.counts.reads == 16)
    store.letThrough()
    let catalog = await reading.value
    #expect(catalog.backups.count == Self.count && catalog.problems.isEmpty)
    #expect(catalog.backups.map(\.id) == catalog.backups.map(\.id).sorted())
    // A manifest and a signature each; sizes stand in the listing.
    #expect(store.counts == .init(lists: 1, stats: 0, reads: 2 * Self.count, together: 16))
    #expect(told.withLock { $0.first }?.1.read == 0, "that it is listed is told at once")
    let parts = told.withLock { $0.dropFirst() }
    #expect(
      parts.map(\.1.read) == parts.map(\.1.read).sorted()
        && parts.last?.1 == .init(read: 60, total: 60, newestUnread: nil))
    // Whatever is said to be read is read, also where one has overtaken the other.
    var shown: Set<BackupID> = []
    for (part, reading) in parts {
      shown.formUnion(part.backups.map(\.id))
      #expect(catalog.backups.map(\.id).filter { reading.covers($0.time) }.allSatisfy(shown.contains))
    }
    #expect(parts.flatMap { $0.0.backups.map(\.id) }.sorted() == catalog.backups.map(\.id))
    // The first portion is of the sixteen newest, and a few that have overtaken them.
    let first = try #require(parts.first).0.backups.map(\.id)
    #expect(first.allSatisfy { catalog.backups.suffix(24).map(\.id).contains($0) }, "\(first)")
  }

  @Test func aRestartFetchesNothingThatIsSignedAndKnown() async throws {
    let bench = try await Self.filledBench()
    let folder = TemporaryFolder()
    let cache = RecordCache(folder: folder.file("catalog"))
    let first = await Self.read(bench, cache)
    #expect(first.1.reads == 2 * Self.count)
    let second = await Self.read(bench, cache)
    #expect(second.1.reads == 0)
    #expect(second.0.backups == first.0.backups)
    // What is new is fetched, and nothing else; what is gone is forgotten.
    let new = try await bench.makeBackup(at: start - 3600, in: ["offsite"], bytes: 10)
    for name in ["manifest.json", "manifest.json.sig"] {
      try await bench.stores[0].delete(#require(ObjectKey(first.0.backups[0].manifest.layout.path(name))))
    }
    let third = await Self.read(bench, cache)
    #expect(third.1.reads == 2 && third.0.backups.first?.manifest == new)
    #expect(third.0.backups.count == Self.count)
  }

  /// Whoever can write there could say anything: it is checked as what comes from a store is.
  @Test func aCacheThatLiesIsReadPast() async throws {
    let bench = try await Self.filledBench()
    let folder = TemporaryFolder()
    let cache = RecordCache(folder: folder.file("catalog"))
    let first = await Self.read(bench, cache)
    let files = folder.files(below: "catalog").filter { $0.hasSuffix(".json") }
    #expect(files.count == Self.count)
    for (number, file) in files.enumerated() {
      let path = folder.file("catalog") + "/" + file
      let text = try String(contentsOfFile: path, encoding: .utf8)
      switch number % 3 {
      case 0: try Data("nonsense".utf8).write(to: URL(filePath: path))
      case 1:
        // Another type's manifest with the true signature: `daily` in base64 becomes other letters.
        var copies = try JSONDecoder().decode([RecordCache.Copy].self, from: Data(text.utf8))
        var bytes = [UInt8](copies[0].record.bytes)
        bytes[bytes.count / 2] ^= 1
        let object = StoredObject(
          key: try #require(ObjectKey("a/" + copies[0].record.name)), size: copies[0].record.size,
          modified: copies[0].record.modified)
        copies[0] = .init(record: .init(object, bytes), signature: copies[0].signature)
        try JSONEncoder().encode(copies).write(to: URL(filePath: path))
      default: try FileManager.default.removeItem(atPath: path)
      }
    }
    let second = await Self.read(bench, cache)
    #expect(second.0.backups == first.0.backups && second.0.problems.isEmpty)
    #expect(second.1.reads == 2 * Self.count)
    #expect(await Self.read(bench, cache).1.reads == 0, "it is mended")
  }

  /// Without a key nothing can be checked, so nothing of it is believed.
  @Test func withoutKeysNothingIsCached() async throws {
    let bench = try await Self.filledBench()
    let folder = TemporaryFolder()
    var reader = CatalogReader(cache: RecordCache(folder: folder.file("catalog")))
    #expect(await reader.read(bench.stores).backups.count == Self.count)
    #expect(folder.files(below: "catalog") == [])
  }
}
