import BackupCatalog
import BackupOperations
import Storage

/// Holds the catalog between readings of the stores. One reading at a time; who comes meanwhile waits for the next one, so
/// that what is returned is never older than the question.
actor CatalogKeeper {
  private var reader = CatalogReader()
  private var stores: [any ObjectStore]
  private(set) var catalog = Catalog()
  private var reading: Task<Void, Never>?

  init(stores: [any ObjectStore]) { self.stores = stores }

  func use(_ stores: [any ObjectStore]) { self.stores = stores }

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
    var reader = reader
    let catalog = await reader.read(stores)
    self.reader = reader
    self.catalog = catalog
  }
}
