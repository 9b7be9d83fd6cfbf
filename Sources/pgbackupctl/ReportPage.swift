import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Units

/// The verification report as one HTML page that needs nothing else: no script, no outside file, light and dark, on paper too.
struct ReportPage {
  private let report: VerificationReport

  init(_ report: VerificationReport) { self.report = report }

  var html: String {
    """
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
    <title>Backups of \(Self.escaped(report.host)), \(report.now.rfc3339)</title>
    <style>\(Self.style)</style>
    </head>
    <body>
    <header>
    <h1>Verification report</h1>
    <p>\(Self.escaped(report.host)), \(report.now.rfc3339), pgbackupd \(Self.escaped(report.version))</p>
    \(verdict)
    </header>
    <main>
    \(report.databases.map(section).joined(separator: "\n"))
    \(stores)
    \(table("Stored backups, read back", ["Backup", "Type", "Store", "Size", "Read", "Level", "Result", "Ledger"], readings))
    \(table("Proofs", ["Backup", "Type", "Rows", "Proved", "Restored in", "Assertions", "Rests on"], proofs))
    <section><h2>Ledger</h2><p>\(Self.escaped(AuditText.ledger(report.ledger)))</p>
    <p>A number with # is a record of the ledger: <code>pgbackupctl log --lines 100000 --json</code> shows it.</p></section>
    </main>
    </body>
    </html>

    """
  }

  // MARK: - Parts

  private var verdict: String {
    guard !report.problems.isEmpty || !report.ledger.isWhole else {
      return "<p class=\"verdict good\">No problems are known.</p>"
    }
    let items = report.problems.map {
      "<li><code>\($0.code.rawValue)</code> \(Self.escaped($0.message))\($0.hint.map { "<br>Next: <code>\(Self.escaped($0))</code>" } ?? "")</li>"
    }
    return "<div class=\"verdict bad\"><p>\(report.problems.count) problems</p><ul>\(items.joined())</ul></div>"
  }

  private func section(_ database: StatusReport.Database) -> String {
    let own = report.backups.filter { $0.summary.id.database == database.name }
    let facts: [(String, String, Bool?)] = [
      (
        "Newest backup", database.ageSeconds.map { "\(Duration.seconds($0).spoken) old" } ?? "none",
        database.meetsRPO
      ),
      (
        "Newest proved", database.provedAgeSeconds.map { "\(Duration.seconds($0).spoken) old" } ?? "not run",
        database.meetsProved ?? (database.proved == nil ? false : nil)
      ),
      (
        "Recovery", database.recovery.compactMap(\.seconds).max().map { Duration.seconds($0).spoken } ?? "not run",
        database.meetsRTO
      ),
      ("Backups", "\(database.backups), \(ByteCount(database.storedBytes))", nil),
    ]
    let cards = facts.map { name, value, holds in
      "<div class=\"card \(holds.map { $0 ? "good" : "bad" } ?? "")\"><dt>\(name)</dt><dd>\(Self.escaped(value))</dd>"
        + (holds.map { "<dd class=\"state\">\($0 ? "met" : "not met")</dd>" } ?? "") + "</div>"
    }
    let recovery = database.recovery.map { one in
      [
        one.scenario, one.seconds.map { Duration.seconds($0).spoken } ?? "not run",
        database.rtoSeconds.map { Duration.seconds($0).spoken } ?? "-",
        one.measure.map { "#\($0.record), \($0.backup)" } ?? "-",
      ]
    }
    let plots = [
      Plot(
        title: "Archive", unit: { "\(ByteCount(Int64($0)))" },
        points: own.map { ($0.summary.started, Double($0.summary.archiveBytes)) }),
      Plot(
        title: "Stored", unit: { "\(ByteCount(Int64($0)))" },
        points: own.map { ($0.summary.started, Double($0.summary.storedBytes)) }),
      Plot(
        title: "Rows", unit: { "\(Int64($0))" }, points: own.map { ($0.summary.started, Double($0.summary.rows)) }),
      Plot(
        title: "Duration", unit: { $0 < 1 ? "<1s" : Duration.seconds($0).spoken },
        points: own.map { ($0.summary.started, $0.summary.seconds) }),
    ]
    return """
      <section><h2>\(Self.escaped(database.name))</h2>
      <dl class="cards">\(cards.joined())</dl>
      <div class="plots">\(plots.map(\.svg).joined())</div>
      \(rows(["Scenario", "Predicted", "Objective", "Rests on"], recovery))
      </section>
      """
  }

