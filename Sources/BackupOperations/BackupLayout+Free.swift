import BackupCatalog
import Foundation
import Storage
import Units

extension BackupLayout {
  /// The second that names a backup: `started`, or the next one that is free, where the clock was set back or a backup of the
  /// same second exists. The stores are asked too: the catalog knows nothing of a damaged backup or of another daemon.
  ///
  /// - Returns: besides, the stores that did not answer: what is to be written does without them. Throws where none did.
  static func free(
    _ database: String, _ type: String, from started: Date, taken: Set<Date>, in stores: [any ObjectStore]
  ) async throws(StorageError) -> (layout: BackupLayout, failed: [String: StorageError]) {
    var time = started.wholeSecond
    var failed: [String: StorageError] = [:]
    while true {
      let layout = BackupLayout(id: BackupID(database: database, time: time), type: type)
      var isFree = !taken.contains(time)
      for store in stores where isFree && failed[store.name] == nil {
        do throws(StorageError) {
          isFree = try await store.list(prefix: layout.folder + "/").isEmpty
        } catch {
          failed[store.name] = error
          if failed.count == stores.count || Task.isCancelled { throw error }
        }
      }
      if isFree { return (layout, failed) }
      time = time.addingTimeInterval(1)
    }
  }
}
