import BackupCatalog
import Foundation
import Testing

private func statistics(
  _ day: Int, rows: [String: Int64] = ["public.users": 1000, "queue.jobs": 50], bytes: Int64 = 1_000_000,
  seconds: Double = 100, schema: String? = "a", isFlagged: Bool = false
) -> BackupStatistics {
  var result = BackupStatistics(
    backup: BackupID(database: "shop", time: Date(timeIntervalSince1970: 1_800_000_000 + Double(day) * 86400)),
    archiveBytes: bytes, storedBytes: bytes / 4, seconds: seconds, rows: rows, schemaDigest: schema)
  result.isFlagged = isFlagged
  return result
}

@Suite struct AnomalyTests {
  private static let history = (0..<5).map { statistics($0) }

  /// What is told of a new backup, by kind and table.
  @Test(arguments: [
    ("the same", statistics(9), []),
    ("a fifth less", statistics(9, rows: ["public.users": 800, "queue.jobs": 50]), []),
    ("more than a fifth", statistics(9, rows: ["public.users": 799, "queue.jobs": 50]), ["rows-lost public.users"]),
    ("a few of a few", statistics(9, rows: ["public.users": 1000, "queue.jobs": 41]), []),
    ("ten of a few", statistics(9, rows: ["public.users": 1000, "queue.jobs": 39]), ["rows-lost queue.jobs"]),
    ("more rows", statistics(9, rows: ["public.users": 9000, "queue.jobs": 50]), []),
    ("a table is gone", statistics(9, rows: ["public.users": 1000]), ["table-vanished queue.jobs"]),
    (
      "a new one", statistics(9, rows: ["public.users": 1000, "queue.jobs": 50, "public.new": 1]),
      ["table-appeared public.new"]
    ),
    ("half the size", statistics(9, bytes: 500_000), []),
    ("less than half", statistics(9, bytes: 499_999), ["small "]),
    ("another schema", statistics(9, schema: "b"), ["schema-changed "]),
    ("an unknown schema", statistics(9, schema: nil), []),
    ("slow", statistics(9, seconds: 301), ["slow "]), ("a little slow", statistics(9, seconds: 300), []),
  ])
  func comparison(_ what: String, _ new: BackupStatistics, _ expected: [String]) {
    let found = AnomalyRule().compare(new, with: Self.history).map { "\($0.kind.rawValue) \($0.table ?? "")" }
    #expect(found == expected, "\(what)")
  }

  /// Ten rows at least, of a table that is emptied too: one row that comes and goes is no loss.
  @Test(arguments: [(0, false), (1, false), (9, false), (10, true)]) func anEmptiedTable(_ rows: Int64, _ isTold: Bool)
  {
    let found = AnomalyRule().compare(statistics(1, rows: ["t": 0]), with: [statistics(0, rows: ["t": rows])])
    #expect(found.map(\.kind) == (isTold ? [.rowsLost] : []))
  }

  /// Large objects count as the rows of one table, which is neither new nor gone.
  @Test func largeObjects() {
    let name = BackupStatistics.largeObjects
    let with = statistics(0, rows: ["t": 1, name: 50])
    let without = statistics(1, rows: ["t": 1])
    let found = AnomalyRule().compare(without, with: [with])
    #expect(found.map(\.kind) == [.rowsLost] && found.first?.table == name)
    #expect(AnomalyRule().compare(with, with: [without]) == [])
    #expect(AnomalyRule(ignored: [name]).compare(without, with: [with]) == [])
  }

  /// What was compared with a backup of which nobody knows whether it was right is in doubt itself, until somebody accepts.
  @Test func whatWasComparedWithNothing() {
    var first = statistics(0)
    first.isUncompared = true
    #expect(AnomalyRule().compare(statistics(1), with: [first]).map(\.kind) == [.notCompared])
    first.isBaseline = true
    #expect(AnomalyRule().compare(statistics(1), with: [first]) == [])
  }

