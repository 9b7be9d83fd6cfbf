import Foundation
import HTTPTransport
import Storage
import TestSupport
import Testing
import Units

@testable import S3Storage

/// Servers that lie about what they have.
@Suite(.serialized, .waits) struct HostileStoreTests: S3Testing {
  private func makeStore(_ server: LyingS3Server, _ bucket: String) -> S3Store {
    var settings = S3Settings(bucket: bucket, endpoint: server.endpoint)
    settings.credentials = S3Credentials(accessKey: "k", secretKey: Secret("s"))
    settings.deletesVersions = true
    var store = S3Store(
      name: "offsite", settings: settings, transport: CurlTransport(), environment: [:], readFile: { _ in "" },
      now: { Date.now })
    store.limits.entries = 5000
    store.limits.uploads = 5000
    store.limits.parts = 5000
    store.limits.pages = 40
    return store
  }

  @Test func anHonestListingOfTwoPagesIsWhole() async throws {
    let server = try LyingS3Server()
    defer { withExtendedLifetime(server) {} }
    let store = makeStore(server, "honest")
    #expect(try await store.list(prefix: "").map(\.key.path) == ["a/000000001", "a/000000002", "a/000000003"])
    #expect(try await store.multiparts(prefix: "").uploads.map(\.id) == ["u1", "u2", "u3"])
    let upload = MultipartUpload(key: "a/1", id: "u1", begun: Date.now)
    #expect(try await store.parts(of: upload).map(\.number) == [1, 2, 3])
  }

  /// No lie makes a listing endless, nor half of one pass for a whole one.
  @Test(arguments: [
    ("same-token", "repeats its continuation token", 2), ("two-tokens", "repeats its continuation token", 3),
    ("no-token", "IsTruncated without a token", 1), ("empty-pages", "more than 40 pages", 40),
    ("many-keys", "more than 5000 entries", 5), ("huge-page", "larger than 8", 1),
    ("many-elements", "is no ", 1), ("deep", "is no ", 1), ("laughs", "is no ", 1), ("laughs-utf16", "is no ", 1),
    ("laughs-utf7", "is no ", 1), ("external", "is no ", 1),
  ])
  func aListingThatLiesEndsInAFault(_ bucket: String, _ reason: String, _ pages: Int) async throws {
    let server = try LyingS3Server()
    let store = makeStore(server, bucket)
    let upload = MultipartUpload(key: "a/1", id: "u1", begun: Date.now)
    let key = try key("a/1")
    var last = 0
    for work in [
      { _ = try await store.list(prefix: "") }, { _ = try await store.multiparts(prefix: "") },
      { _ = try await store.parts(of: upload) }, { try await store.delete(key) },
      { _ = try await store.unfinished() },
    ] as [() async throws -> Void] {
      let error = await #expect(throws: StorageError.self, "\(bucket)") { try await work() }
      #expect(error?.kind == .failed && error?.reason.contains(reason) == true, "\(bucket): \(error?.reason ?? "")")
      let now = try server.requests()
      #expect(now - last <= pages + 1, "\(bucket): \(now - last) requests")
      last = now
    }
  }

  /// A server that is slow for each page of many is given up when its time is over.
  @Test func aListingHasItsTime() async throws {
    let server = try LyingS3Server()
    defer { withExtendedLifetime(server) {} }
    var store = makeStore(server, "empty-pages")
    store.limits.time = .zero
    let error = await #expect(throws: StorageError.self) { _ = try await store.list(prefix: "") }
    #expect(error?.reason.contains("not whole within") == true)
  }

  @Test(arguments: [
    "<a>&lt;!DOCTYPE x&gt;</a>", "<a><!-- a comment --><b/></a>", "<a><![CDATA[<b>]]></a>",
    "<?xml version='1.0' encoding='utf-8'?>\n<a/>", "<?xml version=\"1.0\"?><a/>",
  ])
  func plainRepliesAreRead(_ text: String) throws { #expect(try S3Document(Array(text.utf8)).name == "a") }

  @Test(arguments: [
    "<!DOCTYPE a><a/>", "<a/><!ENTITY x 'y'>", "<?xml version='1.0' encoding='UTF-16'?><a/>",
    "<?xml version='1.0' encoding='IBM037'?><a/>", "<a><b></a>", "", "<a>\u{0}</a>",
    // A declaration that is longer than any, with another encoding at its end.
    "<?xml version='1.0'\(String(repeating: " ", count: 300))encoding='UTF-7'?><a/>",
    "<?xml version='1.0'\u{600} encoding='UTF-8'?><a/>",
  ])
  func otherRepliesAreRefused(_ text: String) {
    #expect(throws: S3Document.Malformed.self) { try S3Document(Array(text.utf8)) }
  }
}
