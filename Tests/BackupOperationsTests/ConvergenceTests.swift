import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Storage
import TestSupport
import Testing
import Units

@testable import BackupOperations

/// Every call into a store fails, dies, lies or loses its answer in turn: nothing committed is ever false, nothing good is ever lost,
/// and the next reconcile mends what is left.
@Suite(.waits) struct FaultSweepTests {
  static let faults: [(String, @Sendable (Int) -> FaultyStore.Fault)] = [
    ("fails", { .failsAt(call: $0) }), ("dies", { .diesAt(call: $0) }),
    ("loses its answer", { .losesAnswerOf(call: $0) }),
    ("lies", { .liesAt(call: $0) }), ("truncates", { .truncatesAt(call: $0) }), ("is cut", { .isCutAfter(call: $0) }),
    ("delays", { .delays(call: $0) { for _ in 0..<200 { await Task.yield() } } }),
  ]

  @Test(arguments: faults.map(\.0), ["a", "b"]) func copying(_ fault: String, in faulty: String) async throws {
    let inject = try #require(Self.faults.first { $0.0 == fault }?.1)
    let policy = policy(["a": 7, "b": 7])
    var position = 0
    while true {
      let bench = try Bench(["a", "b"])
      try await bench.makeBackup(at: start, in: ["a"])
      // A cut-off copy of an earlier day lies there already, and a damaged one.
      try await bench.makeBackup(at: start.addingTimeInterval(-day), in: ["a", "b"])
      let broken = bench.folder.files(below: "b").filter { $0.contains(".dump") }
      for file in broken { truncate(bench.folder.file("b/\(file)"), 5000) }
      let store = FaultyStore(bench.stores[faulty == "a" ? 0 : 1], inject(position))
      let stores: [any ObjectStore] = faulty == "a" ? [store, bench.stores[1]] : [bench.stores[0], store]
      let now = start.addingTimeInterval(60)
      _ = await bench.reconcile(policy, at: now, through: stores)
      try await bench.requireHonesty("call \(position)")
      let after = await bench.catalog()
      #expect(after.backups.filter { $0.placements.contains { $0.store == "a" && $0.isWhole } }.count == 2)

      let mended = await bench.reconcile(policy, at: now)
      #expect(mended.allSatisfy { $0.fault == nil }, "call \(position): \(mended.compactMap(\.fault))")
      try await bench.requireHonesty("call \(position), mended")
      #expect(await bench.catalog().backups.map(\.wholeCopies) == [2, 2], "call \(position)")
      #expect(bench.folder.files(below: "a") == bench.folder.files(below: "b"), "call \(position)")
      if store.allCalls <= position { break }
      position += 1
    }
    #expect(position > 10)
  }

  /// Somebody takes away what lies at the target while it is copied there: that says nothing against the source.
  @Test func whatVanishesAtTheTarget() async throws {
    let policy = policy(["a": 7, "b": 7])
    var position = 0
    while true {
      let bench = try Bench(["a", "b"])
      let manifest = try await bench.makeBackup(at: start, in: ["a", "b"])
      let target = bench.stores[1]
      try await target.delete(try #require(ObjectKey(manifest.layout.path(BackupLayout.manifestName))))
      let store = FaultyStore(
        target,
        .delays(call: position) {
          for object in (try? await target.list(prefix: "")) ?? [] { try? await target.delete(object.key) }
        })
      let results = await bench.reconcile(policy, at: start, through: [bench.stores[0], store])
      #expect(results.allSatisfy { $0.damaged.isEmpty }, "call \(position): \(results.map(\.damaged))")
      _ = await bench.reconcile(policy, at: start)
      #expect(await bench.catalog().backups.map(\.wholeCopies) == [2], "call \(position)")
      if store.allCalls <= position { break }
      position += 1
    }
    #expect(position > 10)
  }

  @Test(arguments: faults.dropLast().map(\.0)) func expiring(_ fault: String) async throws {
    let inject = try #require(Self.faults.first { $0.0 == fault }?.1)
    let policy = policy(["a": 7, "b": 7])
    var position = 0
    while true {
      let bench = try Bench(["a", "b"])
      for age in [0.0, 9, 10] { try await bench.makeBackup(at: start.addingTimeInterval(-age * day), in: ["a", "b"]) }
      let store = FaultyStore(bench.stores[0], inject(position))
      _ = await bench.reconcile(policy, at: start, through: [store, bench.stores[1]])
      try await bench.requireHonesty("call \(position)")
      // What is half deleted is no backup any more, and the young one is untouched.
      #expect(await bench.catalog().backups.allSatisfy { $0.placements.allSatisfy(\.isWhole) }, "call \(position)")
      #expect(await bench.catalog().newestGood(of: "shop")?.wholeCopies == 2)
      // Leftovers without a manifest are swept a day later, by their files' times: those are now.
      _ = await bench.reconcile(policy, at: start)
      #expect(await bench.catalog().backups.map(\.id.time) == [start], "call \(position)")
      if store.allCalls <= position { break }
      position += 1
    }
    #expect(position > 10)
  }
}
