import Crypto
import Faults
import Foundation
import HTTPTransport
import Storage
import TestSupport
import Testing
import Units

@testable import S3Storage

/// S3 on a real server, with TLS.
@Suite struct S3StoreTests {
  private func makeStore(
    _ server: S3Server, bucket: String? = nil, transport: (any HTTPTransport)? = nil,
    now: @escaping @Sendable () -> Date = { Date.now }, change: (inout S3Settings) -> Void = { _ in }
  ) throws -> S3Store {
    var settings = S3Settings(bucket: try bucket ?? server.makeBucket(), endpoint: server.endpoint)
    settings.prefix = "backups"
    settings.credentials = S3Credentials(accessKey: S3Server.accessKey, secretKey: Secret(S3Server.secretKey))
    change(&settings)
    return S3Store(
      name: "offsite", settings: settings,
      transport: transport ?? CurlTransport(.init(authorityFile: server.authorityFile)), environment: [:],
      readFile: { _ in "" }, now: now)
  }

  private func key(_ path: String) throws -> ObjectKey { try #require(ObjectKey(path)) }

  /// Bytes that no two parts share: numbers, of 8 bytes each.
  private func bytes(_ count: Int) -> [UInt8] {
    let numbers = (0..<UInt64(count / 8 + 1)).map { $0 &* 0x9E37_79B9_7F4A_7C15 }
    return numbers.withUnsafeBytes { Array($0[..<count]) }
  }

  @Test func conforms() async throws {
    let store = try makeStore(S3Server.shared())
    try await store.check()
    try await StoreConformance(store: store).checkAll()
    #expect(try await store.multiparts(prefix: "").uploads.isEmpty)
  }

  /// The same on a server of other people, in plain HTTP.
  @Test func conformsOnAnotherServer() async throws {
    let server = try MotoServer.shared()
    var settings = S3Settings(bucket: try server.makeBucket(), endpoint: server.endpoint)
    settings.prefix = "deep/er"
    settings.credentials = S3Credentials(accessKey: "k", secretKey: Secret("s"))
    let store = S3Store(
      name: "offsite", settings: settings, transport: CurlTransport(), environment: [:], readFile: { _ in "" },
      now: { Date.now })
    try await store.check()
    try await StoreConformance(store: store).checkAll()
    let bytes = bytes((17 << 20) + 5)
    let upload = try await store.upload(try key("large"))
    try await upload.write(bytes)
    try await upload.finish()
    #expect(try await store.read(try key("large"), range: 0..<UInt64(bytes.count)) == bytes)
    #expect(try await store.multiparts(prefix: "").uploads.isEmpty)
  }

  /// A managed key, tags, a storage class and a lock are the object's, whether it came whole or in parts; as a server of other people tells.
  @Test(arguments: [1000, 17 << 20]) func whatAnObjectIsTold(_ size: Int) async throws {
    let server = try MotoServer.shared()
    let bucket = try server.makeBucket(locks: true)
    var settings = S3Settings(bucket: bucket, endpoint: server.endpoint)
    settings.credentials = S3Credentials(accessKey: "k", secretKey: Secret("s"))
    settings.serverSideEncryption = .managedKey("arn:aws:kms:us-east-1:123456789012:key/one")
    settings.tags = ["team": "data base", "tier": "gold"]
    settings.storageClass = "STANDARD_IA"
    settings.lock = .governance
    let store = S3Store(
      name: "offsite", settings: settings, transport: CurlTransport(), environment: [:], readFile: { _ in "" },
      now: { Date.now })
    let end = Date.now.addingTimeInterval(86_400)
    let upload = try await store.upload(
      try key("told"), UploadOptions(expectedBytes: UInt64(size), retainUntil: end.timeIntervalSince1970))
    try await upload.write(bytes(size))
    try await upload.finish()
    let head = try server.ask("HEAD", "/\(bucket)/told").lowercased()
    for line in [
      "x-amz-server-side-encryption: aws:kms",
      "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:us-east-1:123456789012:key/one",
      "x-amz-storage-class: standard_ia",
      // moto forgets the lock of what comes in parts; SeaweedFS keeps it (`objectLock`).
    ]
      + (size > 1 << 20
        ? []
        : ["x-amz-object-lock-mode: governance", "x-amz-object-lock-retain-until-date: \(end.rfc3339.prefix(10))"])
    { #expect(head.contains(line), "\(line)\n\(head)") }
    let tags = try server.ask("GET", "/\(bucket)/told?tagging")
    #expect(tags.contains("<Value>data base</Value>") && tags.contains("<Value>gold</Value>"), "\(tags)")
  }

  /// Parts of 8 MiB, written in odd pieces; curl reads back the same bytes.
  @Test(arguments: [8 << 20, (8 << 20) + 1, (24 << 20) + 12345]) func largeObjects(_ size: Int) async throws {
    let server = try S3Server.shared()
    let store = try makeStore(server)
    let bytes = bytes(size)
    let upload = try await store.upload(try key("a/large"), UploadOptions(expectedBytes: UInt64(size)))
    for start in stride(from: 0, to: size, by: 1_234_567) {
      try await upload.write(Array(bytes[start..<min(start + 1_234_567, size)]))
    }
    #expect(try await store.stat(try key("a/large")) == nil)
    try await upload.finish()
    let folder = TemporaryFolder()
    let path = "/\(store.client.settings.bucket)/backups/a/large"
    #expect(try server.request("GET", path, ["-o", folder.file("copy")]).status == 0)
    let copy = try Data(contentsOf: URL(filePath: folder.file("copy")))
    #expect(SHA256.hash(data: copy) == SHA256.hash(data: bytes))
    #expect(
      try await store.read(try key("a/large"), range: 8_388_600..<8_388_608) == Array(bytes[8_388_600..<8_388_608]))
    #expect(try await store.multiparts(prefix: "").uploads.isEmpty)
  }

  /// What an aborted upload has sent is gone, and nothing ever showed.
  @Test func anAbortLeavesNothing() async throws {
    let store = try makeStore(S3Server.shared())
    let upload = try await store.upload(try key("a/half"))
    try await upload.write(bytes(20 << 20))
    #expect(try await store.multiparts(prefix: "backups/").uploads.count == 1)
    await upload.abort()
    #expect(try await store.multiparts(prefix: "backups/").uploads.isEmpty)
    #expect(try await store.list(prefix: "").isEmpty)
  }

  /// A process died in the middle of a copy: the next one sends only what is not there.
  @Test func anUploadIsResumed() async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    let bytes = bytes(30 << 20)
    let options = UploadOptions(expectedBytes: UInt64(bytes.count), canResume: true)
    do {
      let dead = try makeStore(server, bucket: bucket)
      let upload = try await dead.upload(try key("a/copy"), options)
      try await upload.write(Array(bytes[..<(29 << 20)]))
      // Two parts are on their way; a third one is waited for, then the process "dies".
      while try await dead.parts(of: try #require(try await dead.multiparts(prefix: "").uploads.first)).count < 3 {}
    }
    let counter = CountingTransport(CurlTransport(.init(authorityFile: server.authorityFile)))
    let store = try makeStore(server, bucket: bucket, transport: counter)
    let upload = try await store.upload(try key("a/copy"), options)
    try await upload.write(bytes)
    try await upload.finish()
    #expect(try await store.read(try key("a/copy"), range: 0..<UInt64(bytes.count)) == bytes)
    #expect(counter.bodyBytes < 7 << 20)
    #expect(try await store.multiparts(prefix: "").uploads.isEmpty)
  }

  /// Settings that were changed since an upload was begun: the object gets the new ones, and nothing of the old upload.
  @Test(arguments: ["encryption", "tags", "lock", "term", "nothing"]) func whatWasBegunUnderOtherSettings(
    _ changed: String
  ) async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket(withLock: true)
    let bytes = bytes(20 << 20)
    let end = (Date.now.timeIntervalSince1970 + 86400).rounded()
    func store(_ transport: (any HTTPTransport)? = nil, isNew: Bool) throws -> S3Store {
      try makeStore(
        server, bucket: bucket, transport: transport,
        change: { settings in
          settings.tags = ["team": isNew && changed == "tags" ? "new" : "old"]
          settings.serverSideEncryption = isNew && changed == "encryption" ? .storeKey : nil
          settings.lock = isNew && changed == "lock" ? nil : .governance
        })
    }
    func options(_ end: Double) -> UploadOptions {
      UploadOptions(expectedBytes: UInt64(bytes.count), retainUntil: end, canResume: true)
    }
    do {
      let upload = try await store(isNew: false).upload(try key("copy"), options(end))
      try await upload.write(bytes)
      let watcher = try store(isNew: false)
      while try await watcher.parts(of: try #require(try await watcher.multiparts(prefix: "").uploads.first)).count < 2
      {}
    }
    let counter = CountingTransport(CurlTransport(.init(authorityFile: server.authorityFile)))
    let newEnd = changed == "term" ? end + 86400 : end
    let upload = try await store(counter, isNew: true).upload(try key("copy"), options(newEnd))
    try await upload.write(bytes)
    try await upload.finish()
    #expect((counter.bodyBytes > 19 << 20) == (changed != "nothing"), "\(counter.bodyBytes)")
    let path = "/\(bucket)/backups/copy"
    let head = try server.request("GET", path, ["-D", "-", "-o", "/dev/null"]).output.lowercased()
    #expect(head.contains("x-amz-server-side-encryption") == (changed == "encryption"), "\(head)")
    #expect(try server.request("GET", path + "?tagging=").output.contains(changed == "tags" ? "new" : "old"))
    let retention = try server.request("GET", path + "?retention=").output
    #expect(
      retention.contains(String(Date(timeIntervalSince1970: newEnd).rfc3339.prefix(10))) == (changed != "lock"),
      "\(retention)")
  }

