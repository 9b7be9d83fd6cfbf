import ArgumentParser
import BackupCatalog
import ControlAPI
import Faults
import Foundation
import Pages
import Quoting
import Units

struct ReportCommand: ParsableCommand {
  enum Format: String, ExpressibleByArgument, CaseIterable {
    case text, markdown, html
  }

  static let configuration = CommandConfiguration(
    commandName: "report", abstract: "Prints what is known of every backup, and what each claim rests on.",
    discussion: """
      What was read back, proved and found wrong, per store and type, with ages and objectives; every claim names its record in the \
      ledger. As one self-contained page with plots: --format html --output report.html. Ends with 10 where there are problems.
      """)

  @Option(name: .long, help: "text, markdown or html.") var format: Format = .text
  @Option(name: .long, help: "Write it into a file.") var output: String?
  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let report = try connection.client.get(VerificationReport.self, "/v1/report")
    if let output {
      let text: String
      if connection.json {
        text = JSONText.shown(String(decoding: try ControlJSON.encode(report), as: UTF8.self)) + "\n"
      } else {
        text = document(report)
      }
      do {
        try text.write(toFile: output, atomically: true, encoding: .utf8)
      } catch {
        throw Fault(.usage, "'\(output)' can't be written.", cause: error.localizedDescription)
      }
      Terminal.say("The report is in \(line: output).")
    } else {
      try connection.show(report) { document($0) }
    }
    if !report.problems.isEmpty || !report.ledger.isWhole { throw Ending(code: .problemsFound) }
  }

  private func document(_ report: VerificationReport) -> String {
    switch format {
    case .text: TerminalText.lines(AuditText(report).text)
    case .markdown: AuditText(report).markdown
    case .html: ReportPage(report).html
    }
  }
}

struct LedgerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ledger", abstract: "The record of everything done.", subcommands: [LedgerVerifyCommand.self])
}

struct LedgerVerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Checks the ledger's chain, and what signed manifests bear witness of.",
    discussion: """
      Each line carries the digest of the one before it, and each manifest that was signed here the digest of the last line at that time: \
      a ledger that was rewritten contradicts the stores. Ends with 9 where anything does not fit.
      """)

  @OptionGroup var connection: ConnectionOptions

  func run() throws {
    let report = try connection.client.get(LedgerReport.self, "/v1/ledger/verify")
    try connection.show(report) { $0.sentences }
    if !report.isWhole { throw Ending(code: .verificationFailed) }
  }
}

/// A verification report as tables: for a terminal, or as Markdown. Pure.
struct AuditText {
  private struct Section {
    let title: String
    let head: [String]
    let rows: [[String]]
    var note: String?
  }

  private let report: VerificationReport

  init(_ report: VerificationReport) { self.report = report }

  var text: String {
    var parts = [TerminalText.line(title), report.totals.sentence]
    for section in sections {
      var table = TextTable(section.head.map { TextTable.Column(stringLiteral: $0) })
      for row in section.rows { table.add(row) }
      parts.append(
        section.title.uppercased() + "\n" + (section.rows.isEmpty ? "  none" : table.text)
          + (section.note.map { "\n\($0)" } ?? ""))
    }
    parts.append(report.ledger.sentences)
    if !report.problems.isEmpty {
      parts.append(
        "PROBLEMS\n"
          + report.problems.map { "  " + "\($0.fault)\nrests on: \(line: $0.basis)".lines.joined(separator: "\n  ") }
          .joined(separator: "\n"))
    }
    return parts.joined(separator: "\n\n")
  }

  var markdown: String {
    var parts = ["# " + MarkdownText.cell(title), Self.paragraph(report.totals.sentence)]
    for section in sections {
      let head = "| " + section.head.joined(separator: " | ") + " |\n|" + section.head.map { _ in "---|" }.joined()
      let rows = section.rows.map { "| " + $0.map { MarkdownText.cell($0) }.joined(separator: " | ") + " |" }
      parts.append(
        "## \(section.title)\n\n" + (section.rows.isEmpty ? "None." : ([head] + rows).joined(separator: "\n"))
          + (section.note.map { "\n\n\($0)" } ?? ""))
    }
    parts.append("## Ledger\n\n" + Self.paragraph(report.ledger.sentences))
    parts.append(
      "## Problems\n\n"
        + (report.problems.isEmpty
          ? "None."
          : report.problems.map {
            "- `\($0.fault.code.rawValue)` \(MarkdownText.cell($0.fault.message)) (\(MarkdownText.cell($0.basis)))"
          }
          .joined(separator: "\n")))
    return parts.joined(separator: "\n\n") + "\n"
  }

  /// Several lines of text, each without marks.
  private static func paragraph(_ text: String) -> String {
    text.lines.map { MarkdownText.cell($0) }.joined(separator: "\n")
  }

  private var title: String {
    "Verification report of \(report.host), \(report.now.rfc3339) (pgbackupd \(report.version))"
  }

