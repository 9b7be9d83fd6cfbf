import ArtifactFormat
package import BackupCatalog
package import Faults
package import Storage

/// Reads a backup's contents from a store: digest checked, decompressed, decoded.
package struct ContentsReader: Sendable {
  private let store: any ObjectStore

  package init(store: any ObjectStore) { self.store = store }

  package func read(_ manifest: Manifest) async throws(Fault) -> Contents {
    let file = manifest.contents
    let key = try Backup.key(manifest.layout, file.name)
    let place = "'\(key)' in store '\(store.name)'"
    let stored: [UInt8]
    do throws(StorageError) {
      stored = try await store.read(key, range: 0..<UInt64(max(0, file.size)))
    } catch {
      throw error.fault
    }
    guard Digest.hexadecimal(of: stored) == file.sha256 else {
      throw Fault(
        .artifactDamaged, "\(place) is not what was written: its SHA-256 differs from the manifest's.",
        hint: "pgbackupctl show \(manifest.id)")
    }
    guard let algorithm = Compression.Algorithm(rawValue: manifest.artifact.compression) else {
      throw Fault(
        .formatTooNew, "\(place) is compressed with '\(manifest.artifact.compression)', which is not known here.")
    }
    let plain: [UInt8]
    do throws(FrameError) {
      plain = try Compression(algorithm: algorithm).decompress(stored)
    } catch {
      throw Fault(.artifactDamaged, "\(place) can't be decompressed.", cause: error.description)
    }
    return try Contents(decoding: plain, from: place)
  }
}
