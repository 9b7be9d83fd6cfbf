import Foundation
import HTTPTransport
import Storage
import TestSupport
import Testing
import Units

@testable import S3Storage

/// Answers from a script, and keeps what was asked.
private final class ScriptedTransport: HTTPTransport {
  private let answer: @Sendable (HTTPRequest) -> HTTPResponse?
  private let asked = SharedValue<[String]>([])

  init(_ answer: @escaping @Sendable (HTTPRequest) -> HTTPResponse?) { self.answer = answer }

  var requests: [String] { asked.get() }

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    asked.set(asked.get() + ["\(request.method) \(request.url)"])
    guard let response = answer(request) else { throw HTTPError(.unreachable, "nobody there") }
    return response
  }
}

private func reply(_ text: String, _ status: Int = 200) -> HTTPResponse {
  HTTPResponse(status: status, headers: [:], body: Array(text.utf8))
}

/// Where credentials come from, in the order of the AWS tools.
@Suite(.waits) struct CredentialTests {
  private let now = Date(timeIntervalSince1970: 1_800_000_000)

  private func find(
    _ environment: [String: String], profile: String? = nil, files: [String: String] = [:],
    _ transport: any HTTPTransport = ScriptedTransport { _ in nil }
  ) async throws -> S3Credentials {
    struct Missing: Error {}
    let sources = AmbientCredentials(
      environment: environment, profile: profile, region: "eu-central-1",
      transports: KeyTransports(direct: transport, web: transport),
      readFile: { path in
        guard let text = files[path] else { throw Missing() }
        return text
      }
    ).sources
    return try await CredentialKeeper(sources).credentials(at: now)
  }

  private static let file =
    "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n[b]\naws_access_key_id = B\naws_secret_access_key = s\n"

