import ArtifactFormat
import BackupCatalog
import BackupConfiguration
import CronSchedule
import Faults
import Foundation
import PostgresTools
import S3Storage
import TestSupport
import Testing
import Units

private let surroundings = ConfigurationSurroundings(
  variable: { ["HOST": "db.example", "CREDENTIALS_DIRECTORY": "/run/credentials/pgbackupd"][$0] },
  secretFile: { (path: String) throws(Fault) -> String in
    if path.hasSuffix("pw") { return "s3cret" }
    throw Fault(.configInvalid, "'\(path)' can't be read: No such file or directory")
  }, keyFile: { path throws(Fault) in throw Fault(.configInvalid, "'\(path)' can't be read") }, zone: .utc,
  zoneNamed: SystemZones.standard.zone)

private func read(_ text: String) throws(ConfigurationProblems) -> Configuration {
  try ConfigurationReader.read(text, file: "test.yaml", surroundings)
}

private func problems(_ text: String) -> [String] {
  do {
    _ = try read(text)
    return []
  } catch {
    return error.problems.map(\.description)
  }
}

@Suite struct ConfigurationTests {
  /// One database is enough; all else is the default policy.
  @Test func theSmallestFile() throws {
    let configuration = try read("databases: { shop: postgresql://backup@db.example/shop_db }")
    #expect(configuration.databases.map(\.name) == ["shop"])
    #expect(configuration.databases[0].place == "backup@db.example/shop_db")
    #expect(configuration.stores.map(\.name) == ["local"])
    #expect(
      configuration.jobs.map(\.name) == ["daily", "weekly", "monthly", "pre-deployment", "verify", "manual", "drill"])
    #expect(configuration.jobs[0].timing?.schedule.expression.description == "0 2 * * *")
    #expect(configuration.jobs[0].keep == .forDuration(.seconds(7 * 86400)))
    #expect(configuration.jobs[4].keep == .untilDeleted)
    #expect(configuration.daemon.socket == "/run/pgbackupd/control.sock")
  }

  /// The annotated example is a valid configuration.
  @Test func theExampleIsValid() throws {
    let text = try String(contentsOfFile: "\(repositoryRoot)/etc/pgbackupd.yaml", encoding: .utf8)
    let configuration = try read(text)
    #expect(!configuration.databases.isEmpty)
  }

  @Test func everythingIsRead() throws {
    let configuration = try read(
      """
      databases:
        shop: { connect: "host=${HOST} user=backup", password_file: "${CREDENTIALS_DIRECTORY}/pw" }
        all: { connect: "postgresql://h/postgres", include: ["app_*", main], exclude: "*_test" }
      stores:
        local: { path: /var/lib/pgbackupd/backups }
        disk2: { path: /mnt/disk2 }
      jobs:
        nightly: { schedule: "30 1 * * MON-FRI", zone: Europe/Berlin, keep: 14d, stores: disk2, databases: [shop], timeout: 2h }
        manual: { keep: forever }
        once:
      backup: { compression: gzip, level: 9, workers: 4, lock_wait: 10s, stall_after: 5m, programs: /opt/pg/bin }
      daemon: { state: /srv/state, socket: /srv/s.sock, parallel_runs: 3 }
      objectives: { rpo: 25h }
      """)
    #expect(configuration.databases[0].place == "backup@db.example/shop")
    #expect(configuration.databases[0].connection.password == Secret("s3cret"))
    let pattern = try #require(configuration.databases[1].pattern)
    #expect(["app_1", "main"].allSatisfy(pattern.matches))
    #expect(["app_test", "other", "mainx"].allSatisfy { !pattern.matches($0) })
    let nightly = configuration.jobs[0]
    #expect(nightly.timing?.schedule.zone.identifier == "Europe/Berlin")
    #expect((nightly.stores, nightly.databases) == (["disk2"], ["shop"]))
    #expect(nightly.timeout == .seconds(7200))
    #expect(configuration.jobs.map(\.name) == ["nightly", "manual", "once", "verify", "drill"])
    #expect(configuration.jobs[2].stores == ["local", "disk2"])
    #expect((configuration.dump.compression.algorithm, configuration.dump.compression.level) == (.gzip, 9))
    #expect(configuration.daemon.parallelRuns == 3)
    #expect(configuration.rpo == .seconds(90_000))
  }

  /// Ten mistakes, ten reports, each with its line and column.
  @Test func allMistakesAtOnce() {
    let found = problems(
      """
      databases:
        shop: { conect: postgresql://h/shop }
        other: { connect: "nonsense without equals", password_file: /nowhere }
      stores:
        local: { path: relative/path }
      jobs:
        daily: { schedule: "0 25 * * *", keep: soon }
        weekly: { schedule: "0 3 * * 0", stores: [locl] }
        never: { schedule: "0 0 30 2 *", zone: Europe/Berln }
      backup: { compression: zstf }
      daemons: { state: /x }
      """)
    #expect(
      found
        == [
          "2:9: databases.shop: 'connect' is missing: a libpq URI, or key=value words",
          "2:11: databases.shop: unknown key 'conect'; did you mean 'connect'?",
          "3:21: databases.other.connect: The connection text is no libpq URI and no list of key=value words. (missing \"=\" after \"nonsense\" in connection info string) see 'Connection Strings' in PostgreSQL's libpq manual",
          "3:63: databases.other.password_file: '/nowhere' can't be read: No such file or directory",
          "5:18: stores.local.path: 'relative/path' is no absolute path",
          "7:22: jobs.daily.schedule: '0 25 * * *': 25 is no hour (0 to 23) (at character 3)",
          "7:42: jobs.daily.keep: 'soon' is no time to keep: write 7d, 36h (an hour at least) or forever",
          "8:45: jobs.weekly.stores.1: there is no store 'locl'",
          "8:44: jobs.weekly.stores: a job needs a store",
          "9:22: jobs.never.schedule: '0 0 30 2 *': this date never comes (at character 5)",
          "9:42: jobs.never.zone: 'Europe/Berln' is no time zone; did you mean 'Europe/Berlin'?",
          "10:24: backup.compression: 'zstf' is not one of zstd, gzip, none; did you mean 'zstd'?",
          "11:1: unknown key 'daemons'; did you mean 'daemon'?",
        ].sorted { Self.place($0) < Self.place($1) })
  }

  private static func place(_ text: String) -> (Int, Int) {
    let parts = text.split(separator: ":").prefix(2).map { Int($0) ?? 0 }
    return (parts[0], parts[1])
  }

  private static func s3(_ text: String) -> String {
    "databases: { a: postgresql://h/a }\nstores: { x: { s3: { \(text) } } }"
  }

  @Test func bucketsAreRead() throws {
    let folder = TemporaryFolder()
    let authority = try folder.write("ca.pem", "x", mode: 0o644)
    let configuration = try read(
      """
      databases: { shop: postgresql://h/shop }
      stores:
        local: { path: /srv/backups }
        aws: { s3: { bucket: shop-backups, region: eu-central-1, storage_class: STANDARD_IA, lock: governance, tags: { team: db } } }
        minio:
          s3: { bucket: backups, prefix: /prod/, endpoint: "https://minio:9000/", ca_file: \(authority), access_key: k, secret_key_file: /pw, server_side_encryption: "aws:kms", kms_key: id }
          rate_limit: 20MiB/s
      jobs:
        daily: { schedule: "@daily", keep: 7d, stores: { local: 7d, aws: 90d } }
      objectives: { quorum: 2 }
      """)
    guard case .s3(let aws) = configuration.stores[1].place, case .s3(let minio) = configuration.stores[2].place else {
      Issue.record("two buckets")
      return
    }
    #expect((aws.bucket, aws.region, aws.endpoint, aws.usesPathStyle) == ("shop-backups", "eu-central-1", nil, false))
    #expect((aws.storageClass, aws.lock, aws.tags) == ("STANDARD_IA", .governance, ["team": "db"]))
    #expect(aws.location == "s3://shop-backups in eu-central-1")
    #expect((minio.prefix, minio.endpoint, minio.usesPathStyle) == ("prod", "https://minio:9000", true))
    #expect(minio.credentials?.secretKey == Secret("s3cret"))
    #expect(minio.serverSideEncryption == .managedKey("id"))
    #expect(configuration.stores[2].rateLimit == .mebibytes(20))
    #expect(configuration.jobs[0].stores == ["local", "aws"])
    #expect(configuration.jobs[0].keepByStore["aws"] == .forDuration(.seconds(90 * 86400)))
    #expect(configuration.quorum == 2)
  }

  /// Without a `keep` of its own, a job keeps what lies in other stores than it names for the longest of its times.
  @Test func timesOfStores() throws {
    func keep(_ job: String) throws -> KeepRule? {
      try read(
        """
        databases: { shop: { connect: "dbname=shop" } }
        stores: { a: { path: /a }, b: { path: /b } }
        jobs: { daily: \(job) }
        """
      ).jobs.first?.keep
    }
    #expect(try keep("{ stores: { a: 7d, b: 90d } }") == .forDuration(.seconds(90 * 86400)))
    #expect(try keep("{ stores: { a: 7d, b: forever } }") == .untilDeleted)
    #expect(try keep("{ keep: 2d, stores: { a: 7d, b: 90d } }") == .forDuration(.seconds(2 * 86400)))
  }

  static let broken: [(String, String)] = [
    ("databases: { a: postgresql://h/a }\nmetrics: { listen: \"127.0.0.1.evil.com:9847\" }", "own interface"),
    ("databases: { a: postgresql://h/a }\nmetrics: { listen: \"127.1:9847\" }", "own interface"),
    ("databases: { a: postgresql://h/a }\nalerts: { on: [], command: [/bin/true] }", "names nothing"),
    ("databases: { a: postgresql://h/a }\nalerts: { on: [recovered], command: [/bin/true] }", "no beginning"),
    (
      "databases: { a: postgresql://h/a }\nalerts: { email: { to: [], smtp: \"mail.example:587\" } }",
      "no address in it"
    ),
    (
      "databases: { a: postgresql://h/a }\nalerts: { webhook: { url: \"https://h/x\", template: \"{{sentence\" } }",
      "has no '}}'"
    ),
    ("databases: { a: postgresql://h/a }\nalerts: { on: failure }", "there is no channel in it"),
    ("databases: { a: postgresql://h/a }\nalerts: { command: { run: x, databases: [] } }", "'databases' is empty"),
    (
      "databases: { a: postgresql://h/a }\nalerts: { webhook: { url: \"https://h/x\", template: \"{ a: {{sentence}} }\" } }",
      "it is no JSON"
    ),
    ("databases: { a: postgresql://h/a }\nalerts: { slack: { url: \"https://h/a b\" } }", "no http or https URL"),
    (
      "databases: { a: postgresql://h/a }\nalerts: { slack: { url: \"https://h/a\", proxy: \"what is that\" } }",
      "it is no proxy"
    ),
    (
      "databases: { a: postgresql://h/a }\nalerts: { webhook: { url: \"https://h/x\", headers: { X-Key_file: /none } } }",
      "/none"
    ),
    (
      "databases: { a: postgresql://h/a }\nmetrics: { listen: \"127.0.0.1:9847\", names: [\"a.example:443\"] }",
      "is no host name"
    ),
    ("", "it needs 'databases'"), ("databases: {}", "name at least one database"),
    ("- a", "expected a mapping, found a list"),
    ("databases: { a: x: y }", "this is no YAML"), ("databases: [a, b", "this is no YAML"),
    ("databases: {}\n# \u{0}", "control characters are not allowed (character 0)"),
    ("databases: { shop: postgresql://h/a, shop: postgresql://h/b }", "stand twice"),
    ("databases: { a/b: postgresql://h/a }", "letters, digits"),
    ("databases: { a: postgresql://h/a }\njobs: { x: { stores: [] } }", "a job needs a store"),
    ("databases: { a: postgresql://h/a }\ndaemon: { parallel_runs: many }", "expected a number, found 'many'"),
    ("databases: { a: postgresql://h/a }\ndaemon: { parallel_runs: 0 }", "0 is not within 1 to 32"),
    ("databases: { a: postgresql://h/a }\nbackup: { level: 25 }", "25 is not within 1 to 19"),
    ("databases: { a: postgresql://h/a }\nbackup: { stall_after: 1s }", "shorter than 5s"),
    ("databases: { a: 'postgresql://${NOBODY}/a' }", "the environment has no 'NOBODY'"),
    ("databases: { a: { connect: 'postgresql://h/a', password: x, password_file: /pw } }", "exclude each other"),
    ("databases: { a: 'postgresql://h/a?service=s&sslpassword=x' }", "'sslpassword' and 'service' exclude each other"),
    ("databases: { a: postgresql://h/a }\nencrypt: {}", "unknown key 'encrypt'"),
    ("databases: { a: postgresql://h/a }\nencryption: {}", "'recipients' is missing"),
    ("databases: { a: postgresql://h/a }\nencryption: { recipients: age1abc }", "it is no recipient"),
    (
      "databases: { a: postgresql://h/a }\nencryption: { gpg: { recipients: backup@example.com } }",
      "is no fingerprint of an OpenPGP key"
    ),
    ("databases: { a: postgresql://h/a }\nencryption: { gpg: {} }", "name at least one, age1…, or gpg's"),
    ("databases: { a: postgresql://h/a }\nencryption: { gpg: { recipients: 1122334455667788 } }", "is no fingerprint"),
    ("databases: { a: postgresql://h/a }\nencryption: { gpg: { home: gnupg } }", "is no absolute path"),
    (
      "databases: { a: postgresql://h/a }\nencryption: { recipients: AGE-SECRET-KEY-1QQQ }",
      "an identity is no recipient"
    ),
    (
      "databases: { a: postgresql://h/a }\njobs: { a: { schedule: '@daily', retry: often } }",
      "'often' is no retry rule"
    ),
    ("databases: { a: postgresql://h/a }\njobs: { a: { jitter: 5m } }", "it needs a schedule"),
    (
      "databases: { a: postgresql://h/a }\njobs: { a: { schedule: '*/5 * * * *', jitter: 2h } }",
      "the time between two runs"
    ),
    (
      "databases: { a: postgresql://h/a }\njobs: { a: { schedule: '@daily', not_between: [00:00-12:00, 12:00-24:00] } }",
      "leave no time to run"
    ),
    ("databases: { a: postgresql://h/a }\njobs: { a: { databases: [] } }", "a job needs a database"),
    ("databases: { a: postgresql://h/a }\njobs: { a: { schedule: '@daily', catch_up: no } }", "or off"),
    ("databases: { a: postgresql://h/a }\nstores: { x: { path: /srv/a }, y: { path: /srv/a/ } }", "the same path"),
    ("databases: { a: postgresql://h/a }\nstores: { x: { path: /srv/a }, y: { path: /srv/a/b } }", "one in the other"),
    (
      "databases: { a: postgresql://h/a }\njobs: { a: { schedule: '@daily', not_between: 9-18 } }",
      "write hours such as 09:00-18:00"
    ),
    (
      "databases: { a: postgresql://h/a }\njobs: { a: { schedule: '@daily', catch_up: 5s } }", "shorter than 1m"
    ),
    (
      "databases: { a: postgresql://h/a }\njobs: { a: { schedule: '@daily', share: maybe } }", "expected true or false"
    ),
    (
      "databases: { a: postgresql://h/a }\ndaemon: { monitor_socket: m.sock }", "is no absolute path"
    ),
    (s3("region: eu-west-1"), "'bucket' is missing"), (s3("bucket: b-1"), "'region' is missing"),
    (s3("bucket: a, region: x"), "'a' is no bucket's name"),
    (s3("bucket: abc, region: x, endpoint: minio:9000"), "is no endpoint"),
    (
      "stores: { a: { s3: { bucket: abc, endpoint: 'https://Host' } }, b: { s3: { bucket: abc, endpoint: 'https://host:443/' } } }",
      "lie one in the other"
    ),
    (s3("bucket: abc, region: x, endpoint: 'https://u:p@h'"), "is no endpoint"),
    (s3("bucket: abc, region: x, storage_class: DEEP_ARCHIVE"), "GLACIER_IR can"),
    (
      """
      databases: { a: postgresql://h/a }
      stores: { x: { path: /x }, y: { path: /y } }
      jobs: { nightly: { schedule: "@daily", stores: [x] } }
      objectives: { quorum: 2 }
      """, "can't be met for 'a'"
    ),
    (s3("bucket: abc, region: x, access_key: k"), "'secret_key' is missing"),
    (s3("bucket: abc, region: x, profile: p, access_key: k, secret_key: s"), "exclude each other"),
    (s3("bucket: abc, region: x, kms_key: k"), "it needs 'server_side_encryption: aws:kms'"),
    (s3("bucket: abc, region: x, server_side_encryption: aes256"), "did you mean 'AES256'"),
    (s3("bucket: abc, region: x, lock: forever"), "not one of governance, compliance"),
    (s3("bucket: abc, region: x, ca_file: /nowhere/ca.pem"), "can't be read"),
    (s3("bucket: abc, region: x, bukket: y"), "did you mean 'bucket'"),
    ("databases: { a: postgresql://h/a }\nstores: { x: {} }", "'path' or 's3' is missing"),
    (
      "databases: { a: postgresql://h/a }\nstores: { x: { path: /a, s3: { bucket: abc, region: x } } }", "not both"
    ),
    (
      "databases: { a: postgresql://h/a }\nstores: { x: { s3: { bucket: abc, region: r } }, y: { s3: { bucket: abc, region: r, prefix: p } } }",
      "one in the other"
    ),
    ("databases: { a: postgresql://h/a }\nstores: { x: { path: /a, rate_limit: 20MiB } }", "is no rate"),
    (
      "databases: { a: postgresql://h/a }\nstores: { x: { path: /a } }\njobs: { j: { stores: { x: 5m } } }",
      "is no time to keep"
    ),
    (
      "databases: { a: postgresql://h/a }\nstores: { offsite: { path: /a } }\njobs: { j: { stores: { ofsite: 5d } } }",
      "did you mean 'offsite'"
    ),
    ("databases: { a: postgresql://h/a }\nobjectives: { quorum: 2 }", "only 1 store"),
    ("databases: &x { a: postgresql://h/a }\nstores: *x", "expected a mapping"),
  ]
  @Test(arguments: broken) func mistakesAreNamed(_ text: String, _ message: String) {
    let found = problems(text)
    #expect(found.contains { $0.contains(message) }, "\(found)")
    #expect(found.joined().utf8.count < 5000)
  }

  /// A password in a connection text never shows in a problem.
  @Test func passwordsDoNotLeak() {
    let found = problems("databases: { a: 'postgresql://u:hunter2@[h/a' , b: 'user=x password=hunter2 oops' }")
    #expect(found.count == 2)
    #expect(!found.joined().contains("hunter2"))
  }

  @Test func secretFilesMustBePrivate() throws {
    let folder = TemporaryFolder()
    let open = try folder.write("open", "x", mode: 0o644)
    let closed = try folder.write("closed", "secret\nrest")
    let fault = #expect(throws: Fault.self) { try ConfigurationSurroundings.process.secretFile(open) }
    #expect(fault?.message.contains("everybody may read") == true)
    #expect(try ConfigurationSurroundings.process.secretFile(closed) == "secret")
  }
}

@Suite struct SecretMessageTests {
  /// A variable that stands in the wrong place may hold a secret, and messages reach the journal.
  @Test(arguments: [
    "objectives: { rpo: \"${HOST}\" }", "backup: { compression: \"${HOST}\" }", "daemon: { socket: \"${HOST}\" }",
  ])
  func whatTheEnvironmentHoldsIsToldByItsName(_ section: String) {
    let found = problems("databases: { shop: postgresql:///shop }\n\(section)")
    #expect(!found.isEmpty)
    #expect(found.allSatisfy { $0.contains("${HOST}") && !$0.contains("db.example") }, "\(found)")
  }
}
