import Foundation
import HTTPTransport
import Quoting
import Units

/// Where the AWS tools look for credentials, in their order (AWS SDKs and Tools Reference Guide, "Standardized credential
/// providers"): environment, web identity, shared profile, container endpoint, instance metadata.
struct AmbientCredentials {
  let environment: [String: String]
  /// A profile that the configuration names; nothing else is then looked at.
  var profile: String?
  let region: String
  let transports: KeyTransports
  let readFile: @Sendable (String) throws -> String

  var sources: [any CredentialSource] {
    let file = SharedProfile(
      environment: environment, profile: profile, region: region, transports: transports, readFile: readFile)
    if profile != nil { return [file] }
    return [
      EnvironmentCredentials(environment: environment),
      WebIdentity(environment: environment, region: region, transport: transports.web, readFile: readFile),
      file,
      ContainerCredentials(environment: environment, transport: transports.direct, readFile: readFile),
      InstanceCredentials(environment: environment, transport: transports.direct),
    ]
  }
}

/// How those are reached who give keys.
struct KeyTransports: Sendable {
  /// To this machine's own surroundings: no proxy has a part in it.
  let direct: any HTTPTransport
  /// To the token service: as the environment says, with the system's authorities.
  let web: any HTTPTransport
}

extension [String: String] {
  /// A variable; an empty one is as good as none: so a unit file takes it away.
  func set(_ name: String) -> String? { self[name].flatMap { $0.isEmpty ? nil : $0 } }
}

struct EnvironmentCredentials: CredentialSource {
  let environment: [String: String]

  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
    guard let key = environment.set("AWS_ACCESS_KEY_ID"), let secret = environment.set("AWS_SECRET_ACCESS_KEY") else {
      return nil
    }
    return S3Credentials(
      accessKey: key, secretKey: Secret(secret), sessionToken: environment.set("AWS_SESSION_TOKEN").map(Secret.init))
  }
}

/// `AssumeRoleWithWebIdentity` (AWS STS API Reference), as Kubernetes sets it up (IRSA). The token file is read anew each time: the
/// kubelet renews it.
struct WebIdentity: CredentialSource {
  let environment: [String: String]
  let region: String
  let transport: any HTTPTransport
  let readFile: @Sendable (String) throws -> String

  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
    guard let path = environment.set("AWS_WEB_IDENTITY_TOKEN_FILE"), let role = environment.set("AWS_ROLE_ARN") else {
      return nil
    }
    guard let token = try? readFile(path) else {
      throw CredentialsError(reason: "web identity: the token file '\(path)' can't be read")
    }
    let fields = [
      ("Action", "AssumeRoleWithWebIdentity"), ("RoleArn", role),
      ("RoleSessionName", environment.set("AWS_ROLE_SESSION_NAME") ?? "pgbackupd"), ("Version", "2011-06-15"),
      ("WebIdentityToken", token.trimmingCharacters(in: .whitespacesAndNewlines)),
    ]
    let call = STSCall(environment: environment, region: region, transport: transport)
    return try await call.credentials("AssumeRoleWithWebIdentity", fields, signedBy: nil, at: now, for: "web identity")
  }
}

/// The endpoint that ECS and EKS give a container (AWS SDKs and Tools Reference Guide, "Container credential provider").
struct ContainerCredentials: CredentialSource {
  let environment: [String: String]
  let transport: any HTTPTransport
  let readFile: @Sendable (String) throws -> String

  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
    let url: String
    if let path = environment.set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
      url = "http://169.254.170.2" + path
    } else if let full = environment.set("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
      url = full
    } else {
      return nil
    }
    var headers: [(name: String, value: String)] = []
    if let path = environment.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
      guard let token = try? readFile(path) else {
        throw CredentialsError(reason: "container credentials: the token file '\(path)' can't be read")
      }
      headers = [("Authorization", token.trimmingCharacters(in: .whitespacesAndNewlines))]
    } else if let token = environment.set("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
      headers = [("Authorization", token)]
    }
    let request = HTTPRequest("GET", url, headers: headers, replyLimit: .mebibytes(1), timeout: .seconds(5))
    return try MetadataReply(try await request.sent(over: transport, from: "container credentials"))
      .credentials(from: "container credentials")
  }
}

/// An EC2 instance's role, by IMDSv2: a token first, then the role's name, then its credentials.
struct InstanceCredentials: CredentialSource {
  let environment: [String: String]
  let transport: any HTTPTransport

  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
    if environment["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true" { return nil }
    let base = environment.set("AWS_EC2_METADATA_SERVICE_ENDPOINT") ?? "http://169.254.169.254"
    let asked = HTTPRequest(
      "PUT", base + "/latest/api/token", headers: [("X-aws-ec2-metadata-token-ttl-seconds", "300")],
      replyLimit: .mebibytes(1), timeout: .seconds(2))
    // Most machines are no EC2 instance: nobody answering is no failure.
    guard let token = try? await transport.send(asked), token.status == 200 else { return nil }
    let headers = [(name: "X-aws-ec2-metadata-token", value: String(decoding: token.body, as: UTF8.self))]
    let path = base + "/latest/meta-data/iam/security-credentials/"
    func ask(_ url: String) async throws(CredentialsError) -> HTTPResponse {
      try await HTTPRequest("GET", url, headers: headers, replyLimit: .mebibytes(1), timeout: .seconds(5))
        .sent(over: transport, from: "instance metadata")
    }
    let roles = try await ask(path)
    let role = String(decoding: roles.body, as: UTF8.self).lines.first { !$0.isEmpty }
    guard roles.status == 200, let role else {
      throw CredentialsError(reason: "instance metadata: this instance has no role")
    }
    return try MetadataReply(try await ask(path + role)).credentials(from: "instance metadata")
  }
}

/// The JSON that container and instance endpoints answer with.
private struct MetadataReply: Decodable {
  var accessKey: String?
  var secretKey: String?
  var token: String?
  var expiration: String?
  var message: String?

  enum CodingKeys: String, CodingKey {
    case accessKey = "AccessKeyId"
    case secretKey = "SecretAccessKey"
    case token = "Token"
    case expiration = "Expiration"
    case message = "Message"
  }
}

extension MetadataReply {
  fileprivate init(_ response: HTTPResponse) throws(CredentialsError) {
    guard let reply = try? JSONDecoder().decode(Self.self, from: Data(response.body)), response.status == 200 else {
      throw CredentialsError(reason: "the credentials endpoint answers \(response.status)")
    }
    self = reply
  }

  fileprivate func credentials(from source: String) throws(CredentialsError) -> S3Credentials {
    guard let accessKey, let secretKey else {
      throw CredentialsError(reason: "\(source): \(message ?? "no keys in the answer")")
    }
    return S3Credentials(
      accessKey: accessKey, secretKey: Secret(secretKey), sessionToken: token.map(Secret.init),
      expires: expiration.flatMap { Date(rfc3339: $0) })
  }
}

extension HTTPRequest {
  func sent(
    over transport: any HTTPTransport, from source: String
  ) async throws(CredentialsError) -> HTTPResponse {
    do {
      return try await transport.send(self)
    } catch {
      throw CredentialsError(reason: "\(source): \(error.reason)")
    }
  }
}
