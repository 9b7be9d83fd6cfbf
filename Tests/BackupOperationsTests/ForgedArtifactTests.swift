import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresArchive
import PostgresTools
import Storage
import Synchronization
import TestSupport
import Testing
import Units

@testable import BackupOperations

/// A store that exchanges the artifact of a signed backup: same name, same size, another function. Recipients are
/// public, so it can encrypt its forgery as well.
@Suite(.waits) struct ForgedArtifactTests {
  /// What is stored, and how: each kind hides the forgery in another way.
  enum Kind: CaseIterable {
    case plain
    case compressed
    case encrypted
    case ofTheEarlierFormat
    case encryptedOfTheEarlierFormat

    var isEncrypted: Bool { self == .encrypted || self == .encryptedOfTheEarlierFormat }
    var isEarlier: Bool { self == .ofTheEarlierFormat || self == .encryptedOfTheEarlierFormat }
    var compression: Compression { self == .compressed ? .standard : Compression(algorithm: .none) }
  }

  private static let key = SigningKey.generate()
  private static let innocent = "SELECT 'nothing but a greeting, and a remark that is long enough'::text"

  /// A database with a function that its check calls, and a backup of it.
  private static func fixture(_ kind: Kind) async throws -> (fixture: RestoreFixture, manifest: Manifest, role: String)
  {
    let role = "mallory_\(UUID().uuidString.prefix(8).lowercased())"
    var settings = Backup.Settings()
    settings.signingKey = key
    settings.compression = kind.compression
    let fixture = try await RestoreFixture(
      sql: """
        CREATE ROLE \(role);
        CREATE FUNCTION greeting() RETURNS text LANGUAGE sql AS $$\(innocent)\(String(repeating: " ", count: 200))$$;
        """, isEncrypted: kind.isEncrypted, settings: settings)
    let manifest = kind.isEarlier ? try await fixture.asEarlierFormat(signedBy: key) : fixture.manifest
    return (fixture, manifest, role)
  }

  /// Ends the function, and has whoever restores it make a superuser. As long as what it replaces.
  private static func forged(_ archive: [UInt8], for role: String) throws -> [UInt8] {
    let text = String(decoding: archive, as: UTF8.self)
    let start = try #require(text.utf8.firstRange(of: Array(innocent.utf8)))
    let offset = text.utf8.distance(from: text.startIndex, to: start.lowerBound)
    let payload = Array("SELECT ''::text$$; ALTER ROLE \(role) SUPERUSER; SELECT $$".utf8)
    var forged = archive
    let length = innocent.utf8.count + 200
    forged.replaceSubrange(
      offset..<offset + length, with: payload + [UInt8](repeating: 32, count: length - payload.count))
    return forged
  }

