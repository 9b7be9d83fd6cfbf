import BackupCatalog
import Faults
import Foundation
import Logging
import TestSupport
import Testing

@testable import BackupOperations
@testable import PostgresTools

/// Whoever answers on a database's socket may be anybody: a man in the middle, or code of a backup that has taken the
/// socket of its drill's server. What it says may be wrong; it must never end the daemon.
@Suite(.waits) struct StrangeServerTests {
  @Test(arguments: StrangeServer.Kind.allCases.filter { $0 != .hangs && $0 != .endless })
  func noAnswerEndsUs(_ kind: StrangeServer.Kind) async throws {
    let server = try StrangeServer(kind)
    let settings = try ConnectionSettings(parsing: server.conninfo)
    // Whether it is refused or taken matters less than that somebody lives to tell.
    let questions: [@Sendable (PostgresSession) async throws -> Void] = [
      { _ = try await $0.role() }, { _ = try await $0.serverFacts() }, { _ = try await $0.inventory() },
      { _ = try await $0.databaseNames() }, { try await $0.execute("SELECT 1") },
    ]
    for ask in questions {
      do {
        try await PostgresSession.connect(settings).use { session in try await ask(session) }
      } catch let fault as Fault {
        #expect(fault.code != .internal, "\(fault)")
      }
    }
    let workshop = Workshop()
    await #expect(throws: Fault.self) { try await workshop.backup(settings).run() }
    #expect(await workshop.catalog().backups.isEmpty)
    let rollback = Rollback(on: settings, context: OperationContext(now: { Date() }, report: { _ in }))
    _ = try? await rollback.kept()
  }

  /// Rows without end end at half a GiB.
  @Test func whatHasNoEndIsHungUpOn() async throws {
    let server = try StrangeServer(.endless)
    let fault = await #expect(throws: Fault.self) {
      try await PostgresSession.connect(ConnectionSettings(parsing: server.conninfo)).use {
        try await $0.query("SELECT 1")
      }
    }
    #expect(fault?.cause?.contains("more than 512 MiB") == true, "\(fault.map { "\($0)" } ?? "")")
  }

  /// What is not known yet is said, and no reason not to go on.
  @Test func aServerOfTheFutureIsToldOf() async throws {
    #expect(ConnectionCheck.untested(19, of: "'shop'")?.code == .databaseUntested)
    for major in 13...18 { #expect(ConnectionCheck.untested(major, of: "'shop'") == nil) }
    let server = try StrangeServer(.narrow, version: "19devel")
    let check = ConnectionCheck(try ConnectionSettings(parsing: server.conninfo), of: "'shop'", readsOnly: false)
    #expect(await check.warnings(within: .seconds(60)).map(\.code) == [.databaseUntested])
  }

  /// It takes the connection and the question, and that is all.
  @Test func whoNeverAnswersIsHungUpOn() async throws {
    let server = try StrangeServer(.hangs)
    let fault = await #expect(throws: Fault.self) {
      _ = try await PostgresSession.connect(
        ConnectionSettings(parsing: server.conninfo), answeringWithin: .milliseconds(300))
    }
    #expect(fault?.code == .databaseUnreachable)
    #expect(fault?.message.contains("did not answer within") == true, "\(fault.map { "\($0)" } ?? "")")
  }

  /// A question that takes longer than it may does not hold up who has asked.
  @Test func whatTakesTooLongIsEnded() async throws {
    let cluster = try PrivateCluster.shared()
    let settings = try ConnectionSettings(parsing: cluster.conninfo("postgres"))
    let session = try await PostgresSession.connect(settings, answeringWithin: .seconds(2))
    #expect(try await session.query("SELECT 1").first?[0] == "1")
    let fault = await #expect(throws: Fault.self) { _ = try await session.query("SELECT pg_catalog.pg_sleep(600)") }
    #expect(fault?.message.contains("did not answer within 2s") == true, "\(fault.map { "\($0)" } ?? "")")
    await session.close()
  }

  /// Anybody who owns a database can write a comment that begins like our mark.
  @Test(
    arguments: [
      "' until ", "", "'", "' until", "'x' until ", "'x' until 2026", "'' until 2026-11-30T19:00:00Z.",
      " until 2026-11-30T19:00:00Z. x", "'' until 2026-11-30T19:00:00Z. Signed by 1, ",
      "'\u{301}x' until 2026-11-30T19:00:00Z. x",
    ])
  func noCommentEndsUs(_ rest: String) {
    for name in ["m2", "x_before_20261130t190000z", "_before_20261130t190000z"] {
      for begin in [
        "Kept by pgbackupd: was '", "Kept by pgbackupd: was ", "Not finished: pgbackupd restores into this",
      ] {
        let mark = KeptMark(of: name, comment: begin + rest)
        #expect(mark == nil || mark?.name == name)
      }
    }
  }
}
