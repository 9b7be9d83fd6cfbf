import AgeEncryption
import ArtifactFormat
package import BackupCatalog
package import Faults
import PostgresArchive
package import Storage
import Synchronization

/// A stored backup as its archive: any range of the plain bytes, read from whichever placement gives them.
///
/// Only the frames that hold a range are fetched, and none is decompressed before its digest was checked: the
/// manifest's signature covers the contents, and the contents have a SHA-256 for each frame. Contents of version 1.0
/// have none: then the whole artifact is read first and held against the manifest's digest, and every later reading
/// against that first one (`EarlierArtifact`).
///
/// A store that fails, or gives bytes that are not what was written, is asked no more; the next placement takes over in
/// the middle of the reading.
package struct ArchiveSource: Sendable {
  package let manifest: Manifest
  package let contents: Contents
  private let places: [Place]
  private let index: FrameIndex
  private let compression: Compression
  private let state = Shared()

  /// Of an artifact whose contents have no digests of frames: what its bytes were when all of it was checked.
  private let earlier: EarlierArtifact?

  private struct Place: Sendable {
    let store: any ObjectStore
    let key: ObjectKey
    /// Nil where the artifact is not encrypted.
    let age: AgeRangeReader?
  }

  private final class Shared: Sendable {
    let storedBytes = Mutex<UInt64>(0)
    let faults = Mutex<[String: Fault]>([:])
    /// Plain bytes that came from each store, and were right.
    let given = Mutex<[String: Int]>([:])
    /// The frames that were read and whose digests were right.
    let checked = Mutex<Set<Int>>([])
    /// The frames that were used last and hold more than was asked for: small tables lie in one frame.
    let recent = Mutex<[(number: Int, plain: [UInt8])]>([])
  }

  /// Opens a backup: its contents are read, and its key is tried. Throws the fault of the last placement where none can be opened.
  ///
  /// - Parameter onCheck: is called with the stored bytes that were checked so far, and how many there are, while a
  ///   backup of the earlier format is read whole.
  package init(
    _ manifest: Manifest, in stores: [any ObjectStore], identities: Keyring,
    onCheck: @escaping @Sendable (_ checked: Int64, _ all: Int64) -> Void = { _, _ in }
  ) async throws(Fault) {
    guard let algorithm = Compression.Algorithm(rawValue: manifest.artifact.compression) else {
      throw Fault(
        .formatTooNew, "\(manifest.id) is compressed with '\(manifest.artifact.compression)', which is not known here.")
    }
    var places: [Place] = []
    var contents: Contents?
    var earlier: EarlierArtifact?
    var last: Fault?
    for store in stores {
      do {
        if contents == nil {
          contents = try await ContentsReader(store: store, identities: identities).read(manifest)
        }
        let key = try Backup.key(manifest.layout, manifest.artifact.file.name)
        if contents?.frames.digests == nil, earlier == nil {
          earlier = try await EarlierArtifact.check(manifest, in: store, onCheck: onCheck)
        }
        var age: AgeRangeReader?
        if manifest.encryption != nil {
          let earlier = earlier
          age = try await AgeRangeReader(
            storedBytes: UInt64(max(0, manifest.artifact.file.size)),
            identities: try await identities.identities(opening: manifest, in: store)
          ) { try await EarlierArtifact.read(key, $0, in: store, heldAgainst: earlier) }
        }
        places.append(Place(store: store, key: key, age: age))
      } catch {
        last = Self.fault(error, manifest, store)
        state.faults.withLock { [last] in $0[store.name] = last }
      }
    }
    guard let contents, !places.isEmpty else {
      throw last
        ?? Fault(.objectMissing, "No store has \(manifest.id).", hint: "pgbackupctl show \(shell: manifest.id)")
    }
    guard let index = contents.frameIndex,
      index.storedBytes == places[0].age?.plainBytes ?? UInt64(max(0, manifest.artifact.file.size)),
      contents.headBytes <= contents.archiveBytes,
      contents.tables.allSatisfy({ Self.fits($0.offset, $0.length, contents.archiveBytes) }),
      contents.largeObjects.allSatisfy({ Self.fits($0.offset, $0.length, contents.archiveBytes) })
    else {
      throw Fault(
        .artifactDamaged, "The contents of \(manifest.id) don't fit its artifact.",
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
    self.manifest = manifest
    self.contents = contents
    self.places = places
    self.earlier = earlier
    self.index = index
    compression = Compression(algorithm: algorithm)
  }

  private static func fits(_ offset: UInt64, _ length: UInt64, _ whole: UInt64) -> Bool {
    let (end, overflow) = offset.addingReportingOverflow(length)
    return !overflow && end <= whole
  }

  /// Whether the contents have no digests of frames, so that all of the artifact had to be read first.
  package var isEarlierFormat: Bool { earlier != nil }

  /// Bytes fetched from stores so far, of the artifact alone; without those of the whole reading that the earlier
  /// format takes.
  package var storedBytesRead: UInt64 { state.storedBytes.withLock { $0 } }

  /// What placements failed with so far, by store.
  package var faults: [String: Fault] { state.faults.withLock { $0 } }

  /// The stores that it was read from so far, the one that gave most of it first.
  package var stores: [String] {
    let given = state.given.withLock { $0 }
    return places.map(\.store.name).filter { given[$0] != nil }.sorted { given[$0] ?? 0 > given[$1] ?? 0 }
  }

  /// Header and table of contents.
  package func head() async throws(Fault) -> [UInt8] {
    var bytes: [UInt8] = []
    do {
      try await read(0..<contents.headBytes) { bytes += $0 }
    } catch {
      throw Fault(error)
    }
    if let digest = contents.headDigest, Digest.hexadecimal(of: bytes) != digest {
      throw Fault(
        .artifactDamaged, "The head of \(manifest.id)'s archive is not the one that its contents name.",
        cause: "its SHA-256 differs", hint: "pgbackupctl show \(shell: manifest.id)")
    }
    return bytes
  }

  /// What was read so far, by the digests that were checked: what a proof may claim.
  package var evidence: ReadEvidence {
    let checked = state.checked.withLock { $0 }.sorted()
    var digest = Digest()
    for number in checked { digest.update(Array((index.digests?[number] ?? "").utf8)) }
    return ReadEvidence(
      contents: manifest.contents.sha256, artifact: earlier?.sha256, frames: checked.count,
      allFrames: index.storedSizes.count, digest: index.digests == nil ? nil : digest.hexadecimal)
  }

  /// Reads all of it: every table has to have the rows that the contents tell.
  package func check() async throws(Fault) {
    var scanner = ArchiveScanner()
    var failure: ArchiveError?
    do {
      try await read(0..<contents.archiveBytes) { bytes in
        try Task.checkCancellation()
        do throws(ArchiveError) {
          if failure == nil { try scanner.consume(bytes) }
        } catch {
          failure = error
        }
      }
    } catch {
      throw Fault(error)
    }
    var isSame = failure == nil
    if isSame {
      do throws(ArchiveError) {
        let index = try scanner.finish()
        let found = Dictionary(
          index.tables.map { ($0.dumpID, $0.rows?.fingerprint.description) }, uniquingKeysWith: { first, _ in first })
        isSame = contents.tables.allSatisfy { found[$0.dumpID] == .some($0.fingerprint) }
      } catch {
        (failure, isSame) = (error, false)
      }
    }
    guard isSame else {
      throw Fault(
        .artifactDamaged, "The artifact of \(manifest.id) is damaged.", cause: failure?.description,
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
  }

  /// Hands the plain bytes of a range to `body`, in order and in pieces of a frame at most; frames are fetched and opened a little ahead.
  package func read(_ range: Range<UInt64>, _ body: (ArraySlice<UInt8>) async throws -> Void) async throws {
    let frames = try index.frames(covering: range)
    try await withThrowingTaskGroup(of: (Int, [UInt8]).self) { group in
      var ready: [Int: [UInt8]] = [:]
      var begun = 0
      for position in frames.indices {
        while begun < frames.count, begun <= position + Self.ahead {
          let (frame, number) = (frames[begun], begun)
          group.addTask { (number, try await self.open(frame, isShared: !range.contains(frame.plain))) }
          begun += 1
        }
        while ready[position] == nil, let (number, plain) = try await group.next() { ready[number] = plain }
        guard let plain = ready.removeValue(forKey: position) else { continue }
        let frame = frames[position].plain
        let wanted = range.clamped(to: frame)
        try await body(
          plain[Int(wanted.lowerBound - frame.lowerBound)..<Int(wanted.upperBound - frame.lowerBound)])
      }
    }
  }

  /// Frames that are opened before their turn: the next one is fetched while the server takes this one.
  private static let ahead = 2

  /// A few for each connection that loads.
  private static let recentFrames = 6

  /// The plain bytes of a frame, from the first placement that gives them right.
  private func open(_ frame: FrameIndex.Frame, isShared: Bool) async throws -> [UInt8] {
    if let known = state.recent.withLock({ $0.first { $0.number == frame.number }?.plain }) { return known }
    var last: Fault?
    for place in places where state.faults.withLock({ $0[place.store.name] == nil }) {
      do {
        let plain = try await open(frame, at: place)
        _ = state.checked.withLock { $0.insert(frame.number) }
        state.given.withLock { $0[place.store.name, default: 0] += plain.count }
        if isShared {
          state.recent.withLock { $0 = Array(($0 + [(frame.number, plain)]).suffix(Self.recentFrames)) }
        }
        return plain
      } catch {
        try Task.checkCancellation()
        last = Self.fault(error, manifest, place.store, holding: tables(in: frame.plain))
        state.faults.withLock { [last] in $0[place.store.name] = last }
      }
    }
    throw last ?? faults.values.first
      ?? Fault(.objectMissing, "No store has \(manifest.id).", hint: "pgbackupctl show \(shell: manifest.id)")
  }

  private func open(_ frame: FrameIndex.Frame, at place: Place) async throws -> [UInt8] {
    let fetch = { (range: Range<UInt64>) async throws -> [UInt8] in
      let bytes = try await EarlierArtifact.read(place.key, range, in: place.store, heldAgainst: earlier)
      state.storedBytes.withLock { $0 += UInt64(bytes.count) }
      return bytes
    }
    let stored: [UInt8]
    if let age = place.age {
      stored = try await age.read(frame.stored, fetch: fetch)
    } else {
      stored = try await fetch(frame.stored)
    }
    return try compression.makeCodec().open(stored, frame)
  }

  /// What of the archive lies in a range of it, in a few words.
  private func tables(in range: Range<UInt64>) -> String {
    let names = contents.tables.filter { $0.offset < range.upperBound && range.lowerBound < $0.offset + $0.length }
      .map(\.fullName)
    let rest = names.count > 12 ? " and \(names.count - 12) more" : ""
    let parts = (range.lowerBound < contents.headBytes ? ["the table of contents"] : []) + names.prefix(12)
    return parts.joined(separator: ", ") + rest
  }

  /// - Parameter content: what the bytes at fault hold.
  private static func fault(
    _ error: any Error, _ manifest: Manifest, _ store: any ObjectStore, holding content: String = ""
  ) -> Fault {
    switch error {
    case let error as StorageError: error.fault
    case AgeError.noMatchingIdentity:
      Fault(
        .keyMissing, "\(manifest.id) is encrypted, and no identity here opens it.",
        cause: "its recipients are \(manifest.encryption?.holders.sorted().joined(separator: ", ") ?? "")",
        hint: "set 'encryption: identity_file:' (standalone: --identity), or restore on the host that has the identity")
    case is AgeError, is FrameError:
      Fault(
        .artifactDamaged, "The artifact of \(manifest.id) in store '\(store.name)' is damaged.",
        cause: content.isEmpty ? "\(error)" : "\(error)\nin it: \(content)",
        hint: "pgbackupctl show \(shell: manifest.id)")
    default: Fault(error)
    }
  }
}
