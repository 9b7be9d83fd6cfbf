import BackupCatalog
import Foundation
import Storage
import Units

extension BackupLayout {
  /// The second that names a backup: `started`, or the next one that is free, where the clock was set back or a backup of the
  /// same second exists. The stores are asked too: the catalog knows nothing of a damaged backup or of another daemon.
  static func free(
    _ database: String, _ type: String, from started: Date, taken: Set<Date>, in stores: [any ObjectStore]
  ) async throws(StorageError) -> BackupLayout {
    var time = started.wholeSecond
    while true {
      let layout = BackupLayout(id: BackupID(database: database, time: time), type: type)
      var isFree = !taken.contains(time)
      for store in stores where isFree { isFree = try await store.list(prefix: layout.folder + "/").isEmpty }
      if isFree { return layout }
      time = time.addingTimeInterval(1)
    }
  }
}