  @Test func theFirstBackupHasNoHistory() { #expect(AnomalyRule().compare(statistics(0), with: []) == []) }

  /// A loss that was backed up twice is still a loss.
  @Test func doubtfulOnesAreNoMeasure() {
    let lost = statistics(5, rows: ["public.users": 10, "queue.jobs": 50], isFlagged: true)
    let again = statistics(6, rows: ["public.users": 10, "queue.jobs": 50])
    #expect(AnomalyRule().compare(again, with: Self.history + [lost]).map(\.kind) == [.rowsLost])
    var accepted = lost
    accepted.isFlagged = false
    accepted.isBaseline = true
    #expect(AnomalyRule().compare(again, with: Self.history + [accepted]) == [])
  }

  /// A little each time, never so much that one backup shows it.
  @Test func whatGoesLittleByLittle() {
    var rows: Int64 = 10_000
    var history: [BackupStatistics] = []
    var told: [Int] = []
    for day in 0..<5 {
      let new = statistics(day, rows: ["t": rows])
      if !AnomalyRule().compare(new, with: history).isEmpty { told.append(day) }
      history.append(new)
      rows -= rows / 10
    }
    #expect(told == [3, 4], "27 % are gone by then")
    // One that has grown in between comes and goes.
    let waves = [10_000, 9000, 8500, 8600, 7800].enumerated().map { statistics($0.offset, rows: ["t": $0.element]) }
    #expect(AnomalyRule().compare(statistics(9, rows: ["t": 7700]), with: waves) == [])
    // Rows that pg_dump leaves out are no loss.
    var standby = statistics(9, rows: [:])
    standby.withoutRows = ["t"]
    #expect(AnomalyRule().compare(standby, with: [statistics(0, rows: ["t": 50])]) == [])
  }

  @Test func someTablesComeAndGo() {
    let rule = AnomalyRule(lostPercent: 50, ignored: ["queue.*"])
    #expect(rule.compare(statistics(9, rows: ["public.users": 501]), with: Self.history) == [])
    #expect(rule.compare(statistics(9, rows: ["public.users": 499]), with: Self.history).map(\.kind) == [.rowsLost])
  }

  /// With its schema, or by its name alone in whatever schema.
  @Test(arguments: [
    ("queue.*", true), ("jobs", true), ("j*", true), ("queue.jobs", true), ("queue*", true), ("job", false),
    ("other.jobs", false), ("queue", false), ("users", false),
  ]) func whatIsIgnored(_ pattern: String, _ isIgnored: Bool) {
    let emptied = statistics(9, rows: ["public.users": 1000, "queue.jobs": 0])
    #expect(AnomalyRule(ignored: [pattern]).compare(emptied, with: Self.history).isEmpty == isIgnored)
  }

  /// The bytes of tables that empty and fill are no part of the norm, where it is known how many those were.
  @Test func ignoredTablesHaveNoSize() {
    func of(_ day: Int, _ archive: Int64, _ queue: Int64?) -> BackupStatistics {
      var one = statistics(day, bytes: archive)
      one.bytes = queue.map { ["queue.jobs": $0] }
      return one
    }
    let rule = AnomalyRule(ignored: ["jobs"])
    let history = (0..<5).map { of($0, 1_000_000, 800_000) }
    #expect(rule.compare(of(9, 210_000, 10_000), with: history) == [])
    #expect(AnomalyRule().compare(of(9, 210_000, 10_000), with: history).map(\.kind) == [.small])
    #expect(rule.compare(of(9, 900_000, 810_000), with: history).map(\.kind) == [.small])
    // Of what versions before have kept, whole archives are compared.
    let old = (0..<5).map { of($0, 1_000_000, nil) }
    #expect(rule.compare(of(9, 600_000, 500_000), with: old) == [])
    #expect(rule.compare(of(9, 210_000, 10_000), with: old).map(\.kind) == [.small])
  }

  /// The last undoubted backup outlives everything that came after it and is in doubt.
  @Test func theLastUndoubtedOneStays() {
    let start = Date(timeIntervalSince1970: 1_800_000_000)
    func backup(_ day: Double, flags: [String]?) -> Catalog.Backup {
      let file = Manifest.StoredFile(name: "f", size: 1, sha256: String(repeating: "0", count: 64))
      let id = BackupID(database: "shop", time: start.addingTimeInterval(day * 86400))
      var manifest = Manifest(
        id: id, type: "daily", label: nil, job: nil, run: "r", keepSeconds: nil, started: id.time, finished: id.time,
        host: "h", software: "s", dumpProgram: "d",
        server: .init(
          version: "15", versionNumber: 150_000, systemIdentifier: nil, database: "shop", encoding: "UTF8",
          databaseBytes: 1, isStandby: false),
        artifact: .init(file: file, archiveBytes: 1, compression: "zstd", level: 3), contents: file, globals: nil,
        totals: .init(tables: 0, rows: 0, rowBytes: 0, largeObjects: 0))
      manifest.flags = flags
      return Catalog.Backup(manifest: manifest, placements: [.init(store: "local", missing: [])], pin: nil)
    }
    var catalog = Catalog()
    catalog.add(backup(0, flags: nil))
    catalog.add(backup(1, flags: nil))
    catalog.add(backup(2, flags: ["rows-lost"]))
    catalog.add(backup(3, flags: ["rows-lost"]))
    let policy = RetentionPolicy(
      rules: ["daily": TypePolicy(stores: ["local"], keep: .forDuration(.seconds(7 * 86400)))])
    let later = start.addingTimeInterval(90 * 86400)
    #expect(policy.decide(catalog, at: later).map(\.reasons) == [[], [.newestUndoubted], [], [.newestGood]])
    let plan = ReconcilePlan(catalog, policy: policy, stores: ["local"], at: later)
    #expect(plan.removals.count == 2)
    let accepted = catalog.accepting(Set(catalog.backups.map(\.id)))
    #expect(policy.decide(accepted, at: later).map(\.reasons) == [[], [], [], [.newestGood]])
  }
}

@Suite struct RecoveryEstimateTests {
  private static let start = Date(timeIntervalSince1970: 1_800_000_000)

