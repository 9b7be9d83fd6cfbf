import ArtifactFormat
import Faults
import Storage
import Units

/// Reads the signed records of one backup in one store: from this machine's copies of them where there are some, else
/// from the store, one request for each object. Both are checked in the same way.
struct RecordReader: Sendable {
  struct Record: Sendable {
    let bytes: [UInt8]
    /// Nil where nobody was asked: no key is known, or there is no signature.
    let verdict: TrustedKeys.Verdict?
    /// What the cache may keep of it.
    var copy: RecordCache.Copy?
    var isFetched = true
  }

  let store: any ObjectStore
  let trusted: TrustedKeys
  let database: String
  let copies: [RecordCache.Copy]

  var needsSignature: Bool { !trusted.isEmpty }

  func isTrusted(_ record: Record) -> Bool {
    guard needsSignature else { return true }
    if case .valid = record.verdict { return true }
    return false
  }

  func read(_ object: StoredObject, signature: StoredObject?, limit: ByteCount) async throws(Fault) -> Record {
    if let signature, let known = copies.first(where: { $0.record.isOf(object) && $0.signature.isOf(signature) }) {
      var record = check(Array(known.record.bytes), Array(known.signature.bytes))
      (record.copy, record.isFetched) = (known, false)
      if isTrusted(record) { return record }
    }
    let bytes = try await fetch(object, limit)
    guard needsSignature, let signature else { return Record(bytes: bytes, verdict: nil) }
    let signed = try await fetch(signature, limit)
    var record = check(bytes, signed)
    if isTrusted(record) { record.copy = .init(record: .init(object, bytes), signature: .init(signature, signed)) }
    return record
  }

  private func check(_ bytes: [UInt8], _ signature: [UInt8]) -> Record {
    Record(
      bytes: bytes,
      verdict: trusted.check(bytes, signature: String(decoding: signature, as: UTF8.self), of: database))
  }

  func fetch(_ object: StoredObject, _ limit: ByteCount) async throws(Fault) -> [UInt8] {
    do throws(StorageError) {
      return try await store.read(object, limit: limit)
    } catch {
      guard error.kind == .missing else { throw error.fault }
      throw Fault(
        .objectMissing, "'\(object.key)' vanished while store '\(store.name)' was read.", hint: "pgbackupctl list")
    }
  }

  /// Where a record is, for messages.
  func place(_ object: StoredObject) -> String { "'\(object.key)' in store '\(store.name)'" }
}