  private var sections: [Section] { [objectives, recovery, summary, unverified, backups] }

  private var objectives: Section {
    Section(
      title: "Databases",
      head: ["DATABASE", "NEWEST BACKUP", "AGE", "RPO", "NEWEST PROVED", "AGE OF PROVED", "BACKUPS"],
      rows: report.databases.map { database in
        [
          database.name,
          database.newest.map { "\($0.id.time.rfc3339)\(number(made($0.id)))\($0.isFlagged ? " (in doubt)" : "")" }
            ?? "none",
          database.ageSeconds.map { Duration.seconds($0).spoken } ?? "-",
          Self.objective(database.rpoSeconds, database.meetsRPO),
          (database.proofFailure.map { "\($0)\(number(database.newest.flatMap { proof(of: $0.id) })); " } ?? "")
            + (database.proved.map { $0.time.rfc3339 + number(proof(of: $0)) }
              ?? (database.proofFailure == nil ? "not run" : "none before it")),
          (database.provedAgeSeconds.map { Duration.seconds($0).spoken } ?? "-")
            + (database.provedWithinSeconds == nil
              ? "" : " (\(Self.objective(database.provedWithinSeconds, database.holdsProved)))"),
          "\(database.backups)",
        ]
      })
  }

  private func made(_ id: BackupID) -> Int? { report.backups.first { $0.summary.id == id }?.madeRecord }
  private func proof(of id: BackupID) -> Int? { report.backups.first { $0.summary.id == id }?.proofRecord }
  private func number(_ record: Int?) -> String { record.map { " #\($0)" } ?? "" }

  private var recovery: Section {
    Section(
      title: "Recovery time", head: ["DATABASE", "SCENARIO", "PREDICTED", "OBJECTIVE", "MEASURED WITH", "LEDGER"],
      rows: report.databases.flatMap { database in
        database.recovery.map { one in
          [
            database.name, one.scenario, one.seconds.map { Duration.seconds($0).spoken } ?? "not run",
            Self.objective(
              database.rtoSeconds, one.seconds.flatMap { seconds in database.rtoSeconds.map { seconds <= $0 } }),
            one.measure.map { "\($0.backup), \(ByteCount($0.bytes))" } ?? "-",
            one.measure.map { "#\($0.record)" } ?? "-",
          ]
        }
      }, note: "Measured by drills and restores, phase by phase, and scaled to today's size.")
  }

  private static func objective(_ seconds: Double?, _ holds: Bool?) -> String {
    guard let seconds else { return "-" }
    return "\(Duration.seconds(seconds).spoken) \(holds.map { $0 ? "met" : "MISSED" } ?? "unknown")"
  }

  private var summary: Section {
    let groups = Dictionary(grouping: report.placements) { [$0.store, $0.type] }
    return Section(
      title: "Stored backups, read back",
      head: ["STORE", "TYPE", "BACKUPS", "STORED", "SOUND", "DAMAGED", "NEVER READ", "OLDEST READING"],
      rows: groups.keys.sorted { $0.lexicographicallyPrecedes($1) }.map { key in
        let all = groups[key] ?? []
        let totals = VerificationReport.Totals(all)
        return key + [
          "\(totals.placements)", "\(ByteCount(totals.storedBytes))", "\(totals.valid)", "\(totals.invalid)",
          "\(totals.placements - totals.valid - totals.invalid)",
          all.compactMap(\.verified).min().map { "\($0.rfc3339)" } ?? "-",
        ]
      })
  }

  private var unverified: Section {
    Section(
      title: "Readings", head: ["BACKUP", "TYPE", "STORE", "READ", "LEVEL", "RESULT", "LEDGER"],
      rows: report.placements.map { one in
        [
          "\(one.backup)", one.type, one.store, one.verified.map { "\($0.rfc3339)" } ?? "never",
          one.level?.rawValue ?? "-",
          !one.isWhole ? "NOT WHOLE" : one.isSound.map { $0 ? "sound" : "DAMAGED" } ?? "not run",
          one.record.map { "#\($0)" } ?? "-",
        ]
      })
  }

  private var backups: Section {
    Section(
      title: "Backups",
      head: ["BACKUP", "TYPE", "TABLES", "ROWS", "STORED", "STORES", "MADE", "PROVED", "PROOF", "KEPT BECAUSE"],
      rows: report.backups.map { backup in
        let summary = backup.summary
        return [
          "\(summary.id)", summary.type, "\(summary.tables)", "\(summary.rows)", "\(ByteCount(summary.storedBytes))",
          summary.stores.joined(separator: ","), backup.madeRecord.map { "#\($0)" } ?? "-",
          summary.proofText,
          backup.proofRecord.map { "#\($0)" } ?? (backup.proof == nil ? "-" : "signed proof"), summary.retention,
        ]
      })
  }
}
