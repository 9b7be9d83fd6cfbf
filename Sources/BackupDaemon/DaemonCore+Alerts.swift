import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Logging
import Notifications
import Quoting
import Storage
import SystemdSupport
import Units

/// Who is told, of what, and when.
extension DaemonCore {
  private var incidentsPath: String { plan.state + "/alerts/incidents.json" }

  func beginWatching() async {
    if let data = FileManager.default.contents(atPath: incidentsPath),
      let book = try? ControlJSON.decode(IncidentBook.self, from: data)
    {
      incidents = book
    }
    await courier.use(plan.alerts)
  }

  /// Called at each beat, which may be more often than once a minute.
  func watchWhenDue() async {
    let running = SystemClock.running()
    guard running - watchedAt >= 55 else { return }
    watchedAt = running
    await watch()
  }

  /// Looks at what is wrong now, and tells those who want to know what has changed. One look at a time: an old one must not undo a newer.
  func watch(_ freshness: Freshness = .watched) async {
    guard !isStopping else { return }
    guard !isWatching else {
      watchAgain = true
      return
    }
    isWatching = true
    repeat {
      watchAgain = false
      let overview = await overview(freshness)
      guard !isStopping else { break }
      tellJournal(overview.problems)
      guard !plan.alerts.isEmpty else { continue }
      let before = incidents
      let messages = incidents.update(overview.problems, channels: plan.alerts, at: now()) { _ in Self.newID() }
      for message in messages { await courier.post(notice(message, overview.report), to: message.channel) }
      // Behind the messages: a crash between repeats one, and loses none.
      if incidents != before { keepIncidents() }
    } while watchAgain
    isWatching = false
  }

  /// Whatever channels there are: what is wrong, and that it is over, stands in the journal. A failed run has an entry of its own.
  private func tellJournal(_ problems: [Problem]) {
    let standing = Dictionary(
      problems.filter { $0.job == nil && $0.quietUntil.map { $0 <= now() } ?? true }.map { ($0.key, $0) },
      uniquingKeysWith: { first, _ in first })
    for (subject, problem) in standing.sorted(by: { $0.key < $1.key }) where toldProblems[subject] == nil {
      logger.warning(.problemOpened, problem.fault, metadata: problem.fields)
    }
    for (subject, problem) in toldProblems.sorted(by: { $0.key < $1.key }) where standing[subject] == nil {
      logger.notice(
        .problemOver, "a problem is over",
        metadata: problem.fields.merging([
          "error": "\(problem.fault.code.rawValue)", "what": "\(problem.fault.message)",
        ]) {
          $1
        })
    }
    toldProblems = standing
  }

  private func keepIncidents() {
    guard let data = try? ControlJSON.encode(incidents) else { return }
    // Lost, an incident is told once more.
    try? data.write(to: URL(filePath: incidentsPath), options: .atomic)
  }

  private static func newID() -> String { String(UUID().uuidString.prefix(8)).lowercased() }

  private func notice(_ message: IncidentBook.Message, _ report: StatusReport) -> Notice {
    let incident = message.incident
    let topic: NoticeTopic =
      if message.kind == .recovered { .recovered } else if incident.fault.code == .objectiveAtRisk { .objective } else {
        incident.topics.contains(.failure) ? .failure : incident.topics.first ?? .failure
      }
    return Notice(
      id: incident.id, kind: message.kind, topic: topic, time: now(), host: HostName.current,
      code: incident.fault.code.rawValue, sentence: incident.fault.message, cause: incident.fault.cause,
      since: incident.since, database: incident.database, job: incident.job, store: incident.store,
      holds: Self.holds(incident.database, report),
      more: message.kind == .recovered ? incident.more + noLongerMeant(incident) : incident.more,
      next: message.kind == .recovered ? nil : incident.fault.hint)
  }

  /// Whether an incident is over because nobody looks at what it was about any more: that is no recovery.
  private func noLongerMeant(_ incident: IncidentBook.Incident) -> [String] {
    var gone: [String] = []
    if let database = incident.database, !isConfigured(database) { gone.append("database '\(database)'") }
    if let store = incident.store, !plan.stores.contains(where: { $0.name == store }) {
      gone.append("store '\(store)'")
    }
    if let job = incident.job, job != Self.restoreJob, !plan.jobs.contains(where: { $0.name == job }) {
      gone.append("job '\(job)'")
    }
    return gone.map { "There is no \($0) in the configuration any more: nobody watches over it." }
  }

  /// What one can still count on.
  private static func holds(_ database: String?, _ report: StatusReport) -> [String] {
    let databases = report.databases.filter { database.map($0.name.isExactly) ?? true }
    var lines: [String] = []
    for one in databases.prefix(5) {
      let newest =
        one.newest.map { "newest good backup \($0.id), \(Duration.seconds(one.ageSeconds ?? 0).spoken) old" }
        ?? "no good backup"
      let proved =
        one.proved.map { "newest proved \($0), \(Duration.seconds(one.provedAgeSeconds ?? 0).spoken) old" }
        ?? "none is proved"
      lines.append("\(one.name): \(newest); \(proved)")
      if let due = one.nextDue, let job = one.nextJob { lines.append("\(one.name): next is \(job), \(due.rfc3339)") }
    }
    if databases.count > 5 { lines.append("and \(databases.count - 5) more databases: pgbackupctl status") }
    return lines
  }

