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
@Suite struct FaultSweepTests {
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

/// Random sequences of backups, outages, damages, clock moves, policy changes, deletions and reconciles, beside a model that knows only
/// sets: whatever happened, once all stores are up again reconcile brings every backup to where it belongs, and nothing else.
@Suite struct ConvergenceModelTests {
  private struct Model {
    /// By time: the stores that have it whole.
    var copies: [Date: Set<String>] = [:]
  }

  @Test(arguments: [1, 2, 3, UInt64.random(in: 4...UInt64.max)]) func randomHistories(_ seed: UInt64) async throws {
    var random = SeededGenerator(seed)
    for round in 0..<12 { try await history(&random, "seed \(seed), round \(round)") }
  }

  private func history(_ random: inout SeededGenerator, _ what: String) async throws {
    let names = ["a", "b", "c"]
    let bench = try Bench(names)
    var model = Model()
    var (now, down): (Date, Set<String>) = (start, [])
    var days = ["a": 3.0, "b": 9.0]
    for step in 0..<40 {
      let what = "\(what), step \(step)"
      switch Int.random(in: 0..<10, using: &random) {
      case 0...2:
        now += Double.random(in: 0.2...1.5, using: &random) * day
        now = Date(timeIntervalSince1970: now.timeIntervalSince1970.rounded(.down))
        let places = Set(days.keys).subtracting(down)
        guard !places.isEmpty else { continue }
        try await bench.makeBackup(at: now, in: places.sorted(), seed: step)
        model.copies[now] = places
      case 3: now += Double.random(in: 0...3, using: &random) * day
      case 4:
        let name = names.randomElement(using: &random) ?? "a"
        if down.remove(name) == nil { down.insert(name) }
      case 5:
        days = [:]
        for name in names.shuffled(using: &random).prefix(Int.random(in: 1...3, using: &random)) {
          days[name] = Double(Int.random(in: 1...12, using: &random))
        }
      case 6:
        // An object is lost, or cut short.
        guard let (time, stores) = model.copies.filter({ !$0.value.isEmpty }).min(by: { $0.key < $1.key }),
          let store = stores.sorted().randomElement(using: &random)
        else { continue }
        let layout = BackupLayout(id: BackupID(database: "shop", time: time), type: "daily")
        let path = bench.folder.file("\(store)/\(layout.path(layout.artifactName(suffix: ".zst")))")
        if Bool.random(using: &random) { unlink(path) } else { truncate(path, 77) }
        model.copies[time]?.remove(store)
      case 7:
        guard let time = model.copies.keys.sorted().randomElement(using: &random), down.isEmpty else { continue }
        let layout = BackupLayout(id: BackupID(database: "shop", time: time), type: "daily")
        for store in bench.stores { try await BackupRemoval.remove(folder: layout.folder, from: store) }
        model.copies[time] = nil
      default:
        await reconcile(bench, &model, policy(days), now, down)
      }
      try await bench.requireHonesty(what)
      try await compare(bench, model, what)
    }
    // Everything is up again. Twice: what was a source may go when the copy is there.
    for _ in 0..<2 { await reconcile(bench, &model, policy(days), now, []) }
    try await compare(bench, model, what)
    #expect(await bench.reconcile(policy(days), at: now).isEmpty, "\(what): a third one has nothing to do")
    for (time, stores) in model.copies where !stores.isEmpty {
      let isNewest = time == model.copies.filter { !$0.value.isEmpty && $0.key <= now }.keys.max()
      for name in names {
        let isYoung = now < time.addingTimeInterval((days[name] ?? 7) * day)
        if days[name] != nil, isYoung { #expect(stores.contains(name), "\(what): \(time) belongs in \(name)") }
        if !isYoung, !isNewest { #expect(!stores.contains(name), "\(what): \(time) is too old for \(name)") }
      }
    }
  }

  /// The same in the model: sets, and no files.
  private func reconcile(
    _ bench: Bench, _ model: inout Model, _ policy: RetentionPolicy, _ now: Date, _ down: Set<String>
  ) async {
    let stores: [any ObjectStore] = bench.stores.map { store in
      FaultyStore(store, down.contains(store.name) ? .diesAt(call: 0) : .none)
    }
    _ = await bench.reconcile(policy, at: now, through: stores)
    let rule = policy.rules["daily"]
    func end(_ time: Date, _ store: String) -> Date {
      guard case .forDuration(let age)? = rule?.keepByStore[store] ?? rule?.keep else { return .distantFuture }
      return time.addingTimeInterval(age.inSeconds)
    }
    let wanted = rule?.stores ?? []
    let newest = model.copies.filter { !$0.value.subtracting(down).isEmpty }.keys.max()
    for (time, copies) in model.copies {
      let seen = copies.subtracting(down)
      let lacking = wanted.filter { now < end(time, $0) && !seen.contains($0) }
      var after = copies
      let isLastSource = !lacking.isEmpty && seen.allSatisfy { now >= end(time, $0) }
      for store in seen where now >= end(time, store) && time != newest && !isLastSource { after.remove(store) }
      if !seen.isEmpty { after.formUnion(Set(lacking).subtracting(down)) }
      model.copies[time] = after
    }
  }

  private func compare(_ bench: Bench, _ model: Model, _ what: String) async throws {
    var found: [Date: Set<String>] = [:]
    for backup in await bench.catalog().backups {
      found[backup.id.time] = Set(backup.placements.filter(\.isWhole).map(\.store))
    }
    #expect(found.filter { !$0.value.isEmpty } == model.copies.filter { !$0.value.isEmpty }, "\(what)")
  }
}
