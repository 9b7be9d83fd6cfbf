import Foundation
import Glibc
import TestSupport
import Testing

/// `report`, `ledger verify` and the objectives, as an auditor meets them.
@Suite(.waits) struct AuditCommandTests {
  private func start(_ folder: TemporaryFolder, _ database: String, more: String) throws -> DaemonProcess {
    let cluster = try PrivateCluster.shared()
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))" } }
      jobs: { manual: , daily: { keep: 7d } }
      drill: { folder: \(folder.file("drills")), jobs: 2 }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      \(more)
      """, in: folder)
    try daemon.waitFor("READY=1")
    return daemon
  }

  /// Nothing that was not run is shown as passed; then each claim has its record.
  @Test func theReport() throws {
    let folder = TemporaryFolder()
    let database = try PrivateCluster.shared().makeDatabase("shop", sample: 1)
    let daemon = try start(folder, database, more: "objectives: { rpo: 24h, proved: 8d, rto: 1h }")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let before = try daemon.ctl("report")
    #expect(before.status == 10, "the newest backup is not proved")
    #expect(before.output.contains("not run") && before.output.contains("never") && !before.output.contains(" sound"))
    #expect(before.output.contains("The newest proved backup of 'shop' does not exist"))
    #expect(before.output.contains("rests on: seen when this was made"), "\(before.output)")
    #expect(before.output.contains("1 stored backups in all: 0 read back"))
    #expect(try daemon.ctl("status").output.contains("unknown"))

    #expect(try daemon.ctl("drill").status == 0)
    #expect(try daemon.ctl("verify", "--all").status == 0)
    let after = try daemon.ctl("report")
    #expect(after.status == 0, "\(after.output)\(after.errors)")
    #expect(after.output.contains("sound") && after.output.contains("0 invalid, 0 never read"), "\(after.output)")
    #expect(after.output.contains("1h met") && after.output.contains("whole from local"))
    #expect(
      after.output.contains("The chain is whole.") && after.output.contains("2 signed records in the stores bear"))
    // Each claim names its record, and that record says so.
    let report = try #require(try daemon.ctlJSON("report") as? [String: Any])
    let lines = try daemon.ctl("log", "--lines", "1000").output.split(separator: "\n")
    func record(_ number: Any?) throws -> Substring {
      let number = try #require(number as? Int)
      return try #require(lines.first { $0.hasPrefix("#\(number)  ") }, "#\(number)")
    }
    let placement = try #require((report["placements"] as? [[String: Any]])?.first)
    let reading = try record(placement["record"])
    #expect(reading.contains("backup.verified") && reading.contains("sound"))
    let backup = try #require((report["backups"] as? [[String: Any]])?.first)
    #expect(try record(backup["madeRecord"]).contains("run.finished  manual of shop  succeeded  shop/"))
    #expect(try record(backup["proofRecord"]).contains("run.finished  drill of shop  succeeded  shop/"))
    let recovery = try #require((report["databases"] as? [[String: Any]])?[0]["recovery"] as? [[String: Any]])
    #expect(try record((recovery[0]["measure"] as? [String: Any])?["record"]).contains("drill of shop  succeeded"))
    for number in [backup["madeRecord"], backup["proofRecord"]] {
      #expect(after.output.contains(" #\(try #require(number as? Int))"), "\(after.output)")
    }

    let markdown = try daemon.ctl("report", "--format", "markdown").output
    #expect(markdown.hasPrefix("# Verification report") && markdown.contains("| shop |"))
    #expect(markdown.contains("1 stored backups in all: 1 read back, 1 valid (1 of them row by row)"), "\(markdown)")
    let page = folder.file("report.html")
    #expect(try daemon.ctl("report", "--format", "html", "--output", page).status == 0)
    let html = try String(contentsOfFile: page, encoding: .utf8)
    // Whole, well-formed, and nothing from outside.
    let parsed = try Shell.run("python3", ["-c", Self.wellFormed, page])
    #expect(parsed.status == 0, "\(parsed.output)\(parsed.errors)")
    for outside in ["http:", "https:", "<script", "src=", "url(", "@import"] { #expect(!html.contains(outside)) }
    #expect(html.contains("<svg") && html.contains("aria-label=\"Rows of 1 backups"))
    #expect(try daemon.ctl("report", "--output", "/nowhere/report").status == 2)
  }

  /// Every element that is opened is closed, in order; every table has a row of heads.
  private static let wellFormed = """
    import sys, html.parser
    void = {"meta", "br", "rect", "line", "circle", "polyline"}
    class P(html.parser.HTMLParser):
        def __init__(self):
            super().__init__(); self.open = []; self.bad = []
        def handle_starttag(self, tag, attrs):
            if tag not in void: self.open.append(tag)
            if tag == "svg" and not any(k == "aria-label" for k, _ in attrs): self.bad.append("svg without a label")
        def handle_startendtag(self, tag, attrs):
            if tag not in void: self.bad.append("closes itself: " + tag)
        def handle_endtag(self, tag):
            if not self.open or self.open.pop() != tag: self.bad.append("stray " + tag)
    p = P(); p.feed(open(sys.argv[1]).read())
    print(p.bad, p.open)
    sys.exit(1 if p.bad or p.open else 0)
    """

  /// A problem rests on a record too: that of the run that failed.
  @Test func problemsNameTheirRecord() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop", sample: 1)
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))", assert: ["select false"] } }
      jobs: { daily: { keep: 7d } }
      drill: { folder: \(folder.file("drills")), jobs: 2 }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill").status != 0)
    // It ends with 10 where anything is wrong.
    let answer = Data(try daemon.ctl("report", "--json").output.utf8)
    let report = try #require(try JSONSerialization.jsonObject(with: answer) as? [String: Any])
    let problems = try #require(report["problems"] as? [[String: Any]])
    let records = problems.compactMap { $0["record"] as? Int }
    #expect(!problems.isEmpty && records.count == problems.count, "\(problems)")
    let lines = try daemon.ctl("log", "--lines", "1000").output.split(separator: "\n")
    for record in records {
      #expect(
        lines.contains { $0.hasPrefix("#\(record)  ") && $0.contains("drill of shop  failed") },
        "#\(record) of \(lines)")
    }
    let text = try daemon.ctl("report").output
    #expect(records.allSatisfy { text.contains("rests on: #\($0)") }, "\(text)")
  }

  /// An objective that can't be kept is told before it breaks.
  @Test func objectivesAtRisk() throws {
    let folder = TemporaryFolder()
    let database = try PrivateCluster.shared().makeDatabase("shop", sample: 1)
    let daemon = try start(folder, database, more: "objectives: { rpo: 24h, rto: 1s }")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try !daemon.ctl("status").output.contains("A restore of 'shop' would take"), "nothing was measured")
    #expect(try daemon.ctl("drill").status == 0)
    let status = try daemon.ctl("status").output
    #expect(status.contains("RECOVERY OF") && status.contains("whole from local"))
    // A sample of some MB takes about a second: either it is missed, or close to it, or far below.
    // Where it is missed or at risk, status ends with 10, and answers all the same.
    let answer = try daemon.ctl("status", "--json")
    let report = try #require(JSONSerialization.jsonObject(with: Data(answer.output.utf8)) as? [String: Any])
    let recovery = try #require(((report["databases"] as? [[String: Any]])?[0]["recovery"]) as? [[String: Any]])
    let slowest = try #require(recovery.compactMap { $0["seconds"] as? Double }.max())
    #expect(status.contains("E-OBJECTIVE-MISSED") == (slowest > 1))
    #expect((answer.status == 10) == (slowest > 0.9))
    #expect(status.contains("E-OBJECTIVE-AT-RISK") == (slowest > 0.9 && slowest <= 1))
  }

  /// What is predicted for the very backup that was restored is what that took: headers of rows and large objects take their time too.
  @Test func thePredictionIsTheMeasure() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop")
    try cluster.sql(
      database,
      """
      CREATE TABLE narrow AS SELECT (n % 7)::int2 AS n FROM generate_series(1, 400000) AS n;
      SELECT lo_from_bytea(0, decode(repeat('5a', 8 << 20), 'hex'))
      """)
    let daemon = try start(folder, database, more: "objectives: { rto: 1h }")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill").status == 0)
    let report = try #require(try daemon.ctlJSON("status") as? [String: Any])
    let recovery = try #require(((report["databases"] as? [[String: Any]])?[0]["recovery"]) as? [[String: Any]])
    let seconds = try recovery.map { try #require($0["seconds"] as? Double) }
    let phases = try #require((recovery[0]["measure"] as? [String: Any])?["phases"] as? [String: Double])
    let took = phases.filter { !["server", "assertions", "amcheck"].contains($0.key) }.values.reduce(0, +)
    #expect(abs(seconds[0] - took) < 0.001, "\(recovery)")
    #expect(seconds[1] <= seconds[0])
  }

  /// Whoever rewrites the ledger, chain and all, is contradicted by what the stores have signed.
  @Test func aRewrittenLedgerIsContradicted() throws {
    let folder = TemporaryFolder()
    let database = try PrivateCluster.shared().makeDatabase("shop", sample: 1)
    var daemon = try start(folder, database, more: "")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("ledger", "verify").status == 0)
    // The daemon knows what it has written last.
    let own = try String(contentsOfFile: folder.file("state/ledger.ndjson"), encoding: .utf8)
    let fewer = own.split(separator: "\n").dropLast(2).joined(separator: "\n") + "\n"
    try fewer.write(toFile: folder.file("state/ledger.ndjson"), atomically: false, encoding: .utf8)
    let short = try daemon.ctl("ledger", "verify")
    #expect(short.status == 9 && short.output.contains("Its last 2 records are GONE"), "\(short.output)")
    try own.write(toFile: folder.file("state/ledger.ndjson"), atomically: false, encoding: .utf8)
    #expect(try daemon.ctl("ledger", "verify").status == 0)
    daemon.signal(SIGTERM)
    _ = daemon.waitForExit()
    let path = folder.file("state/ledger.ndjson")
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    let middle = lines.count / 2
    try
      (lines.enumerated().map {
        $0 == middle ? String($1).replacing("\"sequence\":", with: "\"sequence\" :") : String($1)
      }
      .joined(separator: "\n") + "\n").write(toFile: path, atomically: true, encoding: .utf8)
    daemon = try start(folder, database, more: "")
    let broken = try daemon.ctl("ledger", "verify")
    #expect(broken.status == 9 && broken.output.contains("does NOT fit"), "\(broken.output)")
    daemon.signal(SIGTERM)
    _ = daemon.waitForExit()
    // Made anew from nothing: its own chain is whole, and the manifest knows better.
    try FileManager.default.removeItem(atPath: path)
    daemon = try start(folder, database, more: "")
    let forged = try daemon.ctl("ledger", "verify")
    #expect(forged.status == 9, "\(forged.output)")
    #expect(forged.output.contains("CONTRADICT") && forged.output.contains("The chain is whole."))
  }
}
