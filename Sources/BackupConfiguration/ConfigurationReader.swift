import AgeEncryption
import ArtifactFormat
import BackupCatalog
package import CronSchedule
package import Faults
import Foundation
import OutsidePrograms
import PostgresTools
import Quoting
import Units
import Yams

/// What a configuration may refer to outside its file.
package struct ConfigurationSurroundings: Sendable {
  /// An environment variable.
  package var variable: @Sendable (String) -> String?
  /// The text of a secret's file; throws a sentence that says why it can't be read.
  package var secretFile: @Sendable (String) throws(Fault) -> String
  /// The whole text of a file with identities; throws a sentence that says why it can't be read.
  package var keyFile: @Sendable (String) throws(Fault) -> String
  /// The zone of schedules that name none.
  package var zone: ZoneRules
  /// The zone of a name; throws where there is none.
  package var zoneNamed: @Sendable (String) throws(Fault) -> ZoneRules
  /// An account's number; nil where there is none of that name.
  package var account: @Sendable (Configuration.Account.Kind, String) -> UInt32?

  package init(
    variable: @escaping @Sendable (String) -> String?, secretFile: @escaping @Sendable (String) throws(Fault) -> String,
    keyFile: @escaping @Sendable (String) throws(Fault) -> String,
    zone: ZoneRules, zoneNamed: @escaping @Sendable (String) throws(Fault) -> ZoneRules,
    account: @escaping @Sendable (Configuration.Account.Kind, String) -> UInt32? = SystemAccounts.number
  ) {
    self.account = account
    self.variable = variable
    self.secretFile = secretFile
    self.keyFile = keyFile
    self.zone = zone
    self.zoneNamed = zoneNamed
  }

  /// The process's own environment and files.
  package static var process: ConfigurationSurroundings {
    ConfigurationSurroundings(
      variable: { ProcessInfo.processInfo.environment[$0] }, secretFile: readSecretFile,
      keyFile: readKeyFile,
      zone: SystemZones.standard.local(), zoneNamed: SystemZones.standard.zone)
  }

  /// A secret is the first line of its file.
  @Sendable private static func readSecretFile(_ path: String) throws(Fault) -> String {
    let text = try readKeyFile(path)
    return text.lines.first.map(String.init) ?? ""
  }

  /// Others must not be able to read it.
  @Sendable private static func readKeyFile(_ path: String) throws(Fault) -> String {
    do {
      let attributes = try FileManager.default.attributesOfItem(atPath: path)
      if let mode = (attributes[.posixPermissions] as? NSNumber)?.intValue, mode & 0o004 != 0 {
        throw Fault(.configInvalid, "everybody may read '\(path)': chmod 0600 it")
      }
      return try String(contentsOfFile: path, encoding: .utf8)
    } catch let fault as Fault {
      throw fault
    } catch {
      throw Fault(.configInvalid, "'\(path)' can't be read: \(error.localizedDescription)")
    }
  }
}

