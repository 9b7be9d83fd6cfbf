import Foundation
import Glibc
import TestSupport
import Testing

/// The daemon seen from outside: by Prometheus, by a monitor, and by a browser.
@Suite(.serialized, .waits) struct PageTests {
  private static func start(
    _ folder: TemporaryFolder, _ port: Int, databases: String, more: String = "", access: String = ""
  ) throws -> DaemonProcess {
    let daemon = try DaemonProcess(
      """
      databases: { \(databases) }
      jobs: { manual: , daily: { schedule: "0 2 * * *", keep: 7d } }
      metrics: { listen: "127.0.0.1:\(port)"\(access) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")), monitor_socket: \(folder.file("monitor.sock")) }
      drill: { folder: \(folder.file("drills")), jobs: 2 }
      \(more)
      """, in: folder)
    try daemon.waitFor("READY=1")
    return daemon
  }

  private static func curl(_ arguments: String...) throws -> String {
    try Shell.must("curl", ["-sS", "--noproxy", "*"] + arguments)
  }

  @Test func metrics() throws {
    let (folder, cluster, port) = (TemporaryFolder(), try PrivateCluster.shared(), try FreePorts.take(1)[0])
    let daemon = try Self.start(
      folder, port,
      databases: "shop: { connect: \"\(cluster.conninfo(try cluster.makeDatabase("shop", sample: 1)))\" }",
      more: "objectives: { rpo: 24h, proved: 8d, rto: 1h }\nalerts: { command: { run: 'true', on: success } }")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill", "shop").status == 0)
    #expect(try daemon.ctl("verify", "--all").status == 0)
    let text = try Self.curl("http://127.0.0.1:\(port)/metrics")
    let lint = try Shell.run("promtool", ["check", "metrics"], input: text)
    #expect(lint.status == 0 && lint.output.isEmpty && lint.errors.isEmpty, "\(lint.output)\(lint.errors)")
    for line in [
      "pgbackupd_build_info{version=", "pgbackupd_database_backups{database=\"shop\"} 1",
      "pgbackupd_database_rpo_objective_seconds{database=\"shop\"} 86400",
      "pgbackupd_runs_total{job=\"manual\",database=\"shop\",result=\"succeeded\"} 1",
      "pgbackupd_runs_total{job=\"drill\",database=\"shop\",result=\"succeeded\"} 1",
      "pgbackupd_placements{store=\"local\",state=\"sound\"} 1", "pgbackupd_store_up{store=\"local\"} 1",
      "pgbackupd_store_backlog_backups{store=\"local\"} 0", "pgbackupd_problems{code=\"\"} 0",
      "pgbackupd_verifications_total{store=\"local\",result=\"sound\"} 1", "pgbackupd_alerts_open 0",
    ] { #expect(text.contains(line), "\(line) in\n\(text)") }
    #expect(!text.contains("202611") && !text.contains("shop/"), "labels name no backup")
    let open = try Self.curl("-H", "Accept: application/openmetrics-text", "http://127.0.0.1:\(port)/metrics")
    #expect(open.hasSuffix("# EOF\n") && open.contains("# TYPE pgbackupd_runs counter\n"))
    // The same by the monitors' socket, for whoever wants no port.
    let socket = try Self.curl("--unix-socket", folder.file("monitor.sock"), "http://x/metrics")
    #expect(socket.contains("pgbackupd_database_backups{database=\"shop\"} 1"))
    // Whatever the rules and the dashboard ask for is there, or comes with what it is about.
    let later: Set = [
      "pgbackupd_store_sent_bytes_total", "pgbackupd_store_received_bytes_total",
    ]
    for file in ["etc/prometheus/pgbackupd.rules.yml", "etc/grafana/pgbackupd.json"] {
      let asked = try String(contentsOfFile: "\(repositoryRoot)/\(file)", encoding: .utf8)
      for name in Set(asked.matches(of: /pgbackupd_[a-z_]+/).map { String($0.output) }).subtracting(later) {
        #expect(text.contains("\n\(name){") || text.contains("\n\(name) "), "\(name) of \(file)")
      }
    }
  }

  /// Another name than this machine's is refused, and so is who does not know the password; nothing is changed from here.
  @Test func whoMayLook() throws {
    let (folder, cluster, port) = (TemporaryFolder(), try PrivateCluster.shared(), try FreePorts.take(1)[0])
    let daemon = try Self.start(
      folder, port, databases: "shop: { connect: \"\(cluster.conninfo(try cluster.makeDatabase("shop")))\" }",
      access: ", user: monitor, password: \"s3cret: word\", names: [backup.example.org]")
    let url = "http://127.0.0.1:\(port)"
    func status(_ arguments: String...) throws -> String {
      try Shell.must(
        "curl", ["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"] + arguments)
    }
    #expect(try status("\(url)/") == "401")
    #expect(try status("-u", "monitor:wrong", "\(url)/metrics") == "401")
    #expect(try status("-u", "monitor:s3cret: word", "\(url)/") == "200")
    #expect(try status("-u", "monitor:s3cret: word", "\(url)/metrics") == "200")
    for name in ["evil.example", "127.0.0.1.evil.example", "backup.example.org.evil.example:80", ""] {
      #expect(try status("-u", "monitor:s3cret: word", "-H", "Host: \(name)", "\(url)/").hasPrefix("4"), "\(name)")
    }
    for name in ["localhost:\(port)", "backup.example.org", "Backup.Example.org:443", "[::1]:\(port)"] {
      #expect(try status("-u", "monitor:s3cret: word", "-H", "Host: \(name)", "\(url)/") == "200", "\(name)")
    }
    #expect(try status("-u", "monitor:s3cret: word", "-X", "POST", "\(url)/v1/reload") == "405")
    #expect(try status("-u", "monitor:s3cret: word", "\(url)/v1/status") == "404")
    // A monitor that only asks whether it is there (RFC 9110, 9.3.2).
    #expect(try status("-u", "monitor:s3cret: word", "--head", "\(url)/") == "200")
    #expect(!daemon.log.contains("s3cret"))
    let head = try Self.curl("-D", "-", "-o", "/dev/null", "-u", "monitor:s3cret: word", "\(url)/")
    #expect(head.contains("default-src 'none'") && head.contains("frame-ancestors 'none'") && !head.contains("unsafe"))
    #expect(head.lowercased().contains("x-content-type-options: nosniff"))
    // A port that is taken is told before anything begins.
    let second = TemporaryFolder()
    let other = try DaemonProcess(
      """
      databases: { shop: postgresql:///shop }
      metrics: { listen: "127.0.0.1:\(port)" }
      daemon: { state: \(second.file("state")), socket: \(second.file("control.sock")) }
      """, in: second)
    #expect(other.waitForExit() == 1 && other.log.contains("metrics: listen:"))
  }

  /// Prometheus itself reads the daemon, and each of its rules fires on what is really wrong, and on the daemon's end.
  @Test func prometheus() throws {
    let (folder, cluster, sinks) = (TemporaryFolder(), try PrivateCluster.shared(), try Sinks())
    let ports = try FreePorts.take(2)
    let away = folder.file("away")
    try FileManager.default.createDirectory(atPath: away, withIntermediateDirectories: true)
    let database = try cluster.makeDatabase("shop", sample: 1)
    func query(_ text: String) throws {
      try Shell.must("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", text, cluster.conninfo(database)])
    }
    // One that takes longer to restore than it may.
    try query(
      """
      CREATE FUNCTION public.slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE
        AS 'BEGIN PERFORM pg_catalog.pg_sleep(1.2); RETURN $1; END';
      CREATE TABLE late AS SELECT 1 AS number;
      CREATE INDEX ON late (public.slow(number));
      """)
    let daemon = try Self.start(
      folder, ports[0],
      databases: """
        shop: { connect: "\(cluster.conninfo(database))" }, gone: { connect: "\(cluster.conninfo("gone_for_good"))" }
        """,
      more: """
        stores: { local: { path: \(folder.file("state/backups")) }, away: { path: \(away) } }
        objectives: { rpo: 1m, proved: 1m, rto: 1s }
        alerts: { slack: { url: "\(sinks.url("fail"))" } }
        """)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("backup", "gone").status != 0)
    #expect(try daemon.ctl("drill", "shop").status == 0)

