import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Glibc
import Logging
import Notifications
import Quoting
import SystemdSupport
import Units

/// Takes messages to their channels, each channel's in order and by a task of its own: one that hangs delays no other, and no run ever
/// waits here. What could not be delivered lies on disk and is tried again, later each time, for a day.
actor AlertCourier {
  private struct Line {
    var channel: NoticeChannel
    var work: Task<Void, Never>?
    var wake: AsyncStream<Void>.Continuation
    var report: AlertChannelReport
    /// How often each message was refused.
    var refusals: [String: Int] = [:]
    /// Messages that were refused where others got through: they are tried when nothing else waits.
    var aside: Set<String> = []
    /// Messages that the disk did not take, which may be just what they are about.
    var unwritten: [Notice] = []
  }

  private let folder: String
  private let now: @Sendable () -> Date
  private let logger: Logger
  private var lines: [String: Line] = [:]
  private var sequence = 0
  private var isStopped = false

  /// Messages that wait for one channel, at most: behind that the oldest goes.
  static let queueLimit = 100
  /// What is older tells nobody anything new.
  static let patience = Duration.seconds(86_400)
  private static let longestPause = 900.0
  /// Of a message that others wait behind, before one of them is tried.
  private static let tries = 2

  /// - Parameter folder: in the state directory.
  init(folder: String, now: @escaping @Sendable () -> Date, logger: Logger) {
    self.folder = folder
    self.now = now
    self.logger = logger
  }

  /// Puts these channels into force; what waits for one of the same name goes to the new one.
  func use(_ settings: [ChannelSettings]) {
    let before = lines.mapValues(\.report)
    for name in lines.keys where !settings.contains(where: { $0.name == name && $0 == lines[name]?.channel.settings }) {
      lines[name]?.work?.cancel()
      lines[name] = nil
    }
    guard !settings.isEmpty else { return }
    mkdir(folder, 0o700)
    for one in settings where lines[one.name] == nil {
      mkdir(path(one.name), 0o700)
      let (stream, wake) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
      var report = AlertChannelReport(name: one.name, kind: one.kind.name, topics: one.topics.map(\.rawValue).sorted())
      report.waiting = waiting(one.name).count
      // What ails it is over once it has taken something, and not because it is configured anew.
      if let old = before[one.name] {
        (report.fault, report.failures, report.lastDelivered) = (old.fault, old.failures, old.lastDelivered)
        (report.delivered, report.dropped) = (old.delivered, old.dropped)
      }
      lines[one.name] = Line(channel: NoticeChannel(one), wake: wake, report: report)
      lines[one.name]?.work = Task { await self.serve(one.name, stream) }
      wake.yield()
    }
  }

  /// What waits is tried now, and not when the pause ends.
  private func serveNow(_ name: String) {
    guard let line = lines[name], line.report.nextTry != nil else { return }
    line.work?.cancel()
    let (stream, wake) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    lines[name]?.wake = wake
    lines[name]?.report.nextTry = nil
    lines[name]?.work = Task { await self.serve(name, stream) }
    wake.yield()
  }

  var reports: [AlertChannelReport] { lines.values.map(\.report).sorted { $0.name < $1.name } }

  /// Hands a message over. It is on disk when this returns.
  func post(_ notice: Notice, to name: String) {
    guard lines[name] != nil else { return }
    var all = waiting(name)
    while all.count >= Self.queueLimit {
      drop(all.removeFirst(), of: name, "too many messages wait for this channel")
    }
    sequence = max(sequence, all.last.flatMap { Int($0.dropLast(5)) } ?? 0) + 1
    let file = "\(path(name))/" + String(repeating: "0", count: max(0, 12 - "\(sequence)".count)) + "\(sequence).json"
    do {
      try ControlJSON.encode(notice).write(to: URL(filePath: file), options: .atomic)
    } catch {
      logger.error(
        .alertUndelivered,
        Fault(
          .alertUndelivered, "A message for '\(name)' waits in memory: the state directory takes no file.",
          cause: error.localizedDescription, hint: "df \(shell: folder)"), metadata: ["channel": "\(name)"])
      lines[name]?.unwritten.append(notice)
      if let count = lines[name]?.unwritten.count, count > Self.queueLimit {
        lines[name]?.unwritten.removeFirst()
        lines[name]?.report.dropped += 1
      }
    }
    let waits = count(name)
    lines[name]?.report.waiting = waits
    // Whatever is tried again behind all others must not keep this one waiting.
    if let line = lines[name], !line.aside.isEmpty, all.allSatisfy(line.aside.contains) { serveNow(name) }
    lines[name]?.wake.yield()
  }

  /// Delivers one message now, past the queue.
  func test(_ notice: Notice, on name: String) async throws(Fault) {
    guard let channel = lines[name]?.channel else {
      throw Fault(
        .jobMissing, "There is no alert channel '\(name)'; there are \(lines.keys.sorted().joined(separator: ", ")).",
        hint: "see 'alerts:' in the configuration")
    }
    let remark: Fault?
    do throws(Fault) {
      remark = try await channel.deliver(notice, at: now())
    } catch {
      failed(name, error, next: lines[name]?.report.nextTry)
      throw error
    }
    serveNow(name)
    succeeded(name, remark)
    if let remark { throw remark }
  }

  func stop() async {
    isStopped = true
    for line in lines.values { line.work?.cancel() }
    for line in lines.values { await line.work?.value }
  }

  // MARK: - One channel

  private func serve(_ name: String, _ wakes: AsyncStream<Void>) async {
    for await _ in wakes {
      var pause = 5.0
      while !Task.isCancelled, let channel = lines[name]?.channel, let aside = lines[name]?.aside {
        if let notice = lines[name]?.unwritten.first {
          if await take(notice, channel) {
            lines[name]?.unwritten.removeFirst()
            let waits = count(name)
            lines[name]?.report.waiting = waits
            pause = 5
            continue
          }
          await rest(name, pause)
          pause = min(pause * 2, Self.longestPause)
          continue
        }
        let all = waiting(name)
        guard let file = all.first(where: { !aside.contains($0) }) ?? all.first else { break }
        if await deliver(file, channel) {
          lines[name]?.refusals[file] = nil
          lines[name]?.aside.remove(file)
          pause = 5
          continue
        }
        let count = (lines[name]?.refusals[file] ?? 0) + 1
        lines[name]?.refusals[file] = count
        // Where the next one gets through, it is the message that is not taken: it must not keep those behind it for a day.
        if count >= Self.tries, !aside.contains(file),
          let other = all.first(where: { $0 != file && !aside.contains($0) }), await deliver(other, channel)
        {
          lines[name]?.aside.insert(file)
          logger.warning(
            .alertUndelivered,
            Fault(
              .alertUndelivered,
              "A message for '\(name)' was refused \(count) times, and others are taken: it is tried again behind them."
            ),
            metadata: ["channel": "\(name)"])
          pause = 5
          continue
        }
        await rest(name, pause)
        pause = min(pause * 2, Self.longestPause)
      }
      if Task.isCancelled { return }
    }
  }

  private func rest(_ name: String, _ pause: Double) async {
    lines[name]?.report.nextTry = now().addingTimeInterval(pause)
    try? await Task.sleep(for: .seconds(pause))
    if !Task.isCancelled { lines[name]?.report.nextTry = nil }
  }

  /// Whether the message, which is on no disk, needs no further try.
  private func take(_ notice: Notice, _ channel: NoticeChannel) async -> Bool {
    do throws(Fault) {
      succeeded(channel.settings.name, try await channel.deliver(notice, at: now()))
      return true
    } catch {
      if !Task.isCancelled { failed(channel.settings.name, error, next: nil) }
      return false
    }
  }

  /// Messages that wait for a channel, on disk or in memory.
  private func count(_ name: String) -> Int { waiting(name).count + (lines[name]?.unwritten.count ?? 0) }

  /// Whether the message needs no further try.
  private func deliver(_ file: String, _ channel: NoticeChannel) async -> Bool {
    let name = channel.settings.name
    guard let data = FileManager.default.contents(atPath: "\(path(name))/\(file)"),
      let notice = try? ControlJSON.decode(Notice.self, from: data)
    else {
      drop(file, of: name, "its file can't be read")
      return true
    }
    // A run's beginning is no news after minutes, and nothing is after a day: the channel was away, or not configured.
    let limit: Duration = notice.kind == .runBegan ? .seconds(600) : Self.patience
    guard now().timeIntervalSince(notice.time) <= limit.inSeconds else {
      drop(file, of: name, "it could not be delivered for \(limit.configurationText)")
      return true
    }
    do throws(Fault) {
      let remark = try await channel.deliver(notice, at: now())
      unlink("\(path(name))/\(file)")
      succeeded(name, remark)
      return true
    } catch {
      if Task.isCancelled { return false }
      failed(name, error, next: nil)
      return false
    }
  }

  /// - Parameter remark: what is wrong all the same.
  private func succeeded(_ name: String, _ remark: Fault?) {
    guard var report = lines[name]?.report else { return }
    if let remark {
      if report.fault != remark { logger.warning(.alertUndelivered, remark, metadata: ["channel": "\(name)"]) }
    } else if report.fault != nil {
      logger.notice(.alertDelivered, "an alert channel takes messages again", metadata: ["channel": "\(name)"])
    }
    (report.lastDelivered, report.fault, report.failures, report.nextTry) = (now(), remark, 0, nil)
    (report.delivered, report.waiting) = (report.delivered + 1, count(name))
    lines[name]?.report = report
  }

  private func failed(_ name: String, _ fault: Fault, next: Date?) {
    guard var report = lines[name]?.report else { return }
    // Told once, and not at each try.
    if report.fault == nil { logger.warning(.alertUndelivered, fault, metadata: ["channel": "\(name)"]) }
    (report.fault, report.nextTry, report.failures) = (fault, next, report.failures + 1)
    lines[name]?.report = report
  }

  private func drop(_ file: String, of name: String, _ reason: String) {
    unlink("\(path(name))/\(file)")
    lines[name]?.report.dropped += 1
    logger.error(
      .alertUndelivered, Fault(.alertUndelivered, "A message for '\(name)' was given up.", cause: reason),
      metadata: ["channel": "\(name)"])
  }

  // MARK: - The queue on disk

  private func path(_ name: String) -> String { "\(folder)/\(name)" }

  /// In the order that they were posted.
  private func waiting(_ name: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: path(name))) ?? [])
      .filter { $0.ends(withBytes: ".json") && $0.count == 17 }.sorted()
  }
}