  // MARK: - What is over as soon as it is told

  /// A run has begun or ended: for dead-man pings, and for who wants to hear of successes.
  func announce(_ record: LedgerRecord) async {
    guard !plan.alerts.isEmpty, let job = record.job, let database = record.database else { return }
    guard job != Self.restoreJob else { return await announceRestore(record, of: database) }
    guard plan.jobs.contains(where: { $0.name == job }) else { return }
    let kind: Notice.Kind
    switch (record.kind, record.result) {
    case (.runStarted, _): kind = .runBegan
    case (.runFinished, "succeeded"): kind = .runSucceeded
    case (.runFinished, "failed"), (.runFinished, "interrupted"), (.runFinished, "aborted"): kind = .runFailed
    default: return
    }
    let words =
      switch kind {
      case .runBegan: "began"
      case .runSucceeded: "succeeded"
      default: "failed"
      }
    var notice = Notice(
      id: record.run ?? Self.newID(), kind: kind, topic: kind == .runFailed ? .failure : .success, time: record.time,
      host: HostName.current, code: record.fault?.code.rawValue,
      sentence: "\(job) of '\(database)' \(words)." + (record.fault.map { " \($0.message)" } ?? ""),
      cause: record.fault?.cause, database: database, job: job, next: record.fault?.hint,
      log: (record.detail ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" })
    if kind == .runFailed, let run = record.run {
      notice.log += ["The log's end:"] + logTail.lines(ofRun: run, count: 50)
    }
    if let backup = record.backup { notice.holds = ["\(backup)"] }
    for channel in plan.alerts where channel.isPinged(by: job, on: database) {
      await courier.post(notice, to: channel.name)
    }
    guard kind == .runSucceeded else { return }
    notice.kind = .event
    for channel in plan.alerts where channel.wants([.success], database: database) {
      await courier.post(notice, to: channel.name)
    }
  }

  /// A restore is no job: nothing repeats it, so that nothing would ever be over, and no dead-man ping waits for it.
  private func announceRestore(_ record: LedgerRecord, of database: String) async {
    guard record.kind == .runFinished, let result = record.result, ["succeeded", "failed"].contains(result) else {
      return
    }
    let target = record.detail?["target"].map { " into '\($0)'" } ?? ""
    let notice = Notice(
      id: record.run ?? Self.newID(), kind: .event, topic: result == "failed" ? .failure : .success, time: record.time,
      host: HostName.current, code: record.fault?.code.rawValue,
      sentence: "A restore of \(record.backup.map { "\($0)" } ?? "'\(database)'")\(target) \(result)."
        + (record.fault.map { " \($0.message)" } ?? ""),
      cause: record.fault?.cause, database: database, job: Self.restoreJob, next: record.fault?.hint)
    for channel in plan.alerts where channel.wants([notice.topic], database: database) {
      await courier.post(notice, to: channel.name)
    }
  }

  func tellReload(_ changes: [String]) async {
    let notice = Notice(
      id: Self.newID(), kind: .event, topic: .reload, time: now(), host: HostName.current,
      sentence: changes.isEmpty
        ? "The configuration was reloaded; nothing has changed." : "The configuration was reloaded.",
      more: changes)
    for channel in plan.alerts where channel.wants([.reload], database: nil) {
      await courier.post(notice, to: channel.name)
    }
  }

  /// Sends a message to one channel, or to all, now; tells which took it.
  func testAlerts(_ command: AlertTestCommand) async throws(Fault) -> [AlertTestReport] {
    guard !plan.alerts.isEmpty else {
      throw Fault(
        .usage, "No alert channel is configured.", hint: "add 'alerts:' to the configuration; the example shows how")
    }
    let names = command.channel.map { [$0] } ?? plan.alerts.map(\.name)
    let report = await status(.known)
    let notice = Notice(
      id: Self.newID(), kind: .test, topic: .failure, time: now(), host: HostName.current,
      sentence: "Somebody tries this channel: nothing is wrong.", holds: Self.holds(nil, report),
      next: "pgbackupctl status")
    var results: [AlertTestReport] = []
    for name in names {
      let kind = plan.alerts.first { $0.name == name }?.kind.name ?? ""
      let fault = await testOne(notice, name)
      if let fault, kind.isEmpty { throw fault }
      results.append(AlertTestReport(channel: name, kind: kind, fault: fault))
    }
    return results
  }

  private func testOne(_ notice: Notice, _ name: String) async -> Fault? {
    do throws(Fault) {
      try await courier.test(notice, on: name)
      return nil
    } catch {
      return error
    }
  }
}

extension Problem {
  fileprivate var fields: Logger.Metadata {
    var fields: Logger.Metadata = [:]
    if let database { fields["database"] = "\(database)" }
    if let store { fields["store"] = "\(store)" }
    if let channel { fields["channel"] = "\(channel)" }
    return fields
  }
}
