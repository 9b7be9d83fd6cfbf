import ArtifactFormat
import BackupCatalog
import Faults
import Storage

/// One object's way from a store to another place, checked against the size and the digest that its manifest gives.
struct ObjectCopy {
  private let key: ObjectKey
  private let file: Manifest.StoredFile
  private let source: any ObjectStore

  init(_ key: ObjectKey, _ file: Manifest.StoredFile, from source: any ObjectStore) {
    self.key = key
    self.file = file
    self.source = source
  }

  /// Copies, or links where both places are in one store that can; the source is read to its end and checked either way. Throws
  /// `E-ARTIFACT-DAMAGED` where it is not what the manifest says; then nothing appears at the target.
  func run(
    to target: ObjectKey, in store: any ObjectStore, retainUntil: Double?, _ progress: CopyProgress
  ) async throws {
    if store.name == source.name, store.canLink {
      var reader = CheckedReader(key, file, source)
      while try await reader.next() != nil { progress.tell(reader.position) }
      if try await store.link(key, as: target) { return }
    }
    let upload = try await store.upload(
      target, UploadOptions(expectedBytes: UInt64(max(0, file.size)), retainUntil: retainUntil, canResume: true))
    do {
      try await send(through: upload, progress)
      try await upload.finish()
    } catch {
      // What has come is good, unless the source was not: the next try goes on there.
      let isDamaged = (error as? Fault)?.code == .artifactDamaged
      await uncancelled { if isDamaged { await upload.abort() } else { await upload.leave() } }
      throw error
    }
  }

  /// Apart from the `catch` above it: the optimizer of Swift 6.3.1 crashes on the two in one.
  @inline(never) private func send(through upload: any ObjectUpload, _ progress: CopyProgress) async throws {
    var reader = CheckedReader(key, file, source)
    while let bytes = try await reader.next() {
      try await upload.write(bytes)
      progress.tell(reader.position)
    }
  }
}

/// Who is told how many bytes are there.
struct CopyProgress: Sendable {
  /// Bytes of the files before this one.
  var behind: Int64 = 0
  let report: @Sendable (Int64) -> Void

  /// - Parameter bytes: of this file.
  func tell(_ bytes: UInt64) { report(behind + Int64(clamping: bytes)) }
}

/// A stored file, piece by piece; its end comes only if all of it was what the manifest says.
struct CheckedReader {
  private let key: ObjectKey
  private let file: Manifest.StoredFile
  private let source: any ObjectStore
  /// What the bytes have to be, piece by piece, where that is known.
  private let earlier: EarlierArtifact?
  private var digest = Digest()
  private(set) var position: UInt64 = 0

  /// Bytes that are held at once.
  private static let piece: UInt64 = 4 << 20

  init(
    _ key: ObjectKey, _ file: Manifest.StoredFile, _ source: any ObjectStore,
    heldAgainst earlier: EarlierArtifact? = nil
  ) {
    self.key = key
    self.file = file
    self.source = source
    self.earlier = earlier
  }

  /// Reads to the end; false where the sum is another one.
  consuming func isWhole() async throws -> Bool {
    do {
      while try await next() != nil {}
    } catch let fault as Fault where fault.code == .artifactDamaged {
      return false
    }
    return true
  }

  /// The next bytes; nil at the end. Throws where the sum is another one.
  mutating func next() async throws -> [UInt8]? {
    try Task.checkCancellation()
    let size = UInt64(max(0, file.size))
    guard position < size else {
      if digest.hexadecimal == file.sha256 { return nil }
      throw Fault(
        .artifactDamaged, "'\(key)' in store '\(source.name)' is not what was written: its SHA-256 differs.",
        hint: "pgbackupctl status")
    }
    let bytes = try await EarlierArtifact.read(
      key, position..<min(size, position + Self.piece), in: source, heldAgainst: earlier)
    digest.update(bytes)
    position += UInt64(bytes.count)
    return bytes
  }
}
