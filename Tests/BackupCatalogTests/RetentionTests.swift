import BackupCatalog
import Foundation
import Quoting
import Testing
import Units

/// A backup of `database` with an age in days before `now`.
func backup(
  _ type: String, daysOld: Double, database: String = "shop", now: Date, isGood: Bool = true, pin: Pin? = nil,
  keepSeconds: Int64? = nil
) -> Catalog.Backup {
  let time = now.addingTimeInterval(-daysOld * 86400)
  let id = BackupID(database: database, time: time)
  let file = Manifest.StoredFile(name: "x", size: 1, sha256: String(repeating: "0", count: 64))
  let manifest = Manifest(
    id: id, type: type, label: nil, job: type, run: "r", keepSeconds: keepSeconds, started: time, finished: time,
    host: "h", software: "s", dumpProgram: "d",
    server: .init(
      version: "15", versionNumber: 150_000, systemIdentifier: nil, database: database, encoding: "UTF8",
      databaseBytes: 1,
      isStandby: false),
    artifact: .init(file: file, archiveBytes: 1, compression: "zstd", level: 3),
    contents: .init(name: "contents", size: 1, sha256: file.sha256), globals: nil,
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
    "daily": TypePolicy(stores: ["local"], keep: .forDuration(.seconds(7 * 86400))),
    "weekly": TypePolicy(stores: ["local"], keep: .forDuration(.seconds(30 * 86400))),
    "manual": TypePolicy(stores: ["local"], keep: .untilDeleted),
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
    #expect(result[1].expired == ["local": now.addingTimeInterval(-86400)])
  }

  /// What nobody who is trusted has signed has no age; what another daemon has made is not ours; and where no good one is left of a
  /// database, what there is stays.
  @Test func whatNobodyHereCanJudgeStays() {
    func old(_ signature: Catalog.Signature, missing: [String] = [], days: Double = 90) -> Catalog.Backup {
      var backup = backup("daily", daysOld: days, now: now)
      backup.placements = [.init(store: "local", missing: missing, signature: signature)]
      return backup
    }
    let fresh = backup("daily", daysOld: 1, now: now)
    func reasons(_ backups: [Catalog.Backup], others: Set<BackupID> = []) -> [[KeepReason]] {
      policy.decide(catalog(backups), others: others, at: now).map(\.reasons)
    }
    #expect(reasons([old(.valid), fresh])[0] == [])
    #expect(reasons([old(.invalid), fresh])[0] == [.untrusted] && reasons([old(.missing), fresh])[0] == [.untrusted])
    #expect(reasons([old(.invalid)]) == [[.untrusted]])
    #expect(reasons([old(.valid, missing: ["x"]), fresh])[0] == [])
    #expect(
      reasons([old(.valid, missing: ["x"]), old(.valid, missing: ["x"], days: 80)])
        == [[.noneIsGood], [.noneIsGood]])
    #expect(reasons([old(.valid), fresh], others: [old(.valid).id])[0] == [.ofAnother])
    let plan = ReconcilePlan(
      catalog([old(.valid), fresh]), policy: policy, stores: ["local", "offsite"], at: now, others: [old(.valid).id])
    #expect(plan.steps.isEmpty)
    // One store has it signed, and so its age is known: a forged copy of it goes with it.
    var both = old(.valid)
    both.placements.append(.init(store: "offsite", missing: [], signature: .invalid))
    #expect(reasons([both, fresh])[0] == [])
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
  /// `é` as one code point and as two: Swift calls the names equal, and they are two databases. Who may create one of
  /// them must not make the other's last backup expire, or be restored in its place.
  @Test func databasesWhoseNamesOnlyLookAlikeAreTwo() throws {
    let (old, new) = (
      backup("daily", daysOld: 20, database: "caf\u{E9}", now: now),
      backup("daily", daysOld: 1, database: "cafe\u{301}", now: now)
    )
    let both = catalog([old, new])
    #expect(policy.decide(both, at: now).map(\.isKept) == [true, true])
    #expect(BackupID(database: "caf\u{E9}", time: now) != BackupID(database: "cafe\u{301}", time: now))
    let latest = try both.select(try BackupSelector(parsing: "caf\u{E9}/latest"), databases: [])
    #expect(latest.id == old.id && latest.id != new.id)
    #expect(throws: (any Error).self) { try both.select(try BackupSelector(parsing: "latest"), databases: []) }
    // A slash behind a Prepend is the one that ends the name.
    let named = BackupID(database: "x\u{600}", time: now)
    #expect(BackupID(parsing: named.description) == named)
    #expect(try BackupSelector(parsing: named.description).database == "x\u{600}")
  }

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
    let plan = ReconcilePlan(all, policy: Self.policy(["local": 7]), stores: ["local"], at: now)
    #expect(plan.steps.count == 2)
    let folder = "shop/daily/20261122T020000Z"
    let uploads = [
      ("\(folder)/x", 3600.0), ("\(folder)/x", 90_000), ("videos/holiday.mp4", 90_000), ("a/b/c/d", 90_000),
    ]
    .map { key, age in
      Catalog.Unfinished(store: "offsite", key: key, upload: "\(age)", lastChanged: now.addingTimeInterval(-age))
    }
    func aborting(busy: Set<ExactText> = [], unknown: Set<String> = []) -> [ReconcilePlan.Action] {
      ReconcilePlan(
        catalog([]), policy: Self.policy(["local": 7]), stores: ["local"], unknown: unknown, at: now,
        unfinished: uploads, busy: busy
      ).steps.map(\.action)
    }
    // Others may use the same bucket, and a run that goes on has its own.
    #expect(aborting() == [.abort(uploads[1])])
    #expect(aborting(busy: ["shop"]) == [] && aborting(unknown: ["offsite"]) == [])
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

  /// The newest signed proof belongs beside every whole copy that stays, and nowhere else.
  @Test func proofsAreSpread() {
    func copies(_ proofs: [String?], missing: [[String]] = [[], []], days: Int = 7) -> [String] {
      let stores = ["local", "offsite"]
      let placements = zip(stores, zip(proofs, missing)).map { store, found in
        var placement = Catalog.Placement(store: store, missing: found.1)
        placement.proof = found.0
        return placement
      }
      // A younger one, so that nothing is kept for being the newest.
      let young = placed(1, stores.map { .init(store: $0, missing: []) })
      return plan([placed(3, placements), young], Self.policy(["local": 7, "offsite": days]))
    }
    let (old, new) = ("proof-20261101T000000Z.json", "proof-20261102T000000Z.json")
    #expect(copies([nil, nil]) == [] && copies([new, new]) == [])
    #expect(copies([new, nil]) == ["copy \(new) from local to offsite: no signed proof there"])
    #expect(copies([old, new]) == ["copy \(new) from offsite to local: the proof there is an older one"])
    // The copy comes first, and with the next plan its proof.
    #expect(copies([new, nil], missing: [[], ["x"]]) == ["copy local to offsite: not whole there: x"])
    // What expires there gets none.
    #expect(copies([new, nil], days: 2) == ["delete in offsite"])
    #expect(plan([], Self.policy(["local": 7])) == [])
  }

  /// A lock that ends before the retention is made longer; one that ends behind it stays; of what nobody has asked for nothing is done.
  @Test func locksAreMadeLonger() {
    let all = catalog([placed(1, [.init(store: "local", missing: []), .init(store: "offsite", missing: [])])])
    let layout = all.backups[0].manifest.layout
    func steps(_ ends: [String: Date?], keep: Int = 7) -> [String] {
      let locks = ends.mapValues { end in end.map { [layout.folder: $0] } ?? [:] }
      return text(
        ReconcilePlan(
          all, policy: Self.policy(["local": 7, "offsite": keep]), stores: ["local", "offsite"], at: now, locks: locks))
    }
    func end(_ days: Double) -> Date { layout.id.time.addingTimeInterval(days * 86_400) }
    #expect(steps([:]) == [] && steps(["offsite": nil]) == [])
    #expect(steps(["offsite": end(7)]) == [] && steps(["offsite": end(9)]) == [] && steps(["offsite": end(6.99)]) == [])
    #expect(steps(["offsite": end(2)]) == ["lock in offsite for 144 h: locked there until "])
    #expect(steps(["offsite": .distantPast]) == ["lock in offsite for 144 h: not locked there"])
    #expect(steps(["offsite": end(7)], keep: 30) == ["lock in offsite for 696 h: locked there until "])
  }

  /// In a store that locks nothing expires before it is known that it is locked no more.
  @Test func whatMayBeLockedStays() {
    let all = catalog([
      placed(9, [.init(store: "local", missing: [])]), placed(1, [.init(store: "local", missing: [])]),
    ])
    let folder = all.backups[0].manifest.layout.folder
    func steps(_ locks: [String: [String: Date]]) -> [String] {
      text(ReconcilePlan(all, policy: Self.policy(["local": 7]), stores: ["local"], at: now, locks: locks))
    }
    #expect(steps([:]) == ["delete in local"] && steps(["local": [:]]) == [])
    #expect(steps(["local": [folder: now.addingTimeInterval(1)]]) == [])
    #expect(steps(["local": [folder: now]]) == ["delete in local"])
  }

  /// RECOVER.txt belongs beside every whole copy; a copy without it is a copy.
  @Test func textsAreWritten() {
    var without = Catalog.Placement(store: "local", missing: [])
    without.lacksText = true
    let policy = Self.policy(["local": 7, "offsite": 90])
    #expect(
      plan([placed(1, [without, .init(store: "offsite", missing: [])])], policy)
        == ["write the text in local"])
    #expect(
      plan([placed(1, [without])], policy)
        == ["write the text in local", "copy local to offsite: missing there"])
  }

  /// Files without a manifest that belong to a backup another store has: a repair was cut off, and they may be all that is good of it.
  @Test func whatIsBeingRepairedIsNotSwept() {
    let known = placed(3, [.init(store: "offsite", missing: [])])
    var all = catalog([placed(1, [.init(store: "local", missing: []), .init(store: "offsite", missing: [])]), known])
    let old = now.addingTimeInterval(-90_000)
    let folder = known.manifest.layout.folder
    all.add(Catalog.Leftover(store: "local", folder: folder, files: ["x"], lastChanged: old))
    all.add(Catalog.Leftover(store: "local", folder: "shop/daily/old", files: ["x", "pin.json"], lastChanged: old))
    let wanted = ReconcilePlan(
      all, policy: Self.policy(["local": 7, "offsite": 7]), stores: ["local", "offsite"], at: now)
    #expect(wanted.removals.isEmpty)
    // Where it has expired there, nothing brings it back, and the rest goes.
    let expired = ReconcilePlan(
      all, policy: Self.policy(["local": 2, "offsite": 7]), stores: ["local", "offsite"], at: now)
    #expect(text(expired) == ["sweep in local"])
  }

  /// Daily backups, kept in each store for so many days.
  private static func policy(_ days: [String: Int], quorum: Int = 1) -> RetentionPolicy {
    RetentionPolicy(
      rules: [
        "daily": TypePolicy(
          stores: days.keys.sorted(), keep: .forDuration(.seconds(7 * 86400)),
          keepByStore: days.mapValues { .forDuration(.seconds($0 * 86400)) })
      ], quorum: quorum)
  }

  private func placed(_ daysOld: Double, _ placements: [Catalog.Placement]) -> Catalog.Backup {
    var backup = backup("daily", daysOld: daysOld, now: now)
    backup.placements = placements
    return backup
  }

  private func text(_ plan: ReconcilePlan) -> [String] {
    plan.steps.map { step in
      switch step.action {
      case .copy(_, let from, let to): "copy \(from.joined(separator: "+")) to \(to): \(step.reason)"
      case .copyProof(let name, _, let from, let to): "copy \(name) from \(from) to \(to): \(step.reason)"
      case .lock(_, let store, let end):
        "lock in \(store) for \(Int((end.timeIntervalSince(now) / 3600).rounded())) h: \(step.reason.prefix { $0 != "2" })"
      case .writeText(_, let store): "write the text in \(store)"
      case .delete(_, let store): "delete in \(store)"
      case .sweep(let leftover): "sweep in \(leftover.store)"
      case .abort(let upload): "abort in \(upload.store)"
      }
    }
  }

  private func plan(
    _ backups: [Catalog.Backup], _ policy: RetentionPolicy, unknown: Set<String> = [], running: [ExactText: Date] = [:]
  ) -> [String] {
    text(
      ReconcilePlan(
        catalog(backups), policy: policy, stores: ["local", "offsite"], unknown: unknown, at: now,
        busy: Set(running.keys), running: running))
  }

  /// A database whose name Swift takes for the same holds nothing up.
  @Test func aCanonicalTwinsRunIsItsOwn() {
    let policy = Self.policy(["local": 7, "offsite": 90])
    var made = backup("daily", daysOld: 1, database: "app_\u{E9}", now: now)
    made.placements = [Catalog.Placement(store: "local", missing: [])]
    let since = made.manifest.finished.addingTimeInterval(-60)
    #expect(plan([made], policy, running: ["app_\u{E9}": since]) == [])
    #expect(plan([made], policy, running: ["app_e\u{301}": since]).count == 1)
  }

  @Test func whatIsMissingIsCopied() {
    let policy = Self.policy(["local": 7, "offsite": 90])
    let local = Catalog.Placement(store: "local", missing: [])
    let offsite = Catalog.Placement(store: "offsite", missing: [])
    #expect(plan([placed(1, [local])], policy) == ["copy local to offsite: missing there"])
    #expect(plan([placed(1, [offsite])], policy) == ["copy offsite to local: missing there"])
    #expect(plan([placed(1, [local, offsite])], policy) == [])
    #expect(
      plan([placed(1, [local, .init(store: "offsite", missing: ["x"])])], policy)
        == ["copy local to offsite: not whole there: x"])
    #expect(
      plan([placed(1, [local, .init(store: "offsite", missing: [], signature: .invalid)])], policy)
        == ["copy local to offsite: the manifest there is forged or damaged"])
    // Nothing to copy from; a forged one is no source.
    #expect(plan([placed(1, [.init(store: "local", missing: ["x"])])], policy) == [])
    #expect(plan([placed(1, [.init(store: "local", missing: [], signature: .invalid)])], policy) == [])
    // A store that can't be read may have it; a run may still be writing it.
    #expect(plan([placed(1, [local])], policy, unknown: ["offsite"]) == [])
    let backup = placed(1, [local])
    let finished = backup.manifest.finished
    #expect(plan([backup], policy, running: ["shop": finished.addingTimeInterval(-60)]) == [])
    #expect(plan([backup], policy, running: ["shop": finished.addingTimeInterval(0.5)]) == [])
    // One that has begun since, or is another database's, has nothing to do with it.
    #expect(plan([backup], policy, running: ["shop": finished.addingTimeInterval(2)]).count == 1)
    #expect(plan([backup], policy, running: ["other": finished.addingTimeInterval(-60)]).count == 1)
    // The newest first.
    #expect(
      ReconcilePlan(
        catalog([placed(1, [local]), placed(3, [local]), placed(2, [local])]), policy: policy,
        stores: ["local", "offsite"], at: now
      ).copies.compactMap { step in
        if case .copy(let manifest, _, _) = step.action { now.timeIntervalSince(manifest.id.time) / 86400 } else { nil }
      } == [1, 2, 3])
  }

  /// Each store has its own time; the last copy waits until it has been copied to where it belongs.
  @Test func storesKeepForTheirOwnTimes() {
    let policy = Self.policy(["local": 7, "offsite": 90])
    let local = Catalog.Placement(store: "local", missing: [])
    let offsite = Catalog.Placement(store: "offsite", missing: [])
    let fresh = placed(0.5, [local, offsite])
    #expect(plan([placed(8, [local, offsite]), fresh], policy) == ["delete in local"])
    #expect(plan([placed(8, [local]), fresh], policy) == ["copy local to offsite: missing there"])
    #expect(plan([placed(8, [local]), fresh], policy, unknown: ["offsite"]) == [])
    #expect(plan([placed(91, [local, offsite]), fresh], policy) == ["delete in local", "delete in offsite"])
    // The newest stays wherever it is.
    #expect(plan([placed(91, [local, offsite])], policy) == [])
    // A store that the type does not name any more keeps what it has for the type's time.
    #expect(plan([placed(6, [local, offsite]), fresh], Self.policy(["local": 7])) == [])
    #expect(plan([placed(8, [offsite]), fresh], Self.policy(["local": 9])) == ["copy offsite to local: missing there"])
  }

  /// With a quorum of two, a newer backup in one store does not replace an older one in two.
  @Test func theNewestWithEnoughCopiesStays() {
    let local = Catalog.Placement(store: "local", missing: [])
    let offsite = Catalog.Placement(store: "offsite", missing: [])
    let backups = [placed(20, [local, offsite]), placed(15, [local, offsite]), placed(10, [local])]
    let decisions = Self.policy(["local": 1, "offsite": 1], quorum: 2).decide(catalog(backups), at: now)
    #expect(decisions.map(\.isHeld) == [false, true, true])
  }
}
