import CCurl
import Quoting
import Synchronization
import Units

/// One request on one libcurl handle, on the thread that calls `run`.
final class CurlTransfer {
  private let handle: UnsafeMutableRawPointer
  private let request: HTTPRequest
  private let settings: CurlTransport.Settings
  private let isCancelled: CancelFlag
  private var body: [UInt8] = []
  private var headers: [String: String] = [:]
  private var isTooLarge = false

  init(
    handle: UnsafeMutableRawPointer, _ request: HTTPRequest, _ settings: CurlTransport.Settings,
    _ isCancelled: CancelFlag
  ) {
    self.handle = handle
    self.request = request
    self.settings = settings
    self.isCancelled = isCancelled
  }

  func run() throws(HTTPError) -> HTTPResponse {
    var list: UnsafeMutablePointer<curl_slist>?
    defer { curl_slist_free_all(list) }
    // An empty `Expect:` keeps libcurl from waiting for "100 Continue" before a large body.
    for line in request.headers.map({ "\($0.name): \($0.value)" }) + ["Expect:"] {
      guard !line.utf8.contains(where: { $0 < 32 }) else {
        throw HTTPError(.invalid, "a header has a control character")
      }
      list = curl_slist_append(list, line)
    }
    let context = Unmanaged.passUnretained(self).toOpaque()
    set(CURLOPT_HTTPHEADER, pointer: list)
    set(CURLOPT_WRITEDATA, pointer: context)
    set(CURLOPT_HEADERDATA, pointer: context)
    set(CURLOPT_XFERINFODATA, pointer: context)
    try configure()

    // The buffers are read by libcurl until `curl_easy_perform` returns, and live until then.
    var reason = [CChar](repeating: 0, count: Int(CURL_ERROR_SIZE))
    let code = request.body.withUnsafeBytes { bytes in
      reason.withUnsafeMutableBufferPointer { reason in
        set(CURLOPT_ERRORBUFFER, pointer: reason.baseAddress)
        if !bytes.isEmpty || request.method == "PUT" || request.method == "POST" {
          set(CURLOPT_POSTFIELDSIZE_LARGE, offset: curl_off_t(bytes.count))
          // A null pointer would have libcurl read from stdin.
          if let start = bytes.baseAddress {
            set(CURLOPT_POSTFIELDS, pointer: start)
          } else {
            set(CURLOPT_POSTFIELDS, text: "")
          }
        }
        set(CURLOPT_CUSTOMREQUEST, text: request.method)
        if request.method == "HEAD" { set(CURLOPT_NOBODY, 1) }
        return curl_easy_perform(handle)
      }
    }
    guard code == CURLE_OK else {
      throw error(code, String(decoding: reason.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    var status = 0
    ccurl_get_long(handle, CURLINFO_RESPONSE_CODE, &status)
    return HTTPResponse(status: status, headers: headers, body: body)
  }

  private func configure() throws(HTTPError) {
    guard ccurl_set_text(handle, CURLOPT_URL, request.url) == CURLE_OK else {
      throw HTTPError(.invalid, "libcurl takes no such URL")
    }
    set(CURLOPT_PROTOCOLS_STR, text: "http,https")
    set(CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
    // Time-outs without signals: there are other threads.
    set(CURLOPT_NOSIGNAL, 1)
    set(CURLOPT_TCP_KEEPALIVE, 1)
    set(CURLOPT_BUFFERSIZE, 512 << 10)
    set(CURLOPT_CONNECTTIMEOUT_MS, Int(settings.connectTimeout.inSeconds * 1000))
    // Bytes a second: a server that drips is no better than one that is silent, unless it was said to take its time.
    set(CURLOPT_LOW_SPEED_LIMIT, 1024)
    set(CURLOPT_LOW_SPEED_TIME, max(1, Int((request.idleTimeout ?? settings.idleTimeout).inSeconds)))
    if let timeout = request.timeout { set(CURLOPT_TIMEOUT_MS, max(1, Int(timeout.inSeconds * 1000))) }
    set(CURLOPT_USERAGENT, text: "pgbackupd")
    if let file = settings.authorityFile {
      set(CURLOPT_CAINFO, text: file)
      // The system's folder of authorities would count as well.
      set(CURLOPT_CAPATH, pointer: nil)
    }
    if let proxy = settings.proxy { set(CURLOPT_PROXY, text: proxy) }
    ccurl_set_take(handle, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
      CurlTransfer.of(context).take(bytes, size * count)
    }
    ccurl_set_take(handle, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
      CurlTransfer.of(context).takeHeader(bytes, size * count)
    }
    set(CURLOPT_NOPROGRESS, 0)
    ccurl_set_watch(handle) { context, _, _, _, _ in
      CurlTransfer.of(context).isCancelled.value.load(ordering: .relaxed) ? 1 : 0
    }
  }

  // MARK: - Callbacks

  /// libcurl hands back the pointer that `run` gave it, and only while `run` holds the object.
  private static func of(_ context: UnsafeMutableRawPointer?) -> CurlTransfer {
    Unmanaged<CurlTransfer>.fromOpaque(context.unsafelyUnwrapped).takeUnretainedValue()
  }

  private func take(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
    guard body.count + count <= request.replyLimit.bytes else {
      isTooLarge = true
      return 0
    }
    if body.isEmpty, let text = headers["content-length"], let length = Int(text), length <= request.replyLimit.bytes {
      // No more on the server's word alone.
      body.reserveCapacity(min(length, 8 << 20))
    }
    body.append(contentsOf: UnsafeRawBufferPointer(start: bytes, count: count))
    return count
  }

  private func takeHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
    let line = String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
    if line.starts(withBytes: "HTTP/") {
      // Of several answers (100 Continue, a proxy's) the last one counts.
      headers = [:]
    } else if headers.count < 200, let colon = line.range(ofBytes: ":") {
      headers[line[..<colon.lowerBound].lowercased()] = String(line[colon.upperBound...].withoutBlanks)
    }
    return count
  }

  // MARK: - libcurl's words

  private func error(_ code: CURLcode, _ words: String) -> HTTPError {
    if isCancelled.value.load(ordering: .relaxed) { return HTTPError(.cancelled, "cancelled") }
    var reason = words.isEmpty ? String(cString: curl_easy_strerror(code)) : words
    // A password may be in it.
    if let proxy = settings.proxy, !proxy.isEmpty { reason = reason.replacingBytes(of: proxy, with: "•••") }
    let kind: HTTPError.Kind =
      switch code {
      // Among them a line that is cut while TLS begins: what is wrong with a certificate has a code of its own.
      case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_CONNECT, CURLE_SSL_CONNECT_ERROR:
        .unreachable
      case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM: .untrusted
      case CURLE_OPERATION_TIMEDOUT: .timeout
      case CURLE_RECV_ERROR where isRefusedByProxy: .refused
      case CURLE_WRITE_ERROR where isTooLarge: .tooLarge
      case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL, CURLE_SSL_CACERT_BADFILE: .invalid
      default: .broken
      }
    return HTTPError(kind, isTooLarge ? "the answer is larger than \(request.replyLimit)" : reason)
  }

  private var isRefusedByProxy: Bool {
    var status = 0
    ccurl_get_long(handle, CURLINFO_HTTP_CONNECTCODE, &status)
    return (400..<500).contains(status) && status != 408 && status != 429
  }

  // Each of these can only fail for an option that this libcurl does not know; those used are older than Debian 12's.
  private func set(_ option: CURLoption, _ value: Int) { ccurl_set_long(handle, option, value) }
  private func set(_ option: CURLoption, offset: curl_off_t) { ccurl_set_offset(handle, option, offset) }
  private func set(_ option: CURLoption, text: String) { ccurl_set_text(handle, option, text) }
  private func set(_ option: CURLoption, pointer: UnsafeRawPointer?) { ccurl_set_pointer(handle, option, pointer) }
}