    // The rules as they are, but without their patience.
    let rules = try String(contentsOfFile: "\(repositoryRoot)/etc/prometheus/pgbackupd.rules.yml", encoding: .utf8)
    _ = try folder.write(
      "rules.yml", rules.split(separator: "\n").filter { !$0.contains("  for: ") }.joined(separator: "\n"))
    _ = try folder.write(
      "prometheus.yml",
      """
      global: { scrape_interval: 1s, evaluation_interval: 1s }
      rule_files: [rules.yml]
      scrape_configs: [{ job_name: pgbackupd, static_configs: [{ targets: ["127.0.0.1:\(ports[0])"] }] }]
      alerting: { alertmanagers: [{ path_prefix: /ok, static_configs: [{ targets: ["127.0.0.1:\(sinks.http)"] }] }] }
      """)
    let log = open(folder.file("prometheus.log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    defer { close(log) }
    let prometheus = try ChildProcess(
      "prometheus",
      [
        "--config.file=\(folder.file("prometheus.yml"))", "--storage.tsdb.path=\(folder.file("tsdb"))",
        "--web.listen-address=127.0.0.1:\(ports[1])",
      ], output: log, errors: log)
    defer {
      prometheus.signal(SIGKILL)
      prometheus.wait()
    }
    var fired: Set<String> = []
    func fire(_ names: Set<String>) throws {
      while !names.isSubset(of: fired) {
        guard let item = try? sinks.next() else {
          throw Shell.Failure(
            description: "\(names.subtracting(fired)) did not fire:\n"
              + ((try? Self.curl("http://127.0.0.1:\(ports[0])/metrics")) ?? "no metrics"))
        }
        guard item.path == "/ok/api/v2/alerts" else { continue }
        let alerts = try JSONSerialization.jsonObject(with: Data((item.body ?? "").utf8)) as? [[String: Any]] ?? []
        for alert in alerts {
          let labels = alert["labels"] as? [String: String] ?? [:]
          #expect((alert["annotations"] as? [String: String])?["next"]?.isEmpty == false)
          fired.insert(labels["alertname"] ?? "")
        }
      }
    }
    try fire([
      "PgbackupdNoBackupInObjective", "PgbackupdNoProofInObjective", "PgbackupdRunFailed", "PgbackupdRecoveryAtRisk",
    ])

    try query("TRUNCATE portal.users, portal.media, portal.views CASCADE")
    // The disk fills; one store goes away, and a copy in the other is damaged: nothing can mend it.
    try Shell.must("fallocate", ["--length", "512M", folder.file("state/backups/ballast")])
    try FileManager.default.removeItem(atPath: away)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let artifact = try Shell.must("find", [folder.file("state/backups"), "-name", "*.dump.zst"])
      .split(separator: "\n").map(String.init).sorted()[0]
    let file = open(artifact, O_RDWR)
    var byte: UInt8 = 0
    pread(file, &byte, 1, 5000)
    byte ^= 1
    pwrite(file, &byte, 1, 5000)
    close(file)
    #expect(try daemon.ctl("verify", "--all").status == 9)
    let bad = try String(contentsOfFile: daemon.configuration, encoding: .utf8)
    try (bad + "nonsense: 1\n").write(toFile: daemon.configuration, atomically: true, encoding: .utf8)
    #expect(try daemon.ctl("reload").status != 0)
    // What is scraped may be five minutes old; this looks now.
    #expect(try daemon.ctl("status").status == 10)
    try fire([
      "PgbackupdVerificationFailed", "PgbackupdBackupInDoubt", "PgbackupdSizeAnomaly", "PgbackupdStoreUnreachable",
      "PgbackupdStoreNearlyFull", "PgbackupdBacklog", "PgbackupdProblem", "PgbackupdConfigurationRefused",
      "PgbackupdAlertsUndelivered",
    ])
    daemon.signal(SIGKILL)
    _ = daemon.waitForExit()
    try fire(["PgbackupdDown"])
    // None is left out.
    #expect(fired == Set(rules.matches(of: /alert: (\w+)/).map { String($0.output.1) }))
  }

  /// Every rule fires by its time and keeps quiet before; judged by promtool.
  @Test func rules() throws {
    let test = "\(repositoryRoot)/etc/prometheus/pgbackupd.test.yml"
    let result = try Shell.run(
      "sh",
      [
        "-c",
        "cd \"$(dirname \(test))\" && promtool check rules pgbackupd.rules.yml && promtool test rules pgbackupd.test.yml",
      ])
    #expect(result.status == 0, "\(result.output)\(result.errors)")
    let rules = try String(contentsOfFile: "\(repositoryRoot)/etc/prometheus/pgbackupd.rules.yml", encoding: .utf8)
    let tested = try String(contentsOfFile: test, encoding: .utf8)
    for name in rules.matches(of: /alert: (\w+)/).map({ String($0.output.1) }) {
      #expect(tested.contains(name), "\(name) has no test")
    }
  }

  @Test func check() throws {
    let (folder, cluster, port) = (TemporaryFolder(), try PrivateCluster.shared(), try FreePorts.take(1)[0])
    let daemon = try Self.start(
      folder, port, databases: "shop: { connect: \"\(cluster.conninfo(try cluster.makeDatabase("shop")))\" }",
      more: "objectives: { rpo: 24h }")
    let bad = try daemon.ctl("check", "--nagios")
    // Nobody is called as long as the first may still come in time; well it is not.
    #expect(bad.status == 1 && bad.output.hasPrefix("PGBACKUPD WARNING - shop rpo: no good backup"), "\(bad.output)")
    #expect(bad.output.contains("the first has time until"), "\(bad.output)")
    #expect(try daemon.ctl("check").status == 10)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let good = try daemon.ctl("check", "--nagios", "--socket", folder.file("monitor.sock"))
    #expect(good.status == 0 && good.output.hasPrefix("PGBACKUPD OK - ") && good.output.contains("'shop_rpo'="))
    let lines = try daemon.ctl("check")
    #expect(lines.status == 0 && lines.output.contains("shop rpo: OK (") && lines.output.contains("not run"))
    daemon.signal(SIGKILL)
    _ = daemon.waitForExit()
    #expect(try daemon.ctl("check", "--nagios").status == 2)
  }

  /// A year in a real browser: no word on its console, the script at work, each picture with a name.
  @Test func theBrowser() throws {
    let (folder, cluster, port) = (TemporaryFolder(), try PrivateCluster.shared(), try FreePorts.take(1)[0])
    mkdir(folder.file("state"), 0o700)
    try Shell.must(
      "python3",
      ["\(repositoryRoot)/Tests/TestSupport/ledger_year.py", folder.file("state/ledger.ndjson"), "shop", "crm"])
    let daemon = try Self.start(
      folder, port,
      databases: """
        shop: { connect: "\(cluster.conninfo(try cluster.makeDatabase("shop", sample: 1)))" }, crm: { connect: "host=/nonexistent" }
        """, more: "objectives: { rpo: 26h, proved: 8d, rto: 1h }")
    #expect(try daemon.ctl("backup", "shop").status == 0)
    #expect(try daemon.ctl("drill", "shop").status == 0)
    #expect(try daemon.ctl("ledger", "verify").status == 0, "the year's chain")
    let url = "http://127.0.0.1:\(port)/"
    let arguments = [
      "180", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--enable-logging=stderr",
      "--user-data-dir=\(folder.file("chromium"))",
    ]
    // The script is at work once the first event has come: then it says so in the document.
    let browser = try Shell.run(
      "python3",
      [
        "\(repositoryRoot)/Tests/TestSupport/browser.py", "300", url, "document.body.dataset.live === 'yes'",
        "--no-proxy-server", "--user-data-dir=\(folder.file("chromium"))",
      ])
    #expect(browser.status == 0 && !browser.errors.contains("CONSOLE"), "\(browser.errors)")
    let dom = browser.output
    #expect(dom.contains("A year of shop: 3") && dom.contains("with failures"), "the year is told in words")
    // Its first backup was made a year ago: there is no time left for a first proof.
    #expect(dom.contains("aria-label=\"Newest proved: never proved, objective "))
    // A store that was emptied has hundreds of one kind, which are told as one.
    #expect(dom.contains("of this kind; the first") && !dom.contains("(7"), "\(dom.prefix(400))")
    _ = try folder.write("page.html", dom)
    let checked = try Shell.run("python3", ["-c", Self.checks, folder.file("page.html")])
    #expect(checked.status == 0, "\(checked.output)\(checked.errors)")
    for (name, size, more) in [
      ("light", "1200,2400", []), ("phone", "390,2400", []), ("dark", "1200,2400", ["--force-dark-mode"]),
    ] as [(String, String, [String])] {
      let file = folder.file("\(name).png")
      let browser = try Shell.run(
        "timeout",
        arguments + more + [
          "--hide-scrollbars", "--timeout=30000", "--window-size=\(size)", "--screenshot=\(file)", url,
        ])
      #expect(!browser.errors.contains("CONSOLE"), "\(browser.errors)")
      let bytes = try Data(contentsOf: URL(filePath: file))
      #expect(bytes.count > 20_000, "\(name) is empty")
    }
    // Events as they come, without a browser.
    let lines = LinePipe()
    let reader = try ChildProcess(
      "curl", ["-sN", "--noproxy", "*", "--max-time", "60", "\(url)events"], output: lines.writer)
    lines.closeWriter()
    #expect(lines.next() == "event: runs")
    #expect(lines.next()?.hasPrefix("data: ") == true)
    reader.signal(SIGTERM)
    reader.wait()
  }

  /// What axe would say: a language, a title, one main, headings in order, names for pictures and regions, heads for tables; and
  /// enough contrast in both schemes (WCAG 2.2, 1.4.3).
  private static let checks = """
    import re, sys, html.parser
    text = open(sys.argv[1]).read()
    bad = []
    class P(html.parser.HTMLParser):
        def __init__(self):
            super().__init__(); self.ids = set(); self.level = 0; self.mains = 0; self.th = False
        def handle_starttag(self, tag, attrs):
            a = dict(attrs)
            if tag == "html" and not a.get("lang"): bad.append("no language")
            if tag == "main": self.mains += 1
            if "id" in a:
                if a["id"] in self.ids: bad.append("twice: " + a["id"])
                self.ids.add(a["id"])
            if re.fullmatch("h[1-6]", tag):
                if int(tag[1]) > self.level + 1: bad.append(f"{tag} after h{self.level}")
                self.level = int(tag[1])
            if tag == "svg" and not (a.get("role") == "img" and a.get("aria-label")): bad.append("a picture without a name")
            if a.get("role") == "region" and not a.get("aria-label"): bad.append("a region without a name")
            if tag == "th" and a.get("scope") not in ("row", "col"): bad.append("a head of nothing")
            if "style" in a or any(k.startswith("on") for k in a): bad.append("inline style or handler in " + tag)
            if tag in ("img", "iframe", "link") and a.get("href", a.get("src")) != "data:,": bad.append("from outside: " + tag)
    p = P(); p.feed(text)
    if p.mains != 1: bad.append("mains: %d" % p.mains)
    schemes = [dict(re.findall(r"--(\\w+): (#[0-9a-f]{6})", s)) for s in re.findall(r":root \\{(.*?)\\}", text, re.S)]
    light, dark = {**schemes[0], **schemes[2]}, {**schemes[1], **schemes[3]}
    def lum(c):
        v = [int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        v = [x / 12.92 if x <= .04045 else ((x + .055) / 1.055) ** 2.4 for x in v]
        return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]
    for name, scheme in (("light", light), ("dark", dark)):
        for ink in ("ink", "soft", "good", "bad", "mark", "close"):
            for ground in ("ground", "card"):
                hi, lo = sorted((lum(scheme[ink]), lum(scheme[ground])), reverse=True)
                if (hi + .05) / (lo + .05) < 4.5: bad.append(f"{name}: {ink} on {ground} {(hi + .05) / (lo + .05):.2f}")
    print(bad)
    sys.exit(1 if bad else 0)
    """
}
