import AgeEncryption
package import ArtifactFormat
package import BackupCatalog
import CPlatform
import Faults
package import Foundation
import PostgresArchive
package import Storage
import Synchronization
import Units

/// Reads one placement back, whole, and compares it with what was signed when it was written.
package struct Verify: Sendable {
  private let manifest: Manifest
  private let store: any ObjectStore
  private let wanted: VerifyLevel
  private let identities: Keyring
  private let trusted: TrustedKeys
  private let now: @Sendable () -> Date
  /// Told of stored bytes as they are read.
  private let progress: @Sendable (Int64) -> Void

  package init(
    _ manifest: Manifest, in store: any ObjectStore, level: VerifyLevel, identities: Keyring,
    trusted: TrustedKeys, now: @escaping @Sendable () -> Date,
    progress: @escaping @Sendable (Int64) -> Void = { _ in }
  ) {
    self.manifest = manifest
    self.store = store
    wanted = level
    self.identities = identities
    self.trusted = trusted
    self.now = now
    self.progress = progress
  }

  /// Never throws but on cancellation: what is wrong is the verification's result.
  package func run() async throws(CancellationError) -> Verification {
    defer { cplatform_trim_heap() }
    let start = ContinuousClock.now
    var verification = Verification(
      backup: manifest.id, type: manifest.type, store: store.name, level: .checksum, finished: now(), seconds: 0)
    do {
      try await checkManifest()
      if wanted == .archive {
        if let reason = try await keyProblem() {
          verification.note = reason
        } else {
          verification.level = .archive
        }
      }
      for file in manifest.files { try await checkSize(file) }
      if verification.level == .archive {
        try await checkArchive(&verification)
        // The one file that opening the others may do without.
        if let key = manifest.encryption?.key { try await checkSum(key.file) }
      } else {
        for file in manifest.files { try await checkSum(file) }
      }
      // It tells people what to type: another one is damage, and none is not, since reconcile writes it anew.
      if let recover = manifest.recover, try await store.stat(try key(recover.name)) != nil {
        try await checkSize(recover)
        try await checkSum(recover)
      }
      verification.storedBytes = manifest.storedBytes
    } catch {
      if Task.isCancelled { throw CancellationError() }
      verification.fault = fault(error)
    }
    verification.finished = now()
    verification.seconds = start.duration(to: .now).inSeconds
    return verification
  }

  // MARK: - Signature and sums

  private func checkManifest() async throws {
    let limit = ByteCount.mebibytes(16)
    let place = "'\(manifest.layout.path(BackupLayout.manifestName))' in store '\(store.name)'"
    guard let stored = try await store.get(try key(BackupLayout.manifestName), limit: limit) else {
      throw Fault(.objectMissing, "\(place) is gone.", hint: "pgbackupctl show \(shell: manifest.id)")
    }
    guard try Manifest(decoding: stored, from: place) == manifest else {
      throw Fault(
        .manifestInvalid, "\(place) has changed since it was read.", hint: "pgbackupctl show \(shell: manifest.id)")
    }
    guard !trusted.isEmpty else { return }
    let signature = try await store.get(try key(BackupLayout.signatureName), limit: limit)
    let text = signature.map { String(decoding: $0, as: UTF8.self) }
    guard let text, trusted.isSigned(stored, signature: text, of: manifest.id.database) else {
      throw Fault(
        .signatureInvalid,
        text == nil ? "\(place) is not signed." : "\(place) is signed by no trusted key, or was changed since.",
        hint:
          "look into that store; where another daemon of yours made it: 'signing: trusted:' with its signing.pub, or restore --accept-untrusted once"
      )
    }
  }

  private func checkSize(_ file: Manifest.StoredFile) async throws {
    let key = try key(file.name)
    guard let object = try await store.stat(key) else {
      throw Fault(
        .objectMissing, "'\(key)' is gone from store '\(store.name)'.", hint: "pgbackupctl show \(shell: manifest.id)")
    }
    guard Int64(object.size) == file.size else {
      throw Fault(
        .artifactDamaged, "'\(key)' in store '\(store.name)' has \(object.size) bytes instead of \(file.size).",
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
  }

  private func checkSum(_ file: Manifest.StoredFile) async throws {
    var reader = CheckedReader(try key(file.name), file, store)
    while let bytes = try await reader.next() { progress(Int64(bytes.count)) }
  }

  // MARK: - The archive

  /// Why the archive can't be looked into here; nil where it can.
  private func keyProblem() async throws(Fault) -> String? {
    guard let encryption = manifest.encryption else { return nil }
    let opening: [AgeIdentity]
    do throws(Fault) {
      opening = try await identities.identities(opening: manifest, in: store)
    } catch  where error.code == .keyMissing {
      return "no key here opens it (\(error.cause ?? error.message)): sums and signature only"
    }
    let own = Set(opening.compactMap { $0.recipient?.description })
    if !own.isDisjoint(with: encryption.recipients) { return nil }
    return identities.isEmpty
      ? "no identity here: sums and signature only" : "none of the identities here opens it: sums and signature only"
  }

  private func checkArchive(_ verification: inout Verification) async throws {
    let reader = ContentsReader(store: store, identities: identities)
    let contents = try await reader.read(manifest)
    progress(manifest.contents.size)
    if let globals = manifest.globals {
      _ = try await reader.plain(globals.file, compression: globals.compression, of: manifest)
      progress(globals.file.size)
    }
    var found = try await walk(contents)
    if !contents.tables.contains(where: { $0.partitionOf != nil }) {
      // Versions before have not written which tables are partitions.
      for index in found.tables.indices { found.tables[index].partitionOf = nil }
    }
    // A shared backup's files are those of the backup that was dumped.
    guard contents.id == manifest.sharedFrom ?? manifest.id else {
      throw damaged("the contents are those of \(contents.id)")
    }
    guard found.archiveBytes == contents.archiveBytes, found.headBytes == contents.headBytes,
      found.headDigest == contents.headDigest ?? found.headDigest,
      found.largeObjects == contents.largeObjects, found.tables == contents.tables
    else { throw damaged(Self.difference(found, contents)) }
    guard found.totals == manifest.totals else {
      throw damaged("the manifest's totals are not those of the archive")
    }
    verification.archiveBytes = Int64(clamping: found.archiveBytes)
    verification.rows = found.tables.compactMap(\.rows).reduce(0, +)
  }

  /// Takes the artifact apart as it streams by, once: summed, decrypted, split into its frames, which are decompressed side by side, and
  /// scanned in order.
  private func walk(_ contents: Contents) async throws -> Contents {
    guard let algorithm = Compression.Algorithm(rawValue: manifest.artifact.compression) else {
      throw Fault(
        .formatTooNew, "\(manifest.id) is compressed with '\(manifest.artifact.compression)', which is not known here.")
    }
    guard let index = contents.frameIndex else {
      throw damaged("the contents' frames don't make an archive of its size")
    }
    let earlier = try await checkWhole(contents)
    let compression = Compression(algorithm: algorithm)
    var frames = FrameSplitter(index: index)
    var decryptor =
      manifest.encryption == nil ? nil : AgeDecryptor(try await identities.identities(opening: manifest, in: store))
    var reader = CheckedReader(
      try key(manifest.artifact.file.name), manifest.artifact.file, store, heldAgainst: earlier)
    var scanner = ArchiveScanner()
    try await withThrowingTaskGroup(of: (Int, [UInt8]).self) { group in
      var opened = OrderedFrames()
      var isAtEnd = false
      while !isAtEnd {
        var plain: [UInt8] = []
        if let bytes = try await reader.next() {
          progress(Int64(earlier == nil ? bytes.count : bytes.count / 2))
          plain = try decryptor?.update(bytes) ?? bytes
        } else {
          isAtEnd = true
          plain = try decryptor?.finish() ?? []
        }
        for (frame, stored) in try frames.split(plain) {
          // A few at a time: memory does not grow with the archive.
          while opened.pending >= Self.parallel, let next = try await group.next() {
            try opened.take(next, into: &scanner)
          }
          opened.pending += 1
          group.addTask { (frame.number, try compression.makeCodec().open(stored, frame)) }
        }
      }
      try frames.finish()
      while let next = try await group.next() { try opened.take(next, into: &scanner) }
    }
    return Contents(manifest.id, try scanner.finish(), index, settings: contents.settings)
  }

  private static let parallel = 4

  /// Contents of version 1.0 have no digests of frames: the artifact is then read twice, and looked into only the
  /// second time. Half of its bytes count as progress each time.
  private func checkWhole(_ contents: Contents) async throws -> EarlierArtifact? {
    guard contents.frames.digests == nil else { return nil }
    let last = Mutex<Int64>(0)
    return try await EarlierArtifact.check(manifest, in: store, isRemembered: false) { checked, _ in
      let piece = last.withLock { last in
        defer { last = checked }
        return checked - last
      }
      progress(piece / 2)
    }
  }

  /// Frames come back in any order; the scanner takes them in theirs.
  private struct OrderedFrames {
    var pending = 0
    private var waiting: [Int: [UInt8]] = [:]
    private var next = 0

    mutating func take(_ frame: (number: Int, plain: [UInt8]), into scanner: inout ArchiveScanner) throws(ArchiveError)
    {
      waiting[frame.number] = frame.plain
      pending -= 1
      while let plain = waiting.removeValue(forKey: next) {
        try scanner.consume(plain[...])
        next += 1
      }
    }
  }

  // MARK: - Telling

  private static func difference(_ found: Contents, _ contents: Contents) -> String {
    let known = Dictionary(contents.tables.map { ($0.dumpID, $0) }, uniquingKeysWith: { first, _ in first })
    for table in found.tables where known[table.dumpID] != table {
      let name = "\(table.schema).\(table.name)"
      guard let meant = known[table.dumpID] else { return "\(name) is not in the contents" }
      if table.rows != meant.rows {
        return "\(name) has \(table.rows ?? 0) rows instead of \(meant.rows ?? 0)"
      }
      return
        "\(name) is not the same: \(table.fingerprint == meant.fingerprint ? "it lies elsewhere" : "its rows differ")"
    }
    if found.tables.count != contents.tables.count { return "tables of the contents are missing" }
    return found.largeObjects == contents.largeObjects ? "its size is another one" : "its large objects differ"
  }

  private func damaged(_ reason: String) -> Fault {
    Fault(
      .artifactDamaged, "The archive of \(manifest.id) in store '\(store.name)' is not what its contents say.",
      cause: reason, hint: "pgbackupctl show \(shell: manifest.id)")
  }

  private func fault(_ error: any Error) -> Fault {
    switch error {
    case let error as StorageError: error.fault
    case let error as AgeError: damaged("it can't be decrypted: \(error)")
    case let error as FrameError: damaged("it can't be decompressed: \(error)")
    case let error as ArchiveError: damaged(error.description)
    default: Fault(error)
    }
  }

  private func key(_ name: String) throws(Fault) -> ObjectKey { try Backup.key(manifest.layout, name) }
}

/// Cuts a stream of stored bytes into frames.
private struct FrameSplitter {
  private let frames: [FrameIndex.Frame]
  private var next = 0
  private var pending: [UInt8] = []

  init(index: FrameIndex) {
    frames = (try? index.frames(covering: 0..<index.plainBytes)) ?? []
  }

  mutating func split(_ bytes: [UInt8]) throws -> [(FrameIndex.Frame, [UInt8])] {
    pending += bytes
    var whole: [(FrameIndex.Frame, [UInt8])] = []
    var position = 0
    while next < frames.count, pending.count - position >= frames[next].stored.count {
      let end = position + frames[next].stored.count
      whole.append((frames[next], Array(pending[position..<end])))
      (position, next) = (end, next + 1)
    }
    pending.removeFirst(position)
    return whole
  }

  func finish() throws(FrameError) {
    guard next == frames.count, pending.isEmpty else {
      throw .damaged(frame: next, reason: next < frames.count ? "it is cut off" : "bytes follow the last one")
    }
  }
}
