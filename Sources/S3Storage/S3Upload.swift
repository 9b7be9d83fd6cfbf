import Crypto
import Foundation
import HTTPTransport
import Storage

/// One object on its way into a bucket. Bytes are gathered to parts; full ones are sent while the next is being filled, a few at a time,
/// so that memory is bounded by a few parts and the writer waits for the network only when it is behind.
///
/// The parts in flight are tasks of their own: they must go on while nobody calls. `finish` and `abort` wait for all of them.
actor S3Upload: ObjectUpload {
  private struct Part: Sendable {
    let number: Int
    let etag: String
    let checksum: String
  }

  private let store: S3Store
  private let key: ObjectKey
  private let options: UploadOptions
  private let sizes: PartSizes
  /// Stored with the object: tells our object from another's where an answer was lost.
  private let mark = UUID().uuidString.lowercased()

  private var buffer: [UInt8] = []
  private var total: UInt64 = 0
  private var multipart: MultipartUpload?
  /// What an earlier process has brought there already.
  private var present: [Int: StoredPart] = [:]
  private var inFlight: [Task<Part, any Error>] = []
  private var done: [Part] = []
  private var failure: StorageError?
  private var hasEnded = false

  /// Bytes of parts that may be on their way at once; one part always may.
  private static let inFlightBytes = 24 << 20
  private static let inFlightParts = 4

  init(store: S3Store, key: ObjectKey, _ options: UploadOptions) {
    self.store = store
    self.key = key
    self.options = options
    sizes = store.partSizes(options)
  }

  private var nextNumber: Int { done.count + inFlight.count + 1 }

  func write(_ bytes: [UInt8]) async throws(StorageError) {
    try requireOpen()
    total += UInt64(bytes.count)
    var rest = bytes[...]
    while !rest.isEmpty {
      let size = sizes.size(of: nextNumber)
      // A full part is sent when more comes: the last one may be the only one, and then needs no multipart upload.
      if buffer.count == size { try await sendPart() }
      if buffer.isEmpty {
        buffer.reserveCapacity(min(size, max(rest.count, Int(clamping: options.expectedBytes ?? UInt64(size)))))
      }
      let taken = rest.prefix(sizes.size(of: nextNumber) - buffer.count)
      buffer.append(contentsOf: taken)
      rest = rest.dropFirst(taken.count)
    }
  }

  func finish() async throws(StorageError) {
    try requireOpen()
    if multipart == nil {
      try await putWhole()
    } else {
      if !buffer.isEmpty { try await sendPart() }
      while !inFlight.isEmpty { try await awaitOldest() }
      try await complete()
    }
    end()
  }

  func abort() async {
    guard !hasEnded else { return }
    for part in inFlight { part.cancel() }
    for part in inFlight { _ = try? await part.value }
    if let multipart {
      _ = try? await store.client.send(
        S3Request(method: "DELETE", key: multipart.key, query: [("uploadId", multipart.id)]))
    }
    end()
  }

  func leave() async {
    guard options.canResume else { return await abort() }
    guard !hasEnded else { return }
    for part in inFlight { part.cancel() }
    var hasCome = !done.isEmpty || !present.isEmpty
    for part in inFlight where (try? await part.value) != nil { hasCome = true }
    // Nobody could tell what it was begun under, and there is nothing to go on with.
    if hasCome { end() } else { await abort() }
  }

  private func requireOpen() throws(StorageError) {
    if let failure { throw failure }
    if hasEnded { throw StorageError(.failed, store: store.name, key: key, reason: "the upload has ended") }
  }

  private func end() {
    hasEnded = true
    if let multipart { store.uploads.remove(multipart.id) }
    (buffer, inFlight, done) = ([], [], [])
  }
}

// MARK: - Parts

extension S3Upload {
  private func sendPart() async throws(StorageError) {
    let number = nextNumber
    guard number <= PartSizes.limit else {
      throw StorageError(.full, store: store.name, key: key, reason: "S3 takes \(PartSizes.limit) parts and no more")
    }
    if multipart == nil { try await begin() }
    guard let multipart else { return }
    let room = max(1, min(Self.inFlightParts, Self.inFlightBytes / max(1, buffer.count)))
    while inFlight.count >= room { try await awaitOldest() }
    let bytes = buffer
    buffer = []
    let (store, key, old) = (store, key, present[number])
    inFlight.append(
      Task {
        try await Self.send(bytes, number, of: multipart, old, key, store)
      })
  }

