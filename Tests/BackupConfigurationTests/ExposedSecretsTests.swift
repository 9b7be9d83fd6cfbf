import BackupConfiguration
import CronSchedule
import Faults
import Foundation
import TestSupport
import Testing

/// Secrets in the configuration itself, and who can read it.
@Suite struct ExposedSecretsTests {
  private let surroundings = ConfigurationSurroundings(
    variable: { ["PW": "s3cret"][$0] },
    secretFile: { path throws(Fault) in path == "/url" ? "https://hooks.example/x" : "s3cret" },
    keyFile: { path throws(Fault) in throw Fault(.configInvalid, "'\(path)' can't be read") }, zone: .utc,
    zoneNamed: SystemZones.standard.zone)

  @Test(arguments: [
    ("databases: { a: postgresql://u:pw@h/a }", ["databases.a"]),
    ("databases: { a: { connect: \"host=h password=pw\" } }", ["databases.a.connect"]),
    ("databases: { a: { connect: postgresql://h/a, password: pw } }", ["databases.a.password"]),
    ("databases: { a: { connect: postgresql://h/a, password: \"${PW}\" } }", []),
    ("databases: { a: \"postgresql://u:${PW}@h/a\" }", []),
    ("databases: { a: { connect: postgresql://u@h/a, password_file: /pw } }", []),
    (
      "databases: { a: postgresql://h/a }\nstores: { s: { s3: { bucket: bbb, region: r, access_key: k, secret_key: pw } } }",
      ["stores.s.s3.secret_key"]
    ),
    (
      "databases: { a: postgresql://h/a }\nstores: { s: { s3: { bucket: bbb, region: r, access_key: k, secret_key_file: /pw, proxy: \"http://p:1\" } } }",
      []
    ),
    (
      "databases: { a: postgresql://h/a }\nalerts: { slack: { url: \"https://hooks.example/T0KEN\" } }",
      ["alerts.slack.url"]
    ),
    ("databases: { a: postgresql://h/a }\nalerts: { slack: { url_file: /url } }", []),
    (
      "databases: { a: postgresql://h/a }\nmetrics: { listen: \"127.0.0.1:1\", user: u, password: pw }",
      ["metrics.password"]
    ),
  ])
  func secretsInTheFileAreFound(_ text: String, _ places: [String]) throws {
    #expect(try ConfigurationReader.read(text, file: "test.yaml", surroundings).inlineSecrets == places)
  }

  /// Only a file that holds a secret and that others can read is worth a warning, and the hint mends it.
  @Test(arguments: [
    (0o600, true, false), (0o640, true, true), (0o604, true, true), (0o644, true, true), (0o660, true, true),
    (0o644, false, false), (0o700, true, false),
  ])
  func anExposedFileIsAWarning(_ mode: UInt32, _ holdsSecret: Bool, _ isTold: Bool) throws {
    let folder = TemporaryFolder()
    let secret = holdsSecret ? "u:s3cret@" : ""
    let path = try folder.write("p.yaml", "databases: { shop: postgresql://\(secret)h/shop }\n", mode: 0o600)
    chmod(path, mode)
    let warnings = try ConfigurationReader.load(path, surroundings).warnings
    #expect(warnings.map(\.code) == (isTold ? [.configExposed] : []))
    guard let warning = warnings.first else { return }
    #expect(warning.message.contains("mode 0\(String(mode, radix: 8))") && warning.message.contains(path))
    #expect(warning.hint == "chmod 600 \(path)" && warning.cause?.contains("databases.shop") == true)
    #expect(!"\(warning)".contains("s3cret"))
    try Shell.must("sh", ["-c", try #require(warning.hint)])
    #expect(try ConfigurationReader.load(path, surroundings).warnings.isEmpty)
  }

  /// A file of root's that the daemon reads by its group: shutting the group out alone would shut out the daemon.
  @Test(.enabled(if: geteuid() == 0)) func theDaemonIsNotShutOutByTheHint() throws {
    let folder = TemporaryFolder()
    let path = try folder.write("p.yaml", "databases: { shop: postgresql://u:pw@h/shop }\n", mode: 0o600)
    #expect(chown(path, 0, try #require(SystemAccounts.number(.group, "games"))) == 0 && chmod(path, 0o640) == 0)
    let hint = try ConfigurationReader.load(path, surroundings).warnings.first?.hint
    #expect(hint == "chown games \(path) && chmod 600 \(path)")
  }
}
