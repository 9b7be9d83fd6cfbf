package import ArtifactFormat
package import BackupCatalog
package import BackupOperations
package import CronSchedule
package import Faults
import Foundation
package import Notifications
package import PostgresTools
import Quoting
package import Storage
import Units

/// What the daemon is to do, as objects and values: the configuration after assembly. It is replaced whole by a reload.
package struct DaemonPlan: Sendable {
  package struct Database: Sendable {
    package var name: String
    package var connection: ConnectionSettings
    /// For a pattern over a server: whether one of its databases is meant. `connection` is then that of a maintenance
    /// database.
    package var includes: (@Sendable (String) -> Bool)?
    /// That pattern in words.
    package var pattern: String?
    /// Who restores; the one of `connection` where nil.
    package var restoreConnection: ConnectionSettings?
    /// What has to be true of it in a drill: SQL.
    package var assertions: [String] = []

    package init(
      name: String, connection: ConnectionSettings, includes: (@Sendable (String) -> Bool)?,
      restoreConnection: ConnectionSettings? = nil
    ) {
      self.restoreConnection = restoreConnection
      self.name = name
      self.connection = connection
      self.includes = includes
    }
  }

  package struct Job: Sendable, Hashable {
    package var name: String
    package var action = JobAction.backup
    /// When it runs by itself; nil for a job that only runs on demand.
    package var timing: JobTiming?
    /// Whether its zone is the machine's, which may change while the daemon runs.
    package var usesLocalZone: Bool
    package var keep: KeepRule
    /// Where a store has a rule of its own.
    package var keepByStore: [String: KeepRule]
    package var stores: [String]
    package var databases: [String]?
    package var timeout: Duration

    package init(
      name: String, timing: JobTiming?, usesLocalZone: Bool, keep: KeepRule, keepByStore: [String: KeepRule] = [:],
      stores: [String], databases: [String]?, timeout: Duration
    ) {
      self.name = name
      self.timing = timing
      self.usesLocalZone = usesLocalZone
      self.keep = keep
      self.keepByStore = keepByStore
      self.stores = stores
      self.databases = databases
      self.timeout = timeout
    }
  }

  package var databases: [Database]
  package var jobs: [Job]
  package var stores: [any ObjectStore]
  package var backup: Backup.Settings
  package var parallelRuns: Int
  /// How long a run may take to end once it is asked to, before it is given up.
  package var windDown: Duration
  package var rpo: Duration?
  /// In how many stores a backup must be to count.
  package var quorum = 1
  /// How often the stores are looked at besides after each run.
  package var reconcileEvery = Duration.seconds(3600)
  /// Connections that load at once in a restore.
  package var restoreJobs = 4
  /// How long a replaced database stays; nil for ever.
  package var keepReplaced: Duration? = .seconds(7 * 86400)
  /// The state directory.
  package var state = "/var/lib/pgbackupd"
  /// How drills are made.
  package var drill = Drill.Settings(folder: "/var/lib/pgbackupd/drills")
  /// Whether scheduled drills read one store after the other, and not always the nearest.
  package var drillsInTurn = true
  /// The age that the newest proved backup must not exceed.
  package var proofObjective = ProofObjective.fromDrills
  /// How long a restore may take.
  package var rto: Duration?
  /// Who is told when something is wrong.
  package var alerts: [ChannelSettings] = []
  /// Commands around runs.
  package var hooks = Hooks()
  /// What a reload may change of a store besides its place, in words that tell no secret.
  package var storeSettings: [String: String] = [:]
  /// Who may ask for what on the control socket.
  package var access = AccessRules(nil)
  /// What the configuration allows now and will not for long, in the order of the file.
  package var configurationWarnings: [Fault] = []
  /// Settings that a reload can't change, by their names.
  package var fixed: [String: String] = [:]
  /// What opens encrypted files here; empty where that is another host's.
  package var identities: Keyring
  /// Whose manifests are believed: this daemon's own key, and those of others that write into the same stores.
  package var trustedKeys: TrustedKeys

  package init(
    databases: [Database], jobs: [Job], stores: [any ObjectStore], backup: Backup.Settings, parallelRuns: Int,
    windDown: Duration, rpo: Duration?, identities: Keyring = [],
    trustedKeys: TrustedKeys = []
  ) {
    self.trustedKeys = trustedKeys
    self.identities = identities
    self.databases = databases
    self.jobs = jobs
    self.stores = stores
    self.backup = backup
    self.parallelRuns = parallelRuns
    self.windDown = windDown
    self.rpo = rpo
  }

  var retention: RetentionPolicy {
    RetentionPolicy(
      rules: Dictionary(
        uniqueKeysWithValues: jobs.filter { $0.action == .backup }.map {
          ($0.name, TypePolicy(stores: $0.stores, keep: $0.keep, keepByStore: $0.keepByStore))
        }), quorum: quorum)
  }

  func job(_ name: String) throws(Fault) -> Job {
    guard let job = jobs.first(where: { $0.name == name }) else {
      throw Fault(
        .jobMissing, "There is no job '\(name)'; there are \(jobs.map(\.name).joined(separator: ", ")).",
        hint: "pgbackupctl jobs")
    }
    return job
  }

  /// A job by the type of the backups that it makes.
  func backupJob(_ type: String) throws(Fault) -> Job {
    let job = try job(type)
    guard job.action == .backup else {
      throw Fault(
        .usage, "'\(type)' is a \(job.action.name) job, and no type of backups.",
        hint: "pgbackupctl \(job.action.name) --help")
    }
    return job
  }

  func stores(of job: Job) -> [any ObjectStore] { job.stores.compactMap { name in stores.first { $0.name == name } } }

  /// The stores that have a backup whole, those on this machine first. A manifest that nobody trusted has signed is refused.
  func places(of backup: Catalog.Backup, acceptUntrusted: Bool = false) throws(Fault) -> [any ObjectStore] {
    let whole = backup.placements.filter(\.missing.isEmpty)
    guard !whole.isEmpty else {
      throw Fault(
        .artifactDamaged, "\(backup.id) lacks files in every store.", hint: "pgbackupctl show \(shell: backup.id)")
    }
    let believed = whole.filter { $0.signature == .valid || trustedKeys.isEmpty || acceptUntrusted }
    guard !believed.isEmpty else {
      let isForged = whole.contains { $0.signature == .invalid }
      throw Fault(
        .signatureInvalid,
        isForged
          ? "The manifest of \(backup.id) is signed by no trusted key, or was changed since."
          : "The manifest of \(backup.id) is not signed.",
        hint:
          "add the signing.pub of the daemon that made it to 'signing: trusted:', or restore with --accept-untrusted")
    }
    let stores = stores.filter { store in believed.contains { $0.store == store.name } }
    return stores.filter { $0 is LocalStore } + stores.filter { !($0 is LocalStore) }
  }

  /// The jobs that run by themselves.
  var timings: [String: JobTiming] {
    Dictionary(uniqueKeysWithValues: jobs.compactMap { job in job.timing.map { (job.name, $0) } })
  }

  /// Whether a job also takes what there are backups of and is configured no more: what nobody reads back may be gone when it is wanted.
  func takesFormer(_ job: Job) -> Bool { job.action.name == "verify" && job.databases == nil }

  /// The databases of a job, as they are configured.
  func databases(of job: Job) -> [Database] {
    databases.filter { job.databases?.containsExactly($0.name) ?? true }
  }
}

