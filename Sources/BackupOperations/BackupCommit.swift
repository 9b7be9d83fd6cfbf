import ArtifactFormat
import BackupCatalog
import Faults
import Storage

/// The last steps of a backup, store by store: contents, globals, RECOVER.txt, and the manifest last. An abort at any line
/// leaves a folder without a manifest, which is no backup and is swept.
struct BackupCommit {
  let layout: BackupLayout
  let compression: Compression
  let sealed: SealedEncryption
  let signingKey: SigningKey?
  let artifactName: String
  let contents: Contents
  /// The artifact's.
  let digest: Digest
  /// SQL text of pg_dumpall.
  let globals: [UInt8]
  let hasRolePasswords: Bool
  let term: RetentionTerm

  /// - Throws: `StoresLost` where none took it.
  func run(
    on stores: [any ObjectStore], dropped: [String: Fault], written: WrittenObjects,
    manifest: (Manifest.StoredFile, Manifest.StoredFile, Manifest.Globals) throws -> Manifest
  ) async throws -> Backup.Outcome {
    let packed = try PackedFile(
      "contents.json", try contents.encoded(), compression, sealed.encryption)
    let globals = try PackedFile("globals.sql", globals, compression, sealed.encryption)
    let committing = try CommittingFiles(
      manifest(
        Manifest.StoredFile(name: artifactName, size: digest.count, sha256: digest.hexadecimal),
        packed.file,
        Manifest.Globals(
          file: globals.file, compression: compression.algorithm.rawValue, hasRolePasswords: hasRolePasswords)),
      signingKey)
    let manifest = committing.manifest
    let files =
      (sealed.key.map { [($0.file.name, $0.bytes)] } ?? [])
      + [(packed.file.name, packed.bytes), (globals.file.name, globals.bytes)]
      + committing.all

    var done: [String] = []
    var dropped = dropped
    for store in stores {
      do {
        for (name, bytes) in files {
          guard let key = ObjectKey(layout.path(name)) else { continue }
          // It names this run, and without it the others are no backup: one whose writing is not answered must not stay alone.
          if name == BackupLayout.manifestName { await written.attempt(key, bytes, in: store) }
          try await store.put(key, bytes, retainUntil: term.end(in: store.name))
          await written.add(key, in: store)
        }
        try await Presence(manifest).check(in: store)
        done.append(store.name)
      } catch {
        dropped[store.name] = (error as? StorageError)?.fault ?? Fault(error)
        let name = store.name
        _ = await uncancelled { await written.remove(from: name) }
      }
    }
    guard !done.isEmpty else {
      throw StoresLost(
        fault: dropped.sorted { $0.key < $1.key }.first?.value ?? Fault(.internal, "No store took the backup."))
    }
    return Backup.Outcome(manifest: manifest, stores: done, dropped: dropped)
  }
}

/// A small file as it is stored: compressed and encrypted as the archive is.
struct PackedFile {
  let file: Manifest.StoredFile
  let bytes: [UInt8]

  init(_ name: String, _ plain: [UInt8], _ compression: Compression, _ encryption: Encryption) throws {
    bytes = try encryption.encrypt(plain.withUnsafeBytes { try compression.makeCodec().encode($0) })
    file = Manifest.StoredFile(
      name: name + compression.suffix + encryption.suffix, size: Int64(bytes.count),
      sha256: Digest.hexadecimal(of: bytes))
  }
}

/// What makes a folder a backup, in the order of writing: RECOVER.txt, the signature, and the manifest last.
struct CommittingFiles {
  let all: [(name: String, bytes: [UInt8])]
  /// With all that is committed.
  let manifest: Manifest

  init(_ unfinished: Manifest, _ key: SigningKey?) throws {
    var manifest = unfinished
    let text = Array(RecoverText(manifest: manifest, isSigned: key != nil).text.utf8)
    manifest.recover = Manifest.StoredFile(
      name: BackupLayout.recoverName, size: Int64(text.count), sha256: Digest.hexadecimal(of: text))
    self.manifest = manifest
    let encoded = try manifest.encoded()
    let signature = try key.map { [(BackupLayout.signatureName, Array(try $0.sign(encoded).utf8))] } ?? []
    all = [(BackupLayout.recoverName, text)] + signature + [(BackupLayout.manifestName, encoded)]
  }
}