  private static func send(
    _ bytes: [UInt8], _ number: Int, of upload: MultipartUpload, _ old: StoredPart?, _ key: ObjectKey, _ store: S3Store
  ) async throws -> Part {
    let digest = bytes.withUnsafeBytes { SHA256.hash(data: $0) }
    let checksum = Data(digest).base64EncodedString()
    if let old, old.isSame(as: bytes, checksum) {
      return Part(number: number, etag: old.etag, checksum: checksum)
    }
    let response = try await store.send(
      S3Request(
        method: "PUT", key: upload.key, query: [("partNumber", "\(number)"), ("uploadId", upload.id)],
        headers: [("x-amz-checksum-sha256", checksum)], body: bytes, bodyDigest: digest.hexadecimal,
        isWorthWaiting: true), key)
    try check(response, checksum, key, store)
    guard let etag = response.headers["etag"] else {
      throw StorageError(.failed, store: store.name, key: key, reason: "the server gives no ETag for part \(number)")
    }
    return Part(number: number, etag: etag, checksum: checksum)
  }

  /// A server that checks tells which sum it has.
  private static func check(
    _ response: HTTPResponse, _ checksum: String, _ key: ObjectKey, _ store: S3Store
  ) throws(StorageError) {
    if let told = response.headers["x-amz-checksum-sha256"], told != checksum {
      throw StorageError(
        .failed, store: store.name, key: key, reason: "the server has other bytes: their SHA-256 is \(told)")
    }
  }

  private func awaitOldest() async throws(StorageError) {
    guard let oldest = inFlight.first else { return }
    // The writer's end is the parts' end: tasks of their own don't hear of it otherwise.
    let result = await withTaskCancellationHandler {
      await oldest.result
    } onCancel: {
      oldest.cancel()
    }
    switch result {
    case .success(let part):
      inFlight.removeFirst()
      done.append(part)
    case .failure(let error):
      let reason =
        error as? StorageError
        ?? StorageError(.failed, store: store.name, key: key, reason: String(describing: error))
      failure = reason
      throw reason
    }
  }

  private func begin() async throws(StorageError) {
    if options.canResume, let (old, parts) = await unfinished() {
      present = Dictionary(parts.map { ($0.number, $0) }) { $1 }
      multipart = old
      store.uploads.add(old.id)
      return
    }
    let headers = store.objectHeaders(
      [("x-amz-checksum-algorithm", "SHA256"), (Self.markHeader, mark)], retainUntil: options.retainUntil)
    let full = store.fullKey(key.path)
    let response = try await store.send(
      S3Request(method: "POST", key: full, query: [("uploads", "")], headers: headers), key)
    // gofakes3, which serves rclone's, leaves out the last word.
    let document = try store.document(
      response, of: "CreateMultipartUpload", root: "InitiateMultipartUploadResult", or: "InitiateMultipartUpload")
    guard let id = document["UploadId"]?.text else {
      throw StorageError(.failed, store: store.name, key: key, reason: "the server gives no UploadId")
    }
    multipart = MultipartUpload(key: full, id: id, begun: store.client.now())
    store.uploads.add(id)
  }
}

extension S3Upload {
  /// What an earlier process has begun under this key and the same settings, with its parts. Nil also where nobody may ask for that, or it
  /// has just been given up: then all is sent anew.
  private func unfinished() async -> (MultipartUpload, [StoredPart])? {
    let full = store.fullKey(key.path)
    do throws(StorageError) {
      let old = try await store.multiparts(prefix: full).uploads
        .filter { $0.key == full && !store.uploads.contains($0.id) }.sorted { $0.begun > $1.begun }
      for upload in old.prefix(Self.lookedAt) {
        let parts = try await store.parts(of: upload)
        if let first = parts.first, first.size == sizes.size(of: first.number) { return (upload, parts) }
      }
      return nil
    } catch {
      return nil
    }
  }

  /// Each try that was cut off has left one at most, and a sweep takes those of a day ago.
  private static let lookedAt = 8
}

