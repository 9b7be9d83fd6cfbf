import Crypto
import Foundation
import Units

/// AWS Signature Version 4 in an `Authorization` header ("Authenticating Requests: Using the Authorization Header", Amazon S3 API
/// Reference). A pure function of the request, the credentials and the time.
struct SigV4 {
  let region: String
  let service: String

  /// The request's parts as they are signed and sent.
  struct Parts {
    var method: String
    /// Host and port, as the `Host` header has them.
    var host: String
    /// Encoded, beginning with `/`.
    var path: String
    /// Encoded.
    var query: [(name: String, value: String)]
    /// Everything that is signed, besides what the signature adds.
    var headers: [(name: String, value: String)]
    /// SHA-256 of the body, in hexadecimal.
    var bodyDigest: String
  }

  /// The headers to send: those of the request, and what the signature adds. `Host` is not among them.
  func signed(_ parts: Parts, with credentials: S3Credentials, at now: Date) -> [(name: String, value: String)] {
    let stamp = now.stamp
    var headers = parts.headers + [("x-amz-content-sha256", parts.bodyDigest), ("x-amz-date", stamp)]
    if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token.revealed)) }

    let canonical = (headers + [("host", parts.host)]).map {
      (name: $0.name.lowercased(), value: $0.value.trimmingCharacters(in: .whitespaces))
    }.sorted { $0.name < $1.name }
    let names = canonical.map(\.name).joined(separator: ";")
    let query = parts.query.sorted { ($0.name, $0.value) < ($1.name, $1.value) }.map { "\($0.name)=\($0.value)" }
    let request = [
      parts.method, parts.path, query.joined(separator: "&"),
      canonical.map { "\($0.name):\($0.value)\n" }.joined(), names, parts.bodyDigest,
    ].joined(separator: "\n")

    let day = String(stamp.prefix(8))
    let scope = "\(day)/\(region)/\(service)/aws4_request"
    let toSign = "AWS4-HMAC-SHA256\n\(stamp)\n\(scope)\n\(SHA256.hash(data: Data(request.utf8)).hexadecimal)"
    var key = Data("AWS4\(credentials.secretKey.revealed)".utf8)
    for part in [day, region, service, "aws4_request"] { key = Self.mac(part, key) }
    let signature = Self.mac(toSign, key).hexadecimal
    headers.append(
      (
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=\(credentials.accessKey)/\(scope),SignedHeaders=\(names),Signature=\(signature)"
      ))
    return headers
  }

  private static func mac(_ text: String, _ key: Data) -> Data {
    Data(HMAC<SHA256>.authenticationCode(for: Data(text.utf8), using: SymmetricKey(data: key)))
  }
}

extension Sequence<UInt8> {
  /// Two digits a byte.
  var hexadecimal: String {
    String(decoding: flatMap { [Self.digit($0 >> 4), Self.digit($0 & 15)] }, as: UTF8.self)
  }

  private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? 48 + value : 87 + value }
}

/// Percent-encoding as SigV4 wants it: everything but RFC 3986's unreserved characters.
enum PercentEncoding {
  static func encode(_ text: String, keepingSlashes: Bool = false) -> String {
    var encoded: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case 48...57, 65...90, 97...122, 45, 46, 95, 126: encoded.append(byte)
      case 47 where keepingSlashes: encoded.append(byte)
      default: encoded += "%\(byte < 16 ? "0" : "")\(String(byte, radix: 16, uppercase: true))".utf8
      }
    }
    return String(decoding: encoded, as: UTF8.self)
  }
}