/// Reads a configuration file: every mistake at once, or a valid configuration. Nothing unknown is passed over.
package struct ConfigurationReader {
  let diagnostics = Diagnostics()
  let surroundings: ConfigurationSurroundings

  /// Reads the file at `path`.
  package static func load(_ path: String, _ surroundings: ConfigurationSurroundings = .process) throws(Fault)
    -> Configuration
  {
    let text: String
    do {
      text = try String(contentsOfFile: path, encoding: .utf8)
    } catch {
      throw Fault(
        .configUnreadable, "The configuration '\(path)' can't be read.", cause: error.localizedDescription,
        hint: "see the example in /usr/share/doc/pgbackupd, or name another file with --config")
    }
    do {
      var configuration = try read(text, file: path, surroundings)
      if let exposure = exposure(of: path, secrets: configuration.inlineSecrets) {
        configuration.warnings.append(exposure)
      } else if let exposure = exposure(ofChanges: path) {
        configuration.warnings.append(exposure)
      }
      return configuration
    } catch {
      throw error.fault
    }
  }

  package static func read(
    _ text: String, file: String, _ surroundings: ConfigurationSurroundings
  ) throws(ConfigurationProblems) -> Configuration {
    let reader = ConfigurationReader(surroundings)
    let configuration = reader.read(text)
    let problems = reader.diagnostics.problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) }
    guard var configuration, problems.isEmpty else { throw ConfigurationProblems(file: file, problems: problems) }
    configuration.warnings = reader.diagnostics.warnings
    configuration.inlineSecrets = reader.diagnostics.secrets
    return configuration
  }

  private init(_ surroundings: ConfigurationSurroundings) { self.surroundings = surroundings }

  private func read(_ text: String) -> Configuration? {
    let node: Node
    do {
      guard let root = try Yams.compose(yaml: text) else {
        diagnostics.report(nil, "", "the file is empty: it needs 'databases'")
        return nil
      }
      node = root
    } catch {
      report(error, in: text)
      return nil
    }
    let root = ConfigurationNode(node: node, path: "", diagnostics: diagnostics, surroundings: surroundings)
    guard
      let sections = root.section([
        "databases", "stores", "jobs", "backup", "encryption", "signing", "daemon", "objectives", "restore",
        "drill", "warnings", "alerts", "hooks", "metrics",
      ])
    else {
      return nil
    }

    var configuration = Configuration()
    if let section = sections["daemon"] { configuration.daemon = daemon(section) }
    if let section = sections["backup"] { configuration.dump = dump(section) }
    if let section = sections["encryption"] { encryption(section, &configuration.dump) }
    if let section = sections["signing"], let values = section.section(["trusted"]) {
      configuration.dump.trustedKeys = values["trusted"].map(trustedKeys) ?? []
    }
    if let section = sections["objectives"] {
      let values = section.section(["rpo", "proved", "rto", "quorum"])
      configuration.rpo = values?["rpo"]?.duration(atLeast: .seconds(60))
      if let proved = values?["proved"] {
        let age = proved.offOr { $0.duration(atLeast: .seconds(60), orOff: true) }
        configuration.proofObjective = age.map { .within($0) } ?? .off
      }
      configuration.rto = values?["rto"]?.duration()
      configuration.quorum = values?["quorum"]?.integer(in: 1...9) ?? 1
    }
    if let section = sections["restore"], let values = section.section(["jobs", "keep_replaced"]) {
      configuration.restores.jobs = values["jobs"]?.integer(in: 1...64) ?? configuration.restores.jobs
      if let keep = values["keep_replaced"] {
        switch keepRule(keep) {
        case .forDuration(let duration): configuration.restores.keepReplaced = duration
        case .untilDeleted: configuration.restores.keepReplaced = nil
        }
      }
    }
    if let section = sections["warnings"], let values = section.section(["rows_lost", "ignore"]) {
      if let percent = values["rows_lost"]?.value(Self.percent, "is no share: write 20% (0% to 100%)") {
        configuration.anomalyRule.lostPercent = percent
      }
      configuration.anomalyRule.ignored = values["ignore"]?.texts()?.compactMap { $0.text() } ?? []
    }
    if let section = sections["drill"],
      let values = section.section(["folder", "jobs", "from", "preload", "connect", "password", "password_file"])
    {
      configuration.drills.server = values["connect"].flatMap { connection($0, password: secret("password", values)) }
      if values["connect"] != nil { values["folder"]?.report("'folder' and 'connect' exclude each other") }
      configuration.drills.jobs = values["jobs"]?.integer(in: 1...64) ?? configuration.drills.jobs
      configuration.drills.from = values["from"]?.word(Configuration.Drills.Order.self) ?? .inTurn
      for node in values["preload"]?.texts() ?? [] {
        guard let name = node.text() else { continue }
        if Self.isLibrary(name) {
          configuration.drills.libraries.append(name)
        } else {
          node.report("'\(name)' is no library's name: letters, digits, '_' and '-'")
        }
      }
      if let node = values["folder"], let path = node.text() {
        if path.starts(withBytes: "/") {
          configuration.drills.folder = path
        } else {
          node.report("'\(path)' is no absolute path")
        }
      }
    }
    if let section = sections["databases"] {
      configuration.databases = databases(section)
    } else {
      root.report("'databases' is missing: name at least one")
    }
    configuration.stores =
      sections["stores"].map(StoreReader(surroundings: surroundings, checkName: checkName, secret: secret).stores)
      ?? [.init(name: "local", place: .local(path: configuration.daemon.state + "/backups"))]
    configuration.jobs =
      sections["jobs"].map { jobs($0, configuration) } ?? Self.defaultJobs(configuration.stores, surroundings.zone)
    addStandardJobs(&configuration)
    let outward = AlertsReader(surroundings: surroundings, checkName: checkName, secret: secret)
    if let section = sections["alerts"] {
      configuration.alerts = outward.channels(
        section, databases: configuration.databases.map(\.name), jobs: configuration.jobs.map(\.name))
    }
    configuration.metrics = sections["metrics"].flatMap(outward.metrics)
    if let section = sections["hooks"] {
      let hooks = outward.hooks(section, moments: Configuration.Hooks.moments)
      configuration.hooks.commands = hooks.commands
      if let timeout = hooks.timeout { configuration.hooks.timeout = timeout }
    }
    if configuration.quorum > configuration.stores.count {
      sections["objectives"]?.report(
        "a quorum of \(configuration.quorum) can't be met: there \(configuration.stores.count == 1 ? "is only 1 store" : "are only \(configuration.stores.count) stores")"
      )
    } else {
      for database in configuration.databases {
        let counts = configuration.jobs.filter {
          $0.action == .backup && $0.timing != nil && $0.databases?.containsExactly(database.name) != false
        }.map(\.stores.count)
        guard let most = counts.max(), most < configuration.quorum else { continue }
        sections["objectives"]?.report(
          "a quorum of \(configuration.quorum) can't be met for '\(database.name)': no scheduled job of it goes into more than \(most) of the stores"
        )
      }
    }
    return configuration
  }

  private func report(_ error: any Error, in text: String) {
    switch error {
    case YamlError.reader(let problem, let offset, let value, _):
      // Not Yams' own words: it counts this offset in another unit, and fills up the line with as many spaces.
      let before = Array(text.utf8.prefix(offset ?? 0))
      let line = before.count { $0 == 10 } + 1
      let column = before.reversed().prefix { $0 != 10 }.count + 1
      diagnostics.report(
        line: line, column: column, "", "this is no YAML: \(problem) (character \(value))")
    case YamlError.scanner(_, let problem, let mark, _), YamlError.parser(_, let problem, let mark, _),
      YamlError.composer(_, let problem, let mark, _):
      diagnostics.report(mark, "", "this is no YAML: \(problem)")
    case YamlError.duplicatedKeysInMapping(let duplicates, let context):
      diagnostics.report(
        context.mark, "", "these keys stand twice: \(duplicates.map { "'\($0)'" }.joined(separator: ", "))")
    default:
      diagnostics.report(nil, "", "this is no YAML: \(error)")
    }
  }

  // MARK: - Sections

  private func databases(_ section: ConfigurationNode) -> [Configuration.Database] {
    guard let entries = section.entries() else { return [] }
    if entries.isEmpty { section.report("name at least one database") }
    return entries.compactMap { name, node in
      checkName(name, node, "a database")
      // `shop: postgresql://…` is short for `shop: { connect: postgresql://… }`.
      let values =
        node.isScalar
        ? ["connect": node]
        : node.section([
          "connect", "password", "password_file", "include", "exclude", "restore_connect", "restore_password",
          "restore_password_file", "assert",
        ])
      guard let values else { return nil }
      guard let connect = values["connect"] else {
        node.report("'connect' is missing: a libpq URI, or key=value words")
        return nil
      }
      let password = secret("password", values)
      guard var connection = self.connection(connect, password: password) else { return nil }
      let include = values["include"]?.texts()?.compactMap { $0.text() }
      let exclude = values["exclude"]?.texts()?.compactMap { $0.text() }
      let isPattern = include != nil || exclude != nil
      connection.setDefault("dbname", isPattern ? "postgres" : name)
      var restoreConnection = values["restore_connect"].flatMap {
        self.connection($0, password: secret("restore_password", values))
      }
      // The database is the one that is backed up, whoever restores it.
      restoreConnection?["dbname"] = connection["dbname"]
      return Configuration.Database(
        name: name, connection: connection,
        pattern: isPattern ? DatabasePattern(include: include ?? ["*"], exclude: exclude ?? []) : nil,
        restoreConnection: restoreConnection, assertions: values["assert"]?.texts()?.compactMap { $0.text() } ?? [])
    }
  }

  private func connection(_ node: ConfigurationNode, password: Secret?) -> ConnectionSettings? {
    guard let text = node.text() else { return nil }
    noteInlinePassword(node)
    do throws(Fault) {
      return try ConnectionSettings(parsing: text, password: password)
    } catch {
      node.report([error.message, error.cause.map { "(\($0))" }, error.hint].compactMap { $0 }.joined(separator: " "))
      return nil
    }
  }

  private func dump(_ section: ConfigurationNode) -> Configuration.Dump {
    var dump = Configuration.Dump()
    guard
      let values = section.section(["compression", "level", "workers", "lock_wait", "stall_after", "programs", "guard"])
    else { return dump }
    let algorithm = values["compression"]?.word(Compression.Algorithm.self) ?? .zstd
    let level = values["level"]?.integer(in: Compression.levels(algorithm))
    dump.compression = Compression(algorithm: algorithm, level: level)
    if let workers = values["workers"]?.integer(in: 1...64) { dump.workers = workers }
    if let wait = values["lock_wait"]?.duration() { dump.lockWait = wait }
    if let stall = values["stall_after"]?.duration(atLeast: .seconds(5)) { dump.stallAfter = stall }
    if let section = values["guard"] { dump.load = load(section) }
    if let programs = values["programs"]?.texts() { dump.programs = programs.compactMap { $0.text() } }
    return dump
  }

  /// `blocked: abort after 5m`.
  private func load(_ section: ConfigurationNode) -> Configuration.Load {
    var load = Configuration.Load()
    let names = ["snapshot_age", "blocked", "replica_lag"]
    guard let values = section.section(names + ["every"]) else { return load }
    for name in names {
      guard let node = values[name] else { continue }
      // A dump that rests keeps its snapshot and its locks: that would never end.
      if name != "replica_lag", node.isScalar, node.text()?.starts(withBytes: "pause") == true {
        node.report("only replica_lag can pause a dump: a pause keeps the snapshot and the locks")
      }
      load.rules[name] = .some(
        node.offOr {
          $0.value(Self.loadRule, "is no rule: write 'warn after 10m', 'pause after 10m', 'abort after 10m', or off")
        })
    }
    load.every = values["every"]?.duration()
    return load
  }

  private static func loadRule(_ text: String) -> Configuration.Load.Rule? {
    let words = text.split(separator: " ")
    guard words.count == 3, words[1] == "after", let action = Configuration.Load.Action(rawValue: String(words[0])),
      let after = Duration(parsing: String(words[2])), after > .zero
    else { return nil }
    return Configuration.Load.Rule(action: action, after: after)
  }

  private func encryption(_ section: ConfigurationNode, _ dump: inout Configuration.Dump) {
    guard let values = section.section(["recipients", "identity_file", "gpg"]) else { return }
    var recipients: [AgeRecipient] = []
    for node in values["recipients"]?.texts() ?? [] {
      guard let text = node.text() else { continue }
      do throws(AgeError) {
        recipients.append(try AgeRecipient(parsing: text))
      } catch {
        // An identity here would be a secret in a file that many may read, and in the error.
        node.report(text.uppercased().starts(withBytes: "AGE-SECRET") ? "an identity is no recipient" : "\(error)")
      }
    }
    dump.gpg = values["gpg"].flatMap(gpg)
    // Without recipients of its own gpg only opens what was sealed before.
    if values["recipients"] == nil, dump.gpg?.recipients.isEmpty ?? true {
      section.report("'recipients' is missing: name at least one, age1…, or gpg's")
    }
    if Set(recipients.map(\.isPostQuantum)).count > 1 {
      values["recipients"]?.report("a post-quantum recipient (age1pq1…) protects nothing beside one that is none")
    }
    if dump.gpg?.recipients.isEmpty == false, recipients.contains(where: \.isPostQuantum) {
      values["recipients"]?.report("a post-quantum recipient (age1pq1…) protects nothing beside GnuPG, which has none")
    }
    if !recipients.isEmpty { dump.encryption = .age(recipients) }
    if let node = values["identity_file"], let path = node.text() {
      do {
        let text = try surroundings.keyFile(path)
        dump.identities = try AgeIdentity.identities(inFile: text)
      } catch let fault as Fault {
        node.report(fault.message)
      } catch {
        node.report("'\(path)': \(error)")
      }
    }
  }

  private func gpg(_ section: ConfigurationNode) -> GnuPG? {
    guard let values = section.section(["recipients", "home", "passphrase_file"]) else { return nil }
    let recipients = (values["recipients"]?.texts() ?? []).compactMap { node in
      node.value(
        GnuPG.fingerprint,
        "is no fingerprint of an OpenPGP key: 40 digits, as 'gpg --list-keys --fingerprint' shows them")
    }
    func path(_ name: String) -> String? {
      guard let node = values[name], let path = node.text() else { return nil }
      guard path.starts(withBytes: "/") else {
        node.report("'\(path)' is no absolute path")
        return nil
      }
      return path
    }
    if let path = path("passphrase_file") {
      do throws(Fault) {
        _ = try surroundings.keyFile(path)
      } catch {
        values["passphrase_file"]?.report(error.message)
      }
    }
    return GnuPG(recipients: recipients, home: path("home"), passphraseFile: path("passphrase_file"))
  }

  /// A list of keys, each for any database; or a mapping from keys to the databases that each may sign for.
  private func trustedKeys(_ node: ConfigurationNode) -> TrustedKeys {
    let complaint = "is no public key: the second line of a signing.pub, RW…"
    guard node.isMapping else {
      return TrustedKeys((node.texts() ?? []).compactMap { $0.value(VerifyingKey.init(parsing:), complaint) })
    }
    return TrustedKeys(
      (node.entries() ?? []).compactMap { text, patterns in
        guard let key = VerifyingKey(parsing: text) else {
          patterns.report("'\(text)' \(complaint)")
          return nil
        }
        let databases = patterns.texts()?.compactMap { $0.text() } ?? []
        if databases.isEmpty { patterns.report("name the databases that the key may sign for; '*' is all of them") }
        return TrustedKeys.Entry(key, databases: databases)
      })
  }

  private func daemon(_ section: ConfigurationNode) -> Configuration.Daemon {
    var daemon = Configuration.Daemon()
    guard
      let values = section.section([
        "state", "socket", "monitor_socket", "roles", "parallel_runs", "stop_within", "reconcile_every",
      ])
    else {
      return daemon
    }
    for (key, target) in [("state", \Configuration.Daemon.state), ("socket", \Configuration.Daemon.socket)] {
      guard let node = values[key], let path = node.text() else { continue }
      if path.starts(withBytes: "/") {
        daemon[keyPath: target] = path
      } else {
        node.report("'\(path)' is no absolute path")
      }
    }
    if let node = values["monitor_socket"], let path = node.text() {
      if !path.starts(withBytes: "/") { node.report("'\(path)' is no absolute path") }
      if NSString(string: path).standardizingPath == NSString(string: daemon.socket).standardizingPath {
        node.report("it is the control socket's path")
      }
      if path.utf8.count > 107 { node.report("a socket's path has 107 bytes at most") }
      daemon.monitorSocket = path
    }
    // sockaddr_un's sun_path holds 108 bytes, its closing zero among them (unix(7)).
    if daemon.socket.utf8.count > 107 { values["socket"]?.report("a socket's path has 107 bytes at most") }
    daemon.roles = values["roles"].flatMap(roles)
    if let runs = values["parallel_runs"]?.integer(in: 1...32) { daemon.parallelRuns = runs }
    if let limit = values["stop_within"]?.duration(atLeast: .seconds(1)) {
      // The daemon asks systemd for five minutes of patience, and for no more.
      if limit > .seconds(240) { values["stop_within"]?.report("4m at most: systemd ends what takes longer") }
      daemon.windDown = limit
    }
    if let pause = values["reconcile_every"]?.duration(atLeast: .seconds(1)) { daemon.reconcileEvery = pause }
    return daemon
  }

  /// `NAME` or `NAME_file`, not both.
  private func secret(_ name: String, _ values: [String: ConfigurationNode]) -> Secret? {
    if let file = values[name + "_file"] {
      if values[name] != nil { file.report("'\(name)' and '\(name)_file' exclude each other") }
      guard let path = file.text() else { return nil }
      do throws(Fault) {
        return Secret(try surroundings.secretFile(path))
      } catch {
        file.report(error.message)
        return nil
      }
    }
    guard let node = values[name] else { return nil }
    noteInlineSecret(name, node)
    return node.text().map(Secret.init)
  }

  /// Names become folders, journal fields and words on the command line.
  func checkName(_ name: String, _ node: ConfigurationNode, _ kind: String) {
    let isPlain = name.utf8.allSatisfy {
      ($0 >= 48 && $0 <= 57) || ($0 >= 65 && $0 <= 90) || ($0 >= 97 && $0 <= 122) || $0 == 45 || $0 == 95
    }
    if !isPlain || name.isEmpty || name.count > 63 || name.starts(withBytes: "-") {
      node.report("\(kind) has a name of letters, digits, '-' and '_', 63 at most")
    }
  }
}
