package import ArtifactFormat
package import BackupCatalog
import Faults
package import Foundation
import Quoting
package import Storage
import Units

/// How far the reading of one store has come.
package struct StoreReading: Sendable, Equatable {
  package let read: Int
  /// Folders of backups that its listing has shown.
  package let total: Int
  /// When the newest of those was made that are not read yet; nil if none is left.
  package let newestUnread: Date?

  /// Whether all that was made at this time or later has been read.
  package func covers(_ time: Date) -> Bool { newestUnread.map { $0 < time } ?? true }
}

/// Builds the catalog from the stores. Keep one: it remembers the manifests it has read, which never change.
package struct CatalogReader: Sendable {
  /// What has come of a store since the last call.
  package typealias Progress =
    @Sendable (_ part: Catalog, _ reading: StoreReading, _ store: any ObjectStore) async -> Void

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

  private struct Memory {
    var manifests: [ManifestIdentity: Known] = [:]
    /// Untrusted ones that are not shown.
    var strangers: Set<ManifestIdentity> = []
    var proofs: [ProofIdentity: Proof] = [:]
  }

  private struct Folder {
    let layout: BackupLayout
    let objects: [StoredObject]

    func first(_ name: String) -> StoredObject? { objects.first { $0.key.name == name } }
  }

  /// All that one folder has added to a catalog and to the memory.
  private struct Finding {
    var catalog = Catalog()
    var memory = Memory()
    /// What nobody trusted has signed, where that is asked.
    var untrusted: ManifestIdentity?
    /// Fetched now, for the cache.
    var copies: [RecordCache.Copy] = []
  }

  private var memory = Memory()
  private let trusted: TrustedKeys
  private let cache: RecordCache?
  /// Far more than a manifest with hundreds of recipients has.
  private static let recordLimit = ByteCount(512 << 10)
  private static let pinLimit = ByteCount(64 << 10)
  /// So many backups of a store that nobody trusted has signed are shown; of the others only the number. Whoever can
  /// write there could put a million of them, and each would be a database of its own.
  static let mostUntrusted = 100
  /// Folders that are read at once: a store on a network answers each request late, and many at a time.
  private static let width = 16
  /// So many folders are told at once.
  private static let portion = 8

  /// - Parameters:
  ///   - trusted: whose signatures count; without any, none is checked.
  ///   - cache: where this machine keeps what it has read. Signed records only: without trusted keys it is of no use.
  package init(trusted: TrustedKeys = [], cache: RecordCache? = nil) {
    self.trusted = trusted
    self.cache = trusted.isEmpty ? nil : cache
  }

  /// Reads all stores, the newest backups of each first. A store that can't be read becomes a problem in the catalog,
  /// never a failure of the others.
  package mutating func read(_ stores: [any ObjectStore], progress: Progress? = nil) async -> Catalog {
    var catalog = Catalog()
    var memory = Memory()
    for store in stores {
      do throws(StorageError) {
        let folders = Self.folders(try await store.list(prefix: ""))
        await read(folders, of: store, into: &catalog, &memory, progress)
        // Nothing has vanished from most readings, and then nothing is to be forgotten.
        if memory.manifests.keys != self.memory.manifests.keys { cache?.keep(only: folders.map(\.layout), in: store) }
      } catch {
        catalog.add(Catalog.Problem(store: store.name, folder: nil, fault: error.fault))
      }
    }
    self.memory = memory
    return catalog
  }

  private static func folders(_ objects: [StoredObject]) -> [Folder] {
    Dictionary(grouping: objects) { object in object.key.path.dropLast(object.key.name.count + 1) }
      .compactMap { folder, objects in BackupLayout(folder: String(folder)).map { Folder(layout: $0, objects: objects) }
      }
      .sorted { $0.layout.id > $1.layout.id }
  }

  private func read(
    _ folders: [Folder], of store: any ObjectStore, into catalog: inout Catalog, _ memory: inout Memory,
    _ progress: Progress?
  ) async {
    var waiting = folders[...]
    var part = Catalog()
    var (told, done) = (0, 0)
    var untrusted = 0
    var strangers: [String] = []
    var unread: Set<Int> = []
    await progress?(
      part, StoreReading(read: 0, total: folders.count, newestUnread: folders.first?.layout.id.time), store)
    await withTaskGroup(of: (Int, Finding).self) { group in
      func examineNext() {
        guard let position = waiting.indices.first, let folder = waiting.popFirst() else { return }
        unread.insert(position)
        group.addTask { (position, await examine(folder, in: store)) }
      }
      for _ in 0..<Self.width { examineNext() }
      for await (position, finding) in group {
        unread.remove(position)
        examineNext()
        done += 1
        var finding = finding
        if let one = finding.untrusted {
          // Those that were shown before stay shown, and the others hidden.
          let isShown =
            self.memory.manifests[one] != nil
            || !self.memory.strangers.contains(one) && untrusted < Self.mostUntrusted
          untrusted += 1
          if !isShown {
            finding = Finding()
            memory.strangers.insert(one)
            strangers.append(one.object.key.path)
          }
        }
        memory.manifests.merge(finding.memory.manifests) { $1 }
        memory.proofs.merge(finding.memory.proofs) { $1 }
        catalog.add(finding.catalog)
        guard let progress else { continue }
        part.add(finding.catalog)
        if done - told >= Self.portion || done == folders.count {
          let newest = unread.min().map { folders[$0].layout.id.time }
          await progress(part, StoreReading(read: done, total: folders.count, newestUnread: newest), store)
          (part, told) = (Catalog(), done)
        }
      }
    }
    guard let first = strangers.max() else { return }
    catalog.add(
      Catalog.Problem(
        store: store.name, folder: String(first.dropLast(BackupLayout.manifestName.count + 1)),
        fault: Fault(
          .signatureInvalid,
          "Store '\(store.name)' has \(strangers.count) more backups that nobody trusted has signed; they are not shown.",
          cause: "one of them is \(first)", hint: "look at who writes into \(store.location)")))
  }

  private func examine(_ folder: Folder, in store: any ObjectStore) async -> Finding {
    var finding = Finding()
    guard let object = folder.first(BackupLayout.manifestName) else {
      let changed = folder.objects.map(\.modified).max() ?? 0
      finding.catalog.add(
        Catalog.Leftover(
          store: store.name, folder: folder.layout.folder,
          files: folder.objects.map { String($0.key.name) }.sorted(),
          lastChanged: Date(timeIntervalSince1970: changed)))
      return finding
    }
    do throws(Fault) {
      try await examine(folder, object, in: store, &finding)
    } catch {
      finding.catalog.add(Catalog.Problem(store: store.name, folder: folder.layout.folder, fault: error))
    }
    return finding
  }

  private func examine(
    _ folder: Folder, _ object: StoredObject, in store: any ObjectStore, _ finding: inout Finding
  ) async throws(Fault) {
    let (layout, objects) = (folder.layout, folder.objects)
    let identity = ManifestIdentity(
      store: store.name, object: object, signature: folder.first(BackupLayout.signatureName))
    let proofs = ProofIdentity(
      store: store.name, objects: Set(objects.filter { $0.key.name.starts(withBytes: Proof.prefix) }))
    let isKnown = memory.manifests[identity] != nil && (proofs.objects.isEmpty || memory.proofs[proofs] != nil)
    let reader = RecordReader(
      store: store, trusted: trusted, database: layout.id.database,
      copies: isKnown ? [] : cache?.copies(of: layout, in: store) ?? [])
    if memory.strangers.contains(identity) {
      finding.untrusted = identity
      return
    }
    let known: Known
    if let old = memory.manifests[identity] {
      known = old
    } else {
      known = try await read(identity, by: reader, &finding)
    }
    if known.signature != .valid, known.signature != .unchecked { finding.untrusted = identity }
    let manifest = known.manifest
    guard manifest.layout == layout else {
      throw Fault(
        .manifestInvalid, "The manifest in \(layout.folder) is that of \(manifest.id), type \(manifest.type).",
        hint: "move it back to where it belongs")
    }
    finding.memory.manifests[identity] = known
    // A store may list a key twice.
    let sizes = Dictionary(
      objects.map { (String($0.key.name), Int64($0.size)) }, uniquingKeysWith: { first, _ in first })
    let missing = manifest.files.filter { sizes[$0.name] != $0.size }.map(\.name)
    var pin: Pin?
    if let pinned = folder.first(BackupLayout.pinName) {
      pin = await self.pin(pinned, of: manifest, in: store, to: &finding.catalog)
    }
    var backup = Catalog.Backup(
      manifest: manifest,
      placements: [
        Catalog.Placement(store: store.name, missing: missing, signature: known.signature, signer: known.signer)
      ],
      pin: pin)
    backup.placements[0].outsider = known.outsider
    if !proofs.objects.isEmpty { backup.proof = await proof(proofs, of: manifest, by: reader, &finding) }
    // Another version's text can't be written anew, and nobody needs to hear of that each time.
    backup.placements[0].lacksText =
      manifest.recover.map { sizes[$0.name] != $0.size } ?? false && RecoverText.committed(by: manifest) != nil
    backup.placements[0].proof = backup.proof.map { Proof.name(at: $0.finished) }
    finding.catalog.add(backup)
    guard let cache, !finding.copies.isEmpty else { return }
    let names = Set(finding.copies.map(\.record.name))
    let old = reader.copies.filter { copy in
      !names.contains(copy.record.name) && objects.contains { copy.record.isOf($0) }
    }
    cache.keep(old + finding.copies, of: layout, in: store)
  }

  /// One that can't be read holds its backup all the same: nobody signs a pin, and what somebody has made of it must take nothing away.
  private func pin(
    _ object: StoredObject, of manifest: Manifest, in store: any ObjectStore, to catalog: inout Catalog
  ) async -> Pin {
    let unsigned = RecordReader(store: store, trusted: [], database: manifest.id.database, copies: [])
    do throws(Fault) {
      return try Pin(
        decoding: try await unsigned.fetch(object, Self.pinLimit), from: unsigned.place(object))
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

  private func proof(
    _ identity: ProofIdentity, of manifest: Manifest, by reader: RecordReader, _ finding: inout Finding
  ) async -> Proof? {
    if let known = memory.proofs[identity] {
      finding.memory.proofs[identity] = known
      return known
    }
    guard let (proof, record) = await ProofRecord.read(Array(identity.objects), of: manifest, by: reader) else {
      return nil
    }
    finding.memory.proofs[identity] = proof
    if record.isFetched, let copy = record.copy { finding.copies.append(copy) }
    return proof
  }

  private func read(
    _ identity: ManifestIdentity, by reader: RecordReader, _ finding: inout Finding
  ) async throws(Fault) -> Known {
    let record = try await reader.read(identity.object, signature: identity.signature, limit: Self.recordLimit)
    if !reader.isTrusted(record) { finding.untrusted = identity }
    let manifest = try Manifest(decoding: record.bytes, from: reader.place(identity.object))
    guard !trusted.isEmpty else { return Known(manifest: manifest, signature: .unchecked) }
    if record.isFetched, let copy = record.copy { finding.copies.append(copy) }
    return switch record.verdict {
    case nil: Known(manifest: manifest, signature: .missing)
    case .valid(let key): Known(manifest: manifest, signature: .valid, signer: key.description)
    case .outside(let key): Known(manifest: manifest, signature: .invalid, outsider: key.description)
    case .invalid: Known(manifest: manifest, signature: .invalid)
    }
  }
}