  /// Puts the forgery in the artifact's place, of the very size that the manifest names.
  private static func exchange(_ fixture: RestoreFixture, _ manifest: Manifest, _ kind: Kind, _ role: String)
    async throws
  {
    let store = fixture.workshop.store
    let source = try await ArchiveSource(manifest, in: [store], identities: [fixture.identity])
    var archive: [UInt8] = []
    try await source.read(0..<source.contents.archiveBytes) { archive += $0 }
    let size = Int(manifest.artifact.file.size)
    let codec = try kind.compression.makeCodec()
    let encryption: Encryption = kind.isEncrypted ? .age([try #require(fixture.identity.recipient)]) : .none
    var bytes = try forged(archive, for: role)
    var stored: [UInt8] = []
    // A remark of noise in place of blanks, until the compressed frame is as large as the one it replaces.
    var generator = SeededGenerator(4711)
    let blanks = try #require(bytes.firstRange(of: [UInt8](repeating: 32, count: 100)))
    for noise in 0..<4000 {
      if noise > 0 {
        bytes.replaceSubrange(blanks, with: [UInt8](repeating: 32, count: 100))
        for place in blanks.prefix(noise % 101) { bytes[place] = UInt8.random(in: 97...122, using: &generator) }
      }
      stored = try encryption.encrypt(try bytes.withUnsafeBytes { try codec.encode($0) })
      if stored.count == size { break }
    }
    #expect(stored.count == size, "the forgery has to have the same size")
    let place = try #require(ObjectKey(manifest.layout.path(manifest.artifact.file.name)))
    try await store.delete(place)
    try await store.put(place, stored)
  }

  @Test(arguments: Kind.allCases) func aForgedArtifactIsRefusedBeforeItIsDecompressed(_ kind: Kind) async throws {
    let (fixture, manifest, role) = try await Self.fixture(kind)
    try await Self.exchange(fixture, manifest, kind, role)
    let (cluster, folder) = (fixture.cluster, TemporaryFolder())
    let live = try fixture.text(fixture.database)

    var requests = [fixture.request, fixture.request, fixture.request]
    requests[1].target = .beside("\(fixture.database)_beside")
    requests[2].tables = ["portal.users"]
    for request in requests {
      let fault = await #expect(throws: Fault.self) { try await fixture.restoring(manifest, request).run() }
      #expect(fault?.code == .artifactDamaged, "\(fault.map { "\($0)" } ?? "nothing")")
      let preview = await #expect(throws: Fault.self) { try await fixture.restoring(manifest, request).preview() }
      #expect(preview?.code == .artifactDamaged)
    }
    let drill = await #expect(throws: Fault.self) { try await DrillTests.drill(fixture, manifest, folder: folder)() }
    #expect(drill?.code == .artifactDamaged)
    let verification = try await Verify(
      manifest, in: fixture.workshop.store, level: .archive, identities: [fixture.identity],
      trusted: [Self.key.publicKey], now: { Date(timeIntervalSince1970: 1_800_100_000) }
    ).run()
    #expect(verification.fault?.code == .artifactDamaged && verification.rows == 0)
    await #expect(throws: Fault.self) {
      let source = try await ArchiveSource(manifest, in: [fixture.workshop.store], identities: [fixture.identity])
      var extract = try Extract("portal.users", columns: [], format: .copy, from: source)
      while try await extract.next() != nil {}
    }

    #expect(try cluster.sql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = '\(role)'") == "f\n")
    #expect(try fixture.text(fixture.database) == live && fixture.databases == [fixture.database])
    #expect(folder.files(below: "drills") == [])
  }

  /// Bytes that are right the first time and others later: each reading is checked, not the first one alone.
  @Test(arguments: Kind.allCases) func aStoreThatServesOtherBytesLaterIsNotBelieved(_ kind: Kind) async throws {
    let (fixture, manifest, _) = try await Self.fixture(kind)
    let store = fixture.workshop.store
    let artifact = manifest.artifact.file.name
    for honest in 1...4 {
      let source = try? await ArchiveSource(
        manifest, in: [FickleStore(store, of: artifact, honestReadings: honest)], identities: [fixture.identity])
      // The earlier format's header may be what is exchanged.
      guard let source else { continue }
      let wanted = source.contents.archiveBytes
      var isWhole = false
      for _ in 0..<6 {
        var bytes: [UInt8] = []
        do {
          // From half-way in: the frame that was opened last may be remembered, and is no reading.
          try await source.read(0..<wanted / 2 + 1) { bytes += $0 }
          isWhole = true
        } catch {
          #expect(bytes.isEmpty, "nothing of it was handed on")
          #expect((error as? Fault)?.code == .artifactDamaged, "\(error)")
          isWhole = false
          break
        }
      }
      if isWhole { #expect(source.faults.isEmpty) }
    }
    let honest = try await ArchiveSource(manifest, in: [store], identities: [fixture.identity])
    var whole: UInt64 = 0
    try await honest.read(0..<honest.contents.archiveBytes) { whole += UInt64($0.count) }
    #expect(whole == honest.contents.archiveBytes && honest.evidence.frames == honest.evidence.allFrames)
  }

  /// The digests are the signer's: a store that takes them out of the contents changes what the manifest covers.
  @Test func contentsWithoutTheirDigestsAreNotTheOnesThatWereSigned() async throws {
    let (fixture, manifest, _) = try await Self.fixture(.plain)
    _ = try await fixture.asEarlierFormat(signedBy: nil)
    let fault = await #expect(throws: Fault.self) { try await fixture.restoring(manifest, fixture.request).run() }
    #expect(fault?.code == .artifactDamaged)
  }

  /// A proof states what was read: the digests are computed over the bytes that were used.
  @Test(arguments: [Kind.compressed, .encrypted, .ofTheEarlierFormat])
  func aProofStatesTheDigestsOfWhatWasRead(_ kind: Kind) async throws {
    let (fixture, manifest, _) = try await Self.fixture(kind)
    let folder = TemporaryFolder()
    let proof = try await DrillTests.drill(fixture, manifest, folder: folder)().proof
    let contents = try await ContentsReader(store: fixture.workshop.store, identities: [fixture.identity]).read(
      manifest)
    let read = try #require(proof.read)
    #expect(read.contents == manifest.contents.sha256)
    #expect(read.frames == contents.frames.storedSizes.count && read.allFrames == read.frames)
    #expect(proof.artifact == (kind.isEarlier ? manifest.artifact.file.sha256 : nil))
    #expect(read.digest == contents.frames.digests.map { Digest.hexadecimal(of: Array($0.joined().utf8)) })
    #expect(try Proof(decoding: try proof.encoded(), from: "a test") == proof)
  }

  /// Stock tools give the same digests: a frame's is that of its bytes as they lie in the artifact.
  @Test func theDigestsAreThoseOfStockTools() async throws {
    let (fixture, manifest, _) = try await Self.fixture(.compressed)
    let contents = try await ContentsReader(store: fixture.workshop.store, identities: []).read(manifest)
    let path = fixture.workshop.folder.file("store/\(manifest.layout.path(manifest.artifact.file.name))")
    var start = 1
    for (size, digest) in zip(contents.frames.storedSizes, try #require(contents.frames.digests)) {
      let sum = try Shell.must("sh", ["-c", "tail -c +\(start) '\(path)' | head -c \(size) | sha256sum"])
      #expect(sum.hasPrefix(digest))
      start += size
    }
    let head = try Shell.must("sh", ["-c", "zstd -dc '\(path)' | head -c \(contents.headBytes) | sha256sum"])
    #expect(head.hasPrefix(try #require(contents.headDigest)))
  }
}

/// Gives an artifact's bytes as they are for some readings, and others afterwards.
private final class FickleStore: ObjectStore {
  private let store: any ObjectStore
  private let file: String
  private let left: Mutex<Int>

  init(_ store: any ObjectStore, of file: String, honestReadings: Int) {
    (self.store, self.file) = (store, file)
    left = Mutex(honestReadings)
  }

  var name: String { store.name }
  var location: String { store.location }

  func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    var bytes = try await store.read(key, range: range)
    guard key.name == file, !bytes.isEmpty else { return bytes }
    let isHonest = left.withLock { left in
      left -= 1
      return left >= 0
    }
    if !isHonest { bytes[bytes.count / 2] ^= 1 }
    return bytes
  }

  func check() async throws(StorageError) { try await store.check() }
  func list(prefix: String) async throws(StorageError) -> [StoredObject] { try await store.list(prefix: prefix) }
  func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? { try await store.stat(key) }
  func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    try await store.upload(key, options)
  }
  func delete(_ key: ObjectKey) async throws(StorageError) { try await store.delete(key) }
  func sweepUnfinished() async throws(StorageError) -> Int { try await store.sweepUnfinished() }
  func availableSpace() async throws(StorageError) -> ByteCount? { try await store.availableSpace() }
}

