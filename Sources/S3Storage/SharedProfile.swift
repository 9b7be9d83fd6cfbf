import Crypto
import Faults
import Foundation
import HTTPTransport
import OutsidePrograms
import Quoting
import Units

/// A profile of the AWS tools, from `~/.aws/credentials` and `~/.aws/config` (AWS SDKs and Tools Reference Guide, "Shared config and
/// credentials files", "Assume role provider", "Process credential provider"). The files are read anew each time: other tools renew
/// them.
struct SharedProfile: CredentialSource {
  let environment: [String: String]
  let profile: String?
  let region: String
  let transports: KeyTransports
  let readFile: @Sendable (String) throws -> String

  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
    let isMeant = profile != nil || environment.set("AWS_PROFILE") != nil
    let name = profile ?? environment.set("AWS_PROFILE") ?? "default"
    if isMeant { return try await resolve(name, below: [], at: now) }
    // Nobody has asked for this profile: that it is not there, or holds a region alone, says nothing.
    let values = values(name)
    guard Self.sources.contains(where: { values[$0] != nil }) else { return nil }
    return try await resolve(name, below: [], at: now)
  }

  private static let sources = ["aws_access_key_id", "role_arn", "credential_process"]

  private func path(_ variable: String, _ file: String) -> String? {
    environment.set(variable) ?? environment["HOME"].map { "\($0)/.aws/\(file)" }
  }

  private var credentialsPath: String? { path("AWS_SHARED_CREDENTIALS_FILE", "credentials") }
  private var configPath: String? { path("AWS_CONFIG_FILE", "config") }

  /// The settings of a profile. What is in both files counts as the credentials file has it.
  private func values(_ name: String) -> [String: String] {
    func read(_ path: String?, _ title: String) -> [String: String] {
      path.flatMap { try? readFile($0) }.map { Self.section(title, of: $0) } ?? [:]
    }
    let titles = name == "default" ? ["default", "profile default"] : ["profile \(name)"]
    let configured = titles.map { read(configPath, $0) }.reduce([:]) { $0.merging($1) { $1 } }
    return configured.merging(read(credentialsPath, name)) { $1 }
  }

  private func resolve(
    _ name: String, below: [String], at now: Date
  ) async throws(CredentialsError) -> S3Credentials {
    func failure(_ reason: String) -> CredentialsError { CredentialsError(reason: "profile '\(name)': \(reason)") }
    let values = values(name)
    if values.isEmpty {
      let files = [credentialsPath, configPath].compactMap { $0 }
      let readable = files.filter { (try? readFile($0)) != nil }
      throw readable.isEmpty
        ? failure("'\(files.first ?? "~/.aws/credentials")' can't be read")
        : failure("there is no [\(name)] in '\(readable.joined(separator: "' or '"))'")
    }
    // A profile that names itself as its source means its own keys.
    if let role = values["role_arn"], below.last != name {
      guard !below.contains(name) else { throw failure("source_profile leads back to it") }
      if let token = values["web_identity_token_file"] {
        var web = environment
        web["AWS_WEB_IDENTITY_TOKEN_FILE"] = token
        web["AWS_ROLE_ARN"] = role
        web["AWS_ROLE_SESSION_NAME"] = values["role_session_name"]
        let source = WebIdentity(environment: web, region: region, transport: transports.web, readFile: readFile)
        if let found = try await source.credentials(at: now) { return found }
      }
      let base: S3Credentials
      if let source = values["source_profile"] {
        base = try await resolve(source, below: below + [name], at: now)
      } else if let place = values["credential_source"] {
        guard let found = try await ambient(place, failure)?.credentials(at: now) else {
          throw failure("credential_source \(place) gives none")
        }
        base = found
      } else {
        throw failure("role_arn needs source_profile, credential_source or web_identity_token_file")
      }
      return try await assume(role, values, by: base, at: now)
    }
    if let key = values["aws_access_key_id"], let secret = values["aws_secret_access_key"] {
      return S3Credentials(
        accessKey: key, secretKey: Secret(secret), sessionToken: values["aws_session_token"].map(Secret.init))
    }
    if let command = values["credential_process"] { return try await run(command, failure) }
    if values["sso_session"] != nil || values["sso_start_url"] != nil {
      throw failure(
        "single sign-on is for people; set credential_process = aws configure export-credentials --profile \(name)")
    }
    throw failure("there are no keys under [\(name)]")
  }

  private func ambient(
    _ place: String, _ failure: (String) -> CredentialsError
  ) throws(CredentialsError) -> (any CredentialSource)? {
    switch place {
    case "Environment": EnvironmentCredentials(environment: environment)
    case "EcsContainer":
      ContainerCredentials(environment: environment, transport: transports.direct, readFile: readFile)
    case "Ec2InstanceMetadata": InstanceCredentials(environment: environment, transport: transports.direct)
    default: throw failure("'\(place)' is no credential_source")
    }
  }

  /// `AssumeRole` (AWS STS API Reference).
  private func assume(
    _ role: String, _ values: [String: String], by base: S3Credentials, at now: Date
  ) async throws(CredentialsError) -> S3Credentials {
    guard values["mfa_serial"] == nil else {
      throw CredentialsError(reason: "'\(role)' wants a second factor (mfa_serial), which a daemon has not")
    }
    var fields = [
      ("Action", "AssumeRole"), ("RoleArn", role), ("RoleSessionName", values["role_session_name"] ?? "pgbackupd"),
      ("Version", "2011-06-15"),
    ]
    if let id = values["external_id"] { fields.append(("ExternalId", id)) }
    if let seconds = values["duration_seconds"] { fields.append(("DurationSeconds", seconds)) }
    let call = STSCall(environment: environment, region: values["region"] ?? region, transport: transports.web)
    return try await call.credentials("AssumeRole", fields, signedBy: base, at: now, for: "role '\(role)'")
  }

  private func run(
    _ command: String, _ failure: (String) -> CredentialsError
  ) async throws(CredentialsError) -> S3Credentials {
    let printed: [UInt8]
    do {
      printed = try await OutsideCommand(["/bin/sh", "-c", command], timeout: .seconds(60)).output().standardOutput
    } catch {
      // What it printed may hold a secret.
      throw failure("credential_process: \(error.message)")
    }
    guard let reply = try? JSONDecoder().decode(ProcessReply.self, from: Data(printed)), reply.version == 1 else {
      throw failure("credential_process printed no credentials of version 1")
    }
    return S3Credentials(
      accessKey: reply.accessKey, secretKey: Secret(reply.secretKey), sessionToken: reply.token.map(Secret.init),
      expires: reply.expiration.flatMap { Date(rfc3339: $0) })
  }

  /// The settings under `[title]`: `key = value` lines; `#` and `;` begin comments, and indented lines belong to the setting before.
  static func section(_ title: String, of text: String) -> [String: String] {
    var values: [String: String] = [:]
    var isInside = false
    for full in text.lines {
      let line = full.withoutBlanks
      guard let first = line.utf8.first, first != UInt8(ascii: "#"), first != UInt8(ascii: ";") else { continue }
      if first == UInt8(ascii: "["), let end = line.range(ofBytes: "]") {
        let words = line[..<end.lowerBound].dropFirst().split(atByte: 32)
        isInside = words.joined(separator: " ").replacingBytes(of: "\"", with: "") == title
      } else if isInside, full.utf8.first != 32, full.utf8.first != 9, let equals = line.range(ofBytes: "=") {
        values[line[..<equals.lowerBound].withoutBlanks.lowercased()] = String(line[equals.upperBound...].withoutBlanks)
      }
    }
    return values
  }
}

