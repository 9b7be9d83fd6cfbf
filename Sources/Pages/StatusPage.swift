import BackupCatalog
package import ControlAPI
import Faults
package import Foundation
package import Quoting
import Units

/// Everything at a glance: what is wrong, how old the newest backup and the newest proof of each database are, what a restore would take,
/// a year of results, and what is going on. One document that needs nothing from outside; its script only keeps it fresh.
package struct StatusPage {
  private let status: StatusReport
  private let jobs: [JobReport]
  private let backups: [BackupSummary]
  private let days: [ExactText: [Int: DayResult]]
  private let growth: [ExactText: [BackupFigures]]
  private let host: String

  /// - Parameters:
  ///   - days: by database, then by the day's number since 1970 (UTC).
  ///   - growth: what backups were like, by database, the oldest first; also of those that have expired.
  package init(
    _ status: StatusReport, jobs: [JobReport], backups: [BackupSummary], days: [ExactText: [Int: DayResult]],
    growth: [ExactText: [BackupFigures]], host: String
  ) {
    self.growth = growth
    self.status = status
    self.jobs = jobs
    self.backups = backups
    self.days = days
    self.host = host
  }

  package static let style = HTML.style + HTML.statusStyle

  package var html: String {
    """
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>\(status.problems.isEmpty ? "" : "(\(status.problems.count)) ")pgbackupd on \(HTML.escaped(host))</title>
    <link rel="icon" href="data:,">
    <noscript><meta http-equiv="refresh" content="60"></noscript>
    <style>\(Self.style)</style>
    </head>
    <body>
    <a class="skip" href="#problems">To what is wrong</a>
    <header>
    <h1>Backups of \(HTML.escaped(host))</h1>
    <p id="live" role="status"></p>
    </header>
    <main>
    <p id="at">\(status.now.rfc3339), pgbackupd \(HTML.escaped(status.version)), running for \
    \(Duration.seconds(max(0, status.now.timeIntervalSince(status.started))).spoken)</p>
    <section id="problems" aria-label="Problems">\(problems)</section>
    <section id="now" aria-label="Runs"><h2>Now</h2><div id="runs" aria-live="off">\(Self.runs(status.runs, status.copies, now: status.now))</div></section>
    \(status.databases.map(section).joined(separator: "\n"))
    <section id="stores"><h2>Stores</h2>\(stores)</section>
    <section id="jobs"><h2>Jobs</h2>\(schedule)</section>
    \(status.alerts.isEmpty ? "" : "<section id=\"alerts\"><h2>Alerts</h2>\(alerts)</section>")
    <section id="newest"><h2>Newest backups</h2>\(newest)</section>
    </main>
    <script>\(Self.script)</script>
    </body>
    </html>

    """
  }

  /// What changes while something runs: the one piece that is sent again and again.
  package static func runs(_ runs: [RunReport], _ copies: [StatusReport.Copy], now: Date) -> String {
    let lines = runs.map { run -> String in
      let name = "\(HTML.escaped(run.job)) of <strong>\(HTML.escaped(run.database))</strong>"
      guard let progress = run.progress else {
        return "<li>\(name): \(run.state == .queued ? "queued, \(HTML.escaped(run.reason))" : "begins")</li>"
      }
      var text = "<li>\(name): \(HTML.escaped(progress.phase)), \(ByteCount(progress.archiveBytes))"
      if let total = progress.expectedBytes, total > 0 {
        let percent = min(100, progress.archiveBytes * 100 / total)
        text +=
          " of about \(ByteCount(total)) <progress max=\"100\" value=\"\(percent)\" aria-label=\"\(percent) percent\"></progress>"
      }
      if let started = run.started {
        text += " since \(Duration.seconds(max(0, now.timeIntervalSince(started))).spoken)"
      }
      return text + "</li>"
    }
    let copying = copies.map { copy in
      "<li>copy of \(HTML.escaped("\(copy.backup)")) to <strong>\(HTML.escaped(copy.store))</strong>: "
        + "\(ByteCount(copy.doneBytes)) of \(ByteCount(copy.totalBytes))</li>"
    }
    let all = lines + copying
    return all.isEmpty ? "<p>Nothing is running.</p>" : "<ul class=\"runs\">\(all.joined())</ul>"
  }

  // MARK: - Parts

  private var problems: String {
    guard !status.problems.isEmpty else {
      return "<p class=\"verdict good\"><strong>All is well.</strong> No problems are known.</p>"
    }
    let items = status.problems.map { problem in
      "<li><code>\(problem.code.rawValue)</code> \(HTML.escaped(problem.message))"
        + (problem.hint.map { "<br>Next: \(HTML.hint($0))" } ?? "") + "</li>"
    }
    return
      "<div class=\"verdict bad\"><h2>\(HTML.plural(status.problems.count, "problem"))</h2><ul>\(items.joined(separator: "\n"))</ul></div>"
  }

  private func section(_ database: StatusReport.Database) -> String {
    let name = HTML.escaped(database.name)
    let own = growth[ExactText(database.name)] ?? []
    let newest = Gauge(
      title: "Newest backup", seconds: database.ageSeconds, objective: database.rpoSeconds, missing: "none",
      grace: database.graceUntil["rpo"])
    let proved = Gauge(
      title: "Newest proved", seconds: database.provedAgeSeconds, objective: database.provedWithinSeconds,
      missing: "never proved", grace: database.graceUntil["proved"],
      failure: database.proofFailure.map { "the newest backup's drill \($0)" })
    let slowest = database.slowestRecovery
    let recovery = Gauge(
      title: "A restore takes", seconds: slowest?.seconds, objective: database.rtoSeconds, missing: "not measured",
      note: slowest?.scenario, isNeeded: false, unmeasured: database.unmeasured)
    let plots = [
      Plot(
        title: "Stored", unit: { "\(ByteCount(Int64($0)))" }, points: own.map { ($0.time, Double($0.storedBytes)) }),
      Plot(title: "Rows", unit: { HTML.grouped(Int64($0)) }, points: own.map { ($0.time, Double($0.rows)) }),
      Plot(
        title: "Duration", unit: { $0 < 1 ? "<1s" : Duration.seconds($0).spoken },
        points: own.map { ($0.time, $0.seconds) }),
    ]
    // A list of ids is split at spaces.
    let id = database.name.utf8.map { byte in
      let character = Character(Unicode.Scalar(byte))
      return byte < 128 && (character.isLetter || character.isNumber) ? String(character) : "_\(byte)"
    }.joined()
    let isCrowded = status.databases.count > 8
    let isOpen = !isCrowded || status.problems.contains { $0.message.contains(bytes: "'\(database.name)'") }
    return """
      <section id="of-\(id)" aria-labelledby="db-\(id)"><h2 id="db-\(id)">\(name)</h2>
      <div class="gauges">\(newest.html)\(proved.html)\(recovery.html)
      <dl class="card facts"><dt>Next</dt><dd>\(next(database))</dd><dt>Last run</dt><dd>\(last(database))</dd>\
      <dt>Backups</dt><dd>\(database.backups), \(ByteCount(database.storedBytes))</dd></dl></div>
      <details id="more-\(id)"\(isOpen ? " open" : "")><summary id="year-\(id)">A year, and how it has grown</summary>
      \(Calendar(database: database.name, days: days[ExactText(database.name)] ?? [:], today: status.now).html)
      <div class="plots">\(plots.map(\.svg).joined())</div></details>
      </section>
      """
  }

  private func next(_ database: StatusReport.Database) -> String {
    let coming = jobs.filter { job in
      job.databases.contains { MemberName.isMeant(database.name, by: $0) }
    }.compactMap { job in job.next.map { (job.name, $0) } }.sorted { $0.1 < $1.1 }.prefix(4)
    guard !coming.isEmpty else { return "on demand only" }
    return coming.map { job, due in
      "<span title=\"\(due.rfc3339)\">\(HTML.escaped(job)) in \(Duration.seconds(max(0, due.timeIntervalSince(status.now))).spoken)</span>"
    }.joined(separator: "<br>")
  }

  private func last(_ database: StatusReport.Database) -> String {
    guard let run = database.lastRun else { return "none" }
    let word =
      run.state == .succeeded
      ? "<span class=\"ok\">succeeded</span>" : "<span class=\"open\">\(run.state.rawValue)</span>"
    let ago = run.finished.map { ", \(Duration.seconds(max(0, status.now.timeIntervalSince($0))).spoken) ago" } ?? ""
    return "\(HTML.escaped(run.job)) \(word)\(ago)"
  }

  private var stores: String {
    HTML.table(
      ["Store", "State", "Backups", "Stored", "Free", "Of both"],
      status.stores.map { store in
        let total = store.freeBytes.map { $0 + store.storedBytes }
        let share = total.flatMap { $0 > 0 ? Double(store.storedBytes) / Double($0) : nil }
        let bar =
          share.map {
            "<svg role=\"img\" aria-label=\"\(Int($0 * 100)) percent of what is stored and free is backups\" viewBox=\"0 0 120 10\" width=\"120\" height=\"10\">"
              + "<rect class=\"unread\" width=\"120\" height=\"10\"/><rect class=\"taken\" width=\"\(HTML.number($0 * 120))\" height=\"10\"/></svg>"
          } ?? "-"
        return [
          .init(store.name),
          store.fault.map { .init("\($0.code.rawValue) \($0.message)", "open wrap") } ?? .init("ok", "ok"),
          .init("\(store.backups)"), .init("\(ByteCount(store.storedBytes))"),
          .init(store.freeBytes.map { "\(ByteCount($0))" } ?? "-"), .init(html: bar),
        ]
      }, label: "Stores")
  }

  private var schedule: String {
    HTML.table(
      ["Job", "When", "Next", "Keep", "Last results"],
      jobs.map { job in
        let results = job.lastRuns.map { run in
          "\(HTML.escaped(run.database)) "
            + (run.state == .succeeded
              ? "<span class=\"ok\">succeeded</span>" : "<span class=\"open\">\(run.state.rawValue)</span>")
        }
        return [
          .init(job.name), .init(job.sentence.map { "\($0) (\(job.zone ?? ""))" } ?? "on demand"),
          .init(
            job.next.map { "in \(Duration.seconds(max(0, $0.timeIntervalSince(status.now))).spoken)" } ?? "-"),
          .init(job.keep), .init(html: results.isEmpty ? "-" : results.prefix(8).joined(separator: ", ")),
        ]
      }, label: "Jobs")
  }

  private var alerts: String {
    HTML.table(
      ["Channel", "Kind", "Told of", "Sent", "Waiting", "State"],
      status.alerts.map { channel in
        [
          .init(channel.name), .init(channel.kind),
          .init(channel.kind == "ping" ? "runs" : channel.topics.joined(separator: ", ")),
          .init("\(channel.delivered)"), .init("\(channel.waiting)"),
          channel.fault == nil ? .init("ok", "ok") : .init(channel.condition, "open"),
        ]
      }, label: "Alert channels")
  }

  private var newest: String {
    HTML.table(
      ["Backup", "Type", "Rows", "Stored", "Took", "Stores", "Proved"],
      backups.sorted { $0.started > $1.started }.prefix(15).map { backup in
        [
          .init("\(backup.id)"), .init(backup.type + (backup.isPinned ? ", pinned" : "")),
          .init(HTML.grouped(backup.rows)),
          .init("\(ByteCount(backup.storedBytes))"),
          .init(backup.seconds < 1 ? "<1s" : Duration.seconds(backup.seconds).spoken),
          .init(backup.stores.joined(separator: ", "), backup.isGood ? nil : "open"),
          backup.proved.map { .init("\($0.rfc3339)", "ok") }
            ?? .init(
              backup.isFlagged ? "in doubt" : backup.proofFailed == nil ? "not run" : "failed",
              backup.isFlagged || backup.proofFailed != nil ? "open" : "soft"),
        ]
      }, label: "Newest backups")
  }

  /// Keeps the page fresh: runs as they go on, and all of it when something has changed. What is open stays open.
  package static let script = """

    (() => {
      const live = document.getElementById("live");
      let busy = false;
      async function refresh() {
        if (busy) return;
        busy = true;
        try {
          const answer = await fetch(".", { cache: "no-store" });
          if (!answer.ok) throw new Error(answer.status);
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          const fresh = page.querySelector("main"), old = document.querySelector("main");
          for (const one of fresh.querySelectorAll("details[id]")) {
            const known = document.getElementById(one.id);
            if (known) one.open = known.open;
          }
          const focus = document.activeElement && document.activeElement.id;
          const selection = document.getSelection();
          const scrolled = new Map(Array.from(old.querySelectorAll(".wide[id]"), one => [one.id, one.scrollLeft]));
          const ids = parent => Array.from(parent.children, one => one.id).join();
          if (ids(old) !== ids(fresh)) {
            old.replaceWith(fresh);
          } else {
            // Part by part: whoever reads one, or copies a command out of it, keeps his place.
            for (const part of Array.from(fresh.children)) {
              const known = document.getElementById(part.id);
              if (known.innerHTML === part.innerHTML) continue;
              if (!selection.isCollapsed && selection.containsNode(known, true)) continue;
              known.replaceWith(part);
            }
          }
          for (const [id, left] of scrolled) {
            const one = document.getElementById(id);
            if (one) one.scrollLeft = left;
          }
          document.title = page.title;
          if (focus && document.activeElement.id !== focus && document.getElementById(focus)) {
            document.getElementById(focus).focus({ preventScroll: true });
          }
          live.textContent = "";
        } catch {
          live.textContent = "No connection to pgbackupd: what is shown may be old.";
        }
        busy = false;
      }
      const events = new EventSource("events");
      events.addEventListener("runs", event => {
        document.body.dataset.live = "yes";
        const runs = document.getElementById("runs");
        if (runs) runs.innerHTML = event.data;
      });
      events.addEventListener("changed", refresh);
      events.addEventListener("error", () => {
        live.textContent = "No connection to pgbackupd: what is shown may be old.";
      });
      events.addEventListener("open", () => { if (live.textContent) refresh(); });
      setInterval(refresh, 60000);
    })();

    """
}

/// The runs of one day.
package struct DayResult: Sendable, Equatable {
  package var succeeded: Int
  package var failed: Int

  package init(succeeded: Int, failed: Int) {
    self.succeeded = succeeded
    self.failed = failed
  }
}

/// What one backup was like.
package struct BackupFigures: Sendable, Equatable {
  package var time: Date
  package var storedBytes: Int64
  package var rows: Int64
  package var seconds: Double

  package init(time: Date, storedBytes: Int64, rows: Int64, seconds: Double) {
    self.time = time
    self.storedBytes = storedBytes
    self.rows = rows
    self.seconds = seconds
  }
}
