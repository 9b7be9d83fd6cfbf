import ArtifactFormat
import BackupConfiguration
import BackupDaemon
import BackupOperations
import ControlAPI
import CronSchedule
import Faults
import Foundation
import Glibc
import OutsidePrograms
import Quoting
import StoreAssembly
import Units

/// Makes objects of a configuration's values: the one place where stores are built.
struct Assembly {
  let configuration: Configuration

  func plan() throws(Fault) -> DaemonPlan {
    let key = try SigningKeyFile(folder: configuration.daemon.state).load()
    var settings = Backup.Settings()
    settings.compression = configuration.dump.compression
    settings.signingKey = key
    settings.encryption = configuration.dump.encryption
    settings.gpg = configuration.dump.gpg.flatMap { $0.recipients.isEmpty ? nil : $0 }
    settings.workers = configuration.dump.workers
    settings.lockWait = configuration.dump.lockWait
    settings.stallAfter = configuration.dump.stallAfter
    settings.programs = configuration.dump.programs
    settings.anomalyRule = configuration.anomalyRule
    settings.load = load
    var plan = DaemonPlan(
      databases: configuration.databases.map { database in
        var planned = DaemonPlan.Database(
          name: database.name, connection: database.connection,
          includes: database.pattern.map { pattern in { @Sendable in pattern.matches($0) } },
          restoreConnection: database.restoreConnection)
        planned.assertions = database.assertions
        planned.pattern = database.pattern.map { pattern in
          pattern.include.joined(separator: ", ")
            + (pattern.exclude.isEmpty ? "" : " without \(pattern.exclude.joined(separator: ", "))")
        }
        return planned
      },
      jobs: configuration.jobs.map { job in
        var planned = DaemonPlan.Job(
          name: job.name, timing: timing(job), usesLocalZone: job.usesLocalZone, keep: job.keep,
          keepByStore: job.keepByStore, stores: job.stores, databases: job.databases, timeout: job.timeout)
        planned.action = job.action
        return planned
      },
      stores: configuration.stores.map(StoreAssembly.make), backup: settings,
      parallelRuns: configuration.daemon.parallelRuns,
      windDown: configuration.daemon.windDown, rpo: configuration.rpo,
      identities: Keyring(configuration.dump.identities, gpg: configuration.dump.gpg),
      trustedKeys: TrustedKeys([key.publicKey]) + configuration.dump.trustedKeys)
    plan.quorum = configuration.quorum
    (plan.proofObjective, plan.rto) = (configuration.proofObjective, configuration.rto)
    plan.state = configuration.daemon.state
    plan.drill = Drill.Settings(folder: drillFolder)
    plan.drill.jobs = configuration.drills.jobs
    plan.drillsInTurn = configuration.drills.from == .inTurn
    plan.drill.server = configuration.drills.server
    plan.drill.libraries = configuration.drills.libraries
    plan.restoreJobs = configuration.restores.jobs
    plan.keepReplaced = configuration.restores.keepReplaced
    plan.reconcileEvery = configuration.daemon.reconcileEvery
    plan.alerts = configuration.alerts
    plan.hooks.timeout = configuration.hooks.timeout
    for (name, commands) in configuration.hooks.commands {
      if let moment = Hooks.Moment(rawValue: name) { plan.hooks.commands[moment] = commands }
    }
    plan.access = access
    plan.configurationWarnings = configuration.warnings
    plan.fixed = [
      "daemon.state": configuration.daemon.state, "daemon.socket": configuration.daemon.socket,
      "daemon.monitor_socket": configuration.daemon.monitorSocket ?? "none",
      "metrics.listen": configuration.metrics.map { "\($0.host):\($0.port)" } ?? "none",
      "metrics.names": configuration.metrics.map { $0.names.joined(separator: ", ") } ?? "none",
      "metrics.user": configuration.metrics?.user ?? "none",
      // Another number in each process: it tells a change and nothing else.
      "metrics.password": "\(configuration.metrics?.password.hashValue ?? 0)",
    ]
    plan.storeSettings = Dictionary(
      uniqueKeysWithValues: configuration.stores.map { ($0.name, "\($0)") })
    return plan
  }

  /// PostgreSQL does not run as root, and the account of drills has no way into root's state directory. /var/lib is
  /// root's alone, so that no local user can be there first.
  private var drillFolder: String {
    configuration.drills.folder
      ?? (geteuid() == 0
        ? "/var/lib/pgbackupd-drills-\(Digest.hexadecimal(of: Array(configuration.daemon.state.utf8)).prefix(8))"
        : configuration.daemon.state + "/drills")
  }

