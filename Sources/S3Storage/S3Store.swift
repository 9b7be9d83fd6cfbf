import Crypto
package import Foundation
package import HTTPTransport
import Quoting
package import Storage
import Synchronization
package import Units

/// Objects in an S3 bucket, under a prefix.
///
/// An upload up to one part's size is a single `PUT`; a longer one is a multipart upload, of which nothing shows before it is
/// completed. Either appears only where no object is (`If-None-Match: *`, and a look beforehand for servers that don't know it).
/// Every part carries its SHA-256, which the server checks. A crash leaves parts that don't show, and that a sweep aborts once nobody
/// has added to them for a day.
package struct S3Store: ObjectStore {
  package let name: String
  let client: S3Client
  let uploads = ActiveUploads()
  /// Whether the server knows `If-None-Match`; most do.
  let conditions = SharedValue(true)
  /// What a listing may cost.
  var limits = ListingBudget.Limits()

  private var settings: S3Settings { client.settings }

  /// - Parameters:
  ///   - environment: where credentials are looked for when the settings have none.
  ///   - now: the wall clock, for signatures.
  package init(
    name: String, settings: S3Settings, transport: any HTTPTransport, environment: [String: String],
    readFile: @escaping @Sendable (String) throws -> String, now: @escaping @Sendable () -> Date
  ) {
    self.init(
      name: name, settings: settings, transport: transport, environment: environment, readFile: readFile,
      retry: RetryPolicy(), now: now,
      // Whoever gives keys is asked directly: the store's proxy and its authorities are the store's.
      keys: KeyTransports(direct: CurlTransport(.init(proxy: "")), web: CurlTransport()))
  }

  init(
    name: String, settings: S3Settings, transport: any HTTPTransport, environment: [String: String],
    readFile: @escaping @Sendable (String) throws -> String, retry: RetryPolicy, now: @escaping @Sendable () -> Date,
    keys: KeyTransports? = nil
  ) {
    self.name = name
    let sources: [any CredentialSource] =
      settings.credentials.map {
        [ConfiguredCredentials(value: $0, files: settings.credentialFiles, readFile: readFile)]
      }
      ?? AmbientCredentials(
        environment: environment, profile: settings.profile, region: settings.region,
        transports: keys ?? KeyTransports(direct: transport, web: transport), readFile: readFile
      ).sources
    client = S3Client(
      store: name, settings: settings, transport: transport, keeper: CredentialKeeper(sources), retry: retry, now: now)
  }

  package var location: String { settings.location }

  /// Begins a multipart upload and aborts it: that needs the rights and the settings of a real one, its lock too, and leaves nothing, not
  /// even a version.
  package func check() async throws(StorageError) {
    let key = fullKey(".pgbackupd-check")
    let begun: HTTPResponse
    do throws(StorageError) {
      begun = try await send(
        S3Request(
          method: "POST", key: key, query: [("uploads", "")],
          headers: objectHeaders([], retainUntil: client.now().timeIntervalSince1970 + 3600)))
    } catch {
      guard settings.lock != nil, error.kind == .failed else { throw error }
      throw StorageError(
        .failed, store: name, reason: "\(error.reason); 'lock' needs a bucket that was made with Object Lock")
    }
    guard let id = (try? S3Document(begun.body))?["UploadId"]?.text else {
      throw StorageError(.failed, store: name, reason: "the server's answer to CreateMultipartUpload has no UploadId")
    }
    try await end(key, id)
  }

  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    var objects: [StoredObject] = []
    var budget = ListingBudget("ListObjectsV2", store: name, limits)
    var token: String?
    repeat {
      var query = [("list-type", "2"), ("prefix", fullKey(prefix)), ("encoding-type", "url")]
      if let token { query.append(("continuation-token", token)) }
      let reply = try document(try await send(.page(query)), of: "ListObjectsV2", root: "ListBucketResult")
      let isEncoded = reply["EncodingType"]?.text == "url"
      for entry in reply.all("Contents") {
        guard let key = key(entry["Key"]?.text, isEncoded: isEncoded),
          let size = entry["Size"].flatMap({ UInt64($0.text) }),
          let modified = entry["LastModified"].flatMap({ Date(rfc3339: $0.text) })
        else { continue }
        objects.append(StoredObject(key: key, size: size, modified: modified.timeIntervalSince1970))
      }
      let next = try budget.next(
        reply, count: reply.children.count, markers: [reply["NextContinuationToken"]?.text])
      token = next?.first.flatMap(\.self)
    } while token != nil
    return objects.sorted { $0.key < $1.key }
  }

  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? {
    guard let response = try await head(key) else { return nil }
    guard let size = response.headers["content-length"].flatMap({ UInt64($0) }) else {
      throw StorageError(.failed, store: name, key: key, reason: "the server tells no size")
    }
    let modified = response.headers["last-modified"].flatMap(Date.init(http:))?.timeIntervalSince1970 ?? 0
    return StoredObject(key: key, size: size, modified: modified)
  }

  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    guard !range.isEmpty else {
      guard try await head(key) != nil else { throw StorageError(.missing, store: name, key: key, reason: "NoSuchKey") }
      return []
    }
    let response: HTTPResponse
    do throws(S3Failure) {
      response = try await client.send(
        S3Request(
          method: "GET", key: fullKey(key.path),
          headers: [("Range", "bytes=\(range.lowerBound)-\(range.upperBound - 1)")],
          // A server that sends everything instead is stopped; a refusal has its room.
          replyLimit: ByteCount(Int64(range.count) + 65536)))
    } catch {
      throw storageError(error, key)
    }
    // 200 is the whole object: the server knows no ranges, or the range is all of it. rclone's says 200 and sends the range, and what it
    // is.
    let sent = response.headers["content-range"] ?? ""
    let isRange = response.status == 206 || sent.starts(withBytes: "bytes \(range.lowerBound)-\(range.upperBound - 1)/")
    guard isRange || range.lowerBound == 0, response.body.count == range.count else {
      throw StorageError(
        .failed, store: name, key: key,
        reason: "\(response.body.count) bytes came for bytes \(range.lowerBound) to \(range.upperBound)")
    }
    if let told = response.headers["content-range"],
      !told.starts(withBytes: "bytes \(range.lowerBound)-\(range.upperBound - 1)/")
    {
      throw StorageError(.failed, store: name, key: key, reason: "the server sent another range: \(told)")
    }
    return response.body
  }

  package func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    // What will be one request is looked for once, right before it.
    let isSmall = options.expectedBytes.map { $0 < UInt64(partSizes(options).first) } ?? false
    if !isSmall, try await head(key) != nil {
      throw StorageError(.exists, store: name, key: key, reason: "it is there already")
    }
    return S3Upload(store: self, key: key, options)
  }

  package func delete(_ key: ObjectKey) async throws(StorageError) {
    let full = fullKey(key.path)
    guard settings.deletesVersions else {
      _ = try await send(S3Request(method: "DELETE", key: full), key)
      return
    }
    for version in try await versions(of: full) {
      _ = try await send(S3Request(method: "DELETE", key: full, query: [("versionId", version)]), key)
    }
  }

  package func makeRoom(_ key: ObjectKey) async throws(StorageError) {
    _ = try await send(S3Request(method: "DELETE", key: fullKey(key.path)), key)
  }

  package var locks: Bool { settings.lock != nil }

  package func lockEnd(of key: ObjectKey) async throws(StorageError) -> Double? {
    let response: HTTPResponse
    do throws(S3Failure) {
      response = try await client.send(S3Request(method: "GET", key: fullKey(key.path), query: [("retention", "")]))
    } catch {
      // The object is there, and has no retention; SeaweedFS has S3's word for a bucket without any.
      if ["NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"].contains(error.code) { return nil }
      throw storageError(error, key)
    }
    let text = try document(response, of: "GetObjectRetention", root: "Retention")["RetainUntilDate"]?.text
    return text.flatMap(Date.init(rfc3339:))?.timeIntervalSince1970
  }

  package func lock(_ key: ObjectKey, until end: Double) async throws(StorageError) {
    guard let mode = settings.lock, isAhead(end) else { return }
    let date = Date(timeIntervalSince1970: end.rounded(.up)).rfc3339
    let body = Array(
      """
      <Retention xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Mode>\(mode.rawValue.uppercased())</Mode>\
      <RetainUntilDate>\(date)</RetainUntilDate></Retention>
      """.utf8)
    // A request that changes a lock has to carry a sum (PutObjectRetention of the S3 reference).
    _ = try await send(
      S3Request(
        method: "PUT", key: fullKey(key.path), query: [("retention", "")],
        headers: [("Content-MD5", Data(Insecure.MD5.hash(data: body)).base64EncodedString())], body: body), key)
  }

  /// What another process may be at is no wreck, and nobody can tell which ones live: `unfinished` tells how old they are instead.
  package func sweepUnfinished() async throws(StorageError) -> Int { 0 }

  package func unfinished() async throws(StorageError) -> [UnfinishedUpload] {
    var found: [UnfinishedUpload] = []
    let prefix = fullKey("")
    let end = limits.end
    let listed = try await multiparts(prefix: prefix, end: end)
    for upload in listed.uploads where !uploads.contains(upload.id) {
      var last = upload.begun
      do throws(StorageError) {
        // Old is not dead: a slow line may take days, and adds parts meanwhile.
        last = max(last, try await parts(of: upload, end: end).compactMap(\.modified).max() ?? last)
      } catch  where error.kind == .missing {
        // Ended by somebody since the listing.
        continue
      }
      found.append(
        UnfinishedUpload(
          key: upload.key.rest(after: prefix).map(String.init) ?? upload.key, id: upload.id,
          lastChanged: last.timeIntervalSince1970 - listed.skew))
    }
    return found
  }

  package func abort(_ upload: UnfinishedUpload) async throws(StorageError) {
    guard !uploads.contains(upload.id) else { return }
    try await end(fullKey(upload.key), upload.id)
  }

  /// What is ended already is ended: by whoever it was, or by a request of ours whose answer was lost.
  private func end(_ key: String, _ id: String) async throws(StorageError) {
    do throws(StorageError) {
      _ = try await send(S3Request(method: "DELETE", key: key, query: [("uploadId", id)]))
    } catch  where error.kind == .missing {
      return
    }
  }

  package func availableSpace() async throws(StorageError) -> ByteCount? { nil }
}

