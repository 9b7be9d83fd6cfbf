import ArtifactFormat
import Storage
import Synchronization

/// The last stages of the pipeline: encryption, the digest of what is stored, and the stores.
actor FrameDestination {
  private(set) var fan: FanOut
  private(set) var digest = Digest()
  private var encryption: EncryptionStage

  init(_ fan: FanOut, _ encryption: Encryption) throws {
    self.fan = fan
    self.encryption = try encryption.makeStage()
  }

  func write(_ bytes: [UInt8]) async throws { try await store(try encryption.update(bytes)) }

  /// Writes what encryption has held back. Nothing may follow.
  func finish() async throws { try await store(try encryption.finish()) }

  private func store(_ bytes: [UInt8]) async throws {
    guard !bytes.isEmpty else { return }
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

  /// It rests for this reason, or goes on where nil. Told again and again: a rest is no standstill.
  func rests(_ reason: String?) {
    guard let reason else { return }
    var resting = state.withLock { $0 }
    resting.table = "paused: \(reason)"
    report(resting)
  }

  func wrote(_ bytes: Int) {
    state.withLock { $0.storedBytes += Int64(bytes) }
  }
}
