import BackupCatalog
import Faults
import Foundation
import Testing

/// A store that answers with an old state, beside a store or a ledger that knows better.
@Suite struct NewerBackupsTests {
  private let now = Date(timeIntervalSince1970: 1_800_000_000)

  /// - Parameter day: the larger, the newer.
  private func made(
    _ day: Double, _ type: String = "daily", in stores: [String] = ["one", "two"], missing: [String] = [],
    signature: Catalog.Signature = .valid
  ) -> Catalog.Backup {
    var made = backup(type, daysOld: 100 - day, now: now)
    made.placements = stores.map { Catalog.Placement(store: $0, missing: missing, signature: signature) }
    return made
  }

  private func holding(_ backups: Catalog.Backup...) -> Catalog { catalog(backups) }

  private func onRecord(_ day: Double, _ type: String = "daily", in stores: Set<String> = ["one", "two"])
    -> Catalog.Newer
  {
    Catalog.Newer(id: made(day).id, type: type, stores: stores)
  }

  @Test func theLedgerKnowsOfANewerOne() {
    let (old, catalog) = (made(1), holding(made(1)))
    #expect(catalog.caution(using: old, onRecord: [onRecord(1)]) == nil)
    let fault = catalog.caution(using: old, onRecord: [onRecord(1), onRecord(3), onRecord(2)])
    #expect(fault?.code == .backupNewer && fault?.message.contains("\(made(3).id)") == true)
    #expect(fault?.cause?.contains("one, two") == true)
  }

  @Test func aStoreThatIsAwayIsNamed() {
    var catalog = holding(made(1, in: ["two"]))
    catalog.add(Catalog.Problem(store: "one", folder: nil, fault: Fault(.storeUnreachable, "away")))
    let fault = catalog.caution(using: made(1), onRecord: [onRecord(2, in: ["one"])])
    #expect(fault?.cause == "it lies in one, which can't be read now")
  }

  /// Truncating or forging the newest hides it as well as leaving it out.
  @Test func aNewerOneThatCanNotBeUsedIsTold() {
    let damaged = holding(made(1), made(2, missing: ["a"]))
    #expect(damaged.caution(using: made(1))?.message.contains("lacks files") == true)
    let forged = holding(made(1), made(2, signature: .invalid))
    #expect(forged.caution(using: made(1))?.message.contains("no trusted key") == true)
  }

  /// Whoever names an old backup wants it.
  @Test func anOlderOneThanTheNewestIsNobodysSurprise() {
    let catalog = holding(made(1), made(2), made(3, "weekly"))
    #expect(catalog.caution(using: made(1), onRecord: [onRecord(4)]) == nil)
    // The newest of its type may be meant, and is asked about its type alone.
    #expect(catalog.caution(using: made(2), onRecord: [onRecord(4)]) != nil)
    #expect(catalog.caution(using: made(2), onRecord: [onRecord(4, "weekly")]) == nil)
    #expect(catalog.caution(using: made(3, "weekly"), onRecord: [onRecord(4)]) != nil)
  }

  @Test func aStoreBehindAnotherIsFound() {
    let both = holding(made(1), made(2))
    #expect(both.storesBehind().isEmpty)
    let behind = holding(made(1), made(2, in: ["one"])).storesBehind()
    #expect(behind.map(\.store) == ["two"])
    #expect(behind.first?.newest.id == made(2).id && behind.first?.has == made(1).id)
    // A store that never had this type is not behind in it, and one that can't be read shows nothing.
    #expect(holding(made(1, in: ["one"]), made(2, in: ["one"]), made(1, "weekly")).storesBehind().isEmpty)
    var away = holding(made(1), made(2, in: ["one"]))
    away.add(Catalog.Problem(store: "two", folder: nil, fault: Fault(.storeUnreachable, "away")))
    #expect(away.storesBehind().isEmpty)
  }

  /// A database whose name Swift takes for the same is another one.
  @Test func aCanonicalTwinIsAnotherDatabase() {
    func made(
      _ database: String, daysOld: Double, in stores: [String], missing: [String] = []
    ) -> Catalog.Backup {
      var made = backup("daily", daysOld: daysOld, database: database, now: now)
      made.placements = stores.map { Catalog.Placement(store: $0, missing: missing, signature: .valid) }
      return made
    }
    let old = made("app_\u{E9}", daysOld: 2, in: ["one"])
    let twins = made("app_e\u{301}", daysOld: 1, in: ["two"])
    let unusable = made("app_e\u{301}", daysOld: 0, in: ["two"], missing: ["a"])
    let catalog = holding(old, twins, unusable)
    let newer = Catalog.Newer(id: made("app_e\u{301}", daysOld: 0.5, in: []).id, type: "daily", stores: ["two"])
    #expect(catalog.caution(using: old, onRecord: [newer]) == nil)
    #expect(catalog.caution(using: twins, onRecord: [newer]) != nil)
    #expect(catalog.storesBehind().isEmpty)
  }
}
