import Foundation
import TestSupport
import Testing

/// A server on which strangers make databases whose names Swift takes for those of others: each is backed up, shown,
/// restored and rolled back by its own bytes, and nothing else is touched.
@Suite(.serialized, .waits) struct TwinNamesEndToEndTests {
  private static let names = [
    "app_\u{E9}", "app_e\u{301}", "app_K1", "app_\u{212A}1", "shop", "\u{301}shop",
  ]
  /// Its owner would hide it from the pattern by a comment that only a restore writes.
  private static let hidden = "app_hidden"

  /// What a server says of a database.
  private struct State: Equatable {
    let identifier: String
    let owner: String
    let value: String
  }

  private struct Fixture {
    let cluster: PrivateCluster
    let folder = TemporaryFolder()
    let daemon: DaemonProcess

    init() throws {
      cluster = try PrivateCluster()
      for (number, name) in (names + [hidden]).enumerated() {
        try cluster.sql("postgres", "CREATE ROLE owner\(number) LOGIN CREATEDB")
        try cluster.sql("postgres", "CREATE DATABASE \"\(name)\" OWNER owner\(number) TEMPLATE template0")
        try cluster.sql(name, "CREATE TABLE t AS SELECT \(number) AS x")
      }
      try cluster.sql(
        "postgres",
        "SET ROLE owner\(names.count); COMMENT ON DATABASE \(hidden) IS 'Not finished: pgbackupd restores into this x'")
      daemon = try DaemonProcess(
        """
        databases: { app: { connect: "\(cluster.conninfo("postgres"))", include: "*", exclude: "postgres" } }
        jobs: { manual: , daily: { schedule: "0 2 29 2 *", keep: 7d } }
        daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")), parallel_runs: 4 }
        """, in: folder)
      try daemon.waitFor("READY=1")
    }

    /// By the bytes of the names.
    func states() throws -> [[UInt8]: State] {
      var states: [[UInt8]: State] = [:]
      for name in names + [hidden] {
        let facts = try cluster.sql(
          name,
          "SELECT oid, pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database(); SELECT x FROM t"
        ).split(whereSeparator: { $0 == "\n" || $0 == "|" }).map(String.init)
        states[Array(name.utf8)] = State(identifier: facts[0], owner: facts[1], value: facts[2])
      }
      return states
    }

    /// Runs a command, after which nothing but one database may be another one.
    func change(_ name: String, to value: Int, _ arguments: [String]) throws {
      var before = try states()
      let result = try Shell.run(
        DaemonProcess.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": daemon.socket])
      #expect(result.status == 0, "\(arguments): \(result.errors)\(result.output)")
      var after = try states()
      let (old, new) = (before.removeValue(forKey: Array(name.utf8)), after.removeValue(forKey: Array(name.utf8)))
      #expect(new?.value == "\(value)", "\(arguments)")
      #expect(new?.owner == old?.owner && new?.identifier != old?.identifier, "\(arguments)")
      #expect(after == before, "\(arguments)")
    }

    /// The bytes of the texts that a JSON array has under a key.
    func texts(_ list: Any?, _ key: String) -> [[UInt8]] {
      (list as? [[String: Any]] ?? []).compactMap { ($0[key] as? String).map { Array($0.utf8) } }
    }
  }

  private static func members(_ names: [String]) -> Set<[UInt8]> { Set(names.map { Array("app.\($0)".utf8) }) }

  @Test func eachDatabaseIsBackedUpRestoredAndRolledBackAsItself() throws {
    let fixture = try Fixture()
    let daemon = fixture.daemon
    let all = Self.members(Self.names + [Self.hidden])

    // By the job: a run of each, and none in another one's place.
    let runs = fixture.texts(try daemon.ctlJSON("run", "daily"), "database")
    #expect(runs.count == all.count && Set(runs) == all)
    // On demand, by name. The first was of the same rows.
    for name in Self.names { #expect(try daemon.ctl("backup", "app.\(name)").status == 0) }
    for name in Self.names {
      let list = try #require(try daemon.ctlJSON("list", "app.\(name)") as? [[String: Any]])
      let types = list.compactMap { $0["type"] as? String }
      #expect(types.sorted() == ["daily", "manual"], "\(name.debugDescription): \(list)")
    }
    let status = try #require(try daemon.ctlJSON("status") as? [String: Any])
    let rows = fixture.texts(status["databases"], "name")
    #expect(rows.count == all.count && Set(rows) == all)

    for (number, name) in Self.names.enumerated() {
      try fixture.cluster.sql(name, "UPDATE t SET x = \(100 + number)")
      try fixture.change(name, to: number, ["restore", "app.\(name)/latest", "--force"])
    }
    let after = try #require(try daemon.ctlJSON("status") as? [String: Any])
    let kept = fixture.texts(after["kept"], "database")
    #expect(kept.count == Self.names.count && Set(kept) == Self.members(Self.names))
    #expect(Set(fixture.texts(after["databases"], "name")) == all, "what was put aside is none of them")

    // Not the last one first: the newest that was kept is a twin's.
    for (number, name) in Self.names.enumerated() {
      try fixture.change(name, to: 100 + number, ["rollback", "app.\(name)", "--force"])
    }
  }
}
