package import Units

/// One request, as it goes over the wire.
package struct HTTPRequest: Sendable {
  package var method: String
  /// Absolute, and encoded already.
  package var url: String
  /// In order; a name may stand twice.
  package var headers: [(name: String, value: String)]
  package var body: [UInt8]
  /// The body of an answer that is larger is refused, not held.
  package var replyLimit: ByteCount
  /// In all, from the name's look-up to the answer's last byte; without a bound where nil.
  package var timeout: Duration?
  /// How long nothing may move; the transport's own where nil.
  package var idleTimeout: Duration?

  package init(
    _ method: String, _ url: String, headers: [(name: String, value: String)] = [], body: [UInt8] = [],
    replyLimit: ByteCount = .mebibytes(16), timeout: Duration? = nil, idleTimeout: Duration? = nil
  ) {
    self.idleTimeout = idleTimeout
    self.method = method
    self.url = url
    self.headers = headers
    self.body = body
    self.replyLimit = replyLimit
    self.timeout = timeout
  }
}

package struct HTTPResponse: Sendable {
  package let status: Int
  /// Names in lower case; of a name that stands twice, the last.
  package let headers: [String: String]
  package let body: [UInt8]

  package init(status: Int, headers: [String: String], body: [UInt8]) {
    self.status = status
    self.headers = headers
    self.body = body
  }
}

/// Why there was no answer. A status of 500 is an answer.
package struct HTTPError: Error, Sendable, Equatable {
  package enum Kind: Sendable, Equatable {
    /// No such name, nobody listens, no way there; or nobody who goes through with TLS.
    case unreachable
    /// The certificate is not one that we trust, or our own is none.
    case untrusted
    /// A proxy makes no way there for us (RFC 9110, section 9.3.6: CONNECT is answered with a status of 4xx).
    case refused
    case timeout
    /// The connection broke in the middle.
    case broken
    /// The answer is larger than the request allowed.
    case tooLarge
    /// The task was cancelled.
    case cancelled
    /// The request itself can't be made: a malformed URL, an unreadable CA file.
    case invalid
  }

  package let kind: Kind
  /// libcurl's own words; never a header's value.
  package let reason: String

  package init(_ kind: Kind, _ reason: String) {
    self.kind = kind
    self.reason = reason
  }
}

/// Sends a request and gives back what is answered. The one implementation for production is `CurlTransport`; decorators and tests
/// have their own.
package protocol HTTPTransport: Sendable {
  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse
}
