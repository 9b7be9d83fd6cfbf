import AgeEncryption
import ArtifactFormat
package import BackupCatalog
package import Faults
package import Storage

/// Reads a backup's contents from a store: digest checked, decrypted, decompressed, decoded.
package struct ContentsReader: Sendable {
  private let store: any ObjectStore
  private let identities: Keyring

  package init(store: any ObjectStore, identities: Keyring) {
    self.store = store
    self.identities = identities
  }

  package func read(_ manifest: Manifest) async throws(Fault) -> Contents {
    let file = manifest.contents
    let plain = try await plain(file, compression: manifest.artifact.compression, of: manifest)
    return try Contents(decoding: plain, from: "'\(manifest.layout.path(file.name))' in store '\(store.name)'")
  }

  /// The plain bytes of one of a backup's small files: contents or globals.
  func plain(
    _ file: Manifest.StoredFile, compression: String, of manifest: Manifest
  ) async throws(Fault) -> [UInt8] {
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
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
    let packed = try await decrypt(stored, manifest, place)
    guard let algorithm = Compression.Algorithm(rawValue: compression) else {
      throw Fault(.formatTooNew, "\(place) is compressed with '\(compression)', which is not known here.")
    }
    do throws(FrameError) {
      return try Compression(algorithm: algorithm).decompress(packed)
    } catch {
      throw Fault(.artifactDamaged, "\(place) can't be decompressed.", cause: error.description)
    }
  }

  private func decrypt(_ stored: [UInt8], _ manifest: Manifest, _ place: String) async throws(Fault) -> [UInt8] {
    guard let encryption = manifest.encryption else { return stored }
    guard encryption.method == "age" else {
      throw Fault(.formatTooNew, "\(place) is encrypted with '\(encryption.method)', which is not known here.")
    }
    let own = try await identities.identities(opening: manifest, in: store)
    do throws(AgeError) {
      return try AgeDecryptor.decrypt(stored, with: own)
    } catch .noMatchingIdentity {
      throw Fault(
        .keyMissing, "\(place) is encrypted, and no identity here opens it.",
        cause: "its recipients are \(encryption.holders.sorted().joined(separator: ", "))",
        hint: "set 'encryption: identity_file:', or ask on the host that has the identity")
    } catch {
      throw Fault(
        .artifactDamaged, "\(place) can't be decrypted: \(error).", hint: "pgbackupctl show \(shell: manifest.id)")
    }
  }
}
