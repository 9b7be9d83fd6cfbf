import Foundation
import HTTPTransport
import Storage
import TestSupport
import Testing
import Units

@testable import S3Storage

/// Uploads in parts on a real server: cut off, gone on with, given up, and completed by servers that take their time.
@Suite(.waits) struct S3UploadTests: S3Testing {
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
      try await eventually("three parts are there") {
        try await dead.parts(of: try #require(try await dead.multiparts(prefix: "").uploads.first)).count >= 3
      }
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
      try await eventually("two parts are there") {
        try await watcher.parts(of: try #require(try await watcher.multiparts(prefix: "").uploads.first)).count >= 2
      }
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
    // Three parts may be on their way at once: the fourth is begun when the first has come.
    let all = bytes(33 << 20)
    let copy = UploadOptions(expectedBytes: UInt64(all.count), canResume: true)
    for (options, left) in [(copy, 1), (UploadOptions(), 0)] {
      let upload = try await store.upload(try key("a/b"), options)
      try await upload.write(all)
      await upload.leave()
      #expect(try await store.unfinished().count == left, "\(left)")
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

  /// An upload that somebody ends while it is looked at is none, and may be given up once more.
  @Test(arguments: [true, false]) func whatHasEndedMeanwhile(isOfOthers: Bool) async throws {
    var settings: S3Settings
    var transport = CurlTransport()
    if isOfOthers {
      let server = try MotoServer.shared()
      settings = S3Settings(bucket: try server.makeBucket(), endpoint: server.endpoint)
      settings.credentials = S3Credentials(accessKey: "k", secretKey: Secret("s"))
    } else {
      let server = try S3Server.shared()
      settings = S3Settings(bucket: try server.makeBucket(), endpoint: server.endpoint)
      settings.credentials = S3Credentials(accessKey: S3Server.accessKey, secretKey: Secret(S3Server.secretKey))
      transport = CurlTransport(.init(authorityFile: server.authorityFile))
    }
    func make(_ transport: any HTTPTransport) -> S3Store {
      S3Store(
        name: "offsite", settings: settings, transport: transport, environment: [:], readFile: { _ in "" },
        now: { Date.now })
    }
    let dead = try await make(transport).upload(try key("a/dead"))
    try await dead.write(bytes(10 << 20))
    let other = make(transport)
    let found = try await other.multiparts(prefix: "").uploads.map {
      UnfinishedUpload(key: $0.key, id: $0.id, lastChanged: 0)
    }
    #expect(found.map(\.key) == ["a/dead"])
    let store = make(
      HeraldTransport(transport) { request in
        guard request.method == "GET", request.url.contains("uploadId=") else { return }
        for upload in found { await #expect(throws: Never.self) { try await other.abort(upload) } }
      })
    // moto answers with no list at all.
    if !isOfOthers { #expect(try await store.unfinished().isEmpty) }
    for _ in 0..<2 { for upload in found { try await store.abort(upload) } }
    #expect(try await other.multiparts(prefix: "").uploads.isEmpty)
  }

  /// A server may need minutes to complete an upload, while white space drips: that is waited for. Anything else that drips so is broken
  /// off, and asked for again.
  @Test(arguments: ["POST .*uploadId=", "GET .*/large"]) func whiteSpaceDrips(_ pattern: String) async throws {
    let server = try S3Server.shared()
    let proxy = try FaultProxy(to: server)
    var settings = CurlTransport.Settings(authorityFile: server.authorityFile)
    settings.idleTimeout = .seconds(5)
    let store = try makeStore(server, transport: CurlTransport(settings), change: { $0.endpoint = proxy.endpoint })
    try proxy.plan(.drip, place: 15, of: pattern)
    let bytes = bytes(9 << 20)
    let upload = try await store.upload(try key("large"))
    try await upload.write(bytes)
    try await upload.finish()
    #expect(try await store.read(try key("large"), range: 0..<100) == Array(bytes[..<100]))
    let requests = try proxy.requests()
    if pattern.hasPrefix("GET") {
      #expect(requests.count { $0.hasPrefix("GET") } >= 2, "\(requests)")
    } else {
      #expect(requests.count { $0.hasPrefix("POST") && $0.contains("uploadId=") } == 1, "\(requests)")
    }
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
}
