import Faults
import Foundation
import Storage
import TestSupport
import Testing
import Units

/// The contract of `ObjectStore`, as checks that every store must pass: each store's own suite calls this.
struct StoreConformance {
  let store: any ObjectStore

  func checkAll() async throws {
    try await objectsReadBack()
    try await nothingIsOverwritten()
    try await nothingShowsBeforeItIsFinished()
    try await listingIsOrderedAndByPrefix()
    try await deletingIsIdempotent()
    try await whatIsMissingIsTold()
    try await uploadsRunSideBySide()
  }

  private func key(_ path: String) throws -> ObjectKey { try #require(ObjectKey(path)) }

  private func objectsReadBack() async throws {
    for (name, size) in [("empty", 0), ("one", 1), ("large", 3_000_001)] {
      let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      let upload = try await store.upload(key("read/\(name)"))
      for start in stride(from: 0, to: size, by: 1_000_000) {
        try await upload.write(Array(bytes[start..<min(start + 1_000_000, size)]))
      }
      try await upload.finish()
      #expect(try await store.stat(key("read/\(name)"))?.size == UInt64(size))
      #expect(try await store.read(key("read/\(name)"), range: 0..<UInt64(size)) == bytes)
      if size > 10 { #expect(try await store.read(key("read/\(name)"), range: 5..<9) == Array(bytes[5..<9])) }
      #expect(try await store.get(key("read/\(name)"), limit: .mebibytes(10)) == bytes)
    }
    let short = await #expect(throws: StorageError.self) { try await store.read(key("read/one"), range: 0..<2) }
    #expect(short?.kind == .failed)
    await #expect(throws: StorageError.self) { try await store.get(key("read/large"), limit: ByteCount(1000)) }
  }

  private func nothingIsOverwritten() async throws {
    try await store.put(key("once/a"), [1])
    let error = await #expect(throws: StorageError.self) { try await store.put(key("once/a"), [2]) }
    #expect(error?.kind == .exists)
    #expect(try await store.get(key("once/a"), limit: ByteCount(10)) == [1])
    // Two uploads of one key: the one that finishes first wins, and the other is told.
    let first = try await store.upload(key("once/race"))
    let second = try await store.upload(key("once/race"))
    try await first.write([1])
    try await second.write([2])
    try await second.finish()
    let late = await #expect(throws: StorageError.self) { try await first.finish() }
    #expect(late?.kind == .exists)
    await first.abort()
    #expect(try await store.get(key("once/race"), limit: ByteCount(10)) == [2])
  }

  private func nothingShowsBeforeItIsFinished() async throws {
    let upload = try await store.upload(key("half/a"))
    try await upload.write([1, 2, 3])
    #expect(try await store.stat(key("half/a")) == nil)
    #expect(try await store.list(prefix: "half/").isEmpty)
    await upload.abort()
    await upload.abort()
    #expect(try await store.list(prefix: "").allSatisfy { $0.key.path != "half/a" })
    await #expect(throws: StorageError.self) { try await upload.write([4]) }
  }

  private func listingIsOrderedAndByPrefix() async throws {
    for path in ["list/b/2", "list/a", "list/b/1", "list/b-x", "list/c"] { try await store.put(key(path), [0]) }
    #expect(
      try await store.list(prefix: "list/").map(\.key.path) == ["list/a", "list/b-x", "list/b/1", "list/b/2", "list/c"])
    #expect(try await store.list(prefix: "list/b").map(\.key.path) == ["list/b-x", "list/b/1", "list/b/2"])
    #expect(try await store.list(prefix: "list/b/").count == 2)
    #expect(try await store.list(prefix: "nothing/").isEmpty)
  }

  private func deletingIsIdempotent() async throws {
    try await store.put(key("gone/deep/a"), [1])
    try await store.delete(key("gone/deep/a"))
    try await store.delete(key("gone/deep/a"))
    #expect(try await store.stat(key("gone/deep/a")) == nil)
    try await store.put(key("gone/deep/a"), [2])
    #expect(try await store.get(key("gone/deep/a"), limit: ByteCount(9)) == [2])
  }

  private func whatIsMissingIsTold() async throws {
    #expect(try await store.stat(key("no/such")) == nil)
    #expect(try await store.get(key("no/such"), limit: ByteCount(9)) == nil)
    let error = await #expect(throws: StorageError.self) { try await store.read(key("no/such"), range: 0..<1) }
    #expect(error?.kind == .missing)
  }

  private func uploadsRunSideBySide() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<8 {
        group.addTask {
          let key = try key("many/\(number)")
          try await store.put(key, [UInt8](repeating: UInt8(number), count: 100_000))
        }
      }
      try await group.waitForAll()
    }
    for number in 0..<8 {
      #expect(try await store.read(key("many/\(number)"), range: 99_999..<100_000) == [UInt8(number)])
    }
  }
}

@Suite(.waits) struct LocalStoreTests {
  private func makeStore() throws -> (LocalStore, TemporaryFolder) {
    let folder = TemporaryFolder()
    mkdir(folder.file("root"), 0o700)
    return (LocalStore(name: "local", root: folder.file("root")), folder)
  }

  @Test func conforms() async throws {
    let (store, folder) = try makeStore()
    try await StoreConformance(store: store).checkAll()
    _ = folder
  }

  @Test func filesAndFoldersArePrivate() async throws {
    let (store, folder) = try makeStore()
    try await store.put(try #require(ObjectKey("a/b/c")), [1])
    let modes = try Shell.must(
      "stat", ["-c", "%a", folder.file("root/a"), folder.file("root/a/b"), folder.file("root/a/b/c")])
    #expect(modes == "700\n700\n600\n")
  }

  /// The files of dead uploads are swept, those of living ones are not.
  @Test func onlyDeadUploadsAreSwept() async throws {
    let (store, folder) = try makeStore()
    let upload = try await store.upload(try #require(ObjectKey("a")))
    try await upload.write([1])
    _ = try folder.write("root/.incoming/1-2.part", "left by a crash")
    #expect(try await store.sweepUnfinished() == 1)
    #expect(folder.files(below: "root").count == 1)
    try await upload.finish()
    #expect(folder.files(below: "root") == ["a"])
  }

  @Test func aMissingRootIsAMissingStore() async throws {
    let (store, folder) = try makeStore()
    try FileManager.default.removeItem(atPath: folder.file("root"))
    let key = try #require(ObjectKey("a"))
    for error in [
      await #expect(throws: StorageError.self) { try await store.check() },
      await #expect(throws: StorageError.self) { _ = try await store.list(prefix: "") },
      await #expect(throws: StorageError.self) { _ = try await store.stat(key) },
      await #expect(throws: StorageError.self) { _ = try await store.upload(key) },
    ] {
      #expect(error?.kind == .storeMissing)
    }
    #expect(!FileManager.default.fileExists(atPath: folder.file("root")))
  }

  /// sysfs takes no new files from anybody, root included: a store that can be read and not written.
  @Test func aStoreThatTakesNoWrites() async throws {
    let store = LocalStore(name: "local", root: "/sys")
    let key = try #require(ObjectKey("a"))
    for error in [
      await #expect(throws: StorageError.self) { try await store.check() },
      await #expect(throws: StorageError.self) { _ = try await store.upload(key) },
    ] {
      #expect(error?.kind == .denied)
      #expect(error?.fault.code == .storeReadOnly)
    }
  }

  @Test(arguments: [
    "", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "a\\b", "ä", "a\u{0}b",
    String(repeating: "x", count: 256),
  ])
  func keysCannotLeaveTheStore(_ path: String) { #expect(ObjectKey(path) == nil) }
}
