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
@Suite(.waits) struct S3StoreTests: S3Testing {
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

  /// Whoever renews the files need not tell anybody.
  @Test func renewedFiles() async throws {
    let (server, folder) = (try S3Server.shared(), TemporaryFolder())
    var settings = S3Settings(bucket: try server.makeBucket(), endpoint: server.endpoint)
    settings.credentials = S3Credentials(accessKey: S3Server.accessKey, secretKey: Secret("as it was at the start"))
    settings.credentialFiles = S3CredentialFiles(secretKey: try folder.write("secret", "old\n"))
    let store = S3Store(
      name: "offsite", settings: settings, transport: CurlTransport(.init(authorityFile: server.authorityFile)),
      environment: [:], readFile: { try String(contentsOfFile: $0, encoding: .utf8) }, now: { Date.now })
    let error = await #expect(throws: StorageError.self) { try await store.check() }
    #expect(error?.kind == .denied)
    _ = try folder.write("secret", "\(S3Server.secretKey)\nand more\n")
    try await store.check()
    unlink(folder.file("secret"))
    try await store.check()
  }

  /// And not asked again: no later answer would be another.
  @Test func aProxyThatRefuses() async throws {
    let server = try S3Server.shared()
    let proxy = try TunnelProxy(user: "backup", password: "secret")
    let way = CurlTransport(
      .init(authorityFile: server.authorityFile, proxy: "http://backup:wrong@127.0.0.1:\(proxy.port)"))
    let store = try makeStore(server, transport: way)
    let error = await #expect(throws: StorageError.self) { try await store.check() }
    #expect(error?.kind == .denied)
    #expect(error?.reason.contains("407") == true)
    #expect(proxy.end() == ["CONNECT localhost:\(server.port) 407"])
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
    // Told before anything has been dumped.
    let plain = try makeStore(server, change: { $0.lock = .compliance })
    let refused = await #expect(throws: StorageError.self) { try await plain.check() }
    #expect(refused?.reason.contains("ock") == true, "\(refused?.reason ?? "")")
    try await store.check()
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
