import Foundation
import HTTPTransport
import Storage
import TestSupport
import Testing
import Units

@testable import S3Storage

/// What tests on an S3 server need.
protocol S3Testing {}

extension S3Testing {
  func makeStore(
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

  func key(_ path: String) throws -> ObjectKey { try #require(ObjectKey(path)) }

  /// Bytes that no two parts share: numbers, of 8 bytes each.
  func bytes(_ count: Int) -> [UInt8] {
    let numbers = (0..<UInt64(count / 8 + 1)).map { $0 &* 0x9E37_79B9_7F4A_7C15 }
    return numbers.withUnsafeBytes { Array($0[..<count]) }
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

/// Tells of each request before it is sent.
struct HeraldTransport: HTTPTransport {
  private let transport: any HTTPTransport
  private let tell: @Sendable (HTTPRequest) async -> Void

  init(_ transport: any HTTPTransport, _ tell: @escaping @Sendable (HTTPRequest) async -> Void) {
    (self.transport, self.tell) = (transport, tell)
  }

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    await tell(request)
    return try await transport.send(request)
  }
}
