import ControlAPI
import Foundation
import Quoting
import Units

/// Shows a run while it goes on: a bar with rate and remaining time on a terminal, a plain line for each tenth elsewhere.
struct ProgressLine {
  private var lastTenth = -1
  private var lastPhase = ""
  private var start: (time: Date, bytes: Int64)?

  mutating func show(_ run: RunReport, at now: Date) {
    guard let progress = run.progress else {
      if run.state == .queued { line("waits for its turn", run) }
      return
    }
    if start == nil, progress.archiveBytes > 0 { start = (now, progress.archiveBytes) }
    Terminal.showsProgress ? bar(run, progress, now) : plain(run, progress)
  }

  func finish() { if Terminal.showsProgress { Terminal.overwrite("") } }

  private func bar(_ run: RunReport, _ progress: RunReport.Progress, _ now: Date) {
    var parts = ["\(run.job) of \(run.database)", progress.phase]
    let fraction = Self.fraction(progress)
    if let fraction {
      let filled = Int(fraction * 24)
      parts.append("[" + String(repeating: "#", count: filled) + String(repeating: "·", count: 24 - filled) + "]")
      parts.append("\(Int(fraction * 100)) %")
    }
    if progress.archiveBytes > 0 { parts.append("\(ByteCount(progress.archiveBytes))") }
    if let start, now.timeIntervalSince(start.time) > 0.5 {
      let rate = Double(progress.archiveBytes - start.bytes) / now.timeIntervalSince(start.time)
      parts.append("\(ByteCount(Int64(rate)))/s")
      if let expected = progress.expectedBytes, rate > 0, expected > progress.archiveBytes {
        parts.append("about \(Duration.seconds(Double(expected - progress.archiveBytes) / rate).spoken) left")
      }
    }
    if let table = progress.table { parts.append(table) }
    Terminal.overwrite(String(parts.joined(separator: "  ").prefix(Terminal.width - 1)))
  }

  private mutating func plain(_ run: RunReport, _ progress: RunReport.Progress) {
    let tenth = Self.fraction(progress).map { Int($0 * 10) } ?? 0
    guard progress.phase != lastPhase || tenth > lastTenth else { return }
    lastPhase = progress.phase
    lastTenth = tenth
    let share = progress.archiveBytes > 0 ? ": \(ByteCount(progress.archiveBytes)), about \(tenth * 10) %" : ""
    line("\(progress.phase)\(share)", run)
  }

  private func line(_ text: String, _ run: RunReport) {
    Terminal.showsProgress
      ? Terminal.overwrite("\(run.job) of \(run.database)  \(text)")
      : Terminal.complain(TerminalText.line("\(run.job) of \(run.database): \(text)"))
  }

  /// The expectation may be wrong, so the bar is full only when the dump is.
  private static func fraction(_ progress: RunReport.Progress) -> Double? {
    guard let expected = progress.expectedBytes, expected > 0 else { return nil }
    return ["dump", "load", "proof"].contains(progress.phase)
      ? min(0.99, Double(progress.archiveBytes) / Double(expected)) : nil
  }
}
