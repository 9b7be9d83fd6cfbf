import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Glibc
import Logging
import Notifications
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
  /// Of a message that others wait behind, before they are tried.
  private static let tries = 2

  /// - Parameter folder: in the state directory.
  init(folder: String, now: @escaping @Sendable () -> Date, logger: Logger) {
    self.folder = folder
    self.now = now
    self.logger = logger
  }

  /// Puts these channels into force; what waits for one of the same name goes to the new one.
  func use(_ settings: [ChannelSettings]) {
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
      lines[one.name] = Line(channel: NoticeChannel(one), wake: wake, report: report)
      lines[one.name]?.work = Task { await self.serve(one.name, stream) }
      wake.yield()
    }
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
          .alertUndelivered, "A message for '\(name)' could not be queued.", cause: "\(error)",
          hint: "look at the state directory"))
    }
    lines[name]?.report.waiting = waiting(name).count
    lines[name]?.wake.yield()
  }

  /// Delivers one message now, past the queue.
  func test(_ notice: Notice, on name: String) async throws(Fault) {
    guard let channel = lines[name]?.channel else {
      throw Fault(
        .jobMissing, "There is no alert channel '\(name)'; there are \(lines.keys.sorted().joined(separator: ", ")).",
        hint: "see 'alerts:' in the configuration")
    }
    do throws(Fault) {
      try await channel.deliver(notice)
      succeeded(name)
    } catch {
      failed(name, error, next: nil)
      throw error
    }
  }

  func stop() async {
    isStopped = true
    for line in lines.values { line.work?.cancel() }
    for line in lines.values { await line.work?.value }
  }

  // MARK: - One channel

  private func serve(_ name: String, _ wakes: AsyncStream<Void>) async {
    var refusals: [String: Int] = [:]
    for await _ in wakes {
      var pause = 5.0
      while !Task.isCancelled, let file = waiting(name).first {
        guard let channel = lines[name]?.channel else { return }
        if await deliver(file, channel) {
          refusals[file] = nil
          pause = 5
          continue
        }
        refusals[file, default: 0] += 1
        // Where the next one gets through, it is the message that is not taken: it must not keep those behind it for a day.
        if let count = refusals[file], count >= Self.tries, let other = waiting(name).dropFirst().first,
          await deliver(other, channel)
        {
          refusals[file] = nil
          drop(file, of: name, "it was refused \(count) times, and others are taken")
          pause = 5
          continue
        }
        lines[name]?.report.nextTry = now().addingTimeInterval(pause)
        try? await Task.sleep(for: .seconds(pause))
        pause = min(pause * 2, Self.longestPause)
      }
      if Task.isCancelled { return }
    }
  }

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
      try await channel.deliver(notice)
      unlink("\(path(name))/\(file)")
      succeeded(name)
      return true
    } catch {
      if Task.isCancelled { return false }
      failed(name, error, next: nil)
      return false
    }
  }

  private func succeeded(_ name: String) {
    guard var report = lines[name]?.report else { return }
    if report.fault != nil {
      logger.notice(.alertDelivered, "an alert channel takes messages again", metadata: ["channel": "\(name)"])
    }
    (report.lastDelivered, report.fault, report.failures, report.nextTry) = (now(), nil, 0, nil)
    (report.delivered, report.waiting) = (report.delivered + 1, waiting(name).count)
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
      .filter { $0.hasSuffix(".json") && $0.count == 17 }.sorted()
  }
}
