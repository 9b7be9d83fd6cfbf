import BackupOperations
import Faults
import Foundation
import Glibc
import Logging
import PostgresTools
import TestSupport
import Testing
import Units

/// Secrets of a connection reach the programs that need them, and no command line, environment or message.
@Suite(.waits) struct ConnectionSecretTests {
  /// A server that takes its role by a certificate, whose key has a pass phrase.
  private struct Place {
    static let secret = "top secret' \\ phrase"

    let files = TemporaryFolder()
    let cluster: PrivateCluster
    let database: String
    let settings: ConnectionSettings

    init() throws {
      try TestAuthority.make(in: files)
      let pair = ["-keyout", files.file("plain.key"), "-out", files.file("client.csr"), "-subj", "/CN=backup"]
      try Shell.must("openssl", ["req", "-newkey", "rsa:2048", "-nodes"] + pair)
      try Shell.must(
        "openssl",
        [
          "x509", "-req", "-in", files.file("client.csr"), "-CA", files.file("ca.crt"), "-CAkey", files.file("ca.key"),
          "-CAcreateserial", "-days", "30", "-out", files.file("client.crt"),
        ])
      try Shell.must(
        "openssl",
        [
          "rsa", "-aes256", "-in", files.file("plain.key"), "-out", files.file("client.key"), "-passout",
          "pass:\(Self.secret)",
        ])
      for name in ["client.key", "server.key"] { chmod(files.file(name), 0o600) }
      if geteuid() == 0 {
        chmod(files.path, 0o755)
        try Shell.must("chown", ["postgres", files.file("server.key")])
      }
      // Nobody else listens there.
      let address = "127.\((1...250).randomElement() ?? 1).\((0...250).randomElement() ?? 1).\(getpid() % 250 + 1)"
      cluster = try PrivateCluster(
        authentication: ["hostssl all backup 127.0.0.0/8 cert"],
        settings: [
          "listen_addresses=\(address)", "ssl=on", "ssl_cert_file=\(files.file("server.crt"))",
          "ssl_key_file=\(files.file("server.key"))", "ssl_ca_file=\(files.file("ca.crt"))",
        ])
      database = try cluster.makeDatabase("tls")
      try cluster.sql(database, "CREATE TABLE t AS SELECT 1 AS x; CREATE ROLE backup LOGIN IN ROLE pg_read_all_data")
      settings = try ConnectionSettings(
        parsing: """
          host=localhost hostaddr=\(address) port=5432 user=backup dbname=\(database) sslmode=verify-full \
          sslrootcert=\(files.file("ca.crt")) sslcert=\(files.file("client.crt")) sslkey=\(files.file("client.key")) \
          sslpassword='\(Self.secret.replacing("\\", with: "\\\\").replacing("'", with: "\\'"))'
          """)
    }
  }

  @Test func aPassPhraseReachesPgDumpAndNoCommandLine() async throws {
    let place = try Place()
    let workshop = Workshop()
    var settings = Backup.Settings()
    settings.programs = [place.cluster.binaries]
    #expect(!"\(place.settings)".contains("phrase") && !place.settings.conninfo.contains("phrase"))
    let lock = try LockHolder(place.cluster, place.database, "t")
    let running = Task { [settings] in
      try await workshop.backup(place.settings, database: "tls", settings: settings).run()
    }
    try lock.waitForWaiter()
    let dump = try #require(try Self.processes { $0.contains("/pg_dump") && $0.contains(place.database) }.first)
    #expect(dump.words.contains("sslkey=") && dump.words.contains("service='pgbackupd'"), "\(dump.words)")
    for text in [dump.words, dump.environment] { #expect(!text.contains("phrase"), "\(text)") }
    lock.release()
    #expect(try await running.value.stores == ["local"])
  }

  @Test func aRefusedConnectionNamesNoSecret() async throws {
    let place = try Place()
    var settings = place.settings
    settings["sslkey"] = place.files.file("gone.key")
    let fault = await #expect(throws: Fault.self) { try await PostgresSession.connect(settings) }
    #expect(fault.map { !"\($0)".contains("phrase") } == true)
  }

  /// Every process whose words are wanted, by the kernel's own tables.
  private static func processes(
    _ isWanted: (String) -> Bool
  ) throws -> [(words: String, environment: String)] {
    func read(_ path: String) -> String {
      let text = (try? Shell.run("cat", [path]).output) ?? ""
      return String(text.map { $0 == "\0" ? " " : $0 })
    }
    return try FileManager.default.contentsOfDirectory(atPath: "/proc").filter { $0.allSatisfy(\.isNumber) }
      .map { ($0, read("/proc/\($0)/cmdline")) }.filter { isWanted($0.1) }
      .map { ($0.1, read("/proc/\($0.0)/environ")) }
  }

  @Test(arguments: [
    ("host=/run/postgresql", nil), ("", nil), ("host=localhost", nil), ("host=127.0.0.1 sslmode=disable", nil),
    ("host=::1", nil), ("host=db.example hostaddr=127.0.0.1", nil), ("host=db.example", "prefer"),
    ("hostaddr=192.0.2.1", "prefer"), ("host=localhost,db.example", "prefer"),
    ("host=db.example sslmode=allow", "allow"),
    ("host=db.example sslmode=disable", "disable"), ("host=db.example sslmode=require", "require"),
    ("host=db.example sslmode=require sslrootcert=/ca", nil), ("host=db.example sslmode=verify-ca", nil),
    ("host=db.example sslmode=verify-full", nil), ("host=db.example gssencmode=require", nil),
    ("host=localhost.db.example", "prefer"), ("host=128.0.0.1", "prefer"), ("host=127.db.example", "prefer"),
  ])
  func serversElsewhereHaveToProveWhoTheyAre(_ text: String, _ mode: String?) throws {
    #expect(try ConnectionSettings(parsing: text).unverifiedMode == mode, "\(text)")
  }

  @Test func whatCanNotBeHandedOverIsRefused() throws {
    for text in ["service=x sslpassword=secret1", "sslpassword='secret1\n2'", "sslpassword=' secret1'"] {
      let fault = #expect(throws: Fault.self) { try ConnectionSettings(parsing: text) }
      #expect(fault?.code == .configInvalid && fault.map { !"\($0)".contains("secret1") } == true)
    }
    let mistaken = #expect(throws: Fault.self) { try ConnectionSettings(parsing: "sslpassword=secret1 'secret1'='") }
    #expect(mistaken.map { !"\($0)".contains("secret1") } == true)
  }

  @Test func settingsOfOursWinOverTheUsersOwn() throws {
    let once = SessionSettings.options(after: "-c role=reader -c search_path=app")
    #expect(once.hasPrefix("-c role=none -c role=reader -c search_path=app -c search_path= "))
    #expect(SessionSettings.options(after: once) == once, "made once")
    let later = SessionSettings.options(after: once, major: 17)
    #expect(later == once + " -c idle_session_timeout=0 -c transaction_timeout=0")
    #expect(SessionSettings.options(after: later, major: 17) == later)
  }
}