  private var access: AccessRules {
    AccessRules(
      configuration.daemon.roles.map { roles in
        let named = roles.compactMap { name, accounts in
          Role(rawValue: name).map { ($0, accounts.map(Self.holder)) }
        }
        return Dictionary(named, uniquingKeysWith: { first, _ in first })
      })
  }

  private static func holder(_ account: Configuration.Account) -> AccessRules.Holder {
    let number: AccessRules.Holder.Account? = account.number.map { account.kind == .user ? .user($0) : .group($0) }
    return AccessRules.Holder(name: "\(account.kind.rawValue) \(account.name)", account: number ?? .unknown)
  }

  private var load: LoadPolicy {
    var policy = LoadPolicy()
    let places: [(String, WritableKeyPath<LoadPolicy, LoadPolicy.Rule?>)] = [
      ("snapshot_age", \.snapshotAge), ("blocked", \.blocked), ("replica_lag", \.replicaLag),
    ]
    for (name, place) in places {
      guard let rule = configuration.dump.load.rules[name] else { continue }
      policy[keyPath: place] = rule.flatMap { rule in
        LoadPolicy.Action(rawValue: rule.action.rawValue).map { LoadPolicy.Rule($0, after: rule.after) }
      }
    }
    policy.every = configuration.dump.load.every ?? policy.every
    return policy
  }

  private func timing(_ job: Configuration.Job) -> JobTiming? {
    var timing = job.timing
    timing?.settleDelay(host: HostName.current, job: job.name)
    return timing
  }

  /// The zone rules of a job as the machine has them now.
  @Sendable static func zone(_ job: DaemonPlan.Job) -> ZoneRules? {
    guard let timing = job.timing else { return nil }
    return job.usesLocalZone
      ? SystemZones.standard.local() : try? SystemZones.standard.zone(timing.schedule.zone.identifier)
  }

  @Sendable static func namedZone(_ name: String) -> ZoneRules? { try? SystemZones.standard.zone(name) }

  /// Makes the state directory, and the stores' directories that lie inside it. A store anywhere else must exist: an
  /// unmounted disk must not be filled from below.
  func prepareDirectories() throws(Fault) {
    let state = configuration.daemon.state
    try Self.makeDirectory(state)
    for store in configuration.stores {
      guard case .local(let path) = store.place, let below = path.rest(after: state + "/") else { continue }
      var made = state
      for part in below.split(atByte: UInt8(ascii: "/")) {
        made += "/\(part)"
        try Self.makeDirectory(made)
      }
    }
  }

  /// Holds the state directory for this process's life: two daemons on one ledger would break its chain.
  func lockState() throws(Fault) {
    let path = "\(configuration.daemon.state)/lock"
    let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else {
      throw Fault(
        .internal, "The state directory '\(configuration.daemon.state)' can't be used.",
        cause: String(cString: strerror(errno)), hint: "give it to the user that pgbackupd runs as (mode 0700)")
    }
    // The descriptor stays open until the process ends; the kernel then drops the lock, however it ends.
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      throw Fault(
        .daemonRunning, "Another pgbackupd works with the state directory '\(configuration.daemon.state)'.",
        hint: "pgbackupctl status, or set 'daemon: state:'")
    }
  }

  private static func makeDirectory(_ path: String) throws(Fault) {
    if mkdir(path, 0o700) == 0 { return }
    guard errno != EEXIST else { return try checkDirectory(path) }
    throw Fault(
      .internal, "The directory '\(path)' can't be made.", cause: String(cString: strerror(errno)),
      hint: "make it for the user that pgbackupd runs as, mode 0700")
  }

  /// One that is there already must not be a trap: who can write into it chooses the signing key, and where the ledger
  /// goes.
  private static func checkDirectory(_ path: String) throws(Fault) {
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
      throw Fault(.internal, "'\(path)' is no directory.", hint: "name another one in 'state'")
    }
    guard [0, geteuid()].contains(status.st_uid), status.st_mode & 0o022 == 0 else {
      throw Fault(
        .configExposed, "Others can write into the state directory '\(path)', or own it.",
        cause:
          "uid \(status.st_uid), mode 0\(String(status.st_mode & 0o7777, radix: 8)); it holds the signing key and the ledger",
        hint: "chown \(geteuid()) \(shell: path) && chmod 700 \(shell: path), after a look at what is in it")
    }
  }
}
