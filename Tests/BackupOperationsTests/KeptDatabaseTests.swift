import ArtifactFormat
import BackupCatalog
import BackupOperations
import Faults
import Foundation
import PostgresTools
import TestSupport
import Testing

/// Everybody who may create databases can write our mark on one of his own. Only what we have put aside takes a place
/// again, or is dropped.
@Suite(.waits) struct KeptDatabaseTests {
  /// A database that was restored once, and what that has put aside.
  private struct Kept {
    let fixture: RestoreFixture
    let name: String
    let stranger: String

    init() async throws {
      fixture = try await RestoreFixture(sample: nil, sql: "CREATE TABLE t AS SELECT 'right' AS x")
      stranger = "mallory_\(UUID().uuidString.prefix(6).lowercased())"
      try fixture.cluster.sql("postgres", "CREATE ROLE \(stranger) LOGIN CREATEDB")
      name = try #require(try await fixture.restore(fixture.request).run().kept)
    }

    var live: String { fixture.database }

    /// Makes a database with a mark that nobody has signed, as another role.
    func forge(_ name: String, until time: String, by role: String? = nil) throws {
      try fixture.cluster.sql(
        "postgres",
        """
        CREATE DATABASE "\(name)" OWNER \(role ?? stranger);
        COMMENT ON DATABASE "\(name)" IS 'Kept by pgbackupd: was ''\(live)'' until \(time). pgbackupctl rollback puts it back.'
        """)
    }

    func comment(_ name: String) throws -> String {
      String(
        try fixture.cluster.sql(
          "postgres",
          "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '\(name)'"
        ).dropLast())
    }

    func setComment(_ name: String, _ text: String) throws {
      try fixture.cluster.sql(
        "postgres", "COMMENT ON DATABASE \"\(name)\" IS '\(text.replacing("'", with: "''"))'")
    }

    func doubts(recorded: Set<String> = []) async throws -> [String: KeptDatabase.Doubt?] {
      Dictionary(
        uniqueKeysWithValues: try await fixture.rollback(recorded: recorded).kept().filter { $0.live == live }
          .map { ($0.name, $0.doubt) })
    }

    func mustRefuse(_ code: FaultCode, recorded: Set<String> = []) async throws -> Fault? {
      let fault = await #expect(throws: Fault.self) { try await fixture.rollback(recorded: recorded).run(live) }
      #expect(fault?.code == code, "\(fault.map { "\($0)" } ?? "")")
      return fault
    }
  }

  @Test func aStrangersDatabaseWithOurMarkTakesNoPlace() async throws {
    let kept = try await Kept()
    let future = "\(kept.live)_before_20990101t000000z"
    let late = "\(kept.live)_before_20270116t090000z"
    try kept.forge(future, until: "2099-01-01T00:00:00Z")
    try kept.forge(late, until: "2027-01-16T09:00:00Z")
    #expect(
      try await kept.doubts() == [kept.name: nil, future: .future, late: .owner(kept.stranger)])
    // The sweep takes what is ours and old, and nothing else.
    let swept = try await kept.fixture.rollback(at: Date(timeIntervalSince1970: 4_100_000_000))
      .drop(olderThan: .seconds(3600)) { [live = kept.live] in $0 == live }
    #expect(swept.dropped == [kept.name] && swept.failed.isEmpty)
    let refused = try await kept.mustRefuse(.rollbackMissing)
    #expect(refused?.cause?.contains("owned by '\(kept.stranger)'") == true, "\(refused.map { "\($0)" } ?? "")")
    #expect(try kept.fixture.cluster.sql(kept.live, "TABLE t") == "right\n")
  }

  @Test func aRollbackPassesOverStrangers() async throws {
    let kept = try await Kept()
    try kept.forge("\(kept.live)_before_20990101t000000z", until: "2099-01-01T00:00:00Z")
    try kept.forge("\(kept.live)_before_20270116t090000z", until: "2027-01-16T09:00:00Z")
    let outcome = try await kept.fixture.rollback().run(kept.live)
    #expect(outcome.putBack == kept.name)
    #expect(try kept.fixture.cluster.sql(kept.live, "TABLE t") == "right\n")
  }

