import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Storage
import TestSupport
import Testing

@testable import BackupDaemon
@testable import BackupOperations

/// A store that takes longer to read than anybody waits for.
@Suite(.waits) struct CatalogKeeperTests {
  private static let count = 100

  /// A store with so many signed backups, of which only the manifests are there.
  private struct Fixture {
    let folder = TemporaryFolder()
    let key = SigningKey.generate()
    let store: LocalStore

    init() async throws {
      mkdir(folder.file("store"), 0o700)
      store = LocalStore(name: "offsite", root: folder.file("store"))
      for number in 0..<count { try await add(number) }
    }

    static func time(of number: Int) -> Date {
      Date(timeIntervalSince1970: 1_800_000_000 + Double(number) * 3600)
    }

    func add(_ number: Int) async throws {
      let digest = String(repeating: "0", count: 64)
      let time = Self.time(of: number)
      let manifest = Manifest(
        id: BackupID(database: "shop", time: time), type: "daily", label: nil, job: "daily", run: "r", keepSeconds: nil,
        started: time, finished: time, host: "h", software: "s", dumpProgram: "d",
        server: .init(
          version: "15", versionNumber: 150_000, systemIdentifier: nil, database: "shop", encoding: "UTF8",
          databaseBytes: 1, isStandby: false),
        artifact: .init(
          file: .init(name: "shop.dump", size: 1, sha256: digest), archiveBytes: 1, compression: "zstd", level: 3),
        contents: .init(name: "contents.json", size: 1, sha256: digest), globals: nil,
        totals: .init(tables: 0, rows: 0, rowBytes: 0, largeObjects: 0))
      for file in try CommittingFiles(manifest, key).all {
        try await store.put(try #require(ObjectKey(manifest.layout.path(file.name))), file.bytes)
      }
    }

    func keeper(
      _ stores: any ObjectStore..., patience: Duration = .milliseconds(200), longest: Duration = .seconds(900)
    ) -> CatalogKeeper {
      CatalogKeeper(
        stores: stores, trusted: [key.publicKey], patience: patience, longest: longest, recall: .seconds(300))
    }
  }

  @Test func whatIsReadIsKeptAndShownAsItComes() async throws {
    let fixture = try await Fixture()
    let store = WatchedStore(fixture.store, permits: 40)
    let keeper = fixture.keeper(store, patience: .seconds(1))
    // Nobody waits longer than that; what has come by then counts, and that it is not all is said.
    try await eventually("a part has come") { await !keeper.refresh().backups.isEmpty }
    let partial = await keeper.catalog
    let problem = try #require(partial.problems.first)
    #expect(partial.unread == ["offsite"])
    #expect((1..<Self.count).contains(partial.backups.count))
    #expect([.storeReading, .storeSilent].contains(problem.fault.code))
    store.letThrough()
    try await eventually("all is there") { await keeper.recent().backups.count == Self.count }
    try await eventually("it is whole") { (try? await keeper.whole())?.problems.isEmpty == true }
    #expect(await keeper.catalog.backups.count == Self.count)
    // Each manifest and signature was fetched once, however often somebody asked.
    #expect(store.counts.reads == 2 * Self.count && store.counts.stats == 0)
  }

  /// A command that needs all of it is told how far it is, and asks again; it is never told of a part as if it were
  /// all.
  @Test func whoNeedsAllIsToldHowFarItIs() async throws {
    let fixture = try await Fixture()
    let store = WatchedStore(fixture.store, permits: 40)
    let keeper = fixture.keeper(store, patience: .seconds(300))
    for _ in 0..<2 {
      let fault = await #expect(throws: Fault.self) { try await keeper.whole() }
      #expect(fault?.code == .storeReading)
      #expect(fault?.message.contains("of \(Self.count) backups so far") == true, "\(fault?.message ?? "")")
    }
    #expect(store.counts.lists == 1, "one reading, which nobody begins anew")
    store.letThrough()
    try await eventually("it is read") { (try? await keeper.whole())?.backups.count == Self.count }
    #expect(store.counts.reads == 2 * Self.count)
  }

  /// One reading after the other goes on, and each takes longer than a question waits: an answer that only a reading of
  /// its own could give would never come.
  @Test func whoAsksAgainIsAnsweredByWhatWasReadSinceTheFirstTime() async throws {
    let fixture = try await Fixture()
    let store = WatchedStore(fixture.store, holdsLists: true)
    let keeper = fixture.keeper(store, patience: .seconds(300))
    let others = [0, 1].map { _ in Task { await keeper.refresh() } }
    try eventually("the first is listed") { store.waitingLists == 1 }
    for listing in 1...2 {
      let fault = await #expect(throws: Fault.self) { try await keeper.whole() }
      #expect(fault?.message.contains("its objects are being listed") == true, "\(fault?.message ?? "")")
      store.letListsThrough()
      if listing == 1 { try eventually("the second is listed") { store.waitingLists == 1 } }
    }
    for other in others { _ = await other.value }
    #expect(try await keeper.whole().backups.count == Self.count)
    #expect(store.counts.lists == 2)
    // Another question is not answered by it.
    try await fixture.add(Self.count)
    let late = Task { () async throws -> Catalog in
      while true {
        do { return try await keeper.whole() } catch let fault as Fault where fault.code == .storeReading {}
      }
    }
    try eventually("it is listed anew") { store.waitingLists == 1 }
    store.letListsThrough()
    #expect(try await late.value.backups.count == Self.count + 1)
  }

