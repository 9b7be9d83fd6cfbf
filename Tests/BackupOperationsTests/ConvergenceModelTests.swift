import BackupCatalog
import Foundation
import Storage
import TestSupport
import Testing
import Units

@testable import BackupOperations

/// What the policy promises, said once more: in sets of names and instants, without any of the code that keeps the promise.
private struct Reference {
  struct Backup: Hashable {
    let database: String
    let type: String
    let time: Date
  }

  /// Of a type: the stores that it belongs in, and the days that it stays in each; in any other store, `others`.
  struct Rule {
    var days: [String: Double]
    var others: Double
  }

  /// The stores that have it whole.
  var copies: [Backup: Set<String>] = [:]
  var pinned: Set<Backup> = []
  /// Days, of backups that have a term of their own.
  var own: [Backup: Double] = [:]
  var rules: [String: Rule] = [:]
  var quorum = 1

  func end(_ backup: Backup, in store: String) -> Date {
    let rule = rules[backup.type]
    guard let days = own[backup] ?? rule?.days[store] ?? rule?.others else { return .distantFuture }
    return backup.time.addingTimeInterval(days * day)
  }

  /// What one reconcile takes away and brings, where it sees these stores and no others.
  func changes(at now: Date, seeing stores: Set<String>) -> (
    removed: [Backup: Set<String>], added: [Backup: Set<String>]
  ) {
    let seen = copies.mapValues { $0.intersection(stores) }.filter { !$0.value.isEmpty }
    func isAhead(_ backup: Backup) -> Bool { backup.time > now.addingTimeInterval(300) }
    func isExpired(_ backup: Backup, _ store: String) -> Bool { !isAhead(backup) && now >= end(backup, in: store) }
    var held = pinned
    for enough in [1, quorum] {
      let good = seen.filter { $0.value.count >= enough && !isAhead($0.key) }.keys
      for database in Set(good.map(\.database)) {
        held.formUnion(good.filter { $0.database == database }.sorted { $0.time < $1.time }.suffix(1))
      }
    }
    var (removed, added): ([Backup: Set<String>], [Backup: Set<String>]) = ([:], [:])
    for (backup, places) in seen {
      let wanted = isAhead(backup) ? [] : Set(rules[backup.type]?.days.keys.map { $0 } ?? [])
      let lacking = wanted.filter { !isExpired(backup, $0) && !places.contains($0) }
      added[backup] = lacking.intersection(stores)
      let old = places.filter { isExpired(backup, $0) }
      // The last ones stay while others are to be made from them.
      if !held.contains(backup), lacking.isEmpty || old != places { removed[backup] = old }
    }
    return (removed, added)
  }

  mutating func reconcile(at now: Date, seeing stores: Set<String>) {
    let (removed, added) = changes(at: now, seeing: stores)
    for (backup, places) in removed { copies[backup]?.subtract(places) }
    for (backup, places) in added { copies[backup]?.formUnion(places) }
  }

  var policy: RetentionPolicy {
    RetentionPolicy(
      rules: rules.mapValues { rule in
        TypePolicy(
          stores: rule.days.keys.sorted(), keep: .forDuration(.seconds(rule.others * day)),
          keepByStore: rule.days.mapValues { .forDuration(.seconds($0 * day)) })
      }, quorum: quorum)
  }
}

/// Random sequences of backups of two databases and two types, outages, faults in the middle of a reconcile, damages, pins, deletions,
/// clocks that go either way and changes of the configuration, beside a model that knows only sets: whatever happened, once all stores are
/// up again reconcile brings every backup to where it belongs, and nothing else.
@Suite(.waits) struct ConvergenceModelTests {
  @Test(arguments: [1, 2, 3, UInt64.random(in: 4...UInt64.max)]) func randomHistories(_ seed: UInt64) async throws {
    var random = SeededGenerator(seed)
    for round in 0..<7 {
      var history = try History(random: random, what: "seed \(seed), round \(round)")
      try await history.run()
      random = history.random
    }
  }
}

private struct History {
  static let names = ["a", "b", "c"]
  static let faults: [@Sendable (Int) -> FaultyStore.Fault] = FaultSweepTests.faults.map(\.1)