extension DaemonPlan {
  /// The database of that name, by its bytes: one that is configured itself, or one that a pattern's name begins. What
  /// the pattern matches, and whether the database is there, is not asked: it may be gone, and be restored.
  func database(_ name: String) -> Database? {
    databases.first { $0.includes == nil && $0.name.isExactly(name) }
      ?? databases.lazy.compactMap { $0.named(name) }.first
  }
}

extension DaemonPlan.Database {
  /// The member of this name, where it is a pattern that gives such names.
  func named(_ name: String) -> DaemonPlan.Database? {
    includes == nil ? nil : MemberName.database(name, in: self.name).map(member)
  }

  /// Whether it stands for a database of that name: its own, or one that its pattern may find.
  func covers(_ database: String) -> Bool {
    includes == nil ? database.isExactly(name) : MemberName.isMeant(database, by: name)
  }

  /// How long a server may take to name its databases.
  private static let patience = Duration.seconds(30)

  /// The databases that this entry stands for: itself, or what its pattern finds on the server now.
  ///
  /// - Throws: also where the server takes the connection and then says nothing: nobody waits for that.
  func resolve() async throws(Fault) -> [DaemonPlan.Database] {
    guard let includes else { return [self] }
    let connection = connection
    let asking = Task { () -> Result<[(name: String, comment: String?)], Fault> in
      do throws(Fault) {
        let session = try await PostgresSession.connect(connection)
        return .success(
          try await session.use { session throws(Fault) in try await session.databaseNames() })
      } catch {
        return .failure(error)
      }
    }
    guard let answer = await withDeadline(Self.patience, { await asking.value }) else {
      asking.cancel()
      throw Fault(
        .databaseUnreachable,
        "The server of '\(name)' has not named its databases within \(Self.patience.configurationText).",
        cause: connection.summary, hint: "psql there: does it answer 'SELECT 1'?")
    }
    // What restores have put aside, or are loading, is no database of its own.
    return try answer.get().filter { !RestoreNames.isOurs($0.name, comment: $0.comment) }.map(\.name).filter(includes)
      .map(member)
  }

