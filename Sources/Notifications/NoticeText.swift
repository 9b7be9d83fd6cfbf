import Foundation
import Quoting
import Units

/// A notice in words: what all channels have in common.
package struct NoticeText: Sendable {
  package enum Mood: Sendable { case bad, doubtful, good, neutral }

  private let notice: Notice

  package init(_ notice: Notice) { self.notice = notice }

  /// `FAILED`, `RECOVERED`.
  package var word: String {
    switch (notice.kind, notice.topic) {
    case (.test, _): "TEST"
    case (.recovered, _): "RECOVERED"
    case (.runBegan, _): "BEGAN"
    case (.runSucceeded, _), (.event, .success): "SUCCEEDED"
    case (.runFailed, _), (.event, .failure): "FAILED"
    case (.event, _): "RELOADED"
    case (.opened, .warning): "WARNING"
    case (.reminder, .warning): "STILL IN DOUBT"
    case (.opened, .objective): "AT RISK"
    case (.reminder, .objective): "STILL AT RISK"
    case (.reminder, _): "STILL FAILING"
    case (.opened, _): "FAILED"
    }
  }

  package var mood: Mood {
    switch (notice.kind, notice.topic) {
    case (.test, _), (.event, .reload), (.runBegan, _): .neutral
    case (.event, .failure): .bad
    case (.recovered, _), (.runSucceeded, _), (.event, _): .good
    case (_, .warning), (_, .objective): .doubtful
    default: .bad
    }
  }

  /// One line, whatever names are in it.
  package var sentence: String { TerminalText.line(notice.sentence) }

  /// One line: `FAILED: …`, cut where it is long.
  package var title: String { "\(word): \(Self.cut(sentence, 180))" }

  /// For a mail's subject: the host first, by which people sort.
  package var subject: String { "[pgbackupd \(line: notice.host)] \(title)" }

  /// Everything else, as pairs; what was said elsewhere may have several lines.
  package var facts: [(name: String, value: String)] {
    var facts: [(String, String)] = []
    if let cause = notice.cause, !cause.isEmpty { facts.append(("Cause", Self.cut(Self.lines(cause.lines), 900))) }
    if !notice.more.isEmpty {
      let rest = notice.more.count > 5 ? ["and \(notice.more.count - 5) more"] : []
      facts.append(("Also", Self.lines(notice.more.prefix(5) + rest)))
    }
    if let since = notice.since {
      let length = Duration.seconds(max(0, notice.time.timeIntervalSince(since))).spoken
      facts.append(
        (
          notice.kind == .recovered ? "It lasted" : "Since",
          notice.kind == .opened
            ? since.rfc3339
            : notice.kind == .recovered ? "\(length), from \(since.rfc3339)" : "\(since.rfc3339), \(length)"
        ))
    }
    if !notice.holds.isEmpty { facts.append(("What still holds", Self.lines(notice.holds))) }
    if let next = notice.next { facts.append(("Next", TerminalText.line(next))) }
    if let code = notice.code { facts.append(("Code", TerminalText.line(code))) }
    facts.append(("Host", "\(line: notice.host), \(notice.time.rfc3339)"))
    return facts
  }

  /// Plain text, for mail and terminals.
  package var plain: String {
    var lines = [title, ""]
    for fact in facts {
      let parts = fact.value.lines
      if parts.count == 1 {
        lines.append("\(fact.name): \(fact.value)")
      } else {
        lines.append("\(fact.name):")
        lines += parts.map { "  \($0)" }
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// One HTML page without scripts, images or links to anywhere.
  package var html: String {
    let rows = facts.map { fact in
      let value = fact.value.lines.map { HTMLText.escaped($0) }.joined(separator: "<br>")
      let cell = fact.name == "Next" ? "<code style=\"font-size:14px\">\(value)</code>" : value
      return
        "<tr><th style=\"text-align:left;vertical-align:top;padding:4px 16px 4px 0;font-weight:600;white-space:nowrap\">\(fact.name)</th>"
        + "<td style=\"padding:4px 0\">\(cell)</td></tr>"
    }
    return """
      <!doctype html>
      <html lang="en"><head><meta charset="utf-8"><title>\(HTMLText.escaped(subject))</title></head>
      <body style="font:15px/1.5 system-ui,sans-serif;color:#1b2733;background:#ffffff;margin:0;padding:24px">
      <div style="border-left:4px solid \(color);padding:4px 16px;margin-bottom:16px">
      <strong style="color:\(color)">\(word)</strong><br>\(HTMLText.escaped(sentence))</div>
      <table style="border-collapse:collapse">\(rows.joined(separator: "\n"))</table>
      </body></html>

      """
  }

  /// `#b3261e`: dark enough to be read on white.
  package var color: String {
    switch mood {
    case .bad: "#b3261e"
    case .doubtful: "#8a5a00"
    case .good: "#1a7f4b"
    case .neutral: "#2364aa"
    }
  }

  private static func lines(_ lines: some Sequence<some StringProtocol>) -> String {
    lines.map { TerminalText.line($0) }.joined(separator: "\n")
  }

  /// Whole code points, by which receivers count, and a mark where something was left out.
  package static func cut(_ text: String, _ limit: Int) -> String {
    text.unicodeScalars.count <= limit ? text : String(text.unicodeScalars.prefix(limit - 1)) + "…"
  }
}
