import CCurl
import Dispatch
import QueueExecution
import Quoting
import Synchronization
package import Units

/// One message on its way to a mail server.
package struct MailSubmission: Sendable {
  package enum Security: String, Sendable, CaseIterable {
    /// TLS from the first byte on (RFC 8314); port 465.
    case tls
    /// Plain first, and TLS before anything is said (RFC 3207); a server without it is refused. Port 587.
    case startTLS = "starttls"
    /// In the clear: for a server on this machine.
    case off
  }

  package var host: String
  package var port: Int
  package var security: Security
  package var user: String?
  package var password: Secret?
  /// PEM file with the authorities to trust instead of the system's.
  package var authorityFile: String?
  package var from: String
  package var to: [String]
  /// RFC 5322, its lines ended by CR LF.
  package var message: [UInt8]
  package var timeout = Duration.seconds(60)

  package init(
    host: String, port: Int, security: Security, user: String?, password: Secret?, authorityFile: String?, from: String,
    to: [String], message: [UInt8]
  ) {
    self.host = host
    self.port = port
    self.security = security
    self.user = user
    self.password = password
    self.authorityFile = authorityFile
    self.from = from
    self.to = to
    self.message = message
  }
}

/// SMTP (RFC 5321) over libcurl: one message, one connection.
package final class CurlMailer: Sendable {
  /// libcurl blocks; it waits here, and not on the cooperative pool.
  private let queue = DispatchQueue(label: "pgbackupd.mail", attributes: .concurrent)

  package init() {}

  /// Returns the server's words on those of the addresses that it has refused, where it took the message for others.
  @discardableResult package func send(_ mail: MailSubmission) async throws(HTTPError) -> [String] {
    guard CurlTransport.isReady else { throw HTTPError(.invalid, "libcurl can't be initialized") }
    let isCancelled = CancelFlag()
    do {
      return try await withTaskCancellationHandler {
        try await queue.blocking { try CurlMail(mail, isCancelled).run() }
      } onCancel: {
        isCancelled.value.store(true, ordering: .relaxed)
      }
    } catch let error as HTTPError {
      throw error
    } catch {
      throw HTTPError(.broken, String(describing: error))
    }
  }
}

/// One message on one libcurl handle, on the thread that calls `run`.
private final class CurlMail {
  private let mail: MailSubmission
  private let isCancelled: CancelFlag
  private var sent = 0
  private var refusals: [String] = []

  init(_ mail: MailSubmission, _ isCancelled: CancelFlag) {
    self.mail = mail
    self.isCancelled = isCancelled
  }

