import Foundation
import Storage
import Testing
import Units

@testable import S3Storage

/// The examples of "Authenticating Requests: Using the Authorization Header" in the Amazon S3 API Reference.
@Suite struct SigV4Tests {
  private static let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

  private func signature(
    _ method: String, _ path: String, query: [(name: String, value: String)] = [],
    headers: [(name: String, value: String)] = [], digest: String = empty
  ) throws -> String {
    let credentials = S3Credentials(
      accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
    let signed = SigV4(region: "us-east-1", service: "s3").signed(
      SigV4.Parts(
        method: method, host: "examplebucket.s3.amazonaws.com", path: path, query: query, headers: headers,
        bodyDigest: digest), with: credentials, at: try #require(Date(stamp: "20130524T000000Z")))
    let header = try #require(signed.last { $0.name == "Authorization" }?.value)
    return String(header.suffix(64))
  }

  @Test func getObject() throws {
    #expect(
      try signature("GET", "/test.txt", headers: [("Range", "bytes=0-9")])
        == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
  }

  @Test func putObject() throws {
    #expect(
      try signature(
        "PUT", "/\(PercentEncoding.encode("test$file.text"))",
        headers: [("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
        digest: "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072")
        == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")
  }

  @Test func getBucketLifecycle() throws {
    #expect(
      try signature("GET", "/", query: [("lifecycle", "")])
        == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")
  }

  @Test func listObjects() throws {
    #expect(
      try signature("GET", "/", query: [("prefix", "J"), ("max-keys", "2")])
        == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
  }

  @Test(arguments: [
    ("AZaz09-._~", "AZaz09-._~"), ("a b+c", "a%20b%2Bc"), ("ü/&", "%C3%BC%2F%26"), ("", ""),
  ])
  func percentEncoding(_ text: String, _ encoded: String) { #expect(PercentEncoding.encode(text) == encoded) }
}

@Suite struct S3RuleTests {
  /// Any guess, right or wrong, ends below S3's limits, and the usual sizes in small parts.
  @Test(arguments: [nil, 0, 1 << 30, 300 << 30, 5 << 40] as [UInt64?])
  func partsStayBelowTheLimits(_ expected: UInt64?) {
    let sizes = PartSizes(expectedBytes: expected)
    let all = (1...PartSizes.limit).map { sizes.size(of: $0) }
    #expect(all.allSatisfy { (5 << 20...5 << 30).contains($0) })
    #expect(all.reduce(0, +) >= 5 << 40)
    #expect(zip(all, all.dropFirst()).allSatisfy { $0 <= $1 })
    if let expected, expected >= 44 << 30 {
      #expect(all.prefix(5501).reduce(0, +) >= expected)
      #expect(all[5499] == all[0])
    }
    if expected == nil { #expect(all.prefix(5500).allSatisfy { $0 == 8 << 20 }) }
  }

  @Test func waitsGrowAndEnd() throws {
    let policy = RetryPolicy()
    func wait(_ attempt: Int, isPatient: Bool = true, retryAfter: Double? = nil, chance: Double = 1) -> Double? {
      policy.wait(after: attempt, isPatient: isPatient, retryAfter: retryAfter, chance: chance)
    }
    #expect((1...7).map { wait($0) } == [0.5, 1, 2, 4, 8, 16, nil])
    #expect((1...3).map { wait($0, isPatient: false) } == [0.5, 1, nil])
    #expect(wait(1, chance: 0) == 0.25)
    #expect(wait(1, retryAfter: 7) == 7)
    #expect(wait(1, retryAfter: 86400) == 60)
    #expect(wait(7, retryAfter: 1) == nil)
  }

  @Test(
    arguments: [
      (503, "SlowDown", true), (500, nil, true), (429, nil, true), (409, "ConditionalRequestConflict", true),
      (400, "RequestTimeout", true), (403, "AccessDenied", false), (404, "NoSuchKey", false), (412, nil, false),
      (400, "EntityTooSmall", false), (501, nil, false),
    ] as [(Int, String?, Bool)])
  func whatIsTriedAgain(_ status: Int, _ code: String?, _ isRetried: Bool) {
    #expect(RetryPolicy.isRetryable(status: status, code: code) == isRetried)
  }

  @Test(
    arguments: [
      (
        nil, "db-backups", "https://db-backups.s3.eu-central-1.amazonaws.com",
        "db-backups.s3.eu-central-1.amazonaws.com", "/a/b%20c"
      ),
      (
        nil, "dots.in.it", "https://s3.eu-central-1.amazonaws.com", "s3.eu-central-1.amazonaws.com",
        "/dots.in.it/a/b%20c"
      ),
      ("https://minio.example:9000/", "x", "https://minio.example:9000", "minio.example:9000", "/x/a/b%20c"),
      ("http://minio.example:80", "x", "http://minio.example:80", "minio.example", "/x/a/b%20c"),
    ] as [(String?, String, String, String, String)])
  func addresses(_ endpoint: String?, _ bucket: String, _ base: String, _ host: String, _ path: String) {
    var settings = S3Settings(bucket: bucket, endpoint: endpoint)
    settings.region = "eu-central-1"
    let address = settings.address(of: "a/b c")
    #expect((address.base, address.host, address.path) == (base, host, path))
  }

  /// A second's worth at once, then no faster than the rate; whoever takes much pays for it.
  @Test func theTokenBucket() {
    var bucket = TokenBucket(bytesPerSecond: 100, at: 0)
    #expect(bucket.take(100, at: 0) == 0)
    #expect(bucket.take(50, at: 0) == 0.5)
    #expect(bucket.take(1000, at: 0.5) == 10)
    #expect(bucket.take(1, at: 10.5) == 0.01)
    #expect(bucket.take(100, at: 60) == 0)
    // A clock that goes back gives nothing and takes nothing.
    #expect(bucket.take(100, at: 50) == 1)
  }

  @Test func sharedProfiles() {
    let text = """
      # the default
      [default]
      aws_access_key_id = A
      aws_secret_access_key=S=/+
      [ backup ]
      aws_access_key_id = B
      ; aws_secret_access_key = no
      [profile other]
      AWS_ACCESS_KEY_ID = C
      """
    #expect(SharedProfile.section("default", of: text) == ["aws_access_key_id": "A", "aws_secret_access_key": "S=/+"])
    #expect(SharedProfile.section("backup", of: text) == ["aws_access_key_id": "B"])
    #expect(SharedProfile.section("profile other", of: text) == ["aws_access_key_id": "C"])
    #expect(SharedProfile.section("none", of: text).isEmpty)
  }

  @Test func httpDates() throws {
    #expect(Date(http: "Sun, 06 Nov 1994 08:49:37 GMT")?.rfc3339 == "1994-11-06T08:49:37Z")
    #expect(Date(http: "Sunday, 06-Nov-94 08:49:37 GMT") == nil)
    #expect(Date(http: "Sun, 31 Feb 1994 08:49:37 GMT") == nil)
  }
}
