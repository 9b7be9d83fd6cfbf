import ArtifactFormat
import BackupCatalog
import BackupOperations
import Dispatch
import Faults
import Storage
import Units

/// Holds the catalog between readings of the stores. One reading at a time; who comes meanwhile waits for the next one, so
/// that what is returned is never older than the question.
///
/// A store that does not answer in time keeps nobody waiting: what was known of it is told, and that it is silent. It is asked again
/// once its answer has come.
actor CatalogKeeper {
  private struct Holding {
    var reader: CatalogReader
    var catalog = Catalog()
    /// A reading has begun and not ended. Between readings this is one that nobody waits for any more: the store is silent.
    var isReading = false
  }

  private var holdings: [String: Holding] = [:]
  private var stores: [any ObjectStore]
  private var trusted: TrustedKeys
  private(set) var catalog = Catalog()
  private let readings = TaskChain()
  /// Running time, which no step of the clock moves.
  private var readAt: UInt64?
  /// Counts what this daemon has changed in the stores.
  private var changes = 0
  private let patience: Duration
  /// Folders of backups that turned out damaged when they were read, by their stores: sizes alone don't show it.
  private var damaged: [String: Set<String>] = [:]
  /// Backups whose flags somebody has explained.
  private var accepted: Set<BackupID> = []

  init(stores: [any ObjectStore], trusted: TrustedKeys, patience: Duration = .seconds(30)) {
    self.stores = stores
    self.trusted = trusted
    self.patience = patience
  }

  func use(_ stores: [any ObjectStore], trusted: TrustedKeys) {
    // What was checked before was checked with other keys; and a store of the same name may be another one.
    let places = Dictionary(uniqueKeysWithValues: self.stores.map { ($0.name, $0.location) })
    holdings = holdings.filter { name, _ in
      trusted == self.trusted && stores.contains { $0.name == name && $0.location == places[name] }
    }
    (self.stores, self.trusted) = (stores, trusted)
  }

  func refresh() async -> Catalog {
    await readings.run { await self.read() }
    return catalog
  }

  /// What was read within the last half minute, or a new reading: whoever asks often for nobody's sake must not keep the stores busy.
  func recent() async -> Catalog { await catalog(within: .seconds(30)) }

  /// What was read no longer ago, or a new reading.
  func catalog(within limit: Duration) async -> Catalog {
    if let readAt, Double(DispatchTime.now().uptimeNanoseconds - readAt) < limit.inSeconds * 1e9 { return catalog }
    return await refresh()
  }

  /// This daemon has changed what a store holds: what was read before is old, however new it is.
  func outdate() {
    changes += 1
    readAt = nil
  }

  private func read() async {
    let (stores, keys, begun) = (stores, trusted, changes)
    await withTaskGroup(of: Void.self) { group in
      for store in stores { group.addTask { await self.read(store, keys) } }
    }
    var merged = Catalog()
    for store in stores {
      guard let holding = holdings[store.name] else { continue }
      merged.add(holding.catalog.marking(damaged[store.name] ?? [], in: store.name))
      if holding.isReading {
        merged.add(Catalog.Problem(store: store.name, folder: nil, fault: Self.silence(of: store)))
      }
    }
    catalog = merged.accepting(accepted)
    readAt = changes == begun ? DispatchTime.now().uptimeNanoseconds : nil
  }

  private func read(_ store: any ObjectStore, _ keys: TrustedKeys) async {
    let holding = holdings[store.name] ?? Holding(reader: CatalogReader(trusted: keys))
    guard !holding.isReading else { return }
    holdings[store.name] = holding
    holdings[store.name]?.isReading = true
    let answer = await withDeadline(patience) { [weak self] in
      var reader = holding.reader
      let catalog = await reader.read([store])
      await self?.answered(store.name)
      return (reader, catalog)
    }
    // Other keys or stores meanwhile: this answer is to an old question.
    guard let answer, keys == trusted,
      stores.contains(where: { $0.name == store.name && $0.location == store.location })
    else { return }
    holdings[store.name]?.reader = answer.0
    holdings[store.name]?.catalog = answer.1
  }

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

  private func answered(_ store: String) { holdings[store]?.isReading = false }
}
