import ControlAPI
import Dispatch
package import Faults
import Logging
import PostgresTools
import Synchronization
import Units

/// What a dump costs the server at one moment.
package struct LoadSample: Sendable, Equatable {
  /// Since our snapshot was taken, in seconds: dead rows that are younger can't be vacuumed away.
  package var snapshotAge: Double
  /// Transactions since then, of the whole server.
  package var xminAge: Int64
  /// Sessions that wait for a lock because of us, directly or behind one that does.
  package var blocked: Int
  /// Seconds that a standby's replay is behind; nil on a primary.
  package var replicaLag: Double?

  package init(snapshotAge: Double, xminAge: Int64, blocked: Int, replicaLag: Double?) {
    self.snapshotAge = snapshotAge
    self.xminAge = xminAge
    self.blocked = blocked
    self.replicaLag = replicaLag
  }
}

/// What a dump may cost, and what is done where it costs more.
package struct LoadPolicy: Sendable, Hashable {
  package enum Action: String, Sendable, CaseIterable {
    /// Tell it.
    case warn
    /// Read no further until it is over. That lightens the load, but keeps snapshot and locks.
    case pause
    /// End the dump: snapshot and locks are gone at once. The job's `retry` tries again.
    case abort
  }

  package struct Rule: Sendable, Hashable {
    package var action: Action
    package var after: Duration

    package init(_ action: Action, after: Duration) {
      self.action = action
      self.after = after
    }
  }

  /// The snapshot's age.
  package var snapshotAge: Rule? = Rule(.warn, after: .seconds(6 * 3600))
  /// How long sessions have waited because of us. An application must not stand still for a backup.
  package var blocked: Rule? = Rule(.abort, after: .seconds(300))
  /// How far a standby's replay is behind.
  package var replicaLag: Rule? = Rule(.warn, after: .seconds(600))
  package var every = Duration.seconds(10)

  package init() {}
}

/// What the dump has cost, for the run's record.
package struct LoadCost: Sendable, Equatable {
  package var snapshotAge = 0.0
  package var xminAge: Int64 = 0
  /// The most sessions that waited at once, and for how long there was one.
  package var blocked = 0
  package var blockedSeconds = 0.0
  package var replicaLag: Double?
  package var pausedSeconds = 0.0

  package init() {}

  /// For the ledger.
  package var detail: [String: String] {
    var detail = ["snapshot_age_s": "\(snapshotAge)", "xmin_age": "\(xminAge)"]
    if blocked > 0 {
      detail["blocked_sessions"] = "\(blocked)"
      detail["blocked_s"] = "\(blockedSeconds)"
    }
    detail["replica_lag_s"] = replicaLag.map { "\($0)" }
    if pausedSeconds > 0 { detail["paused_s"] = "\(pausedSeconds)" }
    return detail
  }
}

extension LoadCost {
  var metadata: Logger.Metadata { detail.mapValues { "\($0)" } }
}

/// Judges one sample after the other. A pure value; time is what it is told.
package struct LoadJudge: Sendable {
  package enum Verdict: Sendable, Equatable {
    case goOn
    case pause(String)
    case abort(Fault)
  }

  private let policy: LoadPolicy
  package private(set) var cost = LoadCost()
  package var hasLooked: Bool { last != nil }
  /// What was told already, and is told once.
  package private(set) var warnings: [Fault] = []
  private var told: Set<String> = []
  private var blockedSince: Double?
  private var last: Double?
  private var wasPaused = false

  package init(_ policy: LoadPolicy) { self.policy = policy }

  /// - Parameter time: running time, in seconds.
  package mutating func judge(_ sample: LoadSample, at time: Double) -> Verdict {
    let step = last.map { time - $0 } ?? 0
    last = time
    cost.snapshotAge = max(cost.snapshotAge, sample.snapshotAge)
    cost.xminAge = max(cost.xminAge, sample.xminAge)
    cost.blocked = max(cost.blocked, sample.blocked)
    if let lag = sample.replicaLag { cost.replicaLag = max(cost.replicaLag ?? 0, lag) }
    if blockedSince != nil, sample.blocked > 0 { cost.blockedSeconds += step }
    if wasPaused { cost.pausedSeconds += step }
    blockedSince = sample.blocked > 0 ? blockedSince ?? time : nil
    let findings: [(name: String, rule: LoadPolicy.Rule?, seconds: Double?, what: String)] = [
      ("snapshot_age", policy.snapshotAge, sample.snapshotAge, "its snapshot is"),
      (
        "blocked", policy.blocked, blockedSince.map { time - $0 },
        "\(sample.blocked) session\(sample.blocked == 1 ? "" : "s") waited for its locks for"
      ), ("replica_lag", policy.replicaLag, sample.replicaLag, "the standby's replay is behind by"),
    ]
    var verdict = Verdict.goOn
    for finding in findings {
      guard let rule = finding.rule, let seconds = finding.seconds, seconds >= rule.after.inSeconds else { continue }
      let length = Duration.seconds(seconds).spoken
      let sentence = finding.name == "snapshot_age" ? "\(finding.what) \(length) old" : "\(finding.what) \(length)"
      switch rule.action {
      case .abort:
        return .abort(
          Fault(
            .loadExceeded, "The dump was ended: \(sentence).", cause: "backup: guard: \(finding.name)",
            hint: "see pg_stat_activity and pg_locks for who waits; or allow more with 'backup: guard:'"))
      case .pause: verdict = .pause(sentence)
      case .warn where told.insert(finding.name).inserted:
        warnings.append(
          Fault(
            .loadExceeded, "The dump went on although \(sentence).", cause: "backup: guard: \(finding.name)",
            hint: "see pg_stat_activity and pg_locks; 'backup: guard:' can end it instead"))
      case .warn: break
      }
    }
    wasPaused = verdict != .goOn
    return verdict
  }
}