  var random: SeededGenerator
  let what: String
  let bench: Bench
  var model = Reference()
  var now = start
  var down: Set<String> = []
  /// The stores of the configuration.
  var configured = Set(names)
  var step = 0

  init(random: SeededGenerator, what: String) throws {
    (self.random, self.what) = (random, what)
    bench = try Bench(Self.names)
    model.rules = [
      "daily": .init(days: ["a": 3, "b": 9], others: 7), "weekly": .init(days: ["b": 12, "c": 20], others: 7),
    ]
  }

  private var seen: Set<String> { configured.subtracting(down) }
  private var here: String { "\(what), step \(step)" }

  mutating func run() async throws {
    for number in 0..<60 {
      step = number
      try await change()
      try await bench.requireHonesty(here)
      try await compare()
    }
    // Everything is up again. More than once: what was a source may go when the copy is there, and what was the newest that is in enough
    // stores when another one is.
    (down, configured) = ([], Set(Self.names))
    for _ in 0..<3 {
      await bench.reconcile(model.policy, at: now)
      model.reconcile(at: now, seeing: Set(Self.names))
      try await compare()
    }
    #expect(await bench.reconcile(model.policy, at: now).isEmpty, "\(what): a fourth one has nothing to do")
    for (backup, stores) in model.copies where !stores.isEmpty && backup.time <= now {
      for store in Self.names where now < model.end(backup, in: store) && model.rules[backup.type]?.days[store] != nil {
        #expect(stores.contains(store), "\(what): \(backup) belongs in \(store)")
      }
    }
  }

  private mutating func change() async throws {
    switch Int.random(in: 0..<16, using: &random) {
    case 0...2: try await makeBackup()
    case 3...4: move(by: .random(in: 0...3, using: &random))
    case 5: move(by: .random(in: -4...0, using: &random))
    case 6:
      let name = Self.names.randomElement(using: &random) ?? "a"
      if down.remove(name) == nil { down.insert(name) }
    case 7: configure()
    case 8: try damage()
    case 9: try await deleteOrPin()
    case 10...12: await reconcileUnderAFault()
    default:
      await reconcile(through: bench.stores.map { FaultyStore($0, down.contains($0.name) ? .diesAt(call: 0) : .none) })
      model.reconcile(at: now, seeing: seen)
    }
  }

  private mutating func move(by days: Double) {
    now = Date(timeIntervalSince1970: (now.timeIntervalSince1970 + days * day).rounded(.down))
  }

  private mutating func makeBackup() async throws {
    move(by: .random(in: 0...1, using: &random))
    let type = ["daily", "weekly"].randomElement(using: &random) ?? "daily"
    let database = ["shop", "blog"].randomElement(using: &random) ?? "shop"
    let places = Set(model.rules[type]?.days.keys.map { $0 } ?? []).intersection(seen)
    guard !places.isEmpty else { return }
    while model.copies.keys.contains(where: { $0.time == now }) { now += 1 }
    let own = Int.random(in: 0..<4, using: &random) == 0 ? Double(Int.random(in: 1...9, using: &random)) : nil
    let backup = Reference.Backup(database: database, type: type, time: now)
    try await bench.makeBackup(
      of: database, at: now, type: type, keepSeconds: own.map { Int64($0 * day) }, in: places.sorted(), seed: step)
    model.copies[backup] = places
    model.own[backup] = own
  }

  private mutating func configure() {
    let count = Int.random(in: 1...3, using: &random)
    configured = Set(Self.names.shuffled(using: &random).prefix(max(2, count)))
    model.quorum = .random(in: 1...3, using: &random)
    model.rules = [:]
    for type in ["daily", "weekly"] where Int.random(in: 0..<8, using: &random) > 0 {
      let stores = configured.sorted().shuffled(using: &random).prefix(count)
      model.rules[type] = .init(
        days: Dictionary(
          uniqueKeysWithValues: stores.map { ($0, Double(Int.random(in: 1...12, using: &random))) }),
        others: Double(Int.random(in: 1...9, using: &random)))
    }
  }

