import Foundation
import Glibc
import Storage
import TestSupport
import Testing

/// Folders of a store that lead elsewhere.
@Suite(.waits) struct LinkedStoreTests {
  private static func key(_ path: String) throws -> ObjectKey { try #require(ObjectKey(path)) }

  private struct Trap {
    let folder = TemporaryFolder()
    let store: LocalStore

    init() throws {
      for name in ["root", "root/shop", "outside", "outside/daily"] { mkdir(folder.file(name), 0o700) }
      _ = try folder.write("outside/daily/victim", "precious")
      store = LocalStore(name: "local", root: folder.file("root"))
    }

    func link(_ name: String, to target: String) throws {
      try FileManager.default.createSymbolicLink(atPath: folder.file(name), withDestinationPath: folder.file(target))
    }

    var isUntouched: Bool { folder.files(below: "outside") == ["daily/victim"] }
  }

  /// Whoever may write into a store's folder leads nothing out of it: no write, no deletion, no reading, no listing.
  @Test func aLinkedFolderInAStoreIsNotFollowed() async throws {
    let trap = try Trap()
    try trap.link("root/shop/daily", to: "outside/daily")
    let (victim, other) = (try Self.key("shop/daily/victim"), try Self.key("shop/daily/other"))
    let own = try Self.key("shop/own")
    try await trap.store.put(own, [1])
    for work in [
      { _ = try await trap.store.put(other, [1]) }, { try await trap.store.delete(victim) },
      { _ = try await trap.store.stat(victim) }, { _ = try await trap.store.read(victim, range: 0..<1) },
      { _ = try await trap.store.link(own, as: other) }, { _ = try await trap.store.link(victim, as: own) },
      { _ = try await trap.store.list(prefix: "shop/daily/") },
    ] as [() async throws -> Void] {
      let error = await #expect(throws: StorageError.self) { try await work() }
      #expect(error?.reason.contains("'shop/daily' is a symbolic link") == true, "\(error?.reason ?? "")")
    }
    #expect(trap.isUntouched)
    #expect(try await trap.store.list(prefix: "").map(\.key.path) == ["shop/own"])
  }

  @Test func aLinkedFileIsNeitherReadNorDeletedThrough() async throws {
    let trap = try Trap()
    try trap.link("root/shop/a", to: "outside/daily/victim")
    let linked = try Self.key("shop/a")
    #expect(try await trap.store.stat(linked) == nil)
    await #expect(throws: StorageError.self) { try await trap.store.read(linked, range: 0..<1) }
    let other = try Self.key("shop/b")
    await #expect(throws: StorageError.self) { try await trap.store.link(linked, as: other) }
    // The link itself goes.
    try await trap.store.delete(linked)
    #expect(trap.isUntouched)
  }

  /// Where uploads grow, and where the dead ones are swept.
  @Test func aLinkedFolderOfUploadsIsNotFollowed() async throws {
    let trap = try Trap()
    try trap.link("root/.incoming", to: "outside/daily")
    let new = try Self.key("shop/a")
    await #expect(throws: StorageError.self) { try await trap.store.check() }
    await #expect(throws: StorageError.self) { try await trap.store.put(new, [1]) }
    await #expect(throws: StorageError.self) { try await trap.store.sweepUnfinished() }
    #expect(trap.isUntouched)
  }

  /// A folder that becomes a link while an upload is on its way: the upload fails, and nothing appears elsewhere.
  @Test func aFolderThatIsExchangedMidwayIsNotFollowed() async throws {
    let trap = try Trap()
    let upload = try await trap.store.upload(try Self.key("shop/daily/a"))
    try await upload.write([1])
    try trap.link("root/shop/daily", to: "outside/daily")
    await #expect(throws: StorageError.self) { try await upload.finish() }
    await upload.abort()
    #expect(trap.isUntouched)
    #expect(trap.folder.files(below: "root/.incoming").isEmpty)
  }

  /// A pipe in a file's place would make a reader wait for a writer.
  @Test func aPipeIsNoObject() async throws {
    let trap = try Trap()
    #expect(mkfifo(trap.folder.file("root/shop/a"), 0o600) == 0)
    let piped = try Self.key("shop/a")
    await #expect(throws: StorageError.self) { try await trap.store.read(piped, range: 0..<1) }
    #expect(try await trap.store.list(prefix: "").isEmpty)
  }
}
