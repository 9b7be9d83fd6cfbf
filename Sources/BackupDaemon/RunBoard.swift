import ControlAPI
import Foundation
import Quoting
import Synchronization

/// What every run is doing now, for whoever asks, and as a stream for whoever follows one. Reported to from many threads, so
/// it is a locked value and no actor: a report must not wait.
final class RunBoard: Sendable {
  private struct State {
    var runs: [String: RunReport] = [:]
    /// The last finished run by job and database.
    var last: [RunHistory.JobOnDatabase: RunReport] = [:]
    var followers: [String: [UUID: AsyncStream<RunReport>.Continuation]] = [:]
    var watchers: [UUID: AsyncStream<Void>.Continuation] = [:]
    var ended = 0
  }

  private let state = Mutex(State())

  /// Puts a run on the board, or its new state.
  func post(_ run: RunReport) { state.withLock { Self.post(run, &$0) } }

  /// How far a run is. What comes after the run's end, from a thread that was late, changes nothing.
  func progress(_ id: String, _ progress: RunReport.Progress) {
    state.withLock { state in
      guard var run = state.runs[id] else { return }
      run.progress = progress
      Self.post(run, &state)
    }
  }

  private static func post(_ run: RunReport, _ state: inout State) {
    let followers = state.followers[run.id] ?? [:]
    for follower in followers.values { follower.yield(run) }
    for watcher in state.watchers.values { watcher.yield() }
    if run.state.isFinal {
      state.ended += 1
      state.runs[run.id] = nil
      state.last[.init(job: run.job, database: run.database)] = run
      state.followers[run.id] = nil
      for follower in followers.values { follower.finish() }
    } else {
      state.runs[run.id] = run
    }
  }

  /// How many runs have ended: who finds another number than before has missed something.
  var ended: Int { state.withLock { $0.ended } }

  /// Says that something on the board has changed; what, the board tells. Several changes may be one word.
  func watch() -> AsyncStream<Void> {
    let (stream, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    let watcher = UUID()
    state.withLock { $0.watchers[watcher] = continuation }
    continuation.onTermination = { @Sendable [weak self] _ in
      // Not under the lock: a stream may end while it is held.
      Task { self?.unwatch(watcher) }
    }
    return stream
  }

  private func unwatch(_ watcher: UUID) { state.withLock { _ = $0.watchers.removeValue(forKey: watcher) } }

  /// Forgets how the last run ended: what it was about has another name now.
  func forget(job: String, database: String) { state.withLock { $0.last[.init(job: job, database: database)] = nil } }

  /// The last finished run of each job on each database.
  var lastOfEach: [RunReport] {
    state.withLock { $0.last.sorted { $0.key < $1.key }.map(\.value) }
  }

  /// Queued and running, the first asked first.
  var active: [RunReport] { state.withLock { $0.runs.values.sorted { ($0.asked, $0.id) < ($1.asked, $1.id) } } }

  func last(job: String, database: String) -> RunReport? {
    state.withLock { $0.last[.init(job: job, database: database)] }
  }

  /// The last finished run of a database, whatever the job.
  func last(database: String) -> RunReport? {
    state.withLock { state in
      state.last.values.filter { $0.database.isExactly(database) }
        .max { ($0.finished ?? .distantPast) < ($1.finished ?? .distantPast) }
    }
  }

  /// The reports of a run from now to its end; the newest of them where the reader is slow. Nil where there is no such run.
  func follow(_ id: String) -> AsyncStream<RunReport>? {
    state.withLock { state in
      guard let run = state.runs[id] ?? state.last.values.first(where: { $0.id == id }) else { return nil }
      let (stream, continuation) = AsyncStream<RunReport>.makeStream(bufferingPolicy: .bufferingNewest(1))
      continuation.yield(run)
      if run.state.isFinal {
        continuation.finish()
        return stream
      }
      let follower = UUID()
      state.followers[id, default: [:]][follower] = continuation
      continuation.onTermination = { @Sendable [weak self] _ in
        // Not under the lock: a stream may end while it is held.
        Task { self?.unfollow(id, follower) }
      }
      return stream
    }
  }

  private func unfollow(_ id: String, _ follower: UUID) {
    state.withLock { _ = $0.followers[id]?.removeValue(forKey: follower) }
  }
}