extension RestoreFixture {
  /// A restore of this manifest in place of the fixture's own.
  func restoring(_ manifest: Manifest, _ request: RestoreRequest) throws -> Restore {
    Restore(
      request, of: manifest, from: [workshop.store], identities: [identity], on: try connection(cluster, database),
      programs: [cluster.binaries],
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
      logger: Logger(label: "test"))
  }

  /// The same backup as a version before 1.1 of the contents has written it: without digests of frames and head.
  ///
  /// - Parameter key: signs the manifest anew; without one, the contents are exchanged under the manifest that is
  ///   there.
  func asEarlierFormat(signedBy key: SigningKey?) async throws -> Manifest {
    let store = workshop.store
    var contents = try await ContentsReader(store: store, identities: [identity]).read(manifest)
    (contents.frames.digests, contents.headDigest) = (nil, nil)
    let compression = Compression(
      algorithm: try #require(Compression.Algorithm(rawValue: manifest.artifact.compression)))
    let encryption: Encryption = manifest.encryption == nil ? .none : .age([try #require(identity.recipient)])
    let packed = try PackedFile("contents.json", try contents.encoded(), compression, encryption)
    // Blanks at the end of JSON mean nothing: the forgery is as large as what it replaces.
    let padding = [UInt8](repeating: 32, count: max(0, Int(manifest.contents.size) - packed.bytes.count))
    var files = [(packed.file.name, key == nil ? packed.bytes + padding : packed.bytes)]
    var earlier = manifest
    if let key {
      earlier.contents = packed.file
      let committing = try CommittingFiles(earlier, key)
      files += committing.all
      earlier = committing.manifest
    }
    for (name, bytes) in files {
      let place = try #require(ObjectKey(manifest.layout.path(name)))
      try await store.delete(place)
      try await store.put(place, bytes)
    }
    return earlier
  }
}
