package import Logging
import ServiceLifecycle
import UnixSignals

/// The daemon's life as a service: start, reload on SIGHUP, and a graceful stop.
package struct DaemonService: Service {
  private let core: DaemonCore
  private let logger: Logger

  package init(core: DaemonCore, logger: Logger) {
    self.core = core
    self.logger = logger
  }

  package func run() async throws {
    let hangups = await UnixSignalsSequence(trapping: .sighup)
    try await core.start()
    await core.settle()
    await withGracefulShutdownHandler {
      for await _ in hangups.cancelOnGracefulShutdown() {
        // A refused file is logged, written to the ledger and shown in status; the daemon goes on as it was.
        _ = try? await core.reload(by: nil)
      }
    } onGracefulShutdown: {
    }
    await core.stop()
  }
}
