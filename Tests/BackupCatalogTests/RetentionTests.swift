import BackupCatalog
import Foundation
import Testing
import Units

/// A backup of `database` with an age in days before `now`.
func backup(
  _ type: String, daysOld: Double, database: String = "shop", now: Date, isGood: Bool = true, pin: Pin? = nil,
  keepSeconds: Int64? = nil
) -> Catalog.Backup {
  let time = now.addingTimeInterval(-daysOld * 86400)
  let id = BackupID(database: database, time: time)
  let file = Manifest.StoredFile(name: "x", size: 1, sha256: "")
  let manifest = Manifest(
    id: id, type: type, label: nil, job: type, run: "r", keepSeconds: keepSeconds, started: time, finished: time,
    host: "h", software: "s", dumpProgram: "d",
    server: .init(
      version: "15", versionNumber: 150_000, systemIdentifier: nil, database: database, encoding: "UTF8",
      databaseBytes: 1,
      isStandby: false),
    artifact: .init(file: file, archiveBytes: 1, compression: "zstd", level: 3), contents: file, globals: nil,
    totals: .init(tables: 0, rows: 0, rowBytes: 0, largeObjects: 0))
  return Catalog.Backup(
    manifest: manifest, placements: [.init(store: "local", missing: isGood ? [] : ["x"])], pin: pin)
}

func catalog(_ backups: [Catalog.Backup]) -> Catalog {
  var catalog = Catalog()
  for backup in backups { catalog.add(backup) }
  return catalog
}

@Suite struct RetentionTests {
  let now = Date(timeIntervalSince1970: 1_800_000_000)
  let policy = RetentionPolicy(rules: [
    "daily": .forDuration(.seconds(7 * 86400)), "weekly": .forDuration(.seconds(30 * 86400)), "manual": .untilDeleted,
  ])

  private func verdicts(_ backups: [Catalog.Backup]) -> [(String, Bool)] {
    policy.decide(catalog(backups), at: now).map { ("\($0.backup.manifest.type)", $0.isKept) }
  }

  @Test func ageDecidesByType() {
    let result = policy.decide(
      catalog(
        [8, 6.9, 0.1].map { backup("daily", daysOld: $0, now: now) } + [backup("weekly", daysOld: 29, now: now)]),
      at: now)
    #expect(result.map(\.isKept) == [true, false, true, true])
    #expect(result[1].expired == now.addingTimeInterval(-86400))
  }

  /// The moment of expiry itself: kept up to it, not at it.
  @Test func theEdgeOfAge() {
    #expect(verdicts([backup("daily", daysOld: 7, now: now), backup("daily", daysOld: 0, now: now)])[0].1 == false)
    #expect(
      verdicts([backup("daily", daysOld: 7 - 1.0 / 86400, now: now), backup("daily", daysOld: 0, now: now)])[0].1
        == true)
  }

  @Test func theNewestGoodBackupIsNeverDeleted() {
    let result = policy.decide(
      catalog([
        backup("daily", daysOld: 100, now: now), backup("daily", daysOld: 90, now: now),
        backup("daily", daysOld: 80, now: now, isGood: false),
      ]), at: now)
    #expect(result.map(\.isKept) == [false, true, false])
    #expect(result[1].reasons == [.newestGood])
  }

  @Test func eachDatabaseKeepsItsOwnNewest() {
    let result = policy.decide(
      catalog([
        backup("daily", daysOld: 100, database: "a", now: now), backup("daily", daysOld: 1, database: "b", now: now),
      ]),
      at: now)
    #expect(result.map(\.isKept) == [true, true])
  }

  /// A backup that a wrong clock dated into the future is kept, and is no reason to delete the newest of the others.
  @Test func aFutureBackupProtectsNothing() {
    let result = policy.decide(
      catalog([backup("daily", daysOld: 50, now: now), backup("daily", daysOld: -300, now: now)]), at: now)
    #expect(result.map(\.isKept) == [true, true])
    #expect(result[0].reasons == [.newestGood])
    #expect(result[1].reasons == [.fromTheFuture])
  }

  @Test func pinsUnknownTypesAndOverridesAreReasons() {
    let pin = Pin(since: now, by: "uid 0", note: nil)
    let result = policy.decide(
      catalog([
        backup("gone-job", daysOld: 400, now: now), backup("daily", daysOld: 300, now: now, pin: pin),
        backup("manual", daysOld: 200, now: now), backup("manual", daysOld: 100, now: now, keepSeconds: 86400),
        backup("daily", daysOld: 20, now: now, keepSeconds: 30 * 86400), backup("daily", daysOld: 0.5, now: now),
      ]), at: now)
    #expect(result.map(\.isKept) == [true, true, true, false, true, true])
    #expect(result[0].reasons == [.unknownType("gone-job")])
    #expect(result[1].reasons == [.pinned(by: "uid 0")])
    #expect(result[2].reasons == [.untilDeleted])
    #expect(result[5].reasons.first == .newestGood)
  }

  /// Whatever the catalog and the rules: what is deleted is unpinned, too old by its rule, and some good backup not older than
  /// it remains.
  @Test func propertiesHoldForRandomCatalogs() {
    var generator = SystemRandomNumberGenerator()
    let seed = UInt64.random(in: 0...UInt64.max, using: &generator)
    var random = SplitMix(state: seed)
    for _ in 0..<300 {
      let backups = (0..<Int.random(in: 0...12, using: &random)).map { _ in
        backup(
          ["daily", "weekly", "manual", "other"].randomElement(using: &random) ?? "daily",
          daysOld: Double.random(in: -2...60, using: &random), database: Bool.random(using: &random) ? "a" : "b",
          now: now,
          isGood: Int.random(in: 0..<4, using: &random) > 0,
          pin: Int.random(in: 0..<6, using: &random) == 0 ? Pin(since: now, by: "x", note: nil) : nil)
      }
      let all = catalog(backups)
      for decision in policy.decide(all, at: now) where !decision.isKept {
        let gone = decision.backup
        #expect(gone.pin == nil, "seed \(seed)")
        #expect(gone.id.time <= now, "seed \(seed)")
        let remaining = policy.decide(all, at: now).filter(\.isKept).map(\.backup).filter {
          $0.id.database == gone.id.database
        }
        if gone.isGood { #expect(remaining.contains { $0.isGood && $0.id.time >= gone.id.time }, "seed \(seed)") }
      }
    }
  }
}

struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

@Suite struct ReconcilePlanTests {
  let now = Date(timeIntervalSince1970: 1_800_000_000)

  @Test func expiredBackupsAndOldLeftoversGo() {
    var all = catalog([backup("daily", daysOld: 9, now: now), backup("daily", daysOld: 1, now: now)])
    all.add(
      Catalog.Leftover(
        store: "local", folder: "shop/daily/old", files: ["x"], lastChanged: now.addingTimeInterval(-90_000)))
    all.add(
      Catalog.Leftover(
        store: "local", folder: "shop/daily/new", files: ["x"], lastChanged: now.addingTimeInterval(-3600)))
    let plan = ReconcilePlan(all, policy: RetentionPolicy(rules: ["daily": .forDuration(.seconds(604_800))]), at: now)
    #expect(plan.steps.count == 2)
    guard case .delete(let manifest, "local") = plan.steps[0].action, case .sweep(let leftover) = plan.steps[1].action
    else {
      Issue.record("one delete, one sweep")
      return
    }
    #expect(manifest.id == all.backups[0].id)
    #expect(leftover.folder == "shop/daily/old")
    #expect(plan.steps[0].reason.hasPrefix("expired since"))
    #expect(plan.kept.count == 1)
  }
}
