import ArtifactFormat
import BackupCatalog
import Foundation
import Glibc
import Storage

/// Manifests and proofs of stores with their signatures, as this machine has read them, so that a restart doesn't fetch
/// thousands of them again. Who reads one checks its signature as if it came from the store: a cache that lies, or is
/// lost, costs requests and nothing else. So no failure of it is told.
///
/// A JSON file for each backup and store: `<folder>/<SHA-256 of the store's location>/<SHA-256 of the backup's
/// folder>.json`.
package struct RecordCache: Sendable {
  /// A record and its signature, with what a listing has said of both when they were read.
  struct Copy: Codable, Sendable, Equatable {
    struct Part: Codable, Sendable, Equatable {
      let name: String
      let size: UInt64
      let modified: Double
      let bytes: Data

      init(_ object: StoredObject, _ bytes: [UInt8]) {
        (name, size, modified) = (String(object.key.name), object.size, object.modified)
        self.bytes = Data(bytes)
      }

      func isOf(_ object: StoredObject) -> Bool {
        object.key.name == name && object.size == size && object.modified == modified
      }
    }

    let record: Part
    let signature: Part
  }

  private let folder: String

  /// Larger ones are read anew each time: no manifest of ours comes near.
  private static let limit = 1 << 20

  package init(folder: String) { self.folder = folder }

  func copies(of layout: BackupLayout, in store: any ObjectStore) -> [Copy] {
    guard let data = try? Data(contentsOf: file(of: layout, in: store)) else { return [] }
    return (try? JSONDecoder().decode([Copy].self, from: data)) ?? []
  }

  func keep(_ copies: [Copy], of layout: BackupLayout, in store: any ObjectStore) {
    let small = copies.filter { $0.record.bytes.count + $0.signature.bytes.count <= Self.limit }
    guard let data = try? JSONEncoder().encode(small) else { return }
    for path in [folder, place(of: store).path] { mkdir(path, 0o700) }
    try? data.write(to: file(of: layout, in: store), options: .atomic)
  }

  /// Forgets all backups of a store but these.
  func keep(only layouts: [BackupLayout], in store: any ObjectStore) {
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: place(of: store).path) else { return }
    let wanted = Set(layouts.map(Self.name))
    for name in names where !wanted.contains(name) {
      try? FileManager.default.removeItem(at: place(of: store).appending(path: name))
    }
  }

  private func file(of layout: BackupLayout, in store: any ObjectStore) -> URL {
    place(of: store).appending(path: Self.name(of: layout))
  }

  private func place(of store: any ObjectStore) -> URL {
    URL(filePath: folder).appending(path: Digest.hexadecimal(of: Array(store.location.utf8)))
  }

  private static func name(of layout: BackupLayout) -> String {
    Digest.hexadecimal(of: Array(layout.folder.utf8)) + ".json"
  }
}
