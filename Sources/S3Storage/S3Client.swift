import Crypto
import Foundation
import HTTPTransport
import Synchronization
import Units

/// One S3 request before it is signed.
struct S3Request {
  var method: String
  /// The whole key, prefix included; nil for the bucket.
  var key: String?
  var query: [(name: String, value: String)] = []
  var headers: [(name: String, value: String)] = []
  var body: [UInt8] = []
  /// SHA-256 of the body in hexadecimal, where the caller has it already.
  var bodyDigest: String?
  var replyLimit = ByteCount.mebibytes(16)
  /// A part of a long upload is worth waiting for; whoever only looks is better told soon that nobody is there.
  var isWorthWaiting = false
  /// How long the server may take to answer, where that is longer than usual.
  var patience: Duration?

  /// One page of a listing.
  static func page(_ query: [(name: String, value: String)], key: String? = nil) -> S3Request {
    S3Request(method: "GET", key: key, query: query, replyLimit: ListingBudget.pageBytes)
  }
}

/// An answer that is no success, or none at all.
struct S3Failure: Error {
  /// Nil where there was no answer.
  var status: Int?
  /// S3's own (`NoSuchKey`), where the answer had one.
  var code: String?
  /// The server's or libcurl's own words.
  var message: String
  /// Where there was no answer: why.
  var transport: HTTPError.Kind?
  /// What the server asks for, in seconds.
  var retryAfter: TimeInterval?
  /// The server's clock.
  var date: Date?
}

/// Signs requests, sends them, and sends them again where that may help: after a broken connection or an overloaded server, once with
/// new credentials where they have expired, and once with the server's time where ours is wrong.
///
/// A request that is repeated may have been carried out the first time. Reading, listing, deleting and uploading a part don't mind;
/// what makes an object appear does, and `S3Upload` sees to it.
struct S3Client: Sendable {
  let settings: S3Settings
  let transport: any HTTPTransport
  let keeper: CredentialKeeper
  let retry: RetryPolicy
  let now: @Sendable () -> Date
  private let meter: S3Meter
  /// What the server's clock shows more than ours, in seconds; known once it has refused our time.
  private let clockOffset = SharedValue<TimeInterval>(0)
  private let refused = SharedValue<S3Credentials?>(nil)

  init(
    store: String, settings: S3Settings, transport: any HTTPTransport, keeper: CredentialKeeper, retry: RetryPolicy,
    now: @escaping @Sendable () -> Date
  ) {
    meter = S3Meter(store: store)
    self.settings = settings
    self.transport = transport
    self.keeper = keeper
    self.retry = retry
    self.now = now
  }

  func send(_ request: S3Request) async throws(S3Failure) -> HTTPResponse {
    var attempt = 1
    var hasRenewed = false
    var hasAdjusted = false
    while true {
      let credentials = try await credentials()
      let failure: S3Failure
      do throws(S3Failure) {
        return try await once(request, credentials)
      } catch {
        failure = error
      }
      if failure.meansRefused, !hasRenewed {
        hasRenewed = true
        refused.set(credentials)
        // There are no others.
        if try await self.credentials() == credentials { throw failure }
      } else if !hasAdjusted, let date = failure.clock(otherThan: now().addingTimeInterval(clockOffset.get())) {
        hasAdjusted = true
        clockOffset.set(date.timeIntervalSince(now()))
      } else {
        guard RetryPolicy.isRetryable(failure),
          let wait = retry.wait(
            after: attempt, isPatient: request.isWorthWaiting, retryAfter: failure.retryAfter,
            chance: .random(in: 0...1))
        else { throw failure }
        attempt += 1
        meter.repeats()
        do {
          try await Task.sleep(for: .seconds(wait))
        } catch {
          throw S3Failure(message: "cancelled", transport: .cancelled)
        }
      }
    }
  }

  private func credentials() async throws(S3Failure) -> S3Credentials {
    do {
      return try await keeper.credentials(at: now(), refused: refused.get())
    } catch {
      throw S3Failure(code: "CredentialsMissing", message: error.reason)
    }
  }