  private static func measure(_ store: String, day: Double = 0, record: Int = 1) -> RecoveryMeasure {
    RecoveryMeasure(
      time: start.addingTimeInterval(day * 86400), backup: BackupID(database: "shop", time: start), stores: [store],
      bytes: 1000 << 20,
      phases: ["server": 50, "schema": 2, "load": 10, "indexes": 5, "proof": 3, "swap": 1, "amcheck": 9],
      record: record)
  }

  @Test func whatGrowsIsScaled() {
    let found = RecoveryEstimate.all(
      [Self.measure("near")], stores: ["near", "far"], bytes: 3000 << 20, largestTable: 500 << 20)
    #expect(found.map(\.scenario) == ["whole from near", "largest table from near", "whole from far"])
    let seconds: [Double?] = [2 + 30 + 15 + 9 + 1, 2 + 5 + 1.5 + 1, nil]
    #expect(found.map(\.seconds) == seconds, "what was not measured is no promise")
  }

  @Test func theLastMeasureCounts() {
    let found = RecoveryEstimate.all(
      [Self.measure("near", day: 3, record: 7), Self.measure("near", day: 1, record: 5)], stores: ["near"],
      bytes: 1000 << 20,
      largestTable: nil)
    #expect(found.count == 1 && found[0].measure?.record == 7)
  }

  /// Never measured comes first, then the longest ago; a tie goes to the nearest.
  @Test func drillsTakeTurns() {
    let stores = ["near", "far", "third"]
    #expect(RecoveryEstimate.inTurn(stores, []) == stores)
    #expect(RecoveryEstimate.inTurn(stores, [Self.measure("near")]) == ["far", "near", "third"])
    let all = [Self.measure("near", day: 1), Self.measure("third", day: 2), Self.measure("far", day: 3)]
    #expect(RecoveryEstimate.inTurn(stores, all) == stores)
    #expect(RecoveryEstimate.inTurn(stores, all + [Self.measure("near", day: 4)]) == ["third", "near", "far"])
    #expect(RecoveryEstimate.inTurn([], all) == [])
  }

  /// A drill of hardly any rows is no measure of many times as much.
  @Test func definitionsAreNotScaled() {
    var tiny = Self.measure("near")
    tiny.bytes = 3
    let found = RecoveryEstimate.all([tiny], stores: ["near"], bytes: 900, largestTable: nil)
    let seconds: [Double?] = [21]
    #expect(found.map(\.seconds) == seconds)
  }
}
