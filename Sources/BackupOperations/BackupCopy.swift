import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Quoting
import Storage
import Units

/// A backup's way from a store that has it whole into one that lacks it, or has only a part: every file is checked against the manifest
/// on the way, and the manifest comes last. An abort at any line leaves what is no backup yet, or not whole: the next reconcile goes on.
///
/// The source may lie. So what lies in the target already and is what the manifest says stays there, whatever the
/// source does: its files, and a manifest that is the same and signed.
struct BackupCopy {
  private let manifest: Manifest
  private let source: any ObjectStore
  private let target: any ObjectStore
  private let trusted: TrustedKeys
  private let term: RetentionTerm
  private let progress: @Sendable (Int64) -> Void

  private static let recordLimit = ByteCount.mebibytes(16)
  private static let pinLimit = ByteCount(64 << 10)

  /// - Parameter progress: told of the bytes that are there, of all the backup's.
  init(
    _ manifest: Manifest, from source: any ObjectStore, to target: any ObjectStore, policy: RetentionPolicy,
    trusted: TrustedKeys, progress: @escaping @Sendable (Int64) -> Void
  ) {
    self.manifest = manifest
    self.source = source
    self.target = target
    self.trusted = trusted
    self.progress = progress
    term = RetentionTerm(policy, manifest.layout, keepSeconds: manifest.keepSeconds)
  }

  func run() async throws {
    let records = try await sourceRecords()
    let present = try await target.list(prefix: manifest.layout.folder + "/")
    let isCommitted = try await isCommitted(by: records, present)
    if !isCommitted {
      // What commits the backup must not stand while its files come: it is forged, or of another backup.
      try await delete(BackupLayout.manifestName, from: present)
      try await delete(BackupLayout.signatureName, from: present)
    }
    var done: Int64 = 0
    var brought: [ObjectKey] = []
    for file in manifest.files {
      if try await copy(file, present, CopyProgress(behind: done, report: progress)) {
        brought.append(try key(file.name))
      }
      done += file.size
      progress(done)
    }
    let hasText = try await copyText(present, &brought)
    // Deleted meanwhile: then it must not come to life again here. Only what has just been brought goes again: that it
    // is gone is the source's word, and what was here before needs none of it.
    guard try await source.stat(key(BackupLayout.manifestName)) != nil else {
      for key in brought { try await target.delete(key) }
      throw Fault(
        .backupMissing, "\(manifest.id) was deleted from store '\(source.name)' while it was copied.",
        hint: "pgbackupctl list")
    }
    for record in records where !(isCommitted && Self.commits(record.name)) { try await write(record, present) }
    try await Presence(manifest).check(in: target, withText: hasText)
  }

  private static func commits(_ name: String) -> Bool {
    name == BackupLayout.manifestName || name == BackupLayout.signatureName
  }

  /// Whether the target has the same manifest, byte by byte, with a signature that counts.
  private func isCommitted(by records: [Record], _ present: [StoredObject]) async throws -> Bool {
    guard let manifest = records.last,
      let old = present.first(where: { $0.key.name == BackupLayout.manifestName }),
      Int(old.size) == manifest.bytes.count,
      try await target.read(old, limit: Self.recordLimit) == manifest.bytes
    else { return false }
    guard !trusted.isEmpty else {
      let signature = records.first { $0.name == BackupLayout.signatureName }
      let other = present.first { $0.key.name == BackupLayout.signatureName }
      guard let signature, let other else { return signature == nil && other == nil }
      return try await target.read(other, limit: Self.recordLimit) == signature.bytes
    }
    guard let signature = present.first(where: { $0.key.name == BackupLayout.signatureName }) else { return false }
    let text = try await target.read(signature, limit: Self.recordLimit)
    return isSigned(manifest.bytes, text)
  }

  private func isSigned(_ bytes: [UInt8], _ signature: [UInt8]) -> Bool {
    trusted.isSigned(bytes, signature: String(decoding: signature, as: UTF8.self), of: manifest.id.database)
  }

