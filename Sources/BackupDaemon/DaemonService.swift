import Dispatch
import Glibc
package import Logging
import ServiceLifecycle
import UnixSignals

/// The daemon's life as a service: start, reload on SIGHUP, a dump of the state on SIGUSR1, and a graceful
/// stop.
package struct DaemonService: Service {
  private let core: DaemonCore
  package typealias Wedge = (part: DaemonCore.Part, after: Duration)
  private let wedge: Wedge?
  private let logger: Logger

  /// - Parameter wedge: blocks a part after so long, for a test of the watchdog.
  package init(core: DaemonCore, wedge: Wedge?, logger: Logger) {
    self.core = core
    self.wedge = wedge
    self.logger = logger
  }

  package func run() async throws {
    let signals = await UnixSignalsSequence(trapping: .sighup)
    // Apart: a state dump is wanted most when a stop takes long.
    let dumps = await UnixSignalsSequence(trapping: .sigusr1)
    let dumping = Task {
      for await _ in dumps { await core.dumpState() }
    }
    defer { dumping.cancel() }
    await core.start()
    let wedging = wedge.map { wedge in
      Task {
        try await Task.sleep(for: wedge.after)
        await core.wedge(wedge.part)
      }
    }
    // On the side: a store that hangs must not keep a signal waiting.
    let settling = Task { await core.settle() }
    await withGracefulShutdownHandler {
      for await _ in signals.cancelOnGracefulShutdown() {
        // A refused file is logged, written to the ledger and shown in status; the daemon goes on as it was.
        _ = try? await core.reload(by: nil)
      }
    } onGracefulShutdown: {
    }
    wedging?.cancel()
    settling.cancel()
    await core.stop()
    // All is on record. A request that hangs in a store which never answers can't be ended, and must not keep the process.
    DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(10)) { @Sendable in _exit(0) }
  }
}