  private func once(_ request: S3Request, _ credentials: S3Credentials) async throws(S3Failure) -> HTTPResponse {
    let response: HTTPResponse
    let signed = signed(request, credentials)
    do {
      response = try await transport.send(signed)
    } catch {
      meter.wasUnanswered()
      throw S3Failure(message: error.reason, transport: error.kind)
    }
    meter.answered(signed, response)
    guard (200..<300).contains(response.status) else { throw S3Failure(response) }
    return response
  }

  private func signed(_ request: S3Request, _ credentials: S3Credentials) -> HTTPRequest {
    let address = settings.address(of: request.key)
    let query = request.query.map { (name: PercentEncoding.encode($0.name), value: PercentEncoding.encode($0.value)) }
    let digest = request.bodyDigest ?? request.body.withUnsafeBytes { SHA256.hash(data: $0) }.hexadecimal
    let headers = SigV4(region: settings.region, service: "s3").signed(
      SigV4.Parts(
        method: request.method, host: address.host, path: address.path, query: query, headers: request.headers,
        bodyDigest: digest), with: credentials, at: now().addingTimeInterval(clockOffset.get()))
    let text = query.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
    return HTTPRequest(
      request.method, address.base + address.path + (text.isEmpty ? "" : "?\(text)"),
      // Else libcurl names a form's type for every body, unsigned.
      headers: headers + (request.headers.contains { $0.name == "Content-Type" } ? [] : [("Content-Type", "")]),
      body: request.body, replyLimit: request.replyLimit, timeout: Self.limit(request),
      idleTimeout: request.patience)
  }

  /// How long a request may take in all: what drips for hours holds up everybody else's bytes. Slower lines than this carry no backups.
  private static func limit(_ request: S3Request) -> Duration {
    let bytes = max(Int64(request.body.count), request.replyLimit.bytes)
    return .seconds(120 + bytes / slowest)
  }

  /// Bytes a second.
  private static let slowest: Int64 = 16 << 10
}

extension S3Failure {
  init(_ response: HTTPResponse) {
    let reply = try? S3Document(response.body)
    status = response.status
    code = reply?["Code"]?.text
    message = [code, reply?["Message"]?.text ?? "HTTP status \(response.status)"].compactMap { $0 }
      .joined(separator: ": ")
    // Seconds, or a date (RFC 9110, section 10.2.3), which counts from the server's own clock.
    let now = response.headers["date"].flatMap(Date.init(http:))
    retryAfter = response.headers["retry-after"].flatMap { text in
      TimeInterval(text) ?? Date(http: text).flatMap { date in now.map { max(0, date.timeIntervalSince($0)) } }
    }
    date = response.headers["date"].flatMap(Date.init(http:))
  }

  /// The server's clock, where it refuses the time that was signed. (The answer to a `HEAD` has no code.) S3 takes 15 minutes of
  /// difference.
  fileprivate func clock(otherThan signed: Date) -> Date? {
    guard code == "RequestTimeTooSkewed" || code == nil && status == 403, let date,
      code != nil || abs(date.timeIntervalSince(signed)) > 600
    else { return nil }
    return date
  }

  /// The credentials have ended, or are none any more: somebody may have renewed them.
  fileprivate var meansRefused: Bool {
    [
      "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId",
      "SignatureDoesNotMatch",
    ].contains(code)
  }
}

extension RetryPolicy {
  static func isRetryable(_ failure: S3Failure) -> Bool {
    if let kind = failure.transport { return [.unreachable, .timeout, .broken].contains(kind) }
    return failure.status.map { isRetryable(status: $0, code: failure.code) } ?? false
  }
}

/// A value that several tasks read and write.
final class SharedValue<Value: Sendable>: Sendable {
  private let value: Mutex<Value>

  init(_ value: Value) { self.value = Mutex(value) }

  func get() -> Value { value.withLock { $0 } }
  func set(_ new: Value) { value.withLock { $0 = new } }
}

extension Date {
  /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, IMF-fixdate).
  init?(http text: String) {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    let parts = text.split(separator: " ")
    guard parts.count == 6, parts[5] == "GMT", let month = months.firstIndex(of: String(parts[2])) else { return nil }
    let number = month + 1
    let time = parts[4].filter { $0 != ":" }
    self.init(stamp: "\(parts[3])\(number < 10 ? "0" : "")\(number)\(parts[1])T\(time)Z")
  }
}