  func run() throws(HTTPError) -> [String] {
    guard let curl = curl_easy_init() else { throw HTTPError(.invalid, "libcurl gives no handle") }
    let handle = UnsafeMutableRawPointer(curl)
    defer { curl_easy_cleanup(handle) }
    var recipients: UnsafeMutablePointer<curl_slist>?
    defer { curl_slist_free_all(recipients) }
    for address in mail.to { recipients = curl_slist_append(recipients, "<\(address)>") }
    let context = Unmanaged.passUnretained(self).toOpaque()
    let scheme = mail.security == .tls ? "smtps" : "smtp"
    let host = mail.host.contains(":") ? "[\(mail.host)]" : mail.host
    guard ccurl_set_text(handle, CURLOPT_URL, "\(scheme)://\(host):\(mail.port)") == CURLE_OK else {
      throw HTTPError(.invalid, "libcurl takes no such server")
    }
    ccurl_set_text(handle, CURLOPT_PROTOCOLS_STR, "smtp,smtps")
    ccurl_set_long(
      handle, CURLOPT_USE_SSL, Int(mail.security == .off ? CURLUSESSL_NONE.rawValue : CURLUSESSL_ALL.rawValue))
    ccurl_set_long(handle, CURLOPT_NOSIGNAL, 1)
    ccurl_set_long(handle, CURLOPT_CONNECTTIMEOUT_MS, 10_000)
    ccurl_set_long(handle, CURLOPT_TIMEOUT_MS, max(1, Int(mail.timeout.inSeconds * 1000)))
    // No proxy of the environment: those are for HTTP.
    ccurl_set_text(handle, CURLOPT_PROXY, "")
    if let file = mail.authorityFile {
      ccurl_set_text(handle, CURLOPT_CAINFO, file)
      ccurl_set_pointer(handle, CURLOPT_CAPATH, nil)
    }
    if let user = mail.user { ccurl_set_text(handle, CURLOPT_USERNAME, user) }
    if let password = mail.password { ccurl_set_text(handle, CURLOPT_PASSWORD, password.revealed) }
    ccurl_set_text(handle, CURLOPT_MAIL_FROM, "<\(mail.from)>")
    ccurl_set_pointer(handle, CURLOPT_MAIL_RCPT, recipients)
    // One address that is refused must not silence the others.
    ccurl_allow_refused_recipients(handle)
    ccurl_set_long(handle, CURLOPT_UPLOAD, 1)
    ccurl_set_pointer(handle, CURLOPT_READDATA, context)
    ccurl_set_take(handle, CURLOPT_READFUNCTION) { bytes, size, count, context in
      Unmanaged<CurlMail>.fromOpaque(context.unsafelyUnwrapped).takeUnretainedValue().give(bytes, size * count)
    }
    ccurl_set_take(handle, CURLOPT_WRITEFUNCTION) { _, size, count, _ in size * count }
    ccurl_set_pointer(handle, CURLOPT_HEADERDATA, context)
    ccurl_set_take(handle, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
      Unmanaged<CurlMail>.fromOpaque(context.unsafelyUnwrapped).takeUnretainedValue().hear(bytes, size * count)
    }
    ccurl_set_pointer(handle, CURLOPT_XFERINFODATA, context)
    ccurl_set_long(handle, CURLOPT_NOPROGRESS, 0)
    ccurl_set_watch(handle) { context, _, _, _, _ in
      let mail = Unmanaged<CurlMail>.fromOpaque(context.unsafelyUnwrapped).takeUnretainedValue()
      return mail.isCancelled.value.load(ordering: .relaxed) ? 1 : 0
    }
    var reason = [CChar](repeating: 0, count: Int(CURL_ERROR_SIZE))
    let code = reason.withUnsafeMutableBufferPointer { reason in
      ccurl_set_pointer(handle, CURLOPT_ERRORBUFFER, reason.baseAddress)
      return curl_easy_perform(handle)
    }
    guard code == CURLE_OK else {
      if isCancelled.value.load(ordering: .relaxed) { throw HTTPError(.cancelled, "cancelled") }
      let words = String(decoding: reason.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      throw HTTPError(kind(code), words.isEmpty ? String(cString: curl_easy_strerror(code)) : words)
    }
    return refusals
  }

  /// A line of the server's. Where the whole has gone well, what it has refused (RFC 5321, 4.2.1: 4yz, 5yz) was an address.
  private func hear(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
    guard let bytes, count > 3 else { return count }
    let line = UnsafeRawBufferPointer(start: bytes, count: count)
    if line[0] == UInt8(ascii: "4") || line[0] == UInt8(ascii: "5"), line[3] != UInt8(ascii: "-"), refusals.count < 100
    {
      let text = String(decoding: line, as: UTF8.self).withoutBlanks
      refusals.append(String(text.prefix(300)))
    }
    return count
  }

  private func give(_ bytes: UnsafeMutablePointer<CChar>?, _ room: Int) -> Int {
    let count = min(room, mail.message.count - sent)
    guard count > 0, let bytes else { return 0 }
    mail.message.withUnsafeBytes { message in
      UnsafeMutableRawPointer(bytes).copyMemory(
        from: message.baseAddress.unsafelyUnwrapped.advanced(by: sent), byteCount: count)
    }
    sent += count
    return count
  }

  private func kind(_ code: CURLcode) -> HTTPError.Kind {
    switch code {
    case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_CONNECT, CURLE_SSL_CONNECT_ERROR: .unreachable
    case CURLE_PEER_FAILED_VERIFICATION, CURLE_USE_SSL_FAILED: .untrusted
    case CURLE_OPERATION_TIMEDOUT: .timeout
    case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL, CURLE_SSL_CACERT_BADFILE: .invalid
    default: .broken
    }
  }
}
