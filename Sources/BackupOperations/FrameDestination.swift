import ArtifactFormat
import Storage
import Synchronization

/// The last stage of the pipeline: the digest of what is stored, and the stores.
actor FrameDestination {
  private(set) var fan: FanOut
  private(set) var digest = Digest()

  init(_ fan: FanOut) { self.fan = fan }

  func write(_ bytes: [UInt8]) async throws {
    digest.update(bytes)
    var current = fan
    defer { fan = current }
    try await current.write(bytes)
  }
}

/// Turns the pipeline's counts into progress reports. Both ends report: one thread reads, another task writes.
final class ProgressMeter: Sendable {
  private let state: Mutex<RunProgress>
  private let report: @Sendable (RunProgress) -> Void

  init(expectedBytes: Int64?, report: @escaping @Sendable (RunProgress) -> Void) {
    var progress = RunProgress(phase: .dump)
    progress.expectedBytes = expectedBytes
    state = Mutex(progress)
    self.report = report
  }

  func read(archiveBytes: UInt64, table: String?) {
    report(
      state.withLock { progress in
        progress.archiveBytes = Int64(archiveBytes)
        progress.table = table ?? progress.table
        return progress
      })
  }

  func wrote(_ bytes: Int) {
    state.withLock { $0.storedBytes += Int64(bytes) }
  }
}