  /// One database of the server that a pattern is about.
  func member(_ databaseName: String) -> DaemonPlan.Database {
    var connection = connection
    connection["dbname"] = databaseName
    var restoreConnection = restoreConnection
    restoreConnection?["dbname"] = databaseName
    var member = DaemonPlan.Database(
      name: MemberName.of(databaseName, in: name), connection: connection, includes: nil,
      restoreConnection: restoreConnection)
    member.assertions = assertions
    return member
  }
}

extension DaemonPlan {
  /// What a reload changes, in sentences, job by job.
  func changes(to new: DaemonPlan) -> [String] {
    var changes: [String] = []
    for job in new.jobs {
      guard let old = jobs.first(where: { $0.name == job.name }) else {
        changes.append("job '\(job.name)' is new")
        continue
      }
      if old.timing?.schedule != job.timing?.schedule {
        changes.append(
          "job '\(job.name)': schedule \(Self.text(old.timing)) is now \(Self.text(job.timing))")
      }
      if let old = old.timing, let new = job.timing {
        changes += Self.difference(old, new).map { "job '\(job.name)': \($0)" }
      }
      if old.action != job.action { changes.append("job '\(job.name)': what it does has changed") }
      if old.keepText != job.keepText {
        changes.append("job '\(job.name)': keep \(old.keepText) is now \(job.keepText)")
      }
      if old.stores != job.stores {
        changes.append("job '\(job.name)': stores are now \(job.stores.joined(separator: ", "))")
      }
      if old.databases != job.databases {
        changes.append("job '\(job.name)': databases are now \(job.databases?.joined(separator: ", ") ?? "all")")
      }
      if old.timeout != job.timeout {
        changes.append("job '\(job.name)': timeout is now \(job.timeout.configurationText)")
      }
    }
    changes += jobs.filter { job in !new.jobs.contains { $0.name == job.name } }.map { "job '\($0.name)' is gone" }
    changes += Self.difference("database", databases.map(\.name), new.databases.map(\.name))
    changes += Self.difference("store", stores.map(\.name), new.stores.map(\.name))
    for store in new.stores {
      if let old = stores.first(where: { $0.name == store.name }), old.location != store.location {
        changes.append("store '\(store.name)': \(old.location) is now \(store.location)")
      }
    }
    for database in new.databases {
      guard let old = databases.first(where: { $0.name.isExactly(database.name) }) else { continue }
      if old.connection != database.connection {
        changes.append("database '\(database.name)': the connection is now \(database.connection.summary)")
      }
      if old.restoreConnection != database.restoreConnection {
        changes.append(
          "database '\(database.name)': restore_connect is now \(database.restoreConnection?.summary ?? "the connection")"
        )
      }
      if old.pattern != database.pattern {
        changes.append(
          "database '\(database.name)': the databases that it stands for are now \(database.pattern ?? "itself")")
      }
      if old.assertions != database.assertions {
        changes.append("database '\(database.name)': its assertions have changed")
      }
    }
    if backup != new.backup || identities != new.identities || trustedKeys != new.trustedKeys {
      changes.append("how backups are made has changed ('backup', 'encryption' or 'signing')")
    }
    if parallelRuns != new.parallelRuns { changes.append("parallel_runs is now \(new.parallelRuns)") }
    if windDown != new.windDown { changes.append("stop_within is now \(new.windDown.configurationText)") }
    if rpo != new.rpo { changes.append("rpo is now \(new.rpo?.configurationText ?? "none")") }
    if reconcileEvery != new.reconcileEvery {
      changes.append("reconcile_every is now \(new.reconcileEvery.configurationText)")
    }
    if keepReplaced != new.keepReplaced {
      changes.append("keep_replaced is now \(new.keepReplaced?.configurationText ?? "forever")")
    }
    if rto != new.rto { changes.append("rto is now \(new.rto?.configurationText ?? "none")") }
    if proofObjective != new.proofObjective { changes.append("proved is now \(new.proofObjective.text)") }
    if restoreJobs != new.restoreJobs { changes.append("restore jobs are now \(new.restoreJobs)") }
    if drill != new.drill || drillsInTurn != new.drillsInTurn {
      changes.append("how drills are made has changed ('drill')")
    }
    if hooks != new.hooks { changes.append("'hooks' have changed") }
    changes += Self.difference("alert channel", alerts.map(\.name), new.alerts.map(\.name))
    for channel in new.alerts {
      if let old = alerts.first(where: { $0.name == channel.name }), old != channel {
        changes.append("alert channel '\(channel.name)' has changed")
      }
    }
    for (name, settings) in new.storeSettings.sorted(by: { $0.key < $1.key }) {
      if let old = storeSettings[name], old != settings { changes.append("store '\(name)': its settings have changed") }
    }
    if access != new.access { changes.append("roles are now: \(new.access.text)") }
    if quorum != new.quorum { changes.append("quorum is now \(new.quorum)") }
    for (key, value) in new.fixed.sorted(by: { $0.key < $1.key }) where fixed[key] != value {
      let former = key.ends(withBytes: "password") ? "the former one" : fixed[key] ?? "none"
      changes.append("\(key) needs a restart: \(former) is still in force")
    }
    return changes
  }

