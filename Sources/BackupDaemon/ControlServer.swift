import CPlatform
import ControlAPI
package import Faults
import Glibc
import Hummingbird
import HummingbirdCore
package import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

/// What a request brings along: the process at the other end, as the kernel knows it.
struct ControlContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  let channel: any Channel
  var peer: Peer?

  var caller: Caller? { peer?.caller }

  init(source: ApplicationRequestContextSource) {
    coreContext = .init(source: source)
    channel = source.channel
  }
}

/// HTTP/JSON on the Unix socket, so that `pgbackupctl` and `curl --unix-socket` both work.
///
/// The socket is bound here and handed to NIO: an inherited umask would decide its mode otherwise.
package struct ControlServer: Service {
  package enum Access: Sendable {
    /// The socket's group may do everything, or what `daemon: roles:` says.
    case operators
    /// Anybody may look at what reveals nothing of the data, and change nothing.
    case everybody
    /// A browser and Prometheus, on a port of this machine.
    case page(PageAccess)
  }

  private let access: Access
  private let core: DaemonCore
  private let socket: Int32
  private let logger: Logger

  /// Binds the socket. From then on connections queue up; they are served once `run` is called.
  package init(core: DaemonCore, socketPath: String, access: Access, logger: Logger) throws(Fault) {
    self.core = core
    self.access = access
    self.logger = logger
    let mode: mode_t = if case .operators = access { 0o660 } else { 0o666 }
    socket = try ControlSocket.listen(path: socketPath, mode: mode)
  }

  /// Binds the page's port.
  package init(core: DaemonCore, page: PageAccess, logger: Logger) throws(Fault) {
    access = .page(page)
    self.core = core
    self.logger = logger
    socket = try ControlSocket.listen(host: page.host, port: page.port)
  }

  package func run() async throws {
    let responder = ControlRoutes(core: core).router(access).buildResponder()
    let open = OpenConnections()
    let http = HTTP1Channel(
      responder: { request, writer, channel in
        open.beginRequest(channel)
        defer { open.endRequest(channel) }
        let context = ControlContext(source: .init(channel: channel, logger: logger))
        let response: Response
        await core.whenStarted()
        do {
          response = try await responder.respond(to: request, context: context)
        } catch let error as any HTTPResponseError {
          response = try error.response(from: request, context: context)
        } catch {
          response = ControlRoutes.response(Fault(error))
        }
        try await writer.write(response: response.head, body: response.body)
      }, configuration: .init(idleTimeout: .seconds(60)))
    // One thread serves an operator's few connections.
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let server = try await ServerBootstrap(group: group)
      .childChannelOption(ChannelOptions.allowRemoteHalfClosure, value: true)
      .bind(socket) { channel in http.setup(channel: channel, logger: logger) }
    let failure = await withGracefulShutdownHandler {
      await withDiscardingTaskGroup { connections -> (any Error)? in
        defer { connections.cancelAll() }
        do {
          try await server.executeThenClose { inbound in
            for try await connection in inbound {
              connections.addTask {
                open.add(connection.channel, of: try? await connection.channel.peer().uid)
                await http.handle(value: connection, logger: logger)
                // What a flood has taken is given back when it is over.
                if open.remove(connection.channel) { cplatform_trim_heap() }
              }
            }
          }
        } catch is CancellationError {
          // The daemon could not start, and says so itself.
        } catch {
          logger.error("the control socket failed", metadata: ["cause": "\(error)"])
          return error
        }
        return nil
      }
    } onGracefulShutdown: {
      server.channel.close(promise: nil)
    }
    try? await group.shutdownGracefully()
    // A daemon that nobody can talk to has failed: systemd starts another.
    if let failure { throw failure }
  }
}

extension Channel {
  /// The process at the other end of a Unix socket.
  func peer() async throws -> Peer {
    try await eventLoop.submit {
      // On the channel's own loop, which alone closes the socket.
      try self.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
        try Peer(socket: $0)
      }
    }.get().orThrow(ChannelError.operationUnsupported)
  }
}

extension Optional {
  fileprivate func orThrow(_ error: any Error) throws -> Wrapped {
    guard let self else { throw error }
    return self
  }
}
