import AgeEncryption
import ArtifactFormat
import BackupCatalog
package import CronSchedule
package import Faults
import Foundation
import PostgresTools
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

  package init(
    variable: @escaping @Sendable (String) -> String?, secretFile: @escaping @Sendable (String) throws(Fault) -> String,
    keyFile: @escaping @Sendable (String) throws(Fault) -> String,
    zone: ZoneRules, zoneNamed: @escaping @Sendable (String) throws(Fault) -> ZoneRules
  ) {
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
    return text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).first.map(String.init) ?? ""
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
  private let diagnostics = Diagnostics()
  private let surroundings: ConfigurationSurroundings

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
      return try read(text, file: path, surroundings)
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
    guard let configuration, problems.isEmpty else { throw ConfigurationProblems(file: file, problems: problems) }
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
      report(error)
      return nil
    }
    let root = ConfigurationNode(node: node, path: "", diagnostics: diagnostics, surroundings: surroundings)
    guard
      let sections = root.section([
        "databases", "stores", "jobs", "backup", "encryption", "signing", "daemon", "objectives", "restore",
      ])
    else {
      return nil
    }

    var configuration = Configuration()
    if let section = sections["daemon"] { configuration.daemon = daemon(section) }
    if let section = sections["backup"] { configuration.dump = dump(section) }
    if let section = sections["encryption"] { encryption(section, &configuration.dump) }
    if let section = sections["signing"], let values = section.section(["trusted"]) {
      configuration.dump.trustedKeys = (values["trusted"]?.texts() ?? []).compactMap(verifyingKey)
    }
    if let section = sections["objectives"] {
      let values = section.section(["rpo", "quorum"])
      configuration.rpo = values?["rpo"]?.duration(atLeast: .seconds(60))
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
    addManualJob(&configuration)
    if configuration.quorum > configuration.stores.count {
      sections["objectives"]?.report(
        "a quorum of \(configuration.quorum) can't be met: there \(configuration.stores.count == 1 ? "is only 1 store" : "are only \(configuration.stores.count) stores")"
      )
    }
    return configuration
  }

  private func report(_ error: any Error) {
    switch error {
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
          "restore_password_file",
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
        restoreConnection: restoreConnection)
    }
  }

  private func connection(_ node: ConfigurationNode, password: Secret?) -> ConnectionSettings? {
    guard let text = node.text() else { return nil }
    do throws(Fault) {
      return try ConnectionSettings(parsing: text, password: password)
    } catch {
      node.report([error.message, error.cause.map { "(\($0))" }, error.hint].compactMap { $0 }.joined(separator: " "))
      return nil
    }
  }

  private enum Action: String, CaseIterable { case backup }

  private func jobs(_ section: ConfigurationNode, _ configuration: Configuration) -> [Configuration.Job] {
    guard let entries = section.entries() else { return [] }
    let storeNames = configuration.stores.map(\.name)
    let databaseNames = configuration.databases.map(\.name)
    return entries.enumerated().compactMap { order, entry in
      let (name, node) = entry
      checkName(name, node, "a job")
      var job = Configuration.Job(
        name: name, timing: nil, keep: .untilDeleted, stores: storeNames, databases: nil, timeout: Self.defaultTimeout
      )
      if node.isNull { return job }
      let keys = ["action", "schedule", "zone", "keep", "stores", "databases", "timeout"] + Self.timingKeys
      guard let values = node.section(keys) else { return nil }
      _ = values["action"]?.word(Action.self)
      job.timing = timing(values, order: order)
      job.usesLocalZone = values["zone"] == nil
      if let keep = values["keep"] { job.keep = keepRule(keep) }
      if let stores = values["stores"] {
        if stores.isMapping {
          job.keepByStore = keeps(stores, among: storeNames)
          job.stores = (stores.entries() ?? []).map(\.0).filter { job.keepByStore[$0] != nil }
        } else {
          job.stores = names(stores, among: storeNames, "store")
        }
        if job.stores.isEmpty { stores.report("a job needs a store") }
      }
      if let databases = values["databases"] {
        job.databases = names(databases, among: databaseNames, "database")
        if job.databases?.isEmpty == true { databases.report("a job needs a database; leave it out for all") }
      }
      if let timeout = values["timeout"]?.duration(atLeast: .seconds(10)) { job.timeout = timeout }
      return job
    }
  }

  private static let timingKeys = ["jitter", "not_between", "catch_up", "retry", "share"]

  private func timing(_ values: [String: ConfigurationNode], order: Int) -> JobTiming? {
    guard let schedule = schedule(values) else {
      if values["schedule"] == nil {
        for key in Self.timingKeys { values[key]?.report("it needs a schedule") }
      }
      return nil
    }
    var timing = JobTiming(schedule)
    timing.order = order
    if let jitter = values["jitter"]?.duration() { timing.jitter = jitter }
    if let node = values["catch_up"] { timing.catchUp = node.offOr { $0.duration(atLeast: .seconds(60), orOff: true) } }
    if let node = values["retry"] { timing.retry = node.offOr(retryRule) }
    if let share = values["share"]?.boolean() { timing.share = share }
    timing.notBetween = (values["not_between"]?.texts() ?? []).compactMap { window($0, zone: schedule.zone) }
    checkSense(timing, values)
    return timing
  }

  /// What is well-formed and can't be meant.
  private func checkSense(_ timing: JobTiming, _ values: [String: ConfigurationNode]) {
    // Any two runs in a row will do: the check is about orders of magnitude.
    let start = Date(timeIntervalSince1970: 1_800_000_000)
    if let first = timing.schedule.next(after: start), let second = timing.schedule.next(after: first),
      timing.jitter.inSeconds >= second.timeIntervalSince(first)
    {
      values["jitter"]?.report("it is as long as the time between two runs, or longer")
    }
    if timing.afterQuiet(start).timeIntervalSince(start) > 7 * 86400 {
      values["not_between"]?.report("these hours leave no time to run")
    }
  }

  private func retryRule(_ node: ConfigurationNode) -> RetryRule? {
    node.value(RetryRule.init(parsing:), "is no retry rule: write 3 after 5m (20 at most), or off")
  }

  private func window(_ node: ConfigurationNode, zone: ZoneRules) -> QuietWindow? {
    guard let text = node.text() else { return nil }
    do throws(CronParseError) {
      return try QuietWindow(parsing: text, zone: zone) { try? surroundings.zoneNamed($0) }
    } catch {
      node.report("'\(text)': \(error.message)")
      return nil
    }
  }

  private func schedule(_ values: [String: ConfigurationNode]) -> ZonedSchedule? {
    var zone = surroundings.zone
    if let node = values["zone"], let name = node.text() {
      zone = self.zone(name, node) ?? zone
      if values["schedule"] == nil { node.report("a zone without a schedule") }
    }
    guard let node = values["schedule"], let text = node.text() else { return nil }
    do throws(CronParseError) {
      return ZonedSchedule(try CronExpression(parsing: text), in: zone)
    } catch {
      node.report("'\(text)': \(error)")
      return nil
    }
  }

  private func zone(_ name: String, _ node: ConfigurationNode) -> ZoneRules? {
    do throws(Fault) {
      return try surroundings.zoneNamed(name)
    } catch {
      node.report(error.message + suggestion(for: name, among: TimeZone.knownTimeZoneIdentifiers))
      return nil
    }
  }

  private func keepRule(_ node: ConfigurationNode) -> KeepRule {
    guard let text = node.text() else { return .untilDeleted }
    if text == "forever" { return .untilDeleted }
    guard let duration = Duration(parsing: text), duration >= .seconds(3600) else {
      node.report("'\(text)' is no time to keep: write 7d, 36h (an hour at least) or forever")
      return .untilDeleted
    }
    return .forDuration(duration)
  }

  /// `{ local: 7d, offsite: 90d }`: stores that keep for different times.
  private func keeps(_ node: ConfigurationNode, among known: [String]) -> [String: KeepRule] {
    var rules: [String: KeepRule] = [:]
    for (name, value) in node.entries() ?? [] {
      if known.contains(name) {
        rules[name] = keepRule(value)
      } else {
        value.report("there is no store '\(name)'" + suggestion(for: name, among: known))
      }
    }
    return rules
  }

  private func names(_ node: ConfigurationNode, among known: [String], _ kind: String) -> [String] {
    (node.texts() ?? []).compactMap { item in
      guard let name = item.text() else { return nil }
      guard known.contains(name) else {
        item.report("there is no \(kind) '\(name)'" + suggestion(for: name, among: known))
        return nil
      }
      return name
    }
  }

  private func dump(_ section: ConfigurationNode) -> Configuration.Dump {
    var dump = Configuration.Dump()
    guard
      let values = section.section(["compression", "level", "workers", "lock_wait", "stall_after", "programs"])
    else { return dump }
    let algorithm = values["compression"]?.word(Compression.Algorithm.self) ?? .zstd
    let level = values["level"]?.integer(in: Compression.levels(algorithm))
    dump.compression = Compression(algorithm: algorithm, level: level)
    if let workers = values["workers"]?.integer(in: 1...64) { dump.workers = workers }
    if let wait = values["lock_wait"]?.duration() { dump.lockWait = wait }
    if let stall = values["stall_after"]?.duration(atLeast: .seconds(5)) { dump.stallAfter = stall }
    if let programs = values["programs"]?.texts() { dump.programs = programs.compactMap { $0.text() } }
    return dump
  }

  private func encryption(_ section: ConfigurationNode, _ dump: inout Configuration.Dump) {
    guard let values = section.section(["recipients", "identity_file"]) else { return }
    var recipients: [AgeRecipient] = []
    for node in values["recipients"]?.texts() ?? [] {
      guard let text = node.text() else { continue }
      do throws(AgeError) {
        recipients.append(try AgeRecipient(parsing: text))
      } catch {
        // An identity here would be a secret in a file that many may read, and in the error.
        node.report(text.uppercased().hasPrefix("AGE-SECRET") ? "an identity is no recipient" : "\(error)")
      }
    }
    if values["recipients"] == nil { section.report("'recipients' is missing: name at least one, age1…") }
    if Set(recipients.map(\.isPostQuantum)).count > 1 {
      values["recipients"]?.report("a post-quantum recipient (age1pq1…) protects nothing beside one that is none")
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

  private func verifyingKey(_ node: ConfigurationNode) -> VerifyingKey? {
    node.value(VerifyingKey.init(parsing:), "is no public key: the second line of a signing.pub, RW…")
  }

  private func daemon(_ section: ConfigurationNode) -> Configuration.Daemon {
    var daemon = Configuration.Daemon()
    guard
      let values = section.section([
        "state", "socket", "monitor_socket", "parallel_runs", "stop_within", "reconcile_every",
      ])
    else {
      return daemon
    }
    for (key, target) in [("state", \Configuration.Daemon.state), ("socket", \Configuration.Daemon.socket)] {
      guard let node = values[key], let path = node.text() else { continue }
      if path.hasPrefix("/") { daemon[keyPath: target] = path } else { node.report("'\(path)' is no absolute path") }
    }
    if let node = values["monitor_socket"], let path = node.text() {
      if !path.hasPrefix("/") { node.report("'\(path)' is no absolute path") }
      if NSString(string: path).standardizingPath == NSString(string: daemon.socket).standardizingPath {
        node.report("it is the control socket's path")
      }
      if path.utf8.count > 107 { node.report("a socket's path has 107 bytes at most") }
      daemon.monitorSocket = path
    }
    // sockaddr_un's sun_path holds 108 bytes, its closing zero among them (unix(7)).
    if daemon.socket.utf8.count > 107 { values["socket"]?.report("a socket's path has 107 bytes at most") }
    if let runs = values["parallel_runs"]?.integer(in: 1...32) { daemon.parallelRuns = runs }
    if let limit = values["stop_within"]?.duration(atLeast: .seconds(1)) { daemon.windDown = limit }
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
    return values[name]?.text().map(Secret.init)
  }

  /// Names become folders, journal fields and words on the command line.
  private func checkName(_ name: String, _ node: ConfigurationNode, _ kind: String) {
    let isPlain = name.utf8.allSatisfy {
      ($0 >= 48 && $0 <= 57) || ($0 >= 65 && $0 <= 90) || ($0 >= 97 && $0 <= 122) || $0 == 45 || $0 == 95
    }
    if !isPlain || name.isEmpty || name.count > 63 || name.hasPrefix("-") {
      node.report("\(kind) has a name of letters, digits, '-' and '_', 63 at most")
    }
  }

  // MARK: - Defaults

  private static let defaultTimeout = Duration.seconds(12 * 3600)

  /// The policy of a file without `jobs`.
  private static func defaultJobs(_ stores: [Configuration.Store], _ zone: ZoneRules) -> [Configuration.Job] {
    let policy: [(String, String?, Int64)] = [
      ("daily", "0 2 * * *", 7), ("weekly", "0 3 * * 0", 30), ("monthly", "0 4 1 * *", 365),
      ("pre-deployment", nil, 30),
    ]
    return policy.enumerated().map { order, policy in
      let (name, expression, days) = policy
      var timing = expression.flatMap { try? CronExpression(parsing: $0) }.map {
        JobTiming(ZonedSchedule($0, in: zone))
      }
      timing?.order = order
      return Configuration.Job(
        name: name, timing: timing, usesLocalZone: true,
        keep: .forDuration(.seconds(days * 86400)), stores: stores.map(\.name), databases: nil, timeout: defaultTimeout)
    }
  }

  /// `pgbackupctl backup` without `--type` makes a `manual` backup, whatever the file says.
  private func addManualJob(_ configuration: inout Configuration) {
    guard !configuration.jobs.contains(where: { $0.name == "manual" }) else { return }
    configuration.jobs.append(
      Configuration.Job(
        name: "manual", timing: nil, keep: .untilDeleted, stores: configuration.stores.map(\.name), databases: nil,
        timeout: Self.defaultTimeout))
  }
}