  /// Other bytes than last time: nothing of the old upload is taken for them.
  @Test func aResumedUploadTakesNoOtherBytes() async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    var bytes = bytes(20 << 20)
    let options = UploadOptions(expectedBytes: UInt64(bytes.count), canResume: true)
    do {
      let upload = try await makeStore(server, bucket: bucket).upload(try key("a/copy"), options)
      try await upload.write(bytes)
    }
    bytes[100] ^= 1
    let store = try makeStore(server, bucket: bucket)
    let upload = try await store.upload(try key("a/copy"), options)
    try await upload.write(bytes)
    try await upload.finish()
    #expect(try await store.read(try key("a/copy"), range: 0..<200) == Array(bytes[..<200]))
  }

  /// A copy that could not end leaves its parts for the next try; any other upload takes them away.
  @Test func whatIsLeftGoesOn() async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    let store = try makeStore(server, bucket: bucket)
    let all = bytes(20 << 20)
    let copy = UploadOptions(expectedBytes: UInt64(all.count), canResume: true)
    for (options, left) in [(copy, 1), (UploadOptions(), 0)] {
      let upload = try await store.upload(try key("a/b"), options)
      try await upload.write(all)
      // Something has come.
      while left == 1,
        try await store.parts(of: try #require(try await store.multiparts(prefix: "").uploads.first)).isEmpty
      {}
      await upload.leave()
      #expect(try await store.unfinished().count == left)
      for upload in try await store.unfinished() where left == 0 { try await store.abort(upload) }
      guard left == 1 else { continue }
      let again = try await store.upload(try key("a/b"), copy)
      try await again.write(all)
      try await again.finish()
      #expect(try await store.unfinished().isEmpty)
      #expect(try await store.read(try key("a/b"), range: 0..<UInt64(all.count)) == all)
      try await store.delete(try key("a/b"))
    }
  }

  /// Dead uploads are told with the time of their last part, and can be given up; those that go on are no wrecks.
  @Test func staleUploadsAreGivenUp() async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    do {
      let upload = try await makeStore(server, bucket: bucket).upload(try key("a/dead"))
      try await upload.write(bytes(10 << 20))
    }
    let store = try makeStore(server, bucket: bucket)
    let living = try await store.upload(try key("a/living"))
    try await living.write(bytes(10 << 20))
    let dead = try await store.unfinished()
    #expect(dead.count == 1)
    #expect(dead.first?.key == "a/dead")
    #expect(abs((dead.first?.lastChanged ?? 0) - Date.now.timeIntervalSince1970) < 600)
    for upload in dead { try await store.abort(upload) }
    #expect(try await store.unfinished().isEmpty)
    try await living.finish()
    #expect(try await store.list(prefix: "").map(\.key.path) == ["a/living"])
  }

  /// A clock that is wrong by an hour: the server refuses it, and is asked with its own time.
  @Test func aWrongClockIsNoObstacle() async throws {
    let skew = SharedValue<TimeInterval>(3600)
    let store = try makeStore(S3Server.shared(), now: { Date.now.addingTimeInterval(skew.get()) })
    try await store.put(try key("a"), [1])
    // And when it is put right.
    skew.set(0)
    #expect(try await store.get(try key("a"), limit: ByteCount(9)) == [1])
  }

  @Test func whatIsWrongIsTold() async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket()
    func kind(_ store: S3Store) async -> StorageError.Kind? {
      let error = await #expect(throws: StorageError.self) { try await store.check() }
      #expect(error?.reason.contains(S3Server.secretKey) == false)
      return error?.kind
    }
    #expect(await kind(try makeStore(server, bucket: "no-such-bucket")) == .storeMissing)
    let wrong = S3Credentials(accessKey: S3Server.accessKey, secretKey: Secret("wrong"))
    #expect(await kind(try makeStore(server, bucket: bucket, change: { $0.credentials = wrong })) == .denied)
    let reader = S3Credentials(accessKey: "readkey", secretKey: Secret("readsecret"))
    #expect(await kind(try makeStore(server, bucket: bucket, change: { $0.credentials = reader })) == .denied)
    // The private authority is none of the system's.
    #expect(await kind(try makeStore(server, bucket: bucket, transport: CurlTransport())) == .untrusted)
    #expect(await kind(try makeStore(server, bucket: bucket, change: { $0.credentials = nil })) == .denied)
  }

  @Test func nobodyThere() async throws {
    let server = try S3Server.shared()
    var settings = S3Settings(bucket: "x", endpoint: "https://localhost:\(try FreePorts.take(1)[0])")
    settings.credentials = S3Credentials(accessKey: "a", secretKey: Secret("b"))
    var retry = RetryPolicy()
    retry.firstWait = 0.01
    let store = S3Store(
      name: "offsite", settings: settings, transport: CurlTransport(.init(authorityFile: server.authorityFile)),
      environment: [:], readFile: { _ in "" }, retry: retry, now: { Date.now })
    let error = await #expect(throws: StorageError.self) { try await store.check() }
    #expect(error?.kind == .unreachable)
    #expect(error?.fault.code == .storeUnreachable)
  }

  /// A server may need minutes to complete an upload, while white space drips: that is waited for. Anything else that drips so is broken
  /// off, and asked for again.
  @Test(arguments: ["POST .*uploadId=", "GET .*/large"]) func whiteSpaceDrips(_ pattern: String) async throws {
    let server = try S3Server.shared()
    let proxy = try FaultProxy(to: server)
    var settings = CurlTransport.Settings(authorityFile: server.authorityFile)
    settings.idleTimeout = .seconds(1)
    let store = try makeStore(server, transport: CurlTransport(settings), change: { $0.endpoint = proxy.endpoint })
    try proxy.plan(.drip, place: 4, of: pattern)
    let bytes = bytes(9 << 20)
    let upload = try await store.upload(try key("large"))
    try await upload.write(bytes)
    try await upload.finish()
    #expect(try await store.read(try key("large"), range: 0..<100) == Array(bytes[..<100]))
    let requests = try proxy.requests()
    #expect(requests.count { $0.hasPrefix("POST") } == 2, "\(requests)")
    #expect(requests.count { $0.hasPrefix("GET") } == (pattern.hasPrefix("GET") ? 2 : 1), "\(requests)")
  }

  /// "200 OK" may be followed by an error: what has not appeared is not there, and what has is.
  @Test func aLateErrorIsAnError() async throws {
    let server = try S3Server.shared()
    let real = CurlTransport(.init(authorityFile: server.authorityFile))
    for (text, isCarriedOut) in [
      (" \n <?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>sorry</Message></Error>", false),
      (" \n <?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>sorry</Message></Error>", true),
      ("no XML at all", false), ("no XML at all", true),
    ] {
      let store = try makeStore(
        server, transport: AnsweringTransport(real, isCarriedOut: isCarriedOut, body: Array(text.utf8)))
      let upload = try await store.upload(try key("large"))
      try await upload.write(bytes(9 << 20))
      if isCarriedOut {
        try await upload.finish()
      } else {
        await #expect(throws: StorageError.self) { try await upload.finish() }
        await upload.abort()
      }
      #expect(try await store.list(prefix: "").count == (isCarriedOut ? 1 : 0), "\(text)")
    }
  }

  @Test func virtualHostStyle() async throws {
    let server = try S3Server.shared()
    let store = try makeStore(
      server,
      change: {
        $0.usesPathStyle = false
        $0.endpoint = "https://s3.localhost:\(server.port)"
      })
    try await store.put(try key("a"), [1, 2])
    #expect(try await store.get(try key("a"), limit: ByteCount(9)) == [1, 2])
    #expect(try server.request("GET", "/\(store.client.settings.bucket)/backups/a").status == 0)
  }

  /// Encryption by the server, storage class and tags arrive.
  @Test func objectSettings() async throws {
    let server = try S3Server.shared()
    let store = try makeStore(
      server,
      change: {
        $0.serverSideEncryption = .storeKey
        $0.storageClass = "STANDARD_IA"
        $0.tags = ["team": "db & ops", "kind": "backup"]
      })
    try await store.check()
    try await store.put(try key("small"), [1, 2])
    let upload = try await store.upload(try key("large"))
    try await upload.write(bytes(9 << 20))
    try await upload.finish()
    for name in ["small", "large"] {
      let path = "/\(store.client.settings.bucket)/backups/\(name)"
      let head = try server.request("GET", path, ["-D", "-", "-o", "/dev/null"]).output.lowercased()
      #expect(head.contains("x-amz-server-side-encryption: aes256"))
      #expect(head.contains("x-amz-storage-class: standard_ia"))
      #expect(try server.request("GET", path + "?tagging=").output.contains("<Value>db &amp; ops</Value>"))
    }
  }

  /// A locked object can't be deleted before its time, by whomever; without a lock, versions go with it.
  @Test func objectLock() async throws {
    let server = try S3Server.shared()
    let bucket = try server.makeBucket(withLock: true)
    let store = try makeStore(
      server, bucket: bucket,
      change: {
        $0.lock = .compliance
        $0.deletesVersions = true
      })
    let end = Date.now.timeIntervalSince1970 + 86400
    for (name, size) in [("small", 1), ("large", 9 << 20)] {
      let upload = try await store.upload(try key(name), UploadOptions(retainUntil: end))
      try await upload.write(bytes(size))
      try await upload.finish()
      let told = try server.request("GET", "/\(bucket)/backups/\(name)?retention=").output
      #expect(told.contains("COMPLIANCE"))
      let error = await #expect(throws: StorageError.self) { try await store.delete(try key(name)) }
      #expect(error?.kind == .denied)
      #expect(try await store.stat(try key(name)) != nil)
    }
    // Without an end there is no lock: a pin can be lifted at any time, and nothing of it stays.
    try await store.put(try key("pin"), [1])
    try await store.delete(try key("pin"))
    try await store.put(try key("pin"), [2])
    try await store.delete(try key("pin"))
    #expect(try server.request("GET", "/\(bucket)?versions=").output.contains("backups/pin") == false)
  }

  /// More than a page of keys, among them some that are nobody's.
  @Test func longListings() async throws {
    let server = try S3Server.shared()
    let store = try makeStore(server)
    try server.request("PUT", "/\(store.client.settings.bucket)/backups/strange%20%2B%20key", ["-d", "x"])
    try server.request("PUT", "/\(store.client.settings.bucket)/elsewhere", ["-d", "x"])
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<1100 {
        if number >= 16 { try await group.next() }
        group.addTask { try await store.put(try self.key("many/\(number)"), [0]) }
      }
      try await group.waitForAll()
    }
    let keys = try await store.list(prefix: "").map(\.key)
    #expect(keys.count == 1100)
    #expect(keys == keys.sorted())
    #expect(try await store.list(prefix: "many/109").count == 11)
  }
}

/// Counts what is sent.
final class CountingTransport: HTTPTransport {
  private let transport: any HTTPTransport
  private let sent = SharedValue(0)

  init(_ transport: any HTTPTransport) { self.transport = transport }

  var bodyBytes: Int { sent.get() }

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    sent.set(sent.get() + request.body.count)
    return try await transport.send(request)
  }
}

/// Answers the completion of an upload with other words than the server's.
struct AnsweringTransport: HTTPTransport {
  private let transport: any HTTPTransport
  private let isCarriedOut: Bool
  private let body: [UInt8]

  init(_ transport: any HTTPTransport, isCarriedOut: Bool, body: [UInt8]) {
    (self.transport, self.isCarriedOut, self.body) = (transport, isCarriedOut, body)
  }

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    guard request.method == "POST", request.url.contains("uploadId=") else { return try await transport.send(request) }
    if isCarriedOut { _ = try await transport.send(request) }
    return HTTPResponse(status: 200, headers: [:], body: body)
  }
}
