import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Storage
import TestSupport
import Testing
import Units

@testable import BackupOperations

/// Whose signatures count, for which databases, everywhere.
@Suite struct TrustedKeysTests {
  private static let (own, other, stranger) = (SigningKey.generate(), SigningKey.generate(), SigningKey.generate())
  private static let narrow =
    TrustedKeys([own.publicKey]) + TrustedKeys([.init(other.publicKey, databases: ["crm", "app_*"])])
  private static let message = Array("a manifest\n".utf8)

  @Test(arguments: [
    (own, "shop", "valid"), (own, "crm", "valid"), (other, "crm", "valid"), (other, "app_7", "valid"),
    (other, "shop", "outside"), (other, "crm2", "outside"), (other, "", "outside"), (stranger, "crm", "invalid"),
  ])
  func aKeySignsForItsDatabases(_ key: SigningKey, _ database: String, _ verdict: String) throws {
    let found = Self.narrow.check(Self.message, signature: try key.sign(Self.message), of: database)
    switch found {
    case .valid(let by): #expect(verdict == "valid" && by == key.publicKey)
    case .outside(let by): #expect(verdict == "outside" && by == key.publicKey)
    case .invalid: #expect(verdict == "invalid")
    }
    #expect(
      Self.narrow.isSigned(Self.message, signature: try key.sign(Self.message), of: database) == (verdict == "valid"))
    #expect(Self.narrow.check([1], signature: try key.sign(Self.message), of: database) == .invalid)
  }

  @Test func aKeyThatIsNamedTwiceMaySignForBoth() throws {
    let keys = Self.narrow + TrustedKeys([.init(Self.other.publicKey, databases: ["s?op"])])
    #expect(keys.isSigned(Self.message, signature: try Self.other.sign(Self.message), of: "shop"))
    #expect(keys.isSigned(Self.message, signature: try Self.other.sign(Self.message), of: "crm"))
  }

  /// A backup of another database, by a key that is trusted for `crm`: in the catalog, in retention, in reconcile and
  /// in a verification it is one that nobody trusted has signed. With today's list, which means any database, it was
  /// good everywhere.
  @Test func aForgedBackupCountsForNothing() async throws {
    let bench = try Bench(["one", "two"])
    let trusted = TrustedKeys([.init(bench.key.publicKey, databases: ["crm"])])
    let forged = try await bench.makeBackup(of: "shop", at: start, in: ["one"])
    let real = try await bench.makeBackup(of: "crm", at: start, in: ["one"])

    var (open, closed) = (CatalogReader(trusted: [bench.key.publicKey]), CatalogReader(trusted: trusted))
    let (before, now) = (await open.read(bench.stores), await closed.read(bench.stores))
    func find(_ manifest: Manifest, in catalog: Catalog) throws -> Catalog.Backup {
      try #require(catalog.backups.first { $0.id == manifest.id })
    }
    #expect(try find(forged, in: before).isGood)
    let (shop, crm) = (try find(forged, in: now), try find(real, in: now))
    #expect(!shop.isGood && !shop.isTrusted && shop.placements.map(\.signature) == [.invalid])
    #expect(shop.placements[0].signer == nil && shop.placements[0].outsider == bench.key.publicKey.description)
    #expect(crm.isGood && crm.placements[0].signer == bench.key.publicKey.description)
    #expect(throws: Fault.self) { try now.select(try BackupSelector(parsing: "shop/latest"), databases: ["shop"]) }

    // It has no age, and keeps no real one from going.
    let policy = policy(["one": 1, "two": 1])
    let decision = try #require(policy.decide(now, at: start.addingTimeInterval(90 * day)).first { $0.backup == shop })
    #expect(decision.isKept && decision.reasons.contains(.untrusted), "\(decision.reasons)")
    let plan = ReconcilePlan(now, policy: policy, stores: ["one", "two"], unknown: [], at: start)
    #expect(plan.steps.filter { "\($0)".contains("crm/") }.count == 1, "\(plan.steps)")
    #expect(plan.steps.allSatisfy { !"\($0)".contains("shop/") }, "\(plan.steps)")

    func verify(_ manifest: Manifest, _ trusted: TrustedKeys) async throws -> FaultCode? {
      try await Verify(
        manifest, in: bench.stores[0], level: .checksum, identities: [], trusted: trusted, now: { start }
      ).run().fault?.code
    }
    #expect(try await verify(forged, [bench.key.publicKey]) == nil)
    #expect(try await verify(forged, trusted) == .signatureInvalid)
    #expect(try await verify(real, trusted) == nil)
  }

  /// Nor is its word about somebody else's backup a proof.
  @Test func aForgedProofIsNone() async throws {
    let bench = try Bench(["one"])
    let manifest = try await bench.makeBackup(of: "shop", at: start, in: ["one"])
    let other = Self.other
    let proof = Proof(
      backup: manifest.id, finished: start, host: "h", software: "s", server: "15", stores: ["one"],
      outcome: RestoreOutcome(database: "shop"), assertions: 0, checkedRelations: nil)
    let failed = await ProofRecord.write(
      proof, of: manifest, signingKey: other, policy: RetentionPolicy(rules: [:]), to: bench.stores)
    #expect(failed.isEmpty)
    let own = TrustedKeys([bench.key.publicKey])
    for (trusted, isBelieved) in [
      (own + TrustedKeys([other.publicKey]), true),
      (own + TrustedKeys([.init(other.publicKey, databases: ["crm"])]), false),
    ] {
      var reader = CatalogReader(trusted: trusted)
      let backup = await reader.read(bench.stores).backups.first
      #expect(backup?.isGood == true && (backup?.proof != nil) == isBelieved)
    }
  }
}