  /// A signature is of one database: with another OID, name or time it is none.
  @Test func aSignatureIsOfOneDatabaseAlone() async throws {
    let kept = try await Kept()
    let comment = try kept.comment(kept.name)
    #expect(comment.contains(" Signed: owner 10, "))
    // Dropped, and made anew by somebody with its name, its owner and its comment.
    try kept.fixture.cluster.sql("postgres", "DROP DATABASE \"\(kept.name)\"; CREATE DATABASE \"\(kept.name)\"")
    try kept.setComment(kept.name, comment)
    #expect(try await kept.doubts() == [kept.name: .unknown(isSigned: true)])
    let refused = try await kept.mustRefuse(.rollbackRefused)
    #expect(
      refused?.hint == "look into it, then: pgbackupctl rollback \(kept.live) --kept \(kept.name)",
      "\(refused.map { "\($0)" } ?? "")")
    // Another key's.
    let again = try #require(try await kept.fixture.restore(kept.fixture.request).run().kept)
    #expect(try await kept.doubts()[again] == .some(nil))
    let other = Rollback(
      on: try connection(kept.fixture.cluster, kept.live),
      context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_200_000) }, report: { _ in }),
      witnesses: KeptWitnesses(keys: [SigningKey.generate().publicKey]))
    #expect(try await other.kept().last { $0.live == kept.live }?.doubt == .unknown(isSigned: true))
    // Another time.
    try kept.setComment(again, try kept.comment(again).replacing("until 2027", with: "until 2026"))
    #expect(try await kept.doubts()[again] == .some(.unknown(isSigned: true)))
  }

  /// A clock that was put back, or a mark of the future: until that time has come it is not put back.
  @Test func whatIsOfTheFutureStays() async throws {
    let kept = try await Kept()
    let fault = await #expect(throws: Fault.self) {
      try await kept.fixture.rollback(at: Date(timeIntervalSince1970: 1_800_000_000)).run(kept.live)
    }
    #expect(fault?.code == .rollbackMissing && fault?.cause?.contains("a time that has not come") == true)
  }

  @Test func anotherOwnersDatabaseStays() async throws {
    let kept = try await Kept()
    try kept.fixture.cluster.sql("postgres", "ALTER DATABASE \"\(kept.name)\" OWNER TO \(kept.stranger)")
    #expect(try await kept.doubts() == [kept.name: .owner(kept.stranger)])
    _ = try await kept.mustRefuse(.rollbackMissing, recorded: [kept.name])
    // With the new owner's database in its place it is one of theirs.
    try kept.fixture.cluster.sql("postgres", "ALTER DATABASE \"\(kept.live)\" OWNER TO \(kept.stranger)")
    #expect(try await kept.doubts() == [kept.name: nil])
  }

  /// Marks of earlier versions are not signed: the ledger knows them, or somebody names them.
  @Test func marksOfEarlierVersionsNeedTheLedger() async throws {
    let kept = try await Kept()
    let comment = try kept.comment(kept.name)
    let range = try #require(comment.firstRange(of: " Signed: "))
    try kept.setComment(kept.name, String(comment[..<range.lowerBound]) + "\nits own")
    #expect(try await kept.doubts() == [kept.name: .unknown(isSigned: false)])
    #expect(try await kept.doubts(recorded: [kept.name]) == [kept.name: nil])
    _ = try await kept.mustRefuse(.rollbackRefused)
    let unknown = await #expect(throws: Fault.self) {
      try await kept.fixture.rollback().run(kept.live, choosing: "postgres")
    }
    #expect(unknown?.code == .rollbackMissing)
    let byHand = try await kept.fixture.rollback().run(kept.live, choosing: kept.name)
    #expect(byHand.putBack == kept.name)
    #expect(try kept.comment(kept.live) == "its own")
    // And back again, by the ledger alone.
    let aside = try #require(byHand.kept)
    try kept.setComment(
      aside, String(try kept.comment(aside).prefix { $0 != "\n" }).components(separatedBy: " Signed")[0])
    let again = try await kept.fixture.rollback(at: Date(timeIntervalSince1970: 1_800_300_000), recorded: [aside])
      .run(kept.live)
    #expect(again.putBack == aside)
  }

  /// Everybody writes such a comment on a database of his own; it hides nothing but what a restore has named.
  @Test func aCommentAloneHidesNoDatabase() {
    let unfinished = "Not finished: pgbackupd restores into this shop/20261122T020000Z"
    let kept = "Kept by pgbackupd: was 'shop' until 2026-11-22T02:00:00Z. pgbackupctl rollback puts it back."
    let long = String(repeating: "\u{E9}", count: 19)
    let cases: [(name: String, comment: String?, isOurs: Bool)] = [
      ("shop_restore_20261122t020000z", unfinished, true), ("\(long)_restore_20261122t020000z", unfinished, true),
      ("shop", unfinished, false), ("shop_restore_", unfinished, false), ("shop_restore_yesterday", unfinished, false),
      ("shop_restore_20261122T020000Z", unfinished, false), ("shop_before_20261122t020000z", unfinished, false),
      ("shop_restore_20261122t020000z", nil, false), ("shop_restore_20261122t020000z", "mine", false),
      ("shop_before_20261122t020000z", kept, true), ("shop", kept, false),
      ("sho\u{305}p_before_20261122t020000z", kept, false),
    ]
    for (name, comment, isOurs) in cases {
      #expect(RestoreNames.isOurs(name, comment: comment) == isOurs, "\(name): \(comment ?? "none")")
    }
  }

  /// A canonical twin's mark is of the twin, however alike the names look.
  @Test func aTwinsMarkIsOfTheTwin() {
    func comment(_ live: String) -> String {
      "Kept by pgbackupd: was '\(live)' until 2026-11-22T02:00:00Z. pgbackupctl rollback puts it back."
    }
    let kept = "app_e\u{301}_before_20261122t020000z"
    #expect(RestoreNames.isOurs(kept, comment: comment("app_e\u{301}")))
    #expect(!RestoreNames.isOurs(kept, comment: comment("app_\u{E9}")))
  }
}