// MARK: - Keys and headers

extension S3Store {
  func fullKey(_ path: String) -> String { settings.prefix.isEmpty ? path : "\(settings.prefix)/\(path)" }

  /// A listed key without the prefix; nil where it is none of ours.
  private func key(_ listed: String?, isEncoded: Bool) -> ObjectKey? {
    guard let listed, let full = isEncoded ? listed.replacingBytes(of: "+", with: " ").removingPercentEncoding : listed
    else { return nil }
    return full.rest(after: fullKey("")).flatMap { ObjectKey(String($0)) }
  }

  /// A lock that has ended already is refused by the server, and is none.
  func isAhead(_ end: Double) -> Bool { end > client.now().timeIntervalSince1970 + 60 }

  /// What makes an object as the settings want it.
  func objectHeaders(
    _ more: [(name: String, value: String)], retainUntil: Double? = nil
  ) -> [(name: String, value: String)] {
    var headers = more + [("Content-Type", "application/octet-stream")]
    if let storageClass = settings.storageClass { headers.append(("x-amz-storage-class", storageClass)) }
    switch settings.serverSideEncryption {
    case .storeKey: headers.append(("x-amz-server-side-encryption", "AES256"))
    case .managedKey(let key):
      headers.append(("x-amz-server-side-encryption", "aws:kms"))
      if let key { headers.append(("x-amz-server-side-encryption-aws-kms-key-id", key)) }
    case nil: break
    }
    if !settings.tags.isEmpty {
      let tags = settings.tags.sorted { $0.key < $1.key }
      headers.append(
        (
          "x-amz-tagging",
          tags.map { "\(PercentEncoding.encode($0.key))=\(PercentEncoding.encode($0.value))" }.joined(separator: "&")
        ))
    }
    if let lock = settings.lock, let retainUntil, isAhead(retainUntil) {
      headers.append(("x-amz-object-lock-mode", lock.rawValue.uppercased()))
      headers.append(
        ("x-amz-object-lock-retain-until-date", Date(timeIntervalSince1970: retainUntil.rounded(.up)).rfc3339))
    }
    return headers
  }
}

