package import Logging
import ServiceLifecycle
import UnixSignals

/// The daemon's life as a service: start, reload on SIGHUP, a dump of the state on SIGUSR1, and a graceful
/// stop.
package struct DaemonService: Service {
  private let core: DaemonCore
  private let wedgeAfter: Duration?
  private let logger: Logger

  /// - Parameter wedgeAfter: blocks the scheduler after so long, for a test of the watchdog.
  package init(core: DaemonCore, wedgeAfter: Duration?, logger: Logger) {
    self.core = core
    self.wedgeAfter = wedgeAfter
    self.logger = logger
  }

  package func run() async throws {
    let signals = await UnixSignalsSequence(trapping: .sighup, .sigusr1)
    await core.start()
    let wedge = wedgeAfter.map { delay in
      Task {
        try await Task.sleep(for: delay)
        await core.wedgeScheduler()
      }
    }
    // On the side: a store that hangs must not keep a signal waiting.
    let settling = Task { await core.settle() }
    await withGracefulShutdownHandler {
      for await signal in signals.cancelOnGracefulShutdown() {
        if signal == .sighup {
          // A refused file is logged, written to the ledger and shown in status; the daemon goes on as it was.
          _ = try? await core.reload(by: nil)
        } else {
          await core.dumpState()
        }
      }
    } onGracefulShutdown: {
    }
    wedge?.cancel()
    settling.cancel()
    await core.stop()
  }
}