  @Test func environmentAndProfiles() async throws {
    let both = ["AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "HOME": "/home/x"]
    let files = ["/home/x/.aws/credentials": Self.file, "/etc/aws": Self.file]
    #expect(try await find(both, files: files).accessKey == "ENV")
    #expect(try await find(both, files: files).sessionToken == Secret("t"))
    // A profile that is named is meant, and nothing else.
    #expect(try await find(both, profile: "b", files: files).accessKey == "B")
    #expect(try await find(["HOME": "/home/x"], files: files).accessKey == "FILE")
    #expect(
      try await find(["AWS_SHARED_CREDENTIALS_FILE": "/etc/aws", "AWS_PROFILE": "b"], files: files).accessKey == "B")
    for (profile, reason) in [("none", "[none]"), ("b", "can't be read")] {
      let files = profile == "none" ? files : [:]
      let error = await #expect(throws: CredentialsError.self) {
        _ = try await find(["HOME": "/home/x"], profile: profile, files: files)
      }
      #expect(error?.reason.contains(reason) == true)
    }
    let none = await #expect(throws: CredentialsError.self) { _ = try await find([:]) }
    #expect(none?.reason.contains("no credentials") == true)
  }

  /// `~/.aws/config` counts as well: keys, a role on top of other keys (from a real STS answer), and a program that gives them.
  @Test func configFile() async throws {
    let server = try MotoServer.shared()
    let config = """
      [default]
      region = eu-west-1
      # a comment
      [profile keys]
      aws_access_key_id = CONF
      aws_secret_access_key = s
      s3 =
        max_concurrent_requests = 20
      [profile "quoted name"]
      aws_access_key_id = QUOTED
      aws_secret_access_key = s
      [profile role]
      role_arn = arn:aws:iam::123456789012:role/backup
      source_profile = keys
      external_id = 4711
      [profile self]
      role_arn = arn:aws:iam::123456789012:role/backup
      source_profile = self
      aws_access_key_id = SELF
      aws_secret_access_key = s
      [profile instance]
      role_arn = arn:aws:iam::123456789012:role/backup
      credential_source = Environment
      [profile round]
      role_arn = arn:aws:iam::123456789012:role/backup
      source_profile = about
      [profile about]
      role_arn = arn:aws:iam::123456789012:role/backup
      source_profile = round
      [profile process]
      credential_process = printf '{"Version": 1, "AccessKeyId": "PROC", "SecretAccessKey": "%s", "Expiration": "2027-01-15T09:00:00Z"}' 'a b'
      [profile broken]
      credential_process = echo SECRET; exit 3
      [profile people]
      sso_session = corp
      [profile alone]
      role_arn = arn:aws:iam::123456789012:role/backup
      """
    let files = ["/home/x/.aws/config": config, "/etc/aws": Self.file]
    var environment = ["HOME": "/home/x", "AWS_ENDPOINT_URL_STS": server.endpoint]
    func found(_ profile: String) async throws -> S3Credentials {
      try await find(environment, profile: profile, files: files, CurlTransport())
    }
    #expect(try await found("keys").accessKey == "CONF")
    #expect(try await found("quoted name").accessKey == "QUOTED")
    for profile in ["role", "self"] {
      let role = try await found(profile)
      #expect(role.accessKey.hasPrefix("ASIA"))
      #expect(role.expires != nil)
    }
    let process = try await found("process")
    #expect((process.accessKey, process.secretKey) == ("PROC", Secret("a b")))
    #expect(process.expires?.rfc3339 == "2027-01-15T09:00:00Z")
    for (profile, reason) in [
      ("round", "leads back"), ("broken", "ended with"), ("people", "single sign-on"),
      ("alone", "needs source_profile"),
      ("none", "there is no [none]"), ("instance", "Environment gives none"), ("default", "there are no keys"),
    ] {
      let error = await #expect(throws: CredentialsError.self) { try await found(profile) }
      #expect(error?.reason.contains(reason) == true, "\(error?.reason ?? "")")
      #expect(error?.reason.contains("SECRET") == false)
    }
    // A region alone is no wish for that profile, and the credentials file comes before the config file.
    environment["AWS_EC2_METADATA_DISABLED"] = "true"
    let none = await #expect(throws: CredentialsError.self) {
      try await find(environment, files: files, CurlTransport())
    }
    #expect(none?.reason.contains("no credentials") == true)
    environment["AWS_SHARED_CREDENTIALS_FILE"] = "/etc/aws"
    #expect(try await find(environment, files: files).accessKey == "FILE")
    environment["AWS_CONFIG_FILE"] = "/nowhere"
    #expect(try await find(environment, files: files).accessKey == "FILE")
  }

  private static let json =
    #"{"AccessKeyId": "TEMP", "SecretAccessKey": "s", "Token": "t", "Expiration": "2027-01-15T09:00:00Z", "Code": "Success"}"#

  @Test func containerEndpoint() async throws {
    let transport = ScriptedTransport { request in
      request.headers.contains { $0 == ("Authorization", "secret") } ? reply(Self.json) : reply("{}", 401)
    }
    let environment = [
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token",
    ]
    let found = try await find(environment, files: ["/token": "secret\n"], transport)
    #expect((found.accessKey, found.sessionToken) == ("TEMP", Secret("t")))
    #expect(found.expires?.rfc3339 == "2027-01-15T09:00:00Z")
    #expect(transport.requests == ["GET http://169.254.170.23/v1/credentials"])
    let relative = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret"]
    #expect(try await find(relative, transport).accessKey == "TEMP")
    #expect(transport.requests.last == "GET http://169.254.170.2/v2/x")
    await #expect(throws: CredentialsError.self) {
      _ = try await find(environment, files: ["/token": "wrong"], transport)
    }
  }

  /// Version 2 of the instance metadata service: no token, no answer.
  @Test func instanceMetadata() async throws {
    let transport = ScriptedTransport { request in
      if request.method == "PUT", request.url.hasSuffix("/latest/api/token") { return reply("tok") }
      guard request.headers.contains(where: { $0 == ("X-aws-ec2-metadata-token", "tok") }) else {
        return reply("", 401)
      }
      return request.url.hasSuffix("security-credentials/") ? reply("the-role\n") : reply(Self.json)
    }
    #expect(try await find([:], transport).accessKey == "TEMP")
    #expect(transport.requests.last?.hasSuffix("/security-credentials/the-role") == true)
    await #expect(throws: CredentialsError.self) {
      _ = try await find(["AWS_EC2_METADATA_DISABLED": "true"], transport)
    }
  }

  /// A role by web identity, from a real STS answer over HTTP.
  @Test func webIdentity() async throws {
    let server = try MotoServer.shared()
    let environment = [
      "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/backup",
      "AWS_ENDPOINT_URL_STS": server.endpoint,
    ]
    let found = try await find(environment, files: ["/token": "eyJhbGciOiJub25lIn0.e30.\n"], CurlTransport())
    #expect(found.accessKey.hasPrefix("ASIA"))
    #expect(found.sessionToken != nil)
    #expect(found.expires != nil)
    let error = await #expect(throws: CredentialsError.self) { _ = try await find(environment, CurlTransport()) }
    #expect(error?.reason.contains("/token") == true)
  }

  /// Asked for once, again five minutes before the end, and at once when the server calls them expired.
  @Test func temporaryOnesAreRenewed() async throws {
    struct Counting: CredentialSource {
      let count: SharedValue<Int>
      let start: Date
      func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
        count.set(count.get() + 1)
        return S3Credentials(
          accessKey: "K\(count.get())", secretKey: Secret("s"), expires: now.addingTimeInterval(600))
      }
    }
    let count = SharedValue(0)
    let keeper = CredentialKeeper([Counting(count: count, start: now)])
    #expect(try await keeper.credentials(at: now).accessKey == "K1")
    #expect(try await keeper.credentials(at: now.addingTimeInterval(299)).accessKey == "K1")
    let second = try await keeper.credentials(at: now.addingTimeInterval(301))
    #expect(second.accessKey == "K2")
    #expect(try await keeper.credentials(at: now.addingTimeInterval(302), refused: second).accessKey == "K3")
  }
}