extension S3Store {
  /// The sizes of an upload's parts; of one that can be gone on with they tell under which settings it was begun.
  func partSizes(_ options: UploadOptions) -> PartSizes {
    guard options.canResume else { return PartSizes(expectedBytes: options.expectedBytes) }
    let told = objectHeaders([], retainUntil: options.retainUntil).map { "\($0.name): \($0.value)\n" }.joined()
    let sum = SHA256.hash(data: Data(told.utf8)).reduce(into: UInt16(0)) { $0 = $0 &* 257 &+ UInt16($1) }
    return PartSizes(expectedBytes: options.expectedBytes, settings: max(1, sum))
  }
}

// MARK: - Requests

extension S3Store {
  func send(_ request: S3Request, _ key: ObjectKey? = nil) async throws(StorageError) -> HTTPResponse {
    do throws(S3Failure) {
      return try await client.send(request)
    } catch {
      throw storageError(error, key)
    }
  }

  /// The answer to `HEAD`, or nil where there is no object.
  func head(_ key: ObjectKey) async throws(StorageError) -> HTTPResponse? {
    do throws(S3Failure) {
      return try await client.send(S3Request(method: "HEAD", key: fullKey(key.path)))
    } catch {
      // Without a body: a missing bucket looks the same, and is told by everything else.
      if error.status == 404 { return nil }
      throw storageError(error, key)
    }
  }