/// Lets a reading thread wait while the server needs a rest.
final class PauseGate: Sendable {
  private struct State {
    var isPaused = false
    var isEnded = false
    var waiting: DispatchSemaphore?
  }

  private let state = Mutex(State())

  /// Returns at once, or when the pause is over. Blocks the thread.
  func pass() {
    let semaphore = state.withLock { state -> DispatchSemaphore? in
      guard state.isPaused, !state.isEnded else { return nil }
      let semaphore = DispatchSemaphore(value: 0)
      state.waiting = semaphore
      return semaphore
    }
    semaphore?.wait()
  }

  func set(paused: Bool) {
    state.withLock { state in
      state.isPaused = paused
      if !paused {
        state.waiting?.signal()
        state.waiting = nil
      }
    }
  }

  /// Nobody waits any more.
  func end() {
    state.withLock { state in
      state.isEnded = true
      state.waiting?.signal()
      state.waiting = nil
    }
  }
}

/// Watches over what a dump costs the server, on a connection of its own, for as long as the dump goes on.
final class LoadGuard: Sendable {
  private let connection: ConnectionSettings
  private let policy: LoadPolicy
  private let gate: PauseGate
  private let logger: Logger
  /// Says that the dump rests, and why.
  private let resting: @Sendable (String?) -> Void
  private let judge: Mutex<LoadJudge>

  init(
    _ connection: ConnectionSettings, _ policy: LoadPolicy, gate: PauseGate, logger: Logger,
    resting: @escaping @Sendable (String?) -> Void
  ) {
    self.connection = connection
    self.policy = policy
    self.gate = gate
    self.logger = logger
    self.resting = resting
    judge = Mutex(LoadJudge(policy))
  }

  /// Nil where nobody could look.
  var cost: LoadCost? { judge.withLock { $0.hasLooked ? $0.cost : nil } }
  var warnings: [Fault] { judge.withLock { $0.warnings } }

  /// Goes on until the task is cancelled. Where the server can't be asked, the dump goes on unwatched, and that is told.
  ///
  /// - Throws: why the dump has to end.
  func watch() async throws {
    while !Task.isCancelled {
      try await watchOnce()
      gate.set(paused: false)
      try? await Task.sleep(for: policy.every)
    }
  }

  private func watchOnce() async throws {
    do {
      var connection = connection
      connection["application_name"] = "pgbackupd guard"
      try await PostgresSession.connect(connection).use { session in
        try await session.execute("SET statement_timeout = '30s'; SET lock_timeout = 0")
        while !Task.isCancelled {
          try await self.look(session)
          try await Task.sleep(for: self.policy.every)
        }
      }
    } catch let fault as Fault where fault.code == .loadExceeded {
      throw fault
    } catch {
      if Task.isCancelled { return }
      logger.warning("nobody watches over what the dump costs", metadata: ["cause": "\(error)"])
    }
  }

  private func look(_ session: PostgresSession) async throws {
    guard let sample = try await session.loadSample() else { return }
    switch judge.withLock({ $0.judge(sample, at: SystemClock.running()) }) {
    case .goOn:
      gate.set(paused: false)
      resting(nil)
    case .pause(let reason):
      gate.set(paused: true)
      resting(reason)
    case .abort(let fault): throw fault
    }
  }
}

extension PostgresSession {
  /// What our dump of this database costs now; nil where nothing of ours is seen.
  ///
  /// Sessions that wait are found by pg_blocking_pids, which everybody may ask; those that wait behind one that waits for us are found by
  /// a second look. (monitoring-stats, functions-info)
  fileprivate func loadSample() async throws(Fault) -> LoadSample? {
    let row = try await query(
      """
      WITH ours AS (
        SELECT pid, backend_xmin, xact_start FROM pg_catalog.pg_stat_activity
        WHERE datname = pg_catalog.current_database() AND usename = current_user
          AND application_name IN ('pgbackupd', 'pgbackupd pg_dump') AND xact_start IS NOT NULL),
      waiting AS MATERIALIZED (
        SELECT l.pid, pg_catalog.pg_blocking_pids(l.pid) AS by
        FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted) AS l),
      first AS (SELECT pid FROM waiting WHERE by && (SELECT pg_catalog.array_agg(pid) FROM ours)),
      second AS (SELECT pid FROM waiting WHERE by && (SELECT pg_catalog.array_agg(pid) FROM first))
      SELECT (SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.min(xact_start)) FROM ours),
             (SELECT coalesce(pg_catalog.max(pg_catalog.age(backend_xmin)), 0) FROM ours),
             (SELECT pg_catalog.count(*) FROM (SELECT pid FROM first UNION SELECT pid FROM second) AS all_of_them
              WHERE pid NOT IN (SELECT pid FROM ours)),
             CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN NULL
                  WHEN pg_catalog.pg_last_wal_receive_lsn() IS NULL THEN NULL
                  WHEN pg_catalog.pg_last_wal_receive_lsn() <= pg_catalog.pg_last_wal_replay_lsn() THEN 0
                  ELSE pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) END
      """
    ).first
    guard let row, let age = row[0].flatMap(Self.seconds) else { return nil }
    return LoadSample(
      snapshotAge: age, xminAge: row[1].flatMap { Int64($0) } ?? 0, blocked: row[2].flatMap { Int($0) } ?? 0,
      replicaLag: row[3].flatMap(Self.seconds))
  }

  /// As the server has them; a number that no clock shows is none.
  private static func seconds(_ text: String) -> Double? {
    Double(text).flatMap { (-1e9...1e9).contains($0) ? $0 : nil }
  }
}
