import BackupCatalog
package import ControlAPI
import Faults
import Foundation
import Quoting
import Units

/// The verification report as one HTML page that needs nothing else: no script, no outside file, light and dark, on paper too.
package struct ReportPage {
  private let report: VerificationReport

  package init(_ report: VerificationReport) { self.report = report }

  package var html: String {
    """
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
    <title>Backups of \(HTML.escaped(report.host)), \(report.now.rfc3339)</title>
    <style>\(HTML.style)</style>
    </head>
    <body>
    <header>
    <h1>Verification report</h1>
    <p>\(HTML.escaped(report.host)), \(report.now.rfc3339), pgbackupd \(HTML.escaped(report.version))</p>
    \(verdict)
    </header>
    <main>
    \(report.databases.map(section).joined(separator: "\n"))
    \(stores)
    \(table("Stored backups, read back", ["Backup", "Type", "Store", "Size", "Read", "Level", "Result", "Ledger"], readings))
    \(table("Proofs", ["Backup", "Type", "Rows", "Made", "Proved", "Restored in", "Assertions", "Rests on"], proofs))
    \(table("Not compared by the last drill or restore", ["Backup", "What"], notCompared))
    <section><h2>Ledger</h2><p>\(HTML.escaped(report.ledger.sentences))</p>
    <p>A number with # is a record of the ledger: <code>pgbackupctl log --lines 100000</code> shows it.</p></section>
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
      "<li><code>\($0.fault.code.rawValue)</code> \(HTML.escaped($0.fault.message)) (\(HTML.escaped($0.basis)))"
        + "\($0.fault.hint.map { "<br>Next: \(HTML.hint($0))" } ?? "")</li>"
    }
    let ledger = report.ledger.isWhole ? "" : "<li>\(HTML.escaped(report.ledger.sentences))</li>"
    let count = report.problems.count + (report.ledger.isWhole ? 0 : 1)
    return "<div class=\"verdict bad\"><p>\(HTML.plural(count, "problem"))</p><ul>\(items.joined())\(ledger)</ul></div>"
  }

  private func section(_ database: StatusReport.Database) -> String {
    let own = report.backups.filter { $0.summary.id.database.isExactly(database.name) }
    let facts: [(String, String, Bool?)] = [
      (
        "Newest backup",
        database.ageSeconds.map { "\(Duration.seconds($0).spoken) old" + number(database.newest?.id, \.madeRecord) }
          ?? "none",
        database.meetsRPO
      ),
      (
        "Newest proved",
        (database.proofFailure.map { "\($0)\(number(database.newest?.id, \.proofRecord)); " } ?? "")
          + (database.provedAgeSeconds.map {
            "\(Duration.seconds($0).spoken) old" + number(database.proved, \.proofRecord)
          } ?? (database.proofFailure == nil ? "not run" : "none before it")),
        database.holdsProved
      ),
      (
        "Recovery", database.slowestRecovery?.seconds.map { Duration.seconds($0).spoken } ?? "not run",
        database.meetsRTO
      ),
      ("Backups", "\(database.backups), \(ByteCount(database.storedBytes))", nil),
    ]
    let cards = facts.map { name, value, holds in
      "<div class=\"card \(holds.map { $0 ? "good" : "bad" } ?? "")\"><dt>\(name)</dt><dd>\(HTML.escaped(value))</dd>"
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
        title: "Rows", unit: { HTML.grouped(Int64($0)) },
        points: own.map { ($0.summary.started, Double($0.summary.rows)) }),
      Plot(
        title: "Duration", unit: { $0 < 1 ? "<1s" : Duration.seconds($0).spoken },
        points: own.map { ($0.summary.started, $0.summary.seconds) }),
    ]
    return """
      <section><h2>\(HTML.escaped(database.name))</h2>
      <dl class="cards">\(cards.joined())</dl>
      <div class="plots">\(plots.map(\.svg).joined())</div>
      \(recovery.isEmpty ? "" : rows(["Scenario", "Predicted", "Objective", "Rests on"], recovery, "Recovery of \(database.name)"))
      </section>
      """
  }

  /// The ledger's record that something about a backup rests on.
  private func number(_ id: BackupID?, _ record: KeyPath<VerificationReport.Backup, Int?>) -> String {
    report.backups.first { $0.summary.id == id }?[keyPath: record].map { " (#\($0))" } ?? ""
  }

  private var stores: String {
    let groups = Dictionary(grouping: report.placements) { [$0.store, $0.type] }
    let bars = groups.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map { key, all -> [HTML.Cell] in
      let totals = VerificationReport.Totals(all)
      let unread = totals.placements - totals.valid - totals.invalid
      return [
        .init(key[0]), .init(key[1]), .init("\(totals.placements)"), .init("\(ByteCount(totals.storedBytes))"),
        .init(html: Self.bar(totals.valid, unread, totals.invalid)), .init("\(totals.valid)"), .init("\(unread)"),
        .init("\(totals.invalid)", totals.invalid > 0 ? "open" : nil),
      ]
    }
    return
      "<section><h2>Stores</h2><p>\(HTML.escaped(report.totals.sentence))</p>"
      + HTML.table(
        ["Store", "Type", "Backups", "Stored", "Read back", "Sound", "Not read", "Damaged"], bars, label: "Stores")
      + "</section>"
  }

  /// A bar of three parts.
  private static func bar(_ sound: Int, _ unread: Int, _ damaged: Int) -> String {
    let total = Double(max(1, sound + unread + damaged))
    var at = 0.0
    let parts = [(sound, "sound"), (unread, "unread"), (damaged, "damaged")].map { count, name in
      let width = Double(count) / total * 200
      defer { at += width }
      return "<rect class=\"\(name)\" x=\"\(HTML.number(at))\" y=\"0\" width=\"\(HTML.number(width))\" height=\"12\"/>"
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
      let proof = backup.proof.flatMap { $0.failure == nil ? $0 : nil }
      return [
        "\(backup.summary.id)", backup.summary.type, "\(backup.summary.rows)",
        backup.madeRecord.map { "#\($0)" } ?? "-", backup.summary.proofText,
        proof.map { Duration.seconds($0.seconds).spoken } ?? "-", proof.map { "\($0.assertions)" } ?? "-",
        [backup.proofRecord.map { "#\($0)" }, backup.proof == nil ? nil : "signed proof beside the backup"]
          .compactMap { $0 }.joined(separator: ", "),
      ]
    }
  }

  private var notCompared: [[String]] {
    report.backups.compactMap { backup in backup.notCompared.map { ["\(backup.summary.id)", $0] } }
  }

  // MARK: - Tables

  private func table(_ title: String, _ head: [String], _ lines: [[String]]) -> String {
    "<section><h2>\(title)</h2>\(rows(head, lines, title))</section>"
  }

  private func rows(_ head: [String], _ lines: [[String]], _ label: String) -> String {
    HTML.table(
      head,
      lines.map { line in
        line.map {
          .init(
            $0,
            ["DAMAGED", "NOT WHOLE", "not run", "never"].contains($0) || $0.starts(withBytes: "FAILED") ? "open" : nil)
        }
      }, label: label)
  }
}