private struct ProcessReply: Decodable {
  var version: Int
  var accessKey: String
  var secretKey: String
  var token: String?
  var expiration: String?

  enum CodingKeys: String, CodingKey {
    case version = "Version"
    case accessKey = "AccessKeyId"
    case secretKey = "SecretAccessKey"
    case token = "SessionToken"
    case expiration = "Expiration"
  }
}

/// A call of the AWS Security Token Service that answers with credentials.
struct STSCall {
  let environment: [String: String]
  let region: String
  let transport: any HTTPTransport

  /// - Parameter signedBy: nil for the calls that carry their own proof.
  func credentials(
    _ action: String, _ fields: [(String, String)], signedBy signer: S3Credentials?, at now: Date, for what: String
  ) async throws(CredentialsError) -> S3Credentials {
    let endpoint = environment.set("AWS_ENDPOINT_URL_STS") ?? "https://sts.\(region).amazonaws.com"
    let body = Array(fields.map { "\($0)=\(PercentEncoding.encode($1))" }.joined(separator: "&").utf8)
    var headers: [(name: String, value: String)] = [("Content-Type", "application/x-www-form-urlencoded")]
    if let signer, let url = URL(string: endpoint), let host = url.host() {
      let digest = SHA256.hash(data: Data(body)).map { byte in
        String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
      }
      let parts = SigV4.Parts(
        method: "POST", host: url.port.map { "\(host):\($0)" } ?? host, path: "/", query: [], headers: headers,
        bodyDigest: digest.joined())
      headers = SigV4(region: region, service: "sts").signed(parts, with: signer, at: now)
    }
    let request = HTTPRequest(
      "POST", endpoint + "/", headers: headers, body: body, replyLimit: .mebibytes(1), timeout: .seconds(30))
    var response = try await request.sent(over: transport, from: what)
    // A busy token service is asked again, as a busy store is.
    for wait in [0.5, 1, 2] where response.status >= 500 || response.status == 429 {
      do {
        try await Task.sleep(for: .seconds(wait))
      } catch {
        throw CredentialsError(reason: "\(what): cancelled")
      }
      response = try await request.sent(over: transport, from: what)
    }
    let reply = try? S3Document(response.body)
    guard response.status == 200, let found = reply?["\(action)Result"]?["Credentials"],
      let key = found["AccessKeyId"]?.text, let secret = found["SecretAccessKey"]?.text
    else {
      let words = reply?["Error"]?["Message"]?.text ?? reply?["Error"]?["Code"]?.text
      throw CredentialsError(reason: "\(what): STS answers \(response.status)\(words.map { ", \($0)" } ?? "")")
    }
    return S3Credentials(
      accessKey: key, secretKey: Secret(secret), sessionToken: (found["SessionToken"]?.text).map(Secret.init),
      expires: (found["Expiration"]?.text).flatMap { Date(rfc3339: $0) })
  }
}
