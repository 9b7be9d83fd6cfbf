package import ArtifactFormat
package import BackupCatalog
package import Faults
import Foundation
import Quoting
package import Storage
import Units

/// A proof beside its backup, in every store: signed as the manifest is, the signature first.
package enum ProofRecord {
  /// Returns what stores failed with; a proof that is missing there is only shown by the others.
  package static func write(
    _ proof: Proof, of manifest: Manifest, signingKey: SigningKey?, policy: RetentionPolicy,
    to stores: [any ObjectStore]
  ) async -> [String: Fault] {
    var failed: [String: Fault] = [:]
    let name = Proof.name(at: proof.finished)
    let term = RetentionTerm(policy, manifest.layout, keepSeconds: manifest.keepSeconds)
    for store in stores {
      do {
        let encoded = try proof.encoded()
        let end = term.end(in: store.name)
        if let signature = try signingKey?.sign(encoded) {
          try await store.put(try key(manifest, name + signatureSuffix), Array(signature.utf8), retainUntil: end)
        }
        try await store.put(try key(manifest, name), encoded, retainUntil: end)
      } catch {
        failed[store.name] = (error as? StorageError)?.fault ?? Fault(error)
      }
    }
    return failed
  }

  /// Brings a proof and its signature from one store into another; the signature first, as in `write`.
  ///
  /// - Throws: `E-SIGNATURE-INVALID` where the source does not show what the catalog has seen there.
  static func copy(
    _ name: String, of manifest: Manifest, from source: any ObjectStore, to target: any ObjectStore,
    policy: RetentionPolicy, trusted: TrustedKeys
  ) async throws {
    let end = RetentionTerm(policy, manifest.layout, keepSeconds: manifest.keepSeconds).end(in: target.name)
    // Both are read before anything of them is written: a store may say something else than a moment ago.
    let record = try await source.get(try key(manifest, name), limit: limit)
    // Without a signature it stays one that nobody has signed.
    let signature = try await source.get(try key(manifest, name + signatureSuffix), limit: limit)
    guard let record, let proof = try? Proof(decoding: record, from: "'\(name)' in store '\(source.name)'"),
      proof.backup == manifest.id,
      trusted.isEmpty
        || signature.map({
          trusted.isSigned(record, signature: String(decoding: $0, as: UTF8.self), of: manifest.id.database)
        }) == true
    else {
      throw Fault(
        .signatureInvalid,
        "The proof '\(name)' of \(manifest.id) in store '\(source.name)' is not what it was when it was read there.",
        hint: "look at who writes into that store; it goes nowhere else")
    }
    var isThere = true
    for (name, bytes) in [(name + signatureSuffix, signature), (name, record)] {
      let key = try key(manifest, name)
      guard let bytes else { continue }
      if try await target.get(key, limit: limit) == bytes { continue }
      isThere = false
      if try await target.stat(key) != nil { try await target.makeRoom(key) }
      try await target.put(key, bytes, retainUntil: end)
    }
    guard isThere else { return }
    throw Fault(
      .storeFailed,
      "The proof '\(name)' of \(manifest.id) lies in store '\(target.name)', hidden behind later ones that nobody trusted has signed.",
      hint: "look at who has put proof-*.json into \(manifest.layout.folder) there, and delete them")
  }

  /// The newest proof among a backup's objects that somebody has signed who is trusted; nil where there is none.
  static func read(_ objects: [StoredObject], of manifest: Manifest, by reader: RecordReader) async -> (
    proof: Proof, record: RecordReader.Record
  )? {
    let all = Dictionary(objects.map { (String($0.key.name), $0) }, uniquingKeysWith: { first, _ in first })
    let proofs = objects.filter { isProof(String($0.key.name)) }.sorted { $0.key.name > $1.key.name }
    // A few: whoever can write there could have put a million of them.
    for object in proofs.lazy.filter({ !reader.needsSignature || all[String($0.key.name) + signatureSuffix] != nil })
      .prefix(4)
    {
      guard
        let record = try? await reader.read(
          object, signature: all[String(object.key.name) + signatureSuffix], limit: limit),
        reader.isTrusted(record)
      else { continue }
      if let proof = try? Proof(decoding: record.bytes, from: reader.place(object)),
        proof.backup == manifest.id,
        // Of these very bytes: the contents have the digests of all frames.
        proof.artifact ?? manifest.artifact.file.sha256 == manifest.artifact.file.sha256,
        proof.read?.contents ?? manifest.contents.sha256 == manifest.contents.sha256
      {
        return (proof, record)
      }
    }
    return nil
  }

  static func isProof(_ name: String) -> Bool { name.starts(withBytes: Proof.prefix) && name.ends(withBytes: ".json") }

  private static let signatureSuffix = ".sig"
  private static let limit = ByteCount.mebibytes(1)

  private static func key(_ manifest: Manifest, _ name: String) throws(Fault) -> ObjectKey {
    try Backup.key(manifest.layout, name)
  }
}