  func document(
    _ response: HTTPResponse, of operation: String, root: String, or other: String? = nil
  ) throws(StorageError) -> S3Document {
    guard let document = try? S3Document(response.body), document.name == root || document.name == other else {
      throw StorageError(.failed, store: name, reason: "the server's answer to \(operation) is no \(root)")
    }
    return document
  }

  func storageError(_ failure: S3Failure, _ key: ObjectKey? = nil) -> StorageError {
    let kind: StorageError.Kind =
      switch (failure.transport, failure.code, failure.status) {
      case (.unreachable?, _, _), (.timeout?, _, _): .unreachable
      case (.untrusted?, _, _): .untrusted
      case (.refused?, _, _): .denied
      case (_?, _, _): .failed
      case (_, "NoSuchBucket", _): .storeMissing
      case (_, "NoSuchKey", _), (_, "NoSuchUpload", _): .missing
      case (_, "QuotaExceeded", _), (_, "XMinioStorageFull", _), (_, _, 507): .full
      case (_, "PreconditionFailed", _), (_, _, 412): .exists
      case (_, "CredentialsMissing", _), (_, _, 401), (_, _, 403): .denied
      case (_, _, 404): key == nil ? .storeMissing : .missing
      default: .failed
      }
    return StorageError(kind, store: name, key: key, reason: failure.message)
  }

  private func versions(of key: String) async throws(StorageError) -> [String] {
    var found: [String] = []
    var markers: [(name: String, value: String)] = []
    var budget = ListingBudget("ListObjectVersions", store: name, limits)
    repeat {
      let reply = try document(
        try await send(.page([("versions", ""), ("prefix", key)] + markers)),
        of: "ListObjectVersions", root: "ListVersionsResult")
      for entry in reply.children
      where ["Version", "DeleteMarker"].contains(entry.name) && entry["Key"]?.text == key {
        if let id = entry["VersionId"]?.text { found.append(id) }
      }
      // Keys are listed in order: beyond ours there are none of its versions.
      if let last = reply["NextKeyMarker"]?.text, last != key { break }
      let next = try budget.next(
        reply, count: reply.children.count,
        markers: [reply["NextKeyMarker"]?.text, reply["NextVersionIdMarker"]?.text])
      markers = Self.parameters(["key-marker", "version-id-marker"], next)
    } while !markers.isEmpty
    return found
  }
}

