import CCurl
import Dispatch
import QueueExecution
import Synchronization

/// HTTP/1.1 and HTTPS over libcurl. Each request has a handle of its own; handles are kept and used again, and with them their
/// connections, TLS sessions and look-ups. Redirects are not followed: whoever signs a request signed its host.
///
/// Certificates are checked against the system's authorities, or against `authorityFile` alone. Proxies are those of the environment
/// (`https_proxy`, `no_proxy`, as in curl(1)) unless one is named.
package final class CurlTransport: HTTPTransport {
  package struct Settings: Sendable, Hashable {
    /// PEM file with the authorities to trust instead of the system's.
    package var authorityFile: String?
    /// The environment's where nil; none at all where empty.
    package var proxy: String?
    package var connectTimeout = Duration.seconds(10)
    /// A transfer on which nothing moves for so long is broken off.
    package var idleTimeout = Duration.seconds(30)

    package init(authorityFile: String? = nil, proxy: String? = nil) {
      self.authorityFile = authorityFile
      self.proxy = proxy
    }
  }

  /// A libcurl handle; used by one thread at a time, which is all that libcurl asks (libcurl-thread(3)): it is either in the pool or in
  /// one `perform`.
  private struct Handle: @unchecked Sendable {
    let curl: OpaquePointer
  }

  private let settings: Settings
  private let idle = Mutex<[Handle]>([])
  /// libcurl blocks; it waits here, and not on the cooperative pool.
  private let queue = DispatchQueue(label: "pgbackupd.http", attributes: .concurrent)

  /// Handles that are kept when nobody uses them: as many as the reading of a store keeps busy.
  private static let keptHandles = 16
  static let isReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

  package init(_ settings: Settings = Settings()) { self.settings = settings }

  deinit { idle.withLock { $0.forEach { curl_easy_cleanup(UnsafeMutableRawPointer($0.curl)) } } }

  package func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    guard Self.isReady else { throw HTTPError(.invalid, "libcurl can't be initialized") }
    let isCancelled = CancelFlag()
    do {
      return try await withTaskCancellationHandler {
        try await queue.blocking { try self.perform(request, isCancelled) }
      } onCancel: {
        isCancelled.value.store(true, ordering: .relaxed)
      }
    } catch let error as HTTPError {
      throw error
    } catch {
      throw HTTPError(.broken, String(describing: error))
    }
  }

  private func perform(_ request: HTTPRequest, _ isCancelled: CancelFlag) throws(HTTPError) -> HTTPResponse {
    guard let handle = idle.withLock({ $0.popLast() }) ?? curl_easy_init().map({ Handle(curl: OpaquePointer($0)) })
    else { throw HTTPError(.invalid, "libcurl gives no handle") }
    let transfer = CurlTransfer(handle: UnsafeMutableRawPointer(handle.curl), request, settings, isCancelled)
    defer {
      // Keeps connections and caches, forgets the request (curl_easy_reset(3)).
      curl_easy_reset(UnsafeMutableRawPointer(handle.curl))
      let isKept = idle.withLock { idle in
        guard idle.count < Self.keptHandles else { return false }
        idle.append(handle)
        return true
      }
      if !isKept { curl_easy_cleanup(UnsafeMutableRawPointer(handle.curl)) }
    }
    return try transfer.run()
  }
}

/// Set from outside, read by the transfer.
final class CancelFlag: Sendable {
  let value = Atomic(false)
}
