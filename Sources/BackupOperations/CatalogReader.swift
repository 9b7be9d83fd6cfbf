package import BackupCatalog
import Faults
import Foundation
package import Storage
import Units

/// Builds the catalog from the stores. Keep one: it remembers the manifests it has read, which never change.
package struct CatalogReader: Sendable {
  private struct ManifestIdentity: Hashable {
    let store: String
    let object: StoredObject
  }

  private var manifests: [ManifestIdentity: Manifest] = [:]
  private static let recordLimit = ByteCount.mebibytes(16)

  package init() {}

  /// Reads all stores. A store that can't be read becomes a problem in the catalog, never a failure of the others.
  package mutating func read(_ stores: [any ObjectStore]) async -> Catalog {
    var catalog = Catalog()
    var seen: [ManifestIdentity: Manifest] = [:]
    for store in stores {
      do throws(StorageError) {
        let folders = Dictionary(grouping: try await store.list(prefix: "")) { object in
          object.key.path.dropLast(object.key.name.count + 1)
        }
        for (folder, objects) in folders {
          guard let layout = BackupLayout(folder: String(folder)) else { continue }
          await add(layout, objects, in: store, to: &catalog, &seen)
        }
      } catch {
        catalog.add(Catalog.Problem(store: store.name, folder: nil, fault: error.fault))
      }
    }
    manifests = seen
    return catalog
  }

  private func add(
    _ layout: BackupLayout, _ objects: [StoredObject], in store: any ObjectStore, to catalog: inout Catalog,
    _ seen: inout [ManifestIdentity: Manifest]
  ) async {
    guard let object = objects.first(where: { $0.key.name == BackupLayout.manifestName }) else {
      let changed = objects.map(\.modified).max() ?? 0
      catalog.add(
        Catalog.Leftover(
          store: store.name, folder: layout.folder, files: objects.map { String($0.key.name) }.sorted(),
          lastChanged: Date(timeIntervalSince1970: changed)))
      return
    }
    do throws(Fault) {
      let identity = ManifestIdentity(store: store.name, object: object)
      let manifest: Manifest
      if let known = manifests[identity] { manifest = known } else { manifest = try await read(object.key, in: store) }
      guard manifest.layout == layout else {
        throw Fault(
          .manifestInvalid, "The manifest in \(layout.folder) is that of \(manifest.id), type \(manifest.type).",
          hint: "move it back to where it belongs")
      }
      seen[identity] = manifest
      let sizes = Dictionary(uniqueKeysWithValues: objects.map { (String($0.key.name), Int64($0.size)) })
      let missing = manifest.files.filter { sizes[$0.name] != $0.size }.map(\.name)
      var pin: Pin?
      if let pinned = objects.first(where: { $0.key.name == BackupLayout.pinName }) {
        pin = try await read(pinned.key, in: store)
      }
      catalog.add(
        Catalog.Backup(
          manifest: manifest, placements: [Catalog.Placement(store: store.name, missing: missing)], pin: pin))
    } catch {
      catalog.add(Catalog.Problem(store: store.name, folder: layout.folder, fault: error))
    }
  }

  private func read<Record: VersionedRecord>(_ key: ObjectKey, in store: any ObjectStore) async throws(Fault) -> Record
  {
    let bytes: [UInt8]?
    do throws(StorageError) {
      bytes = try await store.get(key, limit: Self.recordLimit)
    } catch {
      throw error.fault
    }
    guard let bytes else {
      throw Fault(.objectMissing, "'\(key)' vanished while store '\(store.name)' was read.", hint: "pgbackupctl list")
    }
    return try Record(decoding: bytes, from: "'\(key)' in store '\(store.name)'")
  }
}