  private var everything: [Reference.Backup] {
    model.copies.filter { !$0.value.isEmpty }.keys.sorted { $0.time < $1.time }
  }

  private func layout(_ backup: Reference.Backup) -> BackupLayout {
    BackupLayout(id: BackupID(database: backup.database, time: backup.time), type: backup.type)
  }

  /// An object is lost, or cut short.
  private mutating func damage() throws {
    guard let backup = everything.randomElement(using: &random),
      let store = model.copies[backup]?.sorted().randomElement(using: &random)
    else { return }
    let layout = layout(backup)
    let path = bench.folder.file("\(store)/\(layout.path(layout.artifactName(suffix: ".zst")))")
    if Bool.random(using: &random) { unlink(path) } else { truncate(path, 77) }
    model.copies[backup]?.remove(store)
  }

  /// By hand, where every store can be asked.
  private mutating func deleteOrPin() async throws {
    guard let backup = everything.randomElement(using: &random), down.isEmpty, configured.count == Self.names.count
    else { return }
    let known = await bench.catalog().backups.first { $0.id == layout(backup).id }
    let entry = try #require(known)
    if model.pinned.contains(backup) {
      try await Pinning(stores: bench.stores).unpin(entry)
      model.pinned.remove(backup)
    } else if Bool.random(using: &random) {
      try await Pinning(stores: bench.stores).pin(entry, Pin(since: now, by: "uid 0", note: nil))
      model.pinned.insert(backup)
    } else {
      for store in bench.stores { try await BackupRemoval.remove(folder: layout(backup).folder, from: store) }
      model.copies[backup] = nil
    }
  }

  private func reconcile(through stores: [any ObjectStore]) async {
    await bench.reconcile(model.policy, at: now, through: stores.filter { configured.contains($0.name) })
  }

  /// What comes of it can't be told beforehand, only its bounds: nothing goes that may not, and nothing comes that should not. The model
  /// goes on with what is there.
  private mutating func reconcileUnderAFault() async {
    let faulty = configured.sorted().randomElement(using: &random) ?? "a"
    let fault = (Self.faults.randomElement(using: &random) ?? { .failsAt(call: $0) })(
      .random(in: 0..<40, using: &random))
    await reconcile(
      through: bench.stores.map { store in
        FaultyStore(
          store, down.contains(store.name) ? .diesAt(call: 0) : store.name == faulty ? fault : .none)
      })
    let views = [seen, seen.subtracting([faulty])].map { model.changes(at: now, seeing: $0) }
    let found = await placements()
    for (backup, before) in model.copies {
      let after = found[backup] ?? []
      let mayGo = views.reduce(into: Set<String>()) { $0.formUnion($1.removed[backup] ?? []) }
      let mayCome = views.reduce(into: Set<String>()) { $0.formUnion($1.added[backup] ?? []) }
      // A copy that could not be read is made anew from another one, and may be half-made now.
      let mayBeHalf: Set<String> = before.subtracting(mayGo).count > 1 ? [faulty] : []
      let lost = before.subtracting(after).subtracting(mayGo).subtracting(mayBeHalf)
      #expect(lost.isEmpty, "\(here): \(backup) is lost from \(lost) by \(fault) in \(faulty); \(before) \(after)")
      let strange = after.subtracting(before).subtracting(mayCome)
      #expect(strange.isEmpty, "\(here): \(backup) has come to \(strange)")
      model.copies[backup] = after
    }
  }

  private func placements() async -> [Reference.Backup: Set<String>] {
    var found: [Reference.Backup: Set<String>] = [:]
    for backup in await bench.catalog().backups {
      let name = Reference.Backup(database: backup.id.database, type: backup.manifest.type, time: backup.id.time)
      found[name] = Set(backup.placements.filter(\.isWhole).map(\.store))
    }
    return found.filter { !$0.value.isEmpty }
  }

  private func compare() async throws {
    let found = await placements()
    let expected = model.copies.filter { !$0.value.isEmpty }
    for backup in Set(found.keys).union(expected.keys) {
      #expect(
        found[backup] == expected[backup], "\(here): \(backup) at \(now), by \(model.rules), quorum \(model.quorum)")
    }
  }
}
