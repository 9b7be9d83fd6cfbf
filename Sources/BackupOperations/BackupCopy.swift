import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Storage
import Units

/// A backup's way from a store that has it whole into one that lacks it, or has only a part: every file is checked against the manifest
/// on the way, and the manifest comes last. An abort at any line leaves what is no backup yet, or not whole: the next reconcile goes on.
struct BackupCopy {
  private let manifest: Manifest
  private let source: any ObjectStore
  private let target: any ObjectStore
  private let term: RetentionTerm
  private let progress: @Sendable (Int64) -> Void

  private static let recordLimit = ByteCount.mebibytes(16)

  /// - Parameter progress: told of the bytes that are there, of all the backup's.
  init(
    _ manifest: Manifest, from source: any ObjectStore, to target: any ObjectStore, policy: RetentionPolicy,
    progress: @escaping @Sendable (Int64) -> Void
  ) {
    self.manifest = manifest
    self.source = source
    self.target = target
    self.progress = progress
    term = RetentionTerm(policy, manifest.layout, keepSeconds: manifest.keepSeconds)
  }

  func run() async throws {
    let records = try await sourceRecords()
    let present = Dictionary(
      uniqueKeysWithValues: try await target.list(prefix: manifest.layout.folder + "/").map {
        (String($0.key.name), $0)
      })
    // What commits the backup must not stand while its files come: it may be forged, or of another backup.
    for name in [BackupLayout.manifestName, BackupLayout.signatureName] where present[name] != nil {
      try await target.delete(key(name))
    }
    let end = term.end(in: target.name)
    var done: Int64 = 0
    for file in manifest.files {
      let base = done
      if let old = present[file.name] {
        // Of the right size it may still be another's, or damaged.
        if try await isWhole(file, old) {
          done += file.size
          progress(done)
          continue
        }
        try await target.delete(key(file.name))
      }
      try await ObjectCopy(key(file.name), file, from: source).run(
        to: key(file.name), in: target, retainUntil: end
      ) { progress(base + Int64($0)) }
      done += file.size
    }
    // Deleted meanwhile: then it must not come to life again here.
    guard try await source.stat(key(BackupLayout.manifestName)) != nil else {
      for file in manifest.files { try await target.delete(key(file.name)) }
      throw Fault(
        .backupMissing, "\(manifest.id) was deleted from store '\(source.name)' while it was copied.",
        hint: "pgbackupctl list")
    }
    for (name, bytes) in records {
      if present[name] != nil, name != BackupLayout.manifestName, name != BackupLayout.signatureName {
        try await target.delete(key(name))
      }
      try await target.put(key(name), bytes, retainUntil: name == BackupLayout.pinName ? nil : end)
    }
    try await Presence(manifest).check(in: target)
  }

  /// RECOVER.txt, the pin where there is one, the signature and the manifest, as the source has them.
  private func sourceRecords() async throws -> [(String, [UInt8])] {
    var records: [(String, [UInt8])] = []
    for name in [
      BackupLayout.recoverName, BackupLayout.pinName, BackupLayout.signatureName, BackupLayout.manifestName,
    ] {
      guard let bytes = try await source.get(key(name), limit: Self.recordLimit) else { continue }
      records.append((name, bytes))
    }
    guard let bytes = records.last, bytes.0 == BackupLayout.manifestName,
      try Manifest(decoding: bytes.1, from: "'\(key(BackupLayout.manifestName))' in store '\(source.name)'") == manifest
    else {
      throw Fault(
        .manifestInvalid, "The manifest of \(manifest.id) in store '\(source.name)' has changed since it was read.",
        hint: "pgbackupctl show \(manifest.id)")
    }
    return records
  }

  /// Whether the target's file is what the manifest says, byte by byte.
  private func isWhole(_ file: Manifest.StoredFile, _ object: StoredObject) async throws -> Bool {
    guard Int64(object.size) == file.size else { return false }
    var reader = CheckedReader(try key(file.name), file, target)
    do {
      while try await reader.next() != nil {}
      return true
    } catch let fault as Fault where fault.code == .artifactDamaged {
      return false
    }
  }

  private func key(_ name: String) throws(Fault) -> ObjectKey { try Backup.key(manifest.layout, name) }
}
