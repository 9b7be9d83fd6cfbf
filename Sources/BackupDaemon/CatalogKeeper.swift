import ArtifactFormat
import BackupCatalog
import BackupOperations
import Storage

/// Holds the catalog between readings of the stores. One reading at a time; who comes meanwhile waits for the next one, so
/// that what is returned is never older than the question.
actor CatalogKeeper {
  private var reader: CatalogReader
  private var trusted: [VerifyingKey]
  private var stores: [any ObjectStore]
  private(set) var catalog = Catalog()
  private var reading: Task<Void, Never>?

  init(stores: [any ObjectStore], trusted: [VerifyingKey]) {
    self.stores = stores
    self.trusted = trusted
    reader = CatalogReader(trusted: trusted)
  }

  func use(_ stores: [any ObjectStore], trusted: [VerifyingKey]) {
    self.stores = stores
    guard trusted != self.trusted else { return }
    // What was checked before was checked with other keys.
    self.trusted = trusted
    reader = CatalogReader(trusted: trusted)
  }

  func refresh() async -> Catalog {
    let earlier = reading
    let task = Task {
      await earlier?.value
      await read()
    }
    reading = task
    await task.value
    return catalog
  }

  private func read() async {
    let keys = trusted
    var reader = reader
    let catalog = await reader.read(stores)
    // Other keys meanwhile: what this reading remembers was checked with the old ones.
    if keys == trusted { self.reader = reader }
    self.catalog = catalog
  }
}
