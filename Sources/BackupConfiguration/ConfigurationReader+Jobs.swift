import BackupCatalog
import CronSchedule
import Faults
import Foundation
import Quoting
import Units

/// The section `jobs`, and what stands for it where it is missing.
extension ConfigurationReader {
  private enum Action: String, CaseIterable { case backup, verify, drill }

  func jobs(_ section: ConfigurationNode, _ configuration: Configuration) -> [Configuration.Job] {
    guard let entries = section.entries() else { return [] }
    let storeNames = configuration.stores.map(\.name)
    let databaseNames = configuration.databases.map(\.name)
    return entries.enumerated().compactMap { order, entry in
      let (name, node) = entry
      checkName(name, node, "a job")
      var job = Configuration.Job(
        name: name, timing: nil, keep: .untilDeleted, stores: storeNames, databases: nil, timeout: Self.defaultTimeout
      )
      // A job of that name does that, unless it says otherwise.
      var action = Action(rawValue: name) ?? .backup
      job.action = self.action(action, [:])
      if node.isNull { return job }
      let keys = ["action", "schedule", "zone", "keep", "stores", "databases", "timeout"] + Self.timingKeys
      guard let values = node.section(keys + Self.verifyKeys) else { return nil }
      action = values["action"]?.word(Action.self) ?? action
      job.action = self.action(action, values)
      job.timing = timing(values, order: order)
      job.usesLocalZone = values["zone"] == nil
      if let keep = values["keep"] { job.keep = keepRule(keep) }
      if let stores = values["stores"] {
        if stores.isMapping {
          job.keepByStore = keeps(stores, among: storeNames)
          job.stores = (stores.entries() ?? []).map(\.0).filter { job.keepByStore[$0] != nil }
          // What lies where it is not wanted any more stays for as long as anywhere.
          if values["keep"] == nil, let longest = job.keepByStore.values.longest { job.keep = longest }
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

  private static let verifyKeys = ["level", "newest", "rest"]

  private func action(_ action: Action, _ values: [String: ConfigurationNode]) -> JobAction {
    if action != .backup {
      for key in ["keep", "share"] { values[key]?.report("a job that makes no backups has none to keep or to share") }
    }
    if action != .verify { for key in Self.verifyKeys { values[key]?.report("only a verify job has it") } }
    switch action {
    case .backup: return .backup
    case .drill: return .drill
    case .verify:
      var budget = VerifyBudget()
      if let newest = values["newest"]?.word(VerifyBudget.Newest.self) { budget.newest = newest }
      if let percent = values["rest"]?.value(Self.percent, "is no share: write 10% (0% to 100%)") {
        budget.restPercent = percent
      }
      return .verify(values["level"]?.word(VerifyLevel.self) ?? .archive, budget)
    }
  }

  /// Of a library that a server loads, without a path: whoever can write a file must not have it loaded.
  static func isLibrary(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count < 64
      && name.utf8.allSatisfy { byte in
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
          || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
          || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
      }
  }

  static func percent(_ text: String) -> Int? {
    guard text.ends(withBytes: "%"), let number = Int(text.dropLast()), (0...100).contains(number) else { return nil }
    return number
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

  func keepRule(_ node: ConfigurationNode) -> KeepRule {
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
      guard known.containsExactly(name) else {
        item.report("there is no \(kind) '\(name)'" + suggestion(for: name, among: known))
        return nil
      }
      return name
    }
  }

  // MARK: - Defaults

  private static let defaultTimeout = Duration.seconds(12 * 3600)

  /// The policy of a file without `jobs`.
  static func defaultJobs(_ stores: [Configuration.Store], _ zone: ZoneRules) -> [Configuration.Job] {
    let policy: [(name: String, expression: String?, days: Int64?, action: JobAction)] = [
      ("daily", "0 2 * * *", 7, .backup), ("weekly", "0 3 * * 0", 30, .backup), ("monthly", "0 4 1 * *", 365, .backup),
      ("pre-deployment", nil, 30, .backup), ("verify", "0 6 * * *", nil, .verify(.archive, VerifyBudget())),
    ]
    return policy.enumerated().map { order, policy in
      var timing = policy.expression.flatMap { try? CronExpression(parsing: $0) }.map {
        JobTiming(ZonedSchedule($0, in: zone))
      }
      timing?.order = order
      var job = Configuration.Job(
        name: policy.name, timing: timing, usesLocalZone: true,
        keep: policy.days.map { .forDuration(.seconds($0 * 86400)) } ?? .untilDeleted, stores: stores.map(\.name),
        databases: nil, timeout: defaultTimeout)
      job.action = policy.action
      return job
    }
  }

  /// What `pgbackupctl backup` without `--type`, `verify` and `drill` need is there, whatever the file says.
  func addStandardJobs(_ configuration: inout Configuration) {
    let standard: [(String, JobAction)] = [
      ("manual", .backup), ("verify", .verify(.archive, VerifyBudget())), ("drill", .drill),
    ]
    for (name, action) in standard where !configuration.jobs.contains(where: { $0.name == name }) {
      var job = Configuration.Job(
        name: name, timing: nil, keep: .untilDeleted, stores: configuration.stores.map(\.name), databases: nil,
        timeout: Self.defaultTimeout)
      job.action = action
      configuration.jobs.append(job)
    }
  }
}
