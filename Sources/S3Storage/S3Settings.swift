import Quoting

/// Where a bucket is and how objects are put into it.
package struct S3Settings: Sendable, Hashable {
  package enum ServerSideEncryption: Sendable, Hashable {
    /// `AES256`: with the store's own keys.
    case storeKey
    /// `aws:kms`, with a key of that service; its default one where nil.
    case managedKey(String?)
  }

  /// Object Lock's two modes: `governance` can be lifted by who has the right to, `compliance` by nobody.
  package enum Lock: String, Sendable, Hashable, CaseIterable { case governance, compliance }

  package var bucket: String
  /// Before every key; without slashes at its ends, and empty for none.
  package var prefix = ""
  package var region = "us-east-1"
  /// `https://host[:port]`; AWS's own of the region where nil.
  package var endpoint: String?
  /// `https://host/bucket/key` instead of `https://bucket.host/key`.
  package var usesPathStyle: Bool
  /// Nil: as the AWS tools find them.
  package var credentials: S3Credentials?
  /// Where those were read from.
  package var credentialFiles = S3CredentialFiles()
  /// A profile of `~/.aws/credentials`.
  package var profile: String?
  package var authorityFile: String?
  package var proxy: String?
  package var storageClass: String?
  package var serverSideEncryption: ServerSideEncryption?
  package var tags: [String: String] = [:]
  /// Each backup is locked until its own retention ends.
  package var lock: Lock?
  /// In a versioned bucket, expiry removes the versions too.
  package var deletesVersions = false

  /// - Parameter endpoint: nil for AWS.
  package init(bucket: String, endpoint: String? = nil) {
    self.bucket = bucket
    self.endpoint = endpoint
    // AWS answers a bucket with dots in its name under a certificate that does not match.
    usesPathStyle = endpoint != nil || bucket.contains(".")
  }

  /// For people; no secret in it.
  package var location: String {
    "s3://\(bucket)\(prefix.isEmpty ? "" : "/\(prefix)")" + (endpoint.map { " at \($0)" } ?? " in \(region)")
  }
}

extension S3Settings {
  /// Host and path of a key, or of the bucket itself where nil, both encoded.
  func address(of key: String?) -> (base: String, host: String, path: String) {
    let endpoint = endpoint ?? "https://s3.\(region).amazonaws.com"
    let scheme = endpoint.starts(withBytes: "http://") ? "http://" : "https://"
    var host = endpoint.rest(after: scheme).map(String.init) ?? endpoint
    while host.ends(withBytes: "/") { host.removeLast() }
    var path = "/"
    if usesPathStyle { path += PercentEncoding.encode(bucket) } else { host = "\(bucket).\(host)" }
    if let key { path += (usesPathStyle ? "/" : "") + PercentEncoding.encode(key, keepingSlashes: true) }
    return (scheme + host, Self.withoutDefaultPort(host, scheme), path)
  }

  /// libcurl leaves the scheme's own port out of the `Host` header, which is signed.
  private static func withoutDefaultPort(_ host: String, _ scheme: String) -> String {
    let port = scheme == "https://" ? ":443" : ":80"
    return host.ends(withBytes: port) ? String(host.dropLast(port.count)) : host
  }
}