  /// RECOVER.txt; false where the source lacks it, and this version would write another: the backup is whole without.
  private func copyText(_ present: [StoredObject], _ brought: inout [ObjectKey]) async throws -> Bool {
    guard let file = manifest.recover else { return true }
    let key = try key(file.name)
    if try await source.stat(key) != nil {
      if try await copy(file, present, CopyProgress { _ in }) { brought.append(key) }
      return true
    }
    try await delete(file.name, from: present)
    guard let bytes = RecoverText.committed(by: manifest) else { return false }
    try await target.put(key, bytes, retainUntil: term.end(in: target.name))
    brought.append(key)
    return true
  }

  /// False where it was there.
  private func copy(
    _ file: Manifest.StoredFile, _ present: [StoredObject], _ progress: CopyProgress
  ) async throws -> Bool {
    let key = try key(file.name)
    if let old = present.first(where: { $0.key == key }), try await isThere(file, old) {
      // It came under the term of then.
      if let end = term.end(in: target.name) { try await target.lengthenLock(of: key, until: end) }
      return false
    }
    try await ObjectCopy(key, file, from: source).run(
      to: key, in: target, retainUntil: term.end(in: target.name), progress)
    return true
  }

  /// Whether the file is there already, byte by byte. Of the right size it may still be another's, or damaged: then it goes.
  private func isThere(_ file: Manifest.StoredFile, _ old: StoredObject) async throws -> Bool {
    if Int64(old.size) == file.size, try await CheckedReader(old.key, file, target).isWhole() { return true }
    try await target.makeRoom(old.key)
    return false
  }

  private func write(_ record: Record, _ present: [StoredObject]) async throws {
    // What lies there people may know already.
    if record.name == BackupLayout.recoverName, present.contains(where: { $0.key.name == record.name }) { return }
    if !record.name.starts(withBytes: BackupLayout.manifestName) { try await delete(record.name, from: present) }
    let end = record.name == BackupLayout.pinName ? nil : term.end(in: target.name)
    try await target.put(key(record.name), record.bytes, retainUntil: end)
  }

  private func delete(_ name: String, from present: [StoredObject]) async throws {
    if let old = present.first(where: { $0.key.name == name }) { try await target.makeRoom(old.key) }
  }

  private struct Record {
    let name: String
    let bytes: [UInt8]
  }

  /// The pin where there is one, the signature and the manifest, as the source has them. RECOVER.txt of a backup that
  /// does not commit it is made here: nobody has signed the source's, and people do what it says.
  private func sourceRecords() async throws -> [Record] {
    var records: [Record] = []
    if manifest.recover == nil {
      let text = RecoverText(manifest: manifest, isSigned: !trusted.isEmpty).text
      records.append(Record(name: BackupLayout.recoverName, bytes: Array(text.utf8)))
    }
    for name in [BackupLayout.pinName, BackupLayout.signatureName, BackupLayout.manifestName] {
      let limit = name == BackupLayout.pinName ? Self.pinLimit : Self.recordLimit
      guard let bytes = try await source.get(key(name), limit: limit) else { continue }
      if name == BackupLayout.pinName, (try? Pin(decoding: bytes, from: "'\(key(name))'")) == nil { continue }
      records.append(Record(name: name, bytes: bytes))
    }
    guard let last = records.last, last.name == BackupLayout.manifestName,
      try Manifest(decoding: last.bytes, from: "'\(key(BackupLayout.manifestName))' in store '\(source.name)'")
        == manifest
    else {
      throw Fault(
        .manifestInvalid, "The manifest of \(manifest.id) in store '\(source.name)' has changed since it was read.",
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
    // The catalog has seen a signature that counts; at a second reading the source may say something else.
    let signature = records.first { $0.name == BackupLayout.signatureName }
    guard trusted.isEmpty || signature.map({ isSigned(last.bytes, $0.bytes) }) == true else {
      throw Fault(
        .signatureInvalid,
        "The manifest of \(manifest.id) in store '\(source.name)' is not signed as it was when it was read.",
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
    return records
  }

  private func key(_ name: String) throws(Fault) -> ObjectKey { try Backup.key(manifest.layout, name) }
}
