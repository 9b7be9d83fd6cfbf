package import AgeEncryption
package import ArtifactFormat
package import BackupCatalog
package import CronSchedule
package import Faults
package import Notifications
package import OutsidePrograms
package import PostgresTools
package import S3Storage
package import Units

/// What the configuration file says, as values that are known to be valid. The defaults are here; reading a file into this
/// is `ConfigurationReader`'s work, making objects of it is the program's.
package struct Configuration: Sendable, Hashable {
  package struct Database: Sendable, Hashable {
    package var name: String
    package var connection: ConnectionSettings
    /// Where it is set, `connection` leads to a maintenance database, and every database of the server that the patterns
    /// choose is backed up, as `<name>.<database>`.
    package var pattern: DatabasePattern?
    /// Who restores: a role that may create and rename databases. The one of `connection` where nil.
    package var restoreConnection: ConnectionSettings?
    /// SQL that has to give true on a restored copy.
    package var assertions: [String] = []

    /// Where it is, for people: `backup@db.example:5432/shop`.
    package var place: String { connection.summary }
  }

  package struct Store: Sendable, Hashable {
    package enum Place: Sendable, Hashable {
      /// A directory of this machine.
      case local(path: String)
      case s3(S3Settings)
    }
    package var name: String
    package var place: Place
    /// Bytes a second that may go in or out; as many as can where nil.
    package var rateLimit: ByteCount?

    package init(name: String, place: Place, rateLimit: ByteCount? = nil) {
      self.name = name
      self.place = place
      self.rateLimit = rateLimit
    }
  }

  package struct Job: Sendable, Hashable {
    /// Also the type of the backups it makes.
    package var name: String
    package var action = JobAction.backup
    /// When it runs by itself; nil for a job that only runs on demand.
    package var timing: JobTiming?
    /// Whether its zone is the machine's, which may change while the daemon runs.
    package var usesLocalZone = false
    package var keep: KeepRule
    /// Where a store has a rule of its own.
    package var keepByStore: [String: KeepRule] = [:]
    package var stores: [String]
    /// Names of databases; all of them where nil.
    package var databases: [String]?
    package var timeout: Duration
  }

  package struct Dump: Sendable, Hashable {
    package var compression = Compression.standard
    package var workers = 2
    package var lockWait = Duration.seconds(60)
    package var stallAfter = Duration.seconds(900)
    package var programs: [String] = []
    /// What a dump may cost the server.
    package var load = Load()
    package var encryption = Encryption.none
    /// What opens encrypted backups on this host.
    package var identities: [AgeIdentity] = []
    /// GnuPG, for those who must: seals the key of each backup.
    package var gpg: GnuPG?
    /// Whose signatures count, besides this daemon's own.
    package var trustedKeys: TrustedKeys = []
  }

  package struct Load: Sendable, Hashable {
    package enum Action: String, Sendable, CaseIterable { case warn, pause, abort }

    /// What is done after how long.
    package struct Rule: Sendable, Hashable {
      package var action: Action
      package var after: Duration
    }

    /// By name: `snapshot_age`, `blocked`, `replica_lag`; nil for off.
    package var rules: [String: Rule?] = [:]
    package var every: Duration?
  }

  package struct Restores: Sendable, Hashable {
    /// Connections that load at once.
    package var jobs = 4
    /// How long a replaced database stays; nil for ever.
    package var keepReplaced: Duration? = .seconds(7 * 86400)
  }

  package struct Drills: Sendable, Hashable {
    /// Where the throw-away servers live; in the state directory where nil.
    package var folder: String?
    /// A server that drills may use instead; a throw-away one is made where nil.
    package var server: ConnectionSettings?
    /// Connections that load at once.
    package var jobs = 4

    package enum Order: String, Sendable, CaseIterable {
      case inTurn = "in_turn"
      case nearest
    }
    /// Libraries that the throw-away server loads at its start (`shared_preload_libraries`).
    package var libraries: [String] = []
    /// Which store a scheduled drill reads.
    package var from = Order.inTurn
  }

  package struct Hooks: Sendable, Hashable {
    /// By the moment's name: `before_backup`; each a program with its arguments.
    package var commands: [String: [[String]]] = [:]
    /// Of each command.
    package var timeout = Duration.seconds(60)

    package static let moments = [
      "before_backup", "after_backup", "before_restore", "after_restore", "before_drill", "after_drill",
    ]
  }

  /// The port for browsers and Prometheus.
  package struct Metrics: Sendable, Hashable {
    /// An address of the loopback interface.
    package var host: String
    package var port: Int
    /// Names that a proxy asks for.
    package var names: [String] = []
    package var user: String?
    package var password: Secret?
  }

  /// A user or a group of this machine.
  package struct Account: Sendable, Hashable {
    package enum Kind: String, Sendable { case user, group }
    package var kind: Kind
    package var name: String
    /// Nil where there is none of that name.
    package var number: UInt32?

    package init(kind: Kind, name: String, number: UInt32?) {
      (self.kind, self.name, self.number) = (kind, name, number)
    }
  }

  package struct Daemon: Sendable, Hashable {
    package static let roleNames = ["reader", "operator", "restorer"]

    package var state = "/var/lib/pgbackupd"
    package var socket = "/run/pgbackupd/control.sock"
    /// Answers questions to everybody and changes nothing; none where nil.
    package var monitorSocket: String?
    /// The accounts of each role on the control socket. Nil: everyone who can open the socket has all rights.
    package var roles: [String: [Account]]?
    /// Dumps that may run at once, over all databases.
    package var parallelRuns = 2
    /// How long a run may take to end once it is asked to, before it is given up.
    package var windDown = Duration.seconds(60)
    /// How often the stores are looked at besides after each run.
    package var reconcileEvery = Duration.seconds(3600)
  }

  package var databases: [Database] = []
  package var stores: [Store] = []
  package var jobs: [Job] = []
  package var dump = Dump()
  package var daemon = Daemon()
  package var restores = Restores()
  package var drills = Drills()
  /// Who is told when something is wrong.
  package var alerts: [ChannelSettings] = []
  package var hooks = Hooks()
  /// None where nil.
  package var metrics: Metrics?
  /// The age that the newest backup of a database must not exceed.
  package var rpo: Duration?
  /// The age that the newest proved backup of a database must not exceed.
  package var proofObjective = ProofObjective.fromDrills
  /// What of a backup is remarkable beside those before it.
  package var anomalyRule = AnomalyRule()
  /// How long a restore may take.
  package var rto: Duration?
  /// In how many stores a backup must be to count.
  package var quorum = 1
  /// What is allowed now and should not be, for `config check` and `status`.
  package var warnings: [Fault] = []
  /// Where secrets stand in the file itself, as paths of keys.
  package var inlineSecrets: [String] = []
}

/// Which databases of a server are meant: at least one `include` matches and no `exclude` does. `*` stands for any
/// characters and `?` for one, as in a shell.
package struct DatabasePattern: Sendable, Hashable {
  package var include: [String]
  package var exclude: [String]

  package func matches(_ name: String) -> Bool {
    include.contains { Wildcard($0).matches(name) } && !exclude.contains { Wildcard($0).matches(name) }
  }
}
