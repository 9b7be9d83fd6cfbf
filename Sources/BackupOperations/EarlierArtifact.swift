import ArtifactFormat
import BackupCatalog
import Faults
import Storage
import Synchronization

/// An artifact whose contents have no digest for each frame (contents version 1.0), read whole once and found to be
/// what its manifest says.
///
/// Nothing of such a backup is decrypted, decompressed or parsed before that. Whatever is read of it later has to be
/// the same bytes: each piece is held against its digest from the first reading. All stores have the same bytes, so one
/// reading serves them all.
struct EarlierArtifact: Sendable {
  /// Of the whole artifact, as it was read.
  let sha256: String
  private let pieces: PieceDigests

  /// The last few of them, by digest: the preview and the restore behind it, or the tables of one backup, read it once.
  private static let known = Mutex<[EarlierArtifact]>([])
  /// 100 GB have 3.2 MB of digests.
  private static let knownLimit = 4

  /// Reads an artifact to its end, or remembers that this was done.
  ///
  /// - Parameter isRemembered: false where this store's bytes have to be read, whatever another one gave.
  /// - Throws: `E-ARTIFACT-DAMAGED` where its SHA-256 is not the manifest's.
  static func check(
    _ manifest: Manifest, in store: any ObjectStore, isRemembered: Bool = true,
    onCheck: @Sendable (_ checked: Int64, _ all: Int64) -> Void
  ) async throws -> EarlierArtifact {
    let file = manifest.artifact.file
    if isRemembered, let old = known.withLock({ $0.first { $0.sha256 == file.sha256 } }) { return old }
    var reader = CheckedReader(try Backup.key(manifest.layout, file.name), file, store)
    var pieces = PieceDigests()
    while let bytes = try await reader.next() {
      pieces.update(bytes)
      onCheck(Int64(clamping: reader.position), file.size)
    }
    pieces.finish()
    let artifact = EarlierArtifact(sha256: file.sha256, pieces: pieces)
    known.withLock { $0 = Array(($0 + [artifact]).suffix(knownLimit)) }
    return artifact
  }

  /// The stored bytes of a range; with an artifact of the earlier format, only if they are the ones that were checked.
  static func read(
    _ key: ObjectKey, _ range: Range<UInt64>, in store: any ObjectStore, heldAgainst artifact: EarlierArtifact?
  ) async throws -> [UInt8] {
    guard let artifact, !range.isEmpty else { return try await store.read(key, range: range) }
    let whole = artifact.pieces.covering(range)
    let bytes = try await store.read(key, range: whole)
    guard artifact.pieces.match(bytes, at: whole), range.upperBound <= whole.upperBound else {
      throw Fault(
        .artifactDamaged, "'\(key)' in store '\(store.name)' is not what it was when it was checked.",
        cause: "the store gave other bytes at a later reading", hint: "pgbackupctl status")
    }
    let start = Int(range.lowerBound - whole.lowerBound)
    return Array(bytes[start..<start + range.count])
  }
}
