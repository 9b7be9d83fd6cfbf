import AgeEncryption
import ArtifactFormat
import BackupCatalog
import BackupOperations
import Faults
import Foundation
import OutsidePrograms
import Storage
import TestSupport
import Testing

/// A home of GnuPG's with one key pair, made by the real gpg; its agent ends with it.
final class GnuPGHome: Sendable {
  let folder = TemporaryFolder()
  let fingerprint: String

  init() throws {
    try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder.path)
    let gpg = ["--homedir", folder.path, "--batch", "--quiet", "--no-tty"]
    try Shell.must(
      "gpg", gpg + ["--passphrase", "", "--quick-generate-key", "Backup <backup@example.com>", "future-default"])
    let listing = try Shell.must("gpg", gpg + ["--list-keys", "--with-colons"])
    fingerprint =
      listing.split(separator: "\n").first { $0.hasPrefix("fpr:") }?.split(separator: ":").last.map(String.init)
      ?? ""
  }

  /// One that has the public key of another, and nothing to open with.
  init(publicKeyOf other: GnuPGHome) throws {
    try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder.path)
    let key = other.folder.file("key.asc")
    try Shell.must("gpg", ["--homedir", other.folder.path, "--batch", "--yes", "--armor", "--output", key, "--export"])
    try Shell.must("gpg", ["--homedir", folder.path, "--batch", "--quiet", "--no-tty", "--import", key])
    fingerprint = other.fingerprint
  }

  deinit { _ = try? Shell.run("gpgconf", ["--homedir", folder.path, "--kill", "all"]) }

  var gpg: GnuPG { GnuPG(recipients: [fingerprint], home: folder.path) }
}

@Suite(.waits) struct GnuPGTests {
  /// A host with the public key makes backups that it can't open; one with the secret key opens them, also by ranges; an age identity in
  /// escrow needs no gpg.
  @Test func aSealedKey() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase(sample: 1)
    let workshop = Workshop()
    let owner = try GnuPGHome()
    let host = try GnuPGHome(publicKeyOf: owner)
    let escrow = AgeIdentity.generate()
    var settings = Backup.Settings()
    settings.gpg = host.gpg
    settings.encryption = .age([try #require(escrow.recipient)])
    let manifest = try await workshop.backup(try connection(cluster, database), settings: settings).run().manifest
    let key = try #require(manifest.encryption?.key)
    #expect(key.recipients == [owner.fingerprint])
    #expect(manifest.encryption?.holders == [owner.fingerprint, "\(try #require(escrow.recipient))"])
    #expect(manifest.encryption?.recipients.count == 2)
    #expect(try await host.gpg.check() == false)
    #expect(try await owner.gpg.check())

    let store = workshop.store
    func open(_ keys: Keyring) async throws -> Int {
      let source = try await ArchiveSource(manifest, in: [store], identities: keys)
      let table = try #require(source.contents.tables.first { $0.length > 0 })
      var bytes = 0
      try await source.read(table.offset..<table.offset + table.length) { bytes += $0.count }
      #expect(bytes == Int(table.length))
      return source.contents.tables.count
    }
    let tables = try await open(Keyring(gpg: owner.gpg))
    #expect(tables > 3)
    #expect(try await open([escrow]) == tables)
    for keys in [Keyring(gpg: host.gpg), [], [AgeIdentity.generate()]] as [Keyring] {
      let fault = await #expect(throws: Fault.self) { try await open(keys) }
      #expect(fault?.code == .keyMissing, "\(fault.map { "\($0)" } ?? "")")
    }

    // Verified as deep as the keys go, and a sealed key that was changed is damage.
    func verify(_ keys: Keyring) async throws -> Verification {
      try await Verify(
        manifest, in: store, level: .archive, identities: keys, trusted: [], now: { Date(timeIntervalSince1970: 0) }
      ).run()
    }
    #expect(try await verify(Keyring(gpg: owner.gpg)).level == .archive)
    let shallow = try await verify(Keyring(gpg: host.gpg))
    #expect(shallow.level == .checksum)
    #expect(shallow.note?.contains("No secret key") == true, "\(shallow.note ?? "")")
    #expect(shallow.fault == nil)
    // Also by who has opened it before, and by who needs it not.
    let known = Keyring(gpg: owner.gpg)
    #expect(try await open(known) == tables)
    #expect(try await verify(known).fault == nil)
    let path = workshop.folder.file("store/\(manifest.layout.path(key.file.name))")
    var bytes = try Data(contentsOf: URL(filePath: path))
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: URL(filePath: path))
    #expect(try await verify(Keyring(gpg: owner.gpg)).fault?.code == .artifactDamaged)
    for keys in [[], [escrow], known] as [Keyring] {
      #expect(try await verify(keys).fault?.code == .artifactDamaged)
    }
    await #expect(throws: Fault.self) { try await open(known) }
  }

  /// Nothing is dumped that nobody could open.
  @Test func aMissingPublicKey() async throws {
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase()
    let workshop = Workshop()
    let home = try GnuPGHome()
    var settings = Backup.Settings()
    settings.gpg = GnuPG(recipients: [String(repeating: "A", count: 40)], home: home.folder.path)
    let connection = try connection(cluster, database)
    let fault = await #expect(throws: Fault.self) { try await workshop.backup(connection, settings: settings).run() }
    #expect(fault?.code == .keyMissing)
    #expect(fault?.cause?.contains("No public key") == true, "\(fault?.cause ?? "")")
    #expect(workshop.files.isEmpty)
  }

  /// A secret key behind a passphrase, on a host where nobody is there to type it.
  @Test func aPassphraseInAFile() async throws {
    let folder = TemporaryFolder()
    try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder.path)
    let gpg = ["--homedir", folder.path, "--batch", "--quiet", "--no-tty"]
    defer { _ = try? Shell.run("gpgconf", ["--homedir", folder.path, "--kill", "all"]) }
    try Shell.must(
      "gpg",
      gpg + [
        "--pinentry-mode", "loopback", "--passphrase", "not guessed", "--quick-generate-key", "Locked",
        "future-default",
      ])
    let listing = try Shell.must("gpg", gpg + ["--list-keys", "--with-colons"])
    let fingerprint = try #require(
      listing.split(separator: "\n").first { $0.hasPrefix("fpr:") }?.split(separator: ":").last)
    var locked = GnuPG(recipients: [String(fingerprint)], home: folder.path)
    let sealed = try await locked.encrypt([1, 2, 3])
    try Shell.must("gpgconf", ["--homedir", folder.path, "--kill", "all"])
    // A key that nobody can unlock here opens nothing.
    #expect(try await locked.check() == false)
    locked.passphraseFile = try folder.write("wrong", "guessed\n", mode: 0o600)
    await #expect(throws: Fault.self) { try await locked.decrypt(sealed) }
    locked.passphraseFile = try folder.write("right", "not guessed\n", mode: 0o600)
    #expect(try await locked.decrypt(sealed) == [1, 2, 3])
  }
}
