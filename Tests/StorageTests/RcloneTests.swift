import Foundation
import HTTPTransport
import Storage
import TestSupport
import Testing
import Units

@testable import S3Storage

/// A server that is as simple as they get: no checksums, no conditional writes, no list of unfinished uploads.
@Suite(.waits) struct RcloneTests {
  @Test func conforms() async throws {
    let server = try RcloneServer()
    var settings = S3Settings(bucket: server.makeBucket(), endpoint: server.endpoint)
    settings.prefix = "deep/er"
    settings.credentials = S3Credentials(accessKey: RcloneServer.accessKey, secretKey: Secret(RcloneServer.secretKey))
    let store = S3Store(
      name: "offsite", settings: settings, transport: CurlTransport(), environment: [:], readFile: { _ in "" },
      now: { Date.now })
    try await store.check()
    try await StoreConformance(store: store).checkAll()
    let bytes = (0..<(17 << 20) + 5).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
    let key = try #require(ObjectKey("large"))
    let upload = try await store.upload(key)
    try await upload.write(bytes)
    try await upload.finish()
    #expect(try await store.read(key, range: 0..<UInt64(bytes.count)) == bytes)
  }
}
