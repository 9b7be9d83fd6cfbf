import Foundation
import Units

@testable import ControlAPI
@testable import PostgresTools
@testable import S3Storage

let edgeTargets = [
  FuzzTarget("http-reply") { bytes in
    let whole = reply(bytes, pieces: max(1, bytes.count))
    let inPieces = reply(bytes, pieces: FuzzTarget.pieceSize(bytes))
    FuzzTarget.require((whole == nil) == (inPieces == nil), "pieces are refused as the whole is")
    guard let whole, let inPieces else { return }
    FuzzTarget.require(whole.body == inPieces.body, "pieces give the same body")
    FuzzTarget.require(whole.parser.isComplete == inPieces.parser.isComplete, "pieces end where the whole does")
    FuzzTarget.require(whole.parser.status == inPieces.parser.status, "pieces give the same status")
  },
  FuzzTarget("s3-xml") { bytes in
    guard let document = try? S3Document(bytes) else { return }
    FuzzTarget.require(depth(document) <= 40, "a document is not deep")
    FuzzTarget.require(size(document) <= 16 * bytes.count + 1024, "a document is not larger than its text by far")
    for entry in document.all("Contents") {
      let date = entry["LastModified"].flatMap { Date(rfc3339: $0.text) }
      _ = date.map { ($0.rfc3339, $0.stamp) }
    }
  },
  FuzzTarget("sigv4") { bytes in
    let fields = bytes.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
    for field in fields {
      let encoded = PercentEncoding.encode(field)
      FuzzTarget.require(
        encoded.removingPercentEncoding.map { Array($0.utf8) } == Array(field.utf8), "encoding reads back")
      FuzzTarget.require(encoded.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 38 && $0 != 61 }, "encoding is plain")
    }
    let pairs = stride(from: 0, to: fields.count - 1, by: 2).map {
      (name: PercentEncoding.encode(fields[$0]), value: PercentEncoding.encode(fields[$0 + 1]))
    }
    // Whatever order query and headers come in, and however often it is signed: one signature.
    FuzzTarget.require(signature(pairs) == signature(pairs.reversed()), "a signature does not depend on order")
  },
  FuzzTarget(text: "aws-profile") { text in
    _ = SharedProfile.section("default", of: text)
    _ = SharedProfile.section("profile x", of: text)
  },
  FuzzTarget(text: "connection-text") { text in
    // libpq's parser takes a C string.
    guard !text.utf8.contains(0), let settings = try? ConnectionSettings(parsing: text) else { return }
    FuzzTarget.require(!settings.parameters.contains { $0.keyword == "password" }, "a password is kept apart")
  },
]

private func reply(_ bytes: [UInt8], pieces size: Int) -> (parser: HTTPReplyParser, body: Data)? {
  var parser = HTTPReplyParser()
  var body = Data()
  for start in stride(from: 0, to: bytes.count, by: size) {
    guard let piece = try? parser.consume(Data(bytes[start..<min(bytes.count, start + size)])) else { return nil }
    body += piece
  }
  return (parser, body)
}

private func depth(_ document: S3Document) -> Int { 1 + (document.children.map(depth).max() ?? 0) }

private func size(_ document: S3Document) -> Int {
  document.name.utf8.count + document.text.utf8.count + document.children.map(size).reduce(0, +)
}

private func signature(_ pairs: [(name: String, value: String)]) -> String? {
  let credentials = S3Credentials(accessKey: "AKIA", secretKey: Secret("secret"))
  var seen: Set<String> = []
  let headers = pairs.filter { seen.insert($0.name.lowercased()).inserted }
  let parts = SigV4.Parts(
    method: "GET", host: "example.com", path: "/", query: pairs, headers: headers.count == pairs.count ? headers : [],
    bodyDigest: "0")
  let signed = SigV4(region: "x", service: "s3").signed(parts, with: credentials, at: Date(timeIntervalSince1970: 0))
  return signed.last { $0.name == "Authorization" }?.value
}
