import BackupOperations
import ControlAPI
import Faults
import Foundation
import Glibc
import HTTPTypes
import Logging
import MetricsText
import SystemdSupport
import TestSupport
import Testing

@testable import BackupDaemon

/// Roles on the control socket.
@Suite struct AccessTests {
  private static let alice = Peer(uid: 1001, pid: 1, gid: 1001, groups: [1001])
  private static let rules = AccessRules(
    [
      .reader: [.init(name: "group dba", account: .group(200))],
      .operator: [.init(name: "user olga", account: .user(1002))],
      .restorer: [
        .init(name: "user rita", account: .user(1003)), .init(name: "group ghosts", account: .unknown),
      ],
    ], ownUser: 900)

  private static func peer(_ uid: UInt32, gid: UInt32 = 1, groups: Set<UInt32> = []) -> Peer {
    Peer(uid: uid, pid: 1, gid: gid, groups: groups)
  }

  @Test(
    arguments: [
      (peer(1001), nil), (peer(1001, gid: 200), .reader), (peer(1001, groups: [5, 200]), .reader),
      (peer(1002), .operator), (peer(1002, groups: [200]), .operator), (peer(1003, groups: [200]), .restorer),
      (peer(0), .restorer), (peer(900), .restorer),
      // A number is a user's or a group's, not both.
      (peer(200), nil), (peer(1, groups: [1003]), nil),
    ] as [(Peer, Role?)])
  func theHighestRoleCounts(_ peer: Peer, _ role: Role?) { #expect(Self.rules.role(of: peer) == role) }

  @Test func withoutRolesTheSocketDecides() {
    #expect(AccessRules(nil).role(of: Self.alice) == .restorer && AccessRules(nil).role(of: nil) == .restorer)
    // With roles, whoever is in none of them has none; and whose credentials are not known is nobody.
    #expect(AccessRules([:], ownUser: 900).role(of: Self.alice) == nil)
    #expect(Self.rules.role(of: nil) == nil)
  }

  @Test func aRefusalNamesWhoMay() throws {
    func refusal(_ role: Role) throws -> Fault {
      try #require(
        throws: Fault.self, performing: { try Self.rules.check(Self.alice, may: "Deleting a backup", needing: role) })
    }
    let fault = try refusal(.restorer)
    #expect(fault.code == .notAllowed && fault.code.exitCode == .notAllowed)
    #expect(fault.message == "Deleting a backup needs the role 'restorer': user rita, group ghosts.")
    #expect(try refusal(.reader).message.hasSuffix("'reader': user rita, group ghosts, user olga, group dba."))
    let nobody = #expect(throws: Fault.self) {
      try AccessRules([:], ownUser: 900).check(Self.alice, may: "Restoring", needing: .restorer)
    }
    #expect(nobody?.message == "Restoring needs the role 'restorer': root and the daemon's own user alone.")
  }

  /// Every route that the control socket serves stands in the table, and the table names no other.
  @Test func everyRouteHasItsRole() throws {
    let folder = TemporaryFolder()
    let plan = DaemonPlan(
      databases: [], jobs: [], stores: [], backup: .init(), parallelRuns: 1, windDown: .seconds(1), rpo: nil)
    let core = DaemonCore(
      plan: plan, ledger: try Ledger(path: folder.file("ledger")), now: { Date.now },
      logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, zone: { _ in nil }, namedZone: { _ in nil },
      registry: MetricsRegistry(help: [:]), logTail: LogTail(), reload: { plan })
    let served = ControlRoutes(core: core).routes(.operators)
    #expect(served.count > 25)
    for route in served { #expect(ControlAccess.rules[route] != nil, "\(route) has no role") }
    for route in ControlAccess.rules.keys { #expect(served.contains(route), "\(route) is not served") }
    // What changes something is nobody's who only looks, but for plans of it.
    for route in served where route.hasPrefix("POST ") && route != "POST /v1/restores/preview" {
      #expect(try #require(ControlAccess.rules[route]).role > .reader, "\(route)")
    }
  }

  @Test(arguments: [
    ("GET /v1/status", Role.reader), ("GET /v1/unread", .reader),
    ("GET /v1/backups", .reader), ("GET /v1/report", .reader),
    ("GET /v1/log", .reader),
    ("GET /metrics", .reader), ("GET /v1/backup", .reader), ("POST /v1/restores/preview", .reader),
    ("POST /v1/backups", .operator), ("POST /v1/verify", .operator), ("POST /v1/drill", .operator),
    ("POST /v1/pin", .operator), ("POST /v1/reconcile", .operator), ("POST /v1/alerts/test", .operator),
    ("POST /v1/runs/{run}/cancel", .operator), ("POST /v1/restores", .restorer), ("GET /v1/extract", .restorer),
    ("POST /v1/delete", .restorer), ("POST /v1/damaged/delete", .restorer), ("POST /v1/unpin", .restorer),
    ("POST /v1/rollback", .restorer), ("POST /v1/swap", .restorer), ("POST /v1/accept", .restorer),
    ("POST /v1/adoptions", .restorer),
  ])
  func aRouteIsForItsRoleAndThoseAbove(_ route: String, _ needed: Role) throws {
    let rule = try #require(ControlAccess.rules[route])
    for (peer, role) in [
      (Self.alice, nil), (Self.peer(1001, gid: 200), .reader), (Self.peer(1002), .operator),
      (Self.peer(1003), .restorer),
      (Self.peer(0), .restorer),
    ] as [(Peer, Role?)] {
      let isAllowed = (try? Self.rules.check(peer, may: rule.deed, needing: rule.role)) != nil
      #expect(isAllowed == (role.map { $0 >= needed } ?? false), "\(route) for \(peer.uid)")
    }
  }

  @Test func whatIsInNoTableIsForRestorers() {
    #expect(ControlAccess.rule(.get, nil).role == .restorer)
    #expect(ControlAccess.rule(.get, "/v1/new").role == .restorer)
    #expect(ControlAccess.rule(.head, "/v1/status").role == .reader)
  }

  /// The first refusal is written at once; a flood of them, of one peer or of many, costs a few lines an hour.
  @Test func refusalsDoNotFloodTheLedger() {
    var book = RefusalBook()
    #expect(book.note(uid: 1, deed: "Restoring", at: 0) == 0)
    #expect((1...1000).allSatisfy { book.note(uid: 1, deed: "Restoring", at: Double($0)) == nil })
    #expect(book.note(uid: 1, deed: "Deleting a backup", at: 1000) == 0)
    #expect(book.note(uid: 1, deed: "Restoring", at: 3600) == 1000)
    #expect(book.note(uid: 1, deed: "Restoring", at: 3601) == nil)
    var written = 0
    for second in 0..<3600 where book.note(uid: UInt32(second + 10), deed: "Restoring", at: 7300) != nil {
      written += 1
    }
    #expect(written <= RefusalBook.most + 1)
    #expect(book.note(uid: 1_000_000, deed: "Restoring", at: 7300 + 3600) == 0)
  }

  /// The kernel tells who is at the other end, with all groups.
  @Test func thePeerIsWhoTheKernelSays() throws {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    defer { ends.forEach { _ = close($0) } }
    let peer = try Peer(socket: ends[0])
    var own = [gid_t](repeating: 0, count: 65_536)
    let count = getgroups(Int32(own.count), &own)
    #expect(peer == Peer(uid: geteuid(), pid: getpid(), gid: getegid(), groups: Set(own.prefix(Int(count)))))
    #expect(throws: Fault.self) { try Peer(socket: -1) }
  }
}
