import BackupCatalog
import Synchronization
import Units

/// How long each phase of a restore took, and how far the current one is, for whoever follows.
final class PhaseClock: Sendable {
  private struct State {
    var done: [RestoreOutcome.Phase] = []
    var current: (phase: RunProgress.Phase, since: ContinuousClock.Instant)?
    var progress = RunProgress(phase: .preflight)
  }

  private let state = Mutex(State())
  private let context: OperationContext

  init(_ context: OperationContext) { self.context = context }

  /// Begins a phase. Returns who is to be told of the bytes that are done.
  @discardableResult
  func begin(_ phase: RunProgress.Phase, expected: Int64? = nil) -> @Sendable (Int64, String) -> Void {
    let progress = state.withLock { state in
      Self.close(&state)
      state.current = (phase, .now)
      state.progress = RunProgress(phase: phase)
      state.progress.expectedBytes = expected
      return state.progress
    }
    context.report(progress)
    return { [self] bytes, table in
      let progress = state.withLock { state -> RunProgress? in
        guard state.current?.phase == phase else { return nil }
        state.progress.archiveBytes += bytes
        state.progress.table = table
        return state.progress
      }
      if let progress { context.report(progress) }
    }
  }

  /// Ends the last phase, and returns all of them.
  func end() -> [RestoreOutcome.Phase] {
    state.withLock { state in
      Self.close(&state)
      return state.done
    }
  }

  private static func close(_ state: inout State) {
    guard let (phase, since) = state.current else { return }
    let seconds = since.duration(to: .now).inSeconds
    state.done.append(RestoreOutcome.Phase(name: phase.rawValue, seconds: (seconds * 1000).rounded() / 1000))
    state.current = nil
  }
}

extension RestoreOutcome {
  /// What every restore tells at its end.
  mutating func close(_ clock: PhaseClock, _ source: ArchiveSource) {
    phases = clock.end()
    storedBytesRead = Int64(source.storedBytesRead)
    storedBytes = source.manifest.artifact.file.size
    stores = source.stores
    evidence = source.evidence
    warnings += source.faults.sorted { $0.key < $1.key }.map(\.value)
  }
}
