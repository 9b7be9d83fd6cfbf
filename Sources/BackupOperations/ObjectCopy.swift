import ArtifactFormat
import BackupCatalog
import Faults
import Storage

/// One object's way from a store to another place, checked against the size and the digest that its manifest gives.
struct ObjectCopy {
  private let key: ObjectKey
  private let file: Manifest.StoredFile
  private let source: any ObjectStore

  /// Bytes that are held at once.
  private static let piece: UInt64 = 4 << 20

  init(_ key: ObjectKey, _ file: Manifest.StoredFile, from source: any ObjectStore) {
    self.key = key
    self.file = file
    self.source = source
  }

  /// Copies, or links where both places are in one store that can; the source is read to its end and checked either way. Throws
  /// `E-ARTIFACT-DAMAGED` where it is not what the manifest says; then nothing appears at the target.
  func run(to target: ObjectKey, in store: any ObjectStore, progress: (UInt64) -> Void) async throws {
    if store.name == source.name {
      try await read(progress) { _ in }
      if try await store.link(key, as: target) { return }
    }
    let upload = try await store.upload(target)
    do {
      try await read(progress) { bytes in try await upload.write(bytes) }
      try await upload.finish()
    } catch {
      await upload.abort()
      throw error
    }
  }

  private func read(_ progress: (UInt64) -> Void, _ body: ([UInt8]) async throws -> Void) async throws {
    var digest = Digest()
    let size = UInt64(max(0, file.size))
    var position: UInt64 = 0
    while position < size {
      try Task.checkCancellation()
      let bytes = try await source.read(key, range: position..<min(size, position + Self.piece))
      digest.update(bytes)
      try await body(bytes)
      position += UInt64(bytes.count)
      progress(position)
    }
    guard digest.hexadecimal == file.sha256 else {
      throw Fault(
        .artifactDamaged, "'\(key)' in store '\(source.name)' is not what was written: its SHA-256 differs.",
        hint: "pgbackupctl status")
    }
  }
}