/// What a request does when the answer is not the one hoped for.
@Suite struct S3RetryTests {
  private func store(_ transport: any HTTPTransport) -> S3Store {
    var settings = S3Settings(bucket: "bucket", endpoint: "http://s3.example")
    settings.credentials = S3Credentials(accessKey: "k", secretKey: Secret("s"))
    var retry = RetryPolicy()
    retry.firstWait = 0.001
    return S3Store(
      name: "s3", settings: settings, transport: transport, environment: [:], readFile: { _ in "" }, retry: retry,
      now: { Date.now })
  }

  /// A busy server is asked again; one that refuses is not.
  @Test func onlyWhatMayHelpIsTriedAgain() async throws {
    for (status, code, tries) in [
      (503, "SlowDown", 3), (500, "InternalError", 3), (403, "AccessDenied", 1), (403, "SignatureDoesNotMatch", 1),
    ] {
      let transport = ScriptedTransport { _ in reply("<Error><Code>\(code)</Code><Message>m</Message></Error>", status)
      }
      await #expect(throws: (any Error).self) { _ = try await store(transport).list(prefix: "") }
      #expect(transport.requests.count == tries, "\(code)")
    }
  }

  /// The answer to a PUT is lost, and its repetition is refused because the object is there: ours, as its mark tells, or another's.
  @Test(arguments: [true, false]) func aLostAnswer(_ isOurs: Bool) async throws {
    let mark = SharedValue<String?>(nil)
    let puts = SharedValue(0)
    let transport = ScriptedTransport { request in
      switch request.method {
      case "HEAD":
        guard let mark = mark.get() else { return reply("", 404) }
        return HTTPResponse(
          status: 200, headers: ["content-length": "1", "x-amz-meta-pgbackupd-upload": mark], body: [])
      default:
        puts.set(puts.get() + 1)
        if puts.get() == 1 {
          mark.set(isOurs ? request.headers.first { $0.name == "x-amz-meta-pgbackupd-upload" }?.value : "another's")
          return nil
        }
        return reply("<Error><Code>PreconditionFailed</Code></Error>", 412)
      }
    }
    let store = store(transport)
    let key = try #require(ObjectKey("a"))
    if isOurs {
      try await store.put(key, [1])
    } else {
      let error = await #expect(throws: StorageError.self) { try await store.put(key, [1]) }
      #expect(error?.kind == .exists)
    }
    #expect(puts.get() == 2)
  }

  /// A server that knows no conditions says so once; then a look beforehand must do.
  @Test func aServerWithoutConditions() async throws {
    let transport = ScriptedTransport { request in
      if request.method == "HEAD" { return reply("", 404) }
      return request.headers.contains { $0.name == "If-None-Match" }
        ? reply("<Error><Code>NotImplemented</Code></Error>", 501) : reply("")
    }
    let store = store(transport)
    try await store.put(try #require(ObjectKey("a")), [1])
    try await store.put(try #require(ObjectKey("b")), [1])
    #expect(transport.requests.filter { $0.hasPrefix("PUT") }.count == 3)
  }

  /// Answers that are no S3: an error, and no wrong result.
  @Test(arguments: ["", "<html>", "<a/>", "<ListBucketResult><Contents>", "{}"]) func nonsense(_ body: String)
    async throws
  {
    let store = store(ScriptedTransport { _ in reply(body) })
    await #expect(throws: StorageError.self) { _ = try await store.list(prefix: "") }
    await #expect(throws: StorageError.self) { try await store.check() }
    await #expect(throws: StorageError.self) { _ = try await store.read(try #require(ObjectKey("a")), range: 0..<100) }
  }
}