  private var stores: String {
    let groups = Dictionary(grouping: report.placements) { $0.store }
    let bars = groups.keys.sorted().map { store in
      let all = groups[store] ?? []
      let damaged = all.count { !$0.isWhole || $0.isSound == false }
      let sound = all.count { $0.isWhole && $0.isSound == true }
      return
        "<tr><th scope=\"row\">\(Self.escaped(store))</th><td>\(all.count)</td><td>\(ByteCount(all.map(\.storedBytes).reduce(0, +)))</td>"
        + "<td>\(Self.bar(sound, all.count - sound - damaged, damaged))</td><td>\(sound) sound, \(all.count - sound - damaged) not read, \(damaged) damaged</td></tr>"
    }
    return """
      <section><h2>Stores</h2><table><thead><tr><th>Store</th><th>Backups</th><th>Stored</th><th>Read back</th><th></th></tr></thead>
      <tbody>\(bars.joined())</tbody></table></section>
      """
  }

  /// A bar of three parts.
  private static func bar(_ sound: Int, _ unread: Int, _ damaged: Int) -> String {
    let total = Double(max(1, sound + unread + damaged))
    var at = 0.0
    let parts = [(sound, "sound"), (unread, "unread"), (damaged, "damaged")].map { count, name in
      let width = Double(count) / total * 200
      defer { at += width }
      return "<rect class=\"\(name)\" x=\"\(number(at))\" y=\"0\" width=\"\(number(width))\" height=\"12\"/>"
    }
    return
      "<svg role=\"img\" aria-label=\"\(sound) sound, \(unread) not read, \(damaged) damaged\" viewBox=\"0 0 200 12\" width=\"200\" height=\"12\">\(parts.joined())</svg>"
  }

  private var readings: [[String]] {
    report.placements.map { one in
      [
        "\(one.backup)", one.type, one.store, "\(ByteCount(one.storedBytes))",
        one.verified.map { "\($0.rfc3339)" } ?? "never", one.level?.rawValue ?? "-",
        !one.isWhole ? "NOT WHOLE" : one.isSound.map { $0 ? "sound" : "DAMAGED" } ?? "not run",
        one.record.map { "#\($0)" } ?? "-",
      ]
    }
  }

  private var proofs: [[String]] {
    report.backups.map { backup in
      [
        "\(backup.summary.id)", backup.summary.type, "\(backup.summary.rows)",
        backup.summary.proved.map { "\($0.rfc3339)" } ?? "not run",
        backup.proof.map { Duration.seconds($0.seconds).spoken } ?? "-", backup.proof.map { "\($0.assertions)" } ?? "-",
        [backup.proofRecord.map { "#\($0)" }, backup.proof == nil ? nil : "signed proof beside the backup"]
          .compactMap { $0 }.joined(separator: ", "),
      ]
    }
  }

  // MARK: - Tables

  private func table(_ title: String, _ head: [String], _ lines: [[String]]) -> String {
    "<section><h2>\(title)</h2>\(rows(head, lines))</section>"
  }

