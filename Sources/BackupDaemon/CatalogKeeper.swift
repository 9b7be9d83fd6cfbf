import ArtifactFormat
import BackupCatalog
import BackupOperations
import Dispatch
import Faults
import Foundation
import Storage
import Units

/// Holds the catalog between readings of the stores. Questions are answered one after the other, each by a reading that
/// began after the question, so an answer is never older than its question.
///
/// No question waits for a slow store longer than `patience`. The answer then has what was known of that store, with a
/// problem that says whether it is silent or how far its reading is. The reading goes on in the background. Its results
/// are kept and shown as they come. A store that has not been read to its end after `longest` counts as silent, and so
/// does its next reading: whoever can write there could invent a million folders, and other stores have what they have.
actor CatalogKeeper {
  /// A reading of one store.
  private struct Going {
    let number: Int
    let task: Task<Void, Never>
    let start: Start
    /// Nil until its listing has come.
    var reading: StoreReading?
    /// When something came last, in running time.
    var moved = DispatchTime.now()
  }

  /// When a reading began.
  private struct Start {
    let time = DispatchTime.now()
    /// Of this daemon in the stores, until then.
    let changes: Int
  }

  private struct Holding {
    var reader: CatalogReader
    /// Of the last reading that has ended.
    var start: Start?
    /// As the last whole reading has found it; before the first has ended, what has come of that.
    var catalog = Catalog()
    var isWhole = false
    /// Whether its last reading took longer than any question waits.
    var isSlow = false
    var going: Going?
  }

  private var holdings: [String: Holding] = [:]
  private var stores: [any ObjectStore]
  private var trusted: TrustedKeys
  private(set) var catalog = Catalog()
  private let cache: RecordCache?
  private let questions = TaskChain()
  private var readings = 0
  /// Running time, which no step of the clock moves.
  private var readAt: DispatchTime?
  /// Counts what this daemon has changed in the stores.
  private var changes = 0
  /// The first of the questions for the whole that were told to ask again, and when the last of them was.
  private var unanswered: (since: DispatchTime, last: DispatchTime)?
  private let patience: Duration
  /// How long a question is remembered that was told to ask again: a client does that at once.
  private let recall: Duration
  /// How long a reading may take until nobody waits for it any more.
  private let longest: Duration
  /// Folders of backups that turned out damaged when they were read, by their stores: sizes alone don't show it.
  private var damaged: [String: Set<String>] = [:]
  /// Backups whose flags somebody has explained.
  private var accepted: Set<BackupID> = []

  init(
    stores: [any ObjectStore], trusted: TrustedKeys, cache: RecordCache? = nil, patience: Duration = .seconds(30),
    longest: Duration = .seconds(180), recall: Duration = .seconds(5)
  ) {
    (self.longest, self.recall) = (longest, recall)
    self.stores = stores
    self.trusted = trusted
    self.cache = cache
    self.patience = patience
  }

  func use(_ stores: [any ObjectStore], trusted: TrustedKeys) {
    // What was checked before was checked with other keys; and a store of the same name may be another one.
    let places = Dictionary(uniqueKeysWithValues: self.stores.map { ($0.name, $0.location) })
    for (name, holding) in holdings
    where trusted != self.trusted || !stores.contains(where: { $0.name == name && $0.location == places[name] }) {
      holding.going?.task.cancel()
      holdings[name] = nil
    }
    (self.stores, self.trusted) = (stores, trusted)
  }

  // MARK: - Questions

  func refresh() async -> Catalog {
    await ask(.init(patience: patience, portion: patience))
    return catalog
  }

  /// The catalog of all stores, each read to its end. Throws `.storeReading`, with the progress, if a store is still
  /// being read after a second: the caller asks again. A store that is silent or fails is a problem in the catalog.
  ///
  /// - Parameter choice: when the backup was made that the caller looks for, if the catalog has it. Then that is enough
  ///   of a store which is read for the first time in which all of that time and later has been read. The distant future
  ///   says that no other store is needed.
  func whole(orSince choice: (@Sendable (Catalog) -> Date?)? = nil) async throws(Fault) -> Catalog {
    // Who was told to ask again has asked before: what has been read since then answers it.
    let remembered = unanswered.flatMap { Self.age(of: $0.last) < recall ? $0.since : nil }
    let asked = remembered ?? .now()
    if remembered == nil || !isAnswered(since: asked) { await askBriefly() }
    merge(answering: asked)
    if let choice = choice?(catalog), stores.allSatisfy({ isAnswered(by: $0.name, since: asked, choice) }) {
      return catalog
    }
    // The one that is named, and signed, in a store: no other store can show a better one.
    if choice?(catalog) == .distantFuture { return catalog }
    if !isAnswered(since: asked), let fault = catalog.problems.first(where: { $0.fault.code == .storeReading })?.fault {
      unanswered = (asked, .now())
      throw fault
    }
    unanswered = nil
    return catalog
  }

  private func isAnswered(since asked: DispatchTime) -> Bool {
    stores.allSatisfy { isAnswered(by: $0.name, since: asked, nil) }
  }

  /// Whether a reading that began no earlier has shown all of a store, or all of it since `choice`.
  private func isAnswered(by store: String, since asked: DispatchTime, _ choice: Date?) -> Bool {
    guard let holding = holdings[store] else { return false }
    if let start = holding.start, start.time >= asked, start.changes == changes { return true }
    guard !holding.isWhole, let choice, let going = holding.going, let reading = going.reading else { return false }
    // It may have begun before the question. Nobody knows this store better yet.
    return going.start.changes == changes && reading.covers(choice)
  }

  /// What was read within the last half minute, or a new reading: whoever asks often for nobody's sake must not keep the stores busy.
  func recent() async -> Catalog { await catalog(within: .seconds(30)) }

  /// What was read no longer ago, or a new reading.
  func catalog(within limit: Duration) async -> Catalog {
    if let readAt, Self.age(of: readAt) < limit { return catalog }
    return await refresh()
  }

  /// For display only, never for decisions: what was read within `limit`, or a new reading. Of a store that takes
  /// longer than a second it has the backups read so far.
  func shown(within limit: Duration) async -> Catalog {
    if let readAt, Self.age(of: readAt) < limit { return catalog }
    await askBriefly()
    return catalog
  }

  private func askBriefly() async {
    let brief = Duration.seconds(1)
    // Others may wait for the same store for long; who asks here shows how far it is.
    if !inMotion.isEmpty { await wait(for: inMotion, .init(patience: brief, portion: brief)) }
    if inMotion.isEmpty { await ask(.init(patience: patience, portion: brief)) } else { merge() }
  }

  /// This daemon has changed what a store holds: what was read before is old, however new it is.
  func outdate() {
    changes += 1
    readAt = nil
  }

  /// How long a question waits.
  private struct Wait {
    /// For all.
    let patience: Duration
    /// For one of which something comes.
    let portion: Duration
  }

  private func ask(_ wait: Wait) async {
    await questions.run { await self.read(wait) }
  }

  private func read(_ wait: Wait) async {
    let begun = changes
    // A reading that began before the question may have missed later changes: wait for it, then begin another.
    await self.wait(for: inMotion, wait)
    let ready = stores.filter { holdings[$0.name]?.going == nil }
    for store in ready { begin(store) }
    await self.wait(for: inMotion.intersection(ready.map(\.name)), wait)
    merge()
    readAt = changes == begun && inMotion.isEmpty ? .now() : nil
  }

  /// The stores of whose readings something has come lately, or could.
  private var inMotion: Set<String> { Set(holdings.filter { isMoving($0.value) }.keys) }

  private func isMoving(_ holding: Holding) -> Bool {
    guard let going = holding.going, !isLong(holding, going) else { return false }
    return Self.age(of: going.moved) < patience
  }

  private func isLong(_ holding: Holding, _ going: Going) -> Bool {
    holding.isSlow || Self.age(of: going.start.time) >= longest
  }

  /// Waits until these stores have been read, or for as long as `wait` says.
  private func wait(for names: Set<String>, _ wait: Wait) async {
    await withTaskGroup(of: Void.self) { group in
      for name in names {
        guard let going = holdings[name]?.going else { continue }
        group.addTask { await self.wait(for: going, of: name, wait) }
      }
    }
  }

  private func wait(for going: Going, of name: String, _ wait: Wait) async {
    let began = DispatchTime.now()
    while Self.age(of: began) < wait.patience {
      let left = wait.patience - Self.age(of: began)
      let hasEnded: Void? = await withDeadline(min(left, wait.portion)) { await going.task.value }
      if hasEnded != nil { return }
      if let now = holdings[name]?.going, now.number == going.number, now.reading != nil, wait.portion < wait.patience {
        return
      }
    }
  }

  // MARK: - Readings

  private func begin(_ store: any ObjectStore) {
    readings += 1
    let number = readings
    var holding = holdings[store.name] ?? Holding(reader: CatalogReader(trusted: trusted, cache: cache))
    if !holding.isWhole { holding.catalog = Catalog() }
    holdings[store.name] = holding
    let task = Task { @concurrent [reader = holding.reader] in
      var reader = reader
      let catalog = await reader.read([store]) { [weak self] part, reading, store in
        await self?.came(part, reading, of: store.name, number)
      }
      await self.ended(reader, catalog, of: store.name, number)
    }
    holdings[store.name]?.going = Going(number: number, task: task, start: Start(changes: changes))
  }

  private func came(_ part: Catalog, _ reading: StoreReading, of name: String, _ number: Int) {
    // Other keys or stores meanwhile: this is the answer to an old question.
    guard var holding = holdings[name], holding.going?.number == number else { return }
    holding.going?.reading = reading
    holding.going?.moved = .now()
    if !holding.isWhole { holding.catalog.add(part) }
    holdings[name] = holding
  }

  private func ended(_ reader: CatalogReader, _ catalog: Catalog, of name: String, _ number: Int) {
    guard var holding = holdings[name], let going = holding.going, going.number == number else { return }
    let isUnread = catalog.unread.contains(name)
    (holding.reader, holding.catalog, holding.start, holding.going) = (reader, catalog, going.start, nil)
    holding.isSlow = Self.age(of: going.start.time) >= longest
    holding.isWhole = !isUnread
    holdings[name] = holding
    merge()
  }

  /// - Parameter question: stores that were read since then are not told as being read, though it happens again.
  private func merge(answering question: DispatchTime? = nil) {
    var merged = Catalog()
    for store in stores {
      guard let holding = holdings[store.name] else { continue }
      merged.add(holding.catalog.marking(damaged[store.name] ?? [], in: store.name))
      guard let going = holding.going else { continue }
      if let question, isAnswered(by: store.name, since: question, nil) { continue }
      let fault =
        isMoving(holding)
        ? Self.unfinished(going.reading, of: store)
        : isLong(holding, going) && Self.age(of: going.moved) < patience
          ? Self.slowness(going.reading, of: store, Self.age(of: going.start.time)) : Self.silence(of: store)
      merged.add(Catalog.Problem(store: store.name, folder: nil, fault: fault))
    }
    catalog = merged.accepting(accepted)
  }

  private static func age(of time: DispatchTime) -> Duration {
    .nanoseconds(Int64(DispatchTime.now().uptimeNanoseconds - time.uptimeNanoseconds))
  }

  // MARK: - What is known besides

  func accept(_ backups: Set<BackupID>) {
    accepted.formUnion(backups)
    catalog = catalog.accepting(accepted)
  }

  /// A backup that is not what its manifest says counts for nothing in that store, until it is mended there.
  func markDamaged(_ folder: String, in store: String) { damaged[store, default: []].insert(folder) }
  func mend(_ folder: String, in store: String) { damaged[store]?.remove(folder) }

  static func silence(of store: any ObjectStore) -> Fault {
    Fault(
      .storeSilent, "Store '\(store.name)' does not answer; what is shown of it may be old.",
      hint: "look at the disk or server behind \(store.location)")
  }

  private static func slowness(_ reading: StoreReading?, of store: any ObjectStore, _ time: Duration) -> Fault {
    let far = reading.map { "\($0.read) of \($0.total) folders" } ?? "its objects are being listed"
    return Fault(
      .storeSilent,
      "Store '\(store.name)' has been read for \(time.spoken), and is not at its end (\(far)); nobody waits for it any more.",
      hint: "look at what lies in \(store.location): far more folders than backups, or a server that answers late")
  }

  private static func unfinished(_ reading: StoreReading?, of store: any ObjectStore) -> Fault {
    let far = reading.map { ": \($0.read) of \($0.total) backups so far" } ?? ": its objects are being listed"
    return Fault(
      .storeReading, "Store '\(store.name)' is being read\(far).",
      hint: "pgbackupctl list waits for it")
  }
}