  /// A store whose reading has no end: what another one has is found at once by its name, and nobody waits for ever.
  @Test func aStoreWithoutEndHoldsNobodyUp() async throws {
    let fixture = try await Fixture()
    let endless = WatchedStore(fixture.store, permits: 40, name: "endless")
    let keeper = fixture.keeper(fixture.store, endless, patience: .seconds(300), longest: .seconds(3))
    let exact = { @Sendable (catalog: Catalog) -> Date? in catalog.backups.isEmpty ? nil : .distantFuture }
    try await eventually("the one that is named is found") { (try? await keeper.whole(orSince: exact)) != nil }
    try await eventually("nobody waits any more") { (try? await keeper.whole())?.backups.count == Self.count }
    let problem = try await keeper.whole().problems.first { $0.fault.code == .storeSilent }
    #expect(problem?.fault.message.contains("nobody waits for it any more") == true)
    #expect(await keeper.refresh().unread == ["endless"])
    endless.letThrough()
    try await eventually("it is read to its end") { await keeper.refresh().unread.isEmpty }
  }

  /// In a disaster nobody waits for the old ones.
  @Test func whoLooksForTheNewestWaitsForNoOlderOne() async throws {
    let fixture = try await Fixture()
    let store = WatchedStore(fixture.store, permits: 0)
    let keeper = fixture.keeper(store, patience: .seconds(300))
    let newest = { @Sendable (catalog: Catalog) in catalog.backups.last?.id.time }
    let fault = await #expect(throws: Fault.self) { try await keeper.whole(orSince: newest) }
    #expect(fault?.code == .storeReading, "nothing has been read yet")
    store.letThrough(60)
    try await eventually("it is found") {
      (try? await keeper.whole(orSince: newest))?.backups.last?.id.time == Fixture.time(of: Self.count - 1)
    }
    let partial = try await keeper.whole(orSince: newest)
    #expect(partial.backups.count < Self.count && partial.unread == ["offsite"], "that it is a part is said")
    // What lies before all that was read may have something newer beside it.
    await #expect(throws: Fault.self) { try await keeper.whole(orSince: { _ in Fixture.time(of: 1) }) }
    store.letThrough()
    try await eventually("all is there") { (try? await keeper.whole())?.backups.count == Self.count }
  }

  /// The answer is never older than the question, also where a reading goes on when it is asked.
  @Test func aReadingThatBeganBeforeTheQuestionIsFollowedByAnother() async throws {
    let fixture = try await Fixture()
    let store = WatchedStore(fixture.store, permits: 0)
    let keeper = fixture.keeper(store, patience: .seconds(300))
    let early = Task { await keeper.refresh() }
    try eventually("it reads") { store.waiting > 0 }
    try await fixture.add(Self.count)
    let late = Task { await keeper.refresh() }
    store.letThrough()
    #expect(await early.value.backups.count == Self.count)
    #expect(await late.value.backups.count == Self.count + 1)
  }

  @Test func aSilentStoreKeepsNobodyWaitingTwice() async throws {
    let fixture = try await Fixture()
    let store = WatchedStore(fixture.store, permits: 0)
    let keeper = fixture.keeper(store)
    try await eventually("it is silent") { await keeper.refresh().problems.map(\.fault.code) == [.storeSilent] }
    let listings = store.counts.lists
    for _ in 0..<3 { #expect(try await keeper.whole().problems.map(\.fault.code) == [.storeSilent]) }
    #expect(store.counts.lists == listings, "it is asked again when it has answered")
    store.letThrough()
    try await eventually("it answers") { await keeper.refresh().problems.isEmpty }
    #expect(await keeper.catalog.backups.count == Self.count)
  }

  /// Another store under the same name, or other keys: what comes late of the old one is no answer.
  @Test func whatComesLateOfAnotherStoreIsDropped() async throws {
    let (fixture, other) = (try await Fixture(), try await Fixture())
    let store = WatchedStore(fixture.store, permits: 20)
    let keeper = fixture.keeper(store)
    #expect(await keeper.refresh().unread == ["offsite"])
    await keeper.use([other.store], trusted: [other.key.publicKey])
    try await other.add(Self.count)
    try await eventually("the other is read") {
      let catalog = await keeper.refresh()
      return catalog.backups.count == Self.count + 1 && catalog.problems.isEmpty
    }
    store.letThrough()
    try eventually("the old reading is over") { store.waiting == 0 }
    let catalog = await keeper.catalog
    #expect(catalog.backups.count == Self.count + 1 && catalog.problems.isEmpty)
  }
}
