package import ArtifactFormat
package import BackupCatalog
import Faults
import Foundation
import Quoting
package import Storage
import Units

/// Builds the catalog from the stores. Keep one: it remembers the manifests it has read, which never change.
package struct CatalogReader: Sendable {
  private struct ManifestIdentity: Hashable {
    let store: String
    let object: StoredObject
    let signature: StoredObject?
  }

  private struct Known {
    let manifest: Manifest
    let signature: Catalog.Signature
    var signer: String?
    var outsider: String?
  }

  private struct ProofIdentity: Hashable {
    let store: String
    let objects: Set<StoredObject>
  }

  private var manifests: [ManifestIdentity: Known] = [:]
  private var proofs: [ProofIdentity: Proof] = [:]
  private let trusted: TrustedKeys
  private static let recordLimit = ByteCount.mebibytes(16)

  /// - Parameter trusted: whose signatures count; without any, none is checked.
  package init(trusted: TrustedKeys = []) { self.trusted = trusted }

  /// Reads all stores. A store that can't be read becomes a problem in the catalog, never a failure of the others.
  package mutating func read(_ stores: [any ObjectStore]) async -> Catalog {
    var catalog = Catalog()
    var seen: [ManifestIdentity: Known] = [:]
    let known = proofs
    proofs = [:]
    for store in stores {
      do throws(StorageError) {
        let folders = Dictionary(grouping: try await store.list(prefix: "")) { object in
          object.key.path.dropLast(object.key.name.count + 1)
        }
        for (folder, objects) in folders {
          guard let layout = BackupLayout(folder: String(folder)) else { continue }
          await add(layout, objects, in: store, to: &catalog, &seen, known)
        }
      } catch {
        catalog.add(Catalog.Problem(store: store.name, folder: nil, fault: error.fault))
      }
    }
    manifests = seen
    return catalog
  }

  private mutating func add(
    _ layout: BackupLayout, _ objects: [StoredObject], in store: any ObjectStore, to catalog: inout Catalog,
    _ seen: inout [ManifestIdentity: Known], _ knownProofs: [ProofIdentity: Proof]
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
      let signature = objects.first { $0.key.name == BackupLayout.signatureName }
      let identity = ManifestIdentity(store: store.name, object: object, signature: signature)
      let known: Known
      if let old = manifests[identity] { known = old } else { known = try await read(object.key, signature, in: store) }
      let manifest = known.manifest
      guard manifest.layout == layout else {
        throw Fault(
          .manifestInvalid, "The manifest in \(layout.folder) is that of \(manifest.id), type \(manifest.type).",
          hint: "move it back to where it belongs")
      }
      seen[identity] = known
      // A store may list a key twice.
      let sizes = Dictionary(
        objects.map { (String($0.key.name), Int64($0.size)) }, uniquingKeysWith: { first, _ in first })
      let missing = manifest.files.filter { sizes[$0.name] != $0.size }.map(\.name)
      var pin: Pin?
      if let pinned = objects.first(where: { $0.key.name == BackupLayout.pinName }) {
        pin = await self.pin(pinned, of: manifest, in: store, to: &catalog)
      }
      var backup = Catalog.Backup(
        manifest: manifest,
        placements: [
          Catalog.Placement(store: store.name, missing: missing, signature: known.signature, signer: known.signer)
        ],
        pin: pin)
      backup.placements[0].outsider = known.outsider
      backup.proof = await proof(objects, of: manifest, in: store, knownProofs)
      // Another version's text can't be written anew, and nobody needs to hear of that each time.
      backup.placements[0].lacksText =
        manifest.recover.map { sizes[$0.name] != $0.size } ?? false && RecoverText.committed(by: manifest) != nil
      backup.placements[0].proof = backup.proof.map { Proof.name(at: $0.finished) }
      catalog.add(backup)
    } catch {
      catalog.add(Catalog.Problem(store: store.name, folder: layout.folder, fault: error))
    }
  }

  /// One that can't be read holds its backup all the same: nobody signs a pin, and what somebody has made of it must take nothing away.
  private func pin(
    _ object: StoredObject, of manifest: Manifest, in store: any ObjectStore, to catalog: inout Catalog
  ) async -> Pin {
    do throws(Fault) {
      return try Pin(decoding: try await bytes(object.key, in: store), from: Self.place(object.key, store))
    } catch {
      catalog.add(
        Catalog.Problem(
          store: store.name, folder: manifest.layout.folder,
          fault: Fault(
            .pinUnreadable,
            "The pin of \(manifest.id) in store '\(store.name)' can't be read; it holds the backup all the same.",
            cause: error.cause ?? error.message,
            hint: "pgbackupctl unpin \(shell: manifest.id) takes it away; then pin it again, where it is meant to stay")
        ))
      return Pin(
        since: Date(timeIntervalSince1970: object.modified).wholeSecond, by: "a pin that can't be read", note: nil)
    }
  }

  private mutating func proof(
    _ objects: [StoredObject], of manifest: Manifest, in store: any ObjectStore,
    _ known: [ProofIdentity: Proof]
  ) async -> Proof? {
    let own = Set(objects.filter { $0.key.name.starts(withBytes: Proof.prefix) })
    guard !own.isEmpty else { return nil }
    let identity = ProofIdentity(store: store.name, objects: own)
    var proof = known[identity]
    if proof == nil { proof = await ProofRecord.read(Array(own), of: manifest, in: store, trusted: trusted) }
    proofs[identity] = proof
    return proof
  }

  private func read(
    _ key: ObjectKey, _ signature: StoredObject?, in store: any ObjectStore
  ) async throws(Fault) -> Known {
    let stored = try await bytes(key, in: store)
    let manifest = try Manifest(decoding: stored, from: Self.place(key, store))
    guard !trusted.isEmpty else { return Known(manifest: manifest, signature: .unchecked) }
    guard let signature else { return Known(manifest: manifest, signature: .missing) }
    let text = String(decoding: try await bytes(signature.key, in: store), as: UTF8.self)
    return switch trusted.check(stored, signature: text, of: manifest.id.database) {
    case .valid(let key): Known(manifest: manifest, signature: .valid, signer: key.description)
    case .outside(let key): Known(manifest: manifest, signature: .invalid, outsider: key.description)
    case .invalid: Known(manifest: manifest, signature: .invalid)
    }
  }

  private func bytes(_ key: ObjectKey, in store: any ObjectStore) async throws(Fault) -> [UInt8] {
    do throws(StorageError) {
      if let bytes = try await store.get(key, limit: Self.recordLimit) { return bytes }
    } catch {
      throw error.fault
    }
    throw Fault(.objectMissing, "'\(key)' vanished while store '\(store.name)' was read.", hint: "pgbackupctl list")
  }

  private static func place(_ key: ObjectKey, _ store: any ObjectStore) -> String {
    "'\(key)' in store '\(store.name)'"
  }
}
