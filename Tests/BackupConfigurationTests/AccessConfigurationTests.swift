import ArtifactFormat
import BackupConfiguration
import CronSchedule
import Faults
import Foundation
import TestSupport
import Testing

/// Who may do what, and whose signatures count.
@Suite struct AccessConfigurationTests {
  private static let surroundings = ConfigurationSurroundings(
    variable: { ["PW": "s3cret"][$0] }, secretFile: { _ throws(Fault) in "s3cret" },
    keyFile: { path throws(Fault) in throw Fault(.configInvalid, "'\(path)' can't be read") }, zone: .utc,
    zoneNamed: SystemZones.standard.zone,
    account: { kind, name in kind == .user ? ["alice": 1001][name] : ["dba": 200][name] })

  private func read(_ text: String) throws(ConfigurationProblems) -> Configuration {
    try ConfigurationReader.read(
      "databases: { shop: postgresql://h/shop }\n" + text, file: "test.yaml", Self.surroundings)
  }

  private func problems(_ text: String) -> [String] {
    do {
      _ = try read(text)
      return []
    } catch {
      return error.problems.map(\.message)
    }
  }

  @Test func rolesAreListsOfAccounts() throws {
    #expect(try read("").daemon.roles == nil)
    let daemon = try read("daemon: { roles: { reader: [\"group:dba\", \"user:alice\"], restorer: user:alice } }").daemon
    #expect(
      daemon.roles == [
        "reader": [.init(kind: .group, name: "dba", number: 200), .init(kind: .user, name: "alice", number: 1001)],
        "restorer": [.init(kind: .user, name: "alice", number: 1001)],
      ])
    #expect(try read("daemon: { roles: {} }").daemon.roles == [:])
  }

  @Test(arguments: [
    ("{ reader: [alice] }", "'alice' is no account: write user:alice or group:dba"),
    ("{ reader: [\"role:alice\"] }", "'role:alice' is no account: write user:alice or group:dba"),
    ("{ reader: [\"user:\"] }", "'user:' is no account: write user:alice or group:dba"),
    ("{ readers: [\"user:alice\"] }", "unknown key 'readers'; did you mean 'reader'?"),
    ("[alice]", "expected a mapping, found a list"),
  ])
  func whatIsNoAccountIsAMistake(_ text: String, _ message: String) {
    #expect(problems("daemon: { roles: \(text) }") == [message])
  }

  /// A name service that is away must not keep the daemon from starting.
  @Test func anUnknownNameIsAWarning() throws {
    let configuration = try read("daemon: { roles: { reader: [\"user:alcie\"], restorer: [\"group:dba\"] } }")
    #expect(configuration.daemon.roles?["reader"]?.first?.number == nil)
    #expect(configuration.warnings.map(\.code) == [.accountMissing])
    #expect(configuration.warnings.first?.message.contains("'alcie'") == true)
    #expect(SystemAccounts.number(.user, "root") == 0 && SystemAccounts.number(.group, "root") == 0)
    #expect(SystemAccounts.number(.user, "4711") == 4711 && SystemAccounts.number(.user, "no such user") == nil)
  }

  @Test func trustedKeysAreAListOrAMapping() throws {
    let (one, two) = (SigningKey.generate(), SigningKey.generate())
    let message: [UInt8] = [1, 2, 3]
    func signs(_ text: String, _ key: SigningKey, _ database: String) throws -> Bool {
      try read("signing: { trusted: \(text) }").dump.trustedKeys
        .isSigned(message, signature: try key.sign(message), of: database)
    }
    // As it always was: any database.
    #expect(try signs("[\"\(one.publicKey)\"]", one, "shop") && signs("\"\(one.publicKey)\"", one, "crm"))
    let map = "{ \"\(one.publicKey)\": [crm, \"app_*\"], \"\(two.publicKey)\": \"*\" }"
    #expect(try signs(map, one, "crm") && signs(map, one, "app_1") && signs(map, two, "shop"))
    #expect(try !signs(map, one, "shop") && !signs(map, one, "crm2"))
    #expect(problems("signing: { trusted: { nonsense: [crm] } }").first?.contains("is no public key") == true)
    #expect(
      problems("signing: { trusted: { \"\(one.publicKey)\": [] } }")
        == ["name the databases that the key may sign for; '*' is all of them"])
  }
}