// MARK: - Making it appear

extension S3Upload {
  /// "Processing of a CompleteMultipartUpload request could take several minutes" (S3 API Reference), in which white space drips at most.
  private static let completion = Duration.seconds(15 * 60)
  private static let markHeader = "x-amz-meta-pgbackupd-upload"

  private func putWhole() async throws(StorageError) {
    let digest = buffer.withUnsafeBytes { SHA256.hash(data: $0) }
    let checksum = Data(digest).base64EncodedString()
    var headers = [("x-amz-checksum-sha256", checksum), (Self.markHeader, mark)]
    if let end = options.retainUntil, store.client.settings.lock != nil, store.isAhead(end) {
      // Object Lock asks for a sum, and older servers know this one alone.
      headers.append(
        ("Content-MD5", Data(buffer.withUnsafeBytes { Insecure.MD5.hash(data: $0) }).base64EncodedString()))
    }
    let request = S3Request(
      method: "PUT", key: store.fullKey(key.path),
      headers: store.objectHeaders(headers, retainUntil: options.retainUntil), body: buffer,
      bodyDigest: digest.hexadecimal, isWorthWaiting: true)
    let response = try await appear(request)
    if let response { try Self.check(response, checksum, key, store) }
  }

  private func complete() async throws(StorageError) {
    guard let multipart else { return }
    let parts = done.map {
      "<Part><PartNumber>\($0.number)</PartNumber><ETag>\($0.etag)</ETag><ChecksumSHA256>\($0.checksum)</ChecksumSHA256></Part>"
    }
    let body =
      #"<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#
      + parts.joined() + "</CompleteMultipartUpload>"
    let response = try await appear(
      S3Request(
        method: "POST", key: multipart.key, query: [("uploadId", multipart.id)],
        headers: [("Content-Type", "text/xml")],
        body: Array(body.utf8), isWorthWaiting: true, patience: Self.completion))
    // A failure may come with status 200, when the server had begun to answer ("CompleteMultipartUpload", S3 API Reference).
    guard let response else { return }
    let document = try? S3Document(response.body)
    guard document?.name != "CompleteMultipartUploadResult", try await !hasAppeared() else { return }
    throw StorageError(
      .failed, store: store.name, key: key, reason: document?["Message"]?.text ?? "CompleteMultipartUpload failed")
  }

  /// Sends the request that makes the object appear, where there is none yet. Where an answer was lost and the request was repeated, a
  /// refusal may be due to our own first try: the object that is there then bears our mark. Nil where that was so.
  private func appear(_ request: S3Request) async throws(StorageError) -> HTTPResponse? {
    if try await store.head(key) != nil {
      throw StorageError(.exists, store: store.name, key: key, reason: "it has appeared meanwhile")
    }
    let isConditional = store.conditions.get()
    var conditional = request
    conditional.headers.append(("If-None-Match", "*"))
    do throws(S3Failure) {
      return try await store.client.send(isConditional ? conditional : request)
    } catch {
      if error.status == 501, isConditional {
        // This server knows no conditions, and says so; the look beforehand must do.
        store.conditions.set(false)
        return try await appear(request)
      }
      if error.status == 412 || error.code == "NoSuchUpload" || error.transport != nil, try await hasAppeared() {
        return nil
      }
      throw store.storageError(error, key)
    }
  }

  /// Whether the object that is there is the one that we sent.
  private func hasAppeared() async throws(StorageError) -> Bool {
    guard let response = try await store.head(key) else { return false }
    // An upload that was resumed bears the mark of who began it.
    if !present.isEmpty { return response.headers["content-length"] == "\(total)" }
    return response.headers[Self.markHeader] == mark
  }
}

extension StoredPart {
  /// Whether the server has these bytes already. Where it keeps no SHA-256, the ETag of a part is its MD5, unless the server encrypts.
  fileprivate func isSame(as bytes: [UInt8], _ sha256: String) -> Bool {
    guard size == bytes.count else { return false }
    if let checksum { return checksum == sha256 }
    return etag.filter { $0 != "\"" } == bytes.withUnsafeBytes { Insecure.MD5.hash(data: $0) }.hexadecimal
  }
}