  private static func text(_ timing: JobTiming?) -> String {
    timing.map { "'\($0.schedule.expression)' \($0.schedule.zone.identifier)" } ?? "on demand"
  }

  private static func difference(_ old: JobTiming, _ new: JobTiming) -> [String] {
    let texts: [(String, (JobTiming) -> String)] = [
      ("jitter", { $0.jitter.configurationText }),
      ("catch_up", { $0.catchUp?.configurationText ?? "off" }),
      ("retry", { $0.retry?.text ?? "off" }),
      ("not_between", { $0.notBetween.isEmpty ? "never" : $0.notBetween.map(\.description).joined(separator: ", ") }),
      ("share", { "\($0.share)" }),
    ]
    return texts.filter { $0.1(old) != $0.1(new) }.map { "\($0.0) \($0.1(old)) is now \($0.1(new))" }
  }

  private static func difference(_ kind: String, _ old: [String], _ new: [String]) -> [String] {
    new.filter { !old.containsExactly($0) }.map { "\(kind) '\($0)' is new" }
      + old.filter { !new.containsExactly($0) }.map { "\(kind) '\($0)' is gone" }
  }
}

extension DaemonPlan.Job {
  /// How long its backups are kept, store by store where they differ.
  var keepText: String {
    guard action == .backup else { return "-" }
    let own = stores.compactMap { store in keepByStore[store].map { "\(store) \($0.text)" } }
    let rest = stores.allSatisfy { keepByStore[$0] != nil } && !own.isEmpty ? [] : [keep.text]
    return (rest + own).joined(separator: ", ")
  }
}

extension KeepRule {
  /// As the configuration writes it.
  var text: String {
    switch self {
    case .forDuration(let duration): duration.configurationText
    case .untilDeleted: "forever"
    }
  }
}