// MARK: - Unfinished uploads

/// A multipart upload that is not completed.
struct MultipartUpload {
  let key: String
  let id: String
  let begun: Date
}

/// A part of one, as the server has it.
struct StoredPart {
  let number: Int
  let size: Int
  let etag: String
  /// SHA-256 in Base64, where the server keeps it.
  let checksum: String?
  let modified: Date?
}

extension S3Store {
  /// The unfinished uploads, and by how many seconds the server's clock is ahead of ours.
  ///
  /// - Parameter end: where it is a part of a longer work.
  func multiparts(
    prefix: String, end: ContinuousClock.Instant? = nil
  ) async throws(StorageError) -> (uploads: [MultipartUpload], skew: TimeInterval) {
    var found: [MultipartUpload] = []
    var skew: TimeInterval = 0
    var markers: [(name: String, value: String)] = []
    var budget = ListingBudget("ListMultipartUploads", store: name, limits, most: limits.uploads, end: end)
    repeat {
      let response = try await send(.page([("uploads", ""), ("prefix", prefix)] + markers))
      if let date = response.headers["date"].flatMap(Date.init(http:)) {
        skew = date.timeIntervalSince(client.now())
      }
      let reply = try document(response, of: "ListMultipartUploads", root: "ListMultipartUploadsResult")
      let uploads = reply.all("Upload")
      for entry in uploads {
        guard let key = entry["Key"]?.text, key.starts(withBytes: prefix), let id = entry["UploadId"]?.text,
          let begun = entry["Initiated"].flatMap({ Date(rfc3339: $0.text) })
        else { continue }
        found.append(MultipartUpload(key: key, id: id, begun: begun))
      }
      let next = try budget.next(
        reply, count: uploads.count, markers: [reply["NextKeyMarker"]?.text, reply["NextUploadIdMarker"]?.text])
      markers = Self.parameters(["key-marker", "upload-id-marker"], next)
    } while !markers.isEmpty
    return (found, skew)
  }

  func parts(
    of upload: MultipartUpload, end: ContinuousClock.Instant? = nil
  ) async throws(StorageError) -> [StoredPart] {
    var parts: [StoredPart] = []
    var marker: String?
    var budget = ListingBudget("ListParts", store: name, limits, most: limits.parts, end: end)
    repeat {
      var query = [("uploadId", upload.id)]
      if let marker { query.append(("part-number-marker", marker)) }
      let reply = try document(
        try await send(.page(query, key: upload.key)), of: "ListParts", root: "ListPartsResult")
      let entries = reply.all("Part")
      for entry in entries {
        guard let number = entry["PartNumber"].flatMap({ Int($0.text) }),
          let size = entry["Size"].flatMap({ Int($0.text) }),
          let etag = entry["ETag"]?.text
        else { continue }
        parts.append(
          StoredPart(
            number: number, size: size, etag: etag, checksum: entry["ChecksumSHA256"]?.text,
            modified: entry["LastModified"].flatMap { Date(rfc3339: $0.text) }))
      }
      let next = try budget.next(reply, count: entries.count, markers: [reply["NextPartNumberMarker"]?.text])
      marker = next?.first.flatMap(\.self)
    } while marker != nil
    return parts.sorted { $0.number < $1.number }
  }

  /// The markers of the next page as parameters; none behind the last.
  private static func parameters(_ names: [String], _ markers: [String?]?) -> [(name: String, value: String)] {
    zip(names, markers ?? []).compactMap { name, value in value.map { (name, $0) } }
  }
}

/// The multipart uploads of this process that go on: a sweep leaves them alone.
final class ActiveUploads: Sendable {
  private let ids = Mutex<Set<String>>([])

  func contains(_ id: String) -> Bool { ids.withLock { $0.contains(id) } }
  func add(_ id: String) { ids.withLock { _ = $0.insert(id) } }
  func remove(_ id: String) { ids.withLock { _ = $0.remove(id) } }
}