  private func rows(_ head: [String], _ lines: [[String]]) -> String {
    if lines.isEmpty { return "<p>None.</p>" }
    let body = lines.map { line in
      "<tr>"
        + line.enumerated().map { position, cell in
          let state = ["DAMAGED", "NOT WHOLE", "not run", "never"].contains(cell) ? " class=\"open\"" : ""
          return position == 0
            ? "<th scope=\"row\">\(Self.escaped(cell))</th>" : "<td\(state)>\(Self.escaped(cell))</td>"
        }.joined() + "</tr>"
    }
    return
      "<div class=\"wide\"><table><thead><tr>\(head.map { "<th scope=\"col\">\($0)</th>" }.joined())</tr></thead><tbody>\(body.joined())</tbody></table></div>"
  }

  static func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }

  static func number(_ value: Double) -> String { String(format: "%.1f", value) }

  private static let style = """
    :root { color-scheme: light dark; --ink: #1b2733; --soft: #56677a; --line: #d5dce4; --ground: #ffffff; --card: #f4f6f9;
      --good: #1a7f4b; --bad: #b3261e; --mark: #2364aa; --unread: #b9c3ce }
    @media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9fb0c1; --line: #33404d; --ground: #10161c;
      --card: #1a232c; --good: #5fcf94; --bad: #ff8a80; --mark: #7db7f0; --unread: #4b5a68 } }
    * { box-sizing: border-box }
    body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto; max-width: 70rem;
      padding: 1.5rem }
    h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem } p { margin: .3rem 0 }
    header p { color: var(--soft) }
    .verdict { border-left: 4px solid; padding: .5rem .9rem; margin-top: 1rem; background: var(--card) }
    .verdict.good { border-color: var(--good) } .verdict.bad { border-color: var(--bad); color: var(--ink) }
    .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 0 }
    .card { background: var(--card); padding: .7rem .9rem; border-top: 3px solid var(--line); border-radius: 4px }
    .card.good { border-color: var(--good) } .card.bad { border-color: var(--bad) }
    dt { color: var(--soft); font-size: .85rem } dd { margin: 0; font-size: 1.15rem; font-weight: 600 }
    dd.state { font-size: .85rem; font-weight: 400 } .good .state { color: var(--good) } .bad .state { color: var(--bad) }
    .plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; margin: .8rem 0 }
    figure { margin: 0; background: var(--card); padding: .6rem; border-radius: 4px } figcaption { font-size: .85rem; color: var(--soft) }
    svg { display: block; max-width: 100% } .curve { fill: none; stroke: var(--mark); stroke-width: 1.6 } .dot { fill: var(--mark) }
    .axis { stroke: var(--line) } svg text { fill: var(--soft); font-size: 10px }
    .sound { fill: var(--good) } .unread { fill: var(--unread) } .damaged { fill: var(--bad) }
    .wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .88rem }
    th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap }
    thead th { color: var(--soft); font-size: .8rem } td.open { color: var(--bad) } code { font-size: .9em }
    @media print { body { max-width: none; padding: 0 } section { break-inside: avoid-page } }
    """
}

/// A curve over time.
private struct Plot {
  let title: String
  let unit: (Double) -> String
  let points: [(time: Date, value: Double)]

  private static let (width, height, left, bottom) = (260.0, 110.0, 4.0, 16.0)

  var svg: String {
    let known = points.sorted { $0.time < $1.time }
    guard let first = known.first, let last = known.last else {
      return "<figure><figcaption>\(title)</figcaption><p>None yet.</p></figure>"
    }
    let top = max(known.map(\.value).max() ?? 1, 1e-9)
    let span = max(last.time.timeIntervalSince(first.time), 1)
    let places = known.map { point in
      (
        Self.left + point.time.timeIntervalSince(first.time) / span * (Self.width - 2 * Self.left),
        Self.height - Self.bottom - point.value / top * (Self.height - Self.bottom - 14)
      )
    }
    let line = places.map { "\(ReportPage.number($0.0)),\(ReportPage.number($0.1))" }.joined(separator: " ")
    let dots = places.map {
      "<circle class=\"dot\" cx=\"\(ReportPage.number($0.0))\" cy=\"\(ReportPage.number($0.1))\" r=\"2\"/>"
    }
    let floor = ReportPage.number(Self.height - Self.bottom)
    return """
      <figure><figcaption>\(title): \(ReportPage.escaped(unit(last.value)))</figcaption>
      <svg role="img" viewBox="0 0 \(Int(Self.width)) \(Int(Self.height))" \
      aria-label="\(title) of \(known.count) backups, from \(ReportPage.escaped(unit(first.value))) to \(ReportPage.escaped(unit(last.value)))">
      <line class="axis" x1="0" x2="\(Int(Self.width))" y1="\(floor)" y2="\(floor)"/>
      <text x="\(Self.left)" y="10">\(ReportPage.escaped(unit(top)))</text>
      <text x="\(Self.left)" y="\(Int(Self.height) - 3)">\(first.time.rfc3339.prefix(10))</text>
      <text x="\(Int(Self.width - Self.left))" y="\(Int(Self.height) - 3)" text-anchor="end">\(last.time.rfc3339.prefix(10))</text>
      <polyline class="curve" points="\(line)"/>\(dots.joined())</svg></figure>
      """
  }
}
