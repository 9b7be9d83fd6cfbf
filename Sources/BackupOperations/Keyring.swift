package import AgeEncryption
import ArtifactFormat
package import BackupCatalog
package import Faults
package import OutsidePrograms
package import Storage
import Synchronization

/// What opens encrypted backups on this host: age identities, and GnuPG for backups whose key is sealed with it.
package struct Keyring: Sendable, Equatable, ExpressibleByArrayLiteral {
  package let identities: [AgeIdentity]
  package let gpg: GnuPG?
  private let opened = Opened()

  /// Keys that gpg has opened, by the digest of the file they came from: a card or a passphrase is asked once.
  private final class Opened: Sendable {
    let identities = Mutex<[String: AgeIdentity]>([:])
  }

  package init(_ identities: [AgeIdentity] = [], gpg: GnuPG? = nil) {
    self.identities = identities
    self.gpg = gpg
  }

  package init(arrayLiteral identities: AgeIdentity...) { self.init(identities) }

  package static func == (one: Keyring, other: Keyring) -> Bool {
    one.identities == other.identities && one.gpg == other.gpg
  }

  package var isEmpty: Bool { identities.isEmpty && gpg == nil }

  /// The identities that may open a backup. Where one at hand is among its recipients, gpg is not asked.
  ///
  /// - Throws: what the store says; `E-ARTIFACT-DAMAGED` where the sealed key is not what was written; `E-KEY-MISSING` in gpg's words.
  package func identities(
    opening manifest: Manifest, in store: any ObjectStore
  ) async throws(Fault) -> [AgeIdentity] {
    guard let encryption = manifest.encryption, let key = encryption.key, let gpg else { return identities }
    let own = Set(identities.compactMap { $0.recipient?.description })
    guard own.isDisjoint(with: encryption.recipients) else { return identities }
    let place = "'\(manifest.layout.path(key.file.name))' in store '\(store.name)'"
    let sealed: [UInt8]
    let object = try Backup.key(manifest.layout, key.file.name)
    do throws(StorageError) {
      sealed = try await store.read(object, range: 0..<UInt64(max(0, key.file.size)))
    } catch {
      throw error.fault
    }
    guard Digest.hexadecimal(of: sealed) == key.file.sha256 else {
      throw Fault(
        .artifactDamaged, "\(place) is not what was written: its SHA-256 differs from the manifest's.",
        hint: "pgbackupctl show \(shell: manifest.id)")
    }
    // Only after its bytes have shown that they are still there: what is remembered opens nothing for anybody else.
    if let known = opened.identities.withLock({ $0[key.file.sha256] }) { return identities + [known] }
    let text = String(decoding: try await gpg.decrypt(sealed), as: UTF8.self)
    do throws(AgeError) {
      let found = try AgeIdentity.identities(inFile: text)
      if let first = found.first { opened.identities.withLock { $0[key.file.sha256] = first } }
      return identities + found
    } catch {
      throw Fault(.artifactDamaged, "\(place) holds no age identity.", hint: "pgbackupctl show \(shell: manifest.id)")
    }
  }
}

/// How one backup is encrypted, and the file with its key where that is sealed with GnuPG.
///
/// age encrypts in any case: streams, by ranges, and faster than gpg. For GnuPG's sake each backup has a key of its own, which is
/// forgotten here as soon as gpg has sealed it.
struct SealedEncryption: Sendable {
  let encryption: Encryption
  let key: (file: Manifest.StoredFile, bytes: [UInt8], recipients: [String])?

  static let keyName = "identity.gpg"

  init(_ encryption: Encryption, gpg: GnuPG?) async throws(Fault) {
    guard let gpg, !gpg.recipients.isEmpty else {
      self.encryption = encryption
      key = nil
      return
    }
    let identity = AgeIdentity.generate()
    guard let recipient = identity.recipient else { throw Fault(.internal, "A new age identity has no recipient.") }
    let text = "# the key of this backup alone\n\(identity.secretText)\n"
    let bytes = try await gpg.encrypt(Array(text.utf8))
    let file = Manifest.StoredFile(
      name: Self.keyName, size: Int64(bytes.count), sha256: Digest.hexadecimal(of: bytes))
    key = (file, bytes, gpg.recipients)
    self.encryption =
      switch encryption {
      case .none: .age([recipient])
      case .age(let others): .age([recipient] + others)
      }
  }

  /// What the manifest tells of it; nil where nothing is encrypted.
  var record: Manifest.Encryption? {
    guard encryption != .none else { return nil }
    var record = Manifest.Encryption(method: "age", recipients: encryption.recipients)
    record.key = key.map { Manifest.Encryption.Key(file: $0.file, recipients: $0.recipients) }
    return record
  }
}
