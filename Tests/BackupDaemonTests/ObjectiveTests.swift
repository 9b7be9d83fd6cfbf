import BackupCatalog
import BackupOperations
import ControlAPI
import CronSchedule
import Faults
import Foundation
import PostgresTools
import TestSupport
import Testing
import Units

@testable import BackupDaemon

@Suite struct ObjectiveTests {
  private static let now = Date(timeIntervalSince1970: 1_795_000_000)
  private static let hour: TimeInterval = 3600

  private static func database(_ change: (inout StatusReport.Database) -> Void) -> StatusReport.Database {
    var database = StatusReport.Database(
      name: "shop", newest: nil, ageSeconds: nil, rpoSeconds: nil, backups: 0, storedBytes: 0, lastRun: nil,
      nextJob: nil, nextDue: nil)
    change(&database)
    return database
  }

  /// An alarm before the objective breaks: from nine tenths of it on, and the slowest scenario decides.
  @Test(
    arguments: [
      ([1000.0], nil), ([3239], nil), ([3240], nil), ([3241], "E-OBJECTIVE-AT-RISK"), ([3600], "E-OBJECTIVE-AT-RISK"),
      ([3601], "E-OBJECTIVE-MISSED"), ([10, 3300, 20], "E-OBJECTIVE-AT-RISK"), ([nil, 100], nil),
      ([nil, 4000], "E-OBJECTIVE-MISSED"), ([], nil),
    ] as [([Double?], String?)])
  func recoveryTime(_ seconds: [Double?], _ expected: String?) {
    let database = Self.database {
      $0.rtoSeconds = 3600
      $0.recovery = seconds.map { .init(scenario: "whole from local", seconds: $0, measure: nil) }
    }
    let findings = ObjectiveRules(database, nextDrill: nil, at: Self.now).findings
    #expect(findings.map(\.aspect) == (expected == nil ? [] : ["rto"]))
    #expect(findings.first?.fault.code.rawValue == expected)
  }

  /// Of a proof with ten hours' validity: what renews it too late, or not at all in its last tenth.
  @Test(
    arguments: [
      (1, 9, nil), (1, 8.9, nil), (1, 9.1, "E-OBJECTIVE-AT-RISK"), (8.9, nil, nil), (9.1, nil, "E-OBJECTIVE-AT-RISK"),
      (10.1, 0.5, "E-OBJECTIVE-MISSED"), (10.1, nil, "E-OBJECTIVE-MISSED"), (nil, 1, "E-OBJECTIVE-MISSED"),
    ] as [(Double?, Double?, String?)])
  func proof(_ age: Double?, _ drillIn: Double?, _ expected: String?) {
    let database = Self.database {
      $0.provedWithinSeconds = 10 * Self.hour
      $0.provedAgeSeconds = age.map { $0 * Self.hour }
      $0.proved = age.map { BackupID(database: "shop", time: Self.now.addingTimeInterval(-$0 * Self.hour)) }
    }
    let nextDrill = drillIn.map { Self.now.addingTimeInterval($0 * Self.hour) }
    let findings = ObjectiveRules(database, nextDrill: nextDrill, at: Self.now).findings
    #expect(findings.map(\.fault.code.rawValue) == (expected.map { [$0] } ?? []))
    #expect(findings.allSatisfy { $0.aspect == "proved" })
  }

  private static func plan(rpo: Duration?, drills: [String], databases: [String]? = nil) throws -> DaemonPlan {
    DaemonPlan(
      databases: try ["shop", "other"].map {
        .init(name: $0, connection: try ConnectionSettings(parsing: "dbname=\($0)"), includes: nil)
      },
      jobs: try drills.enumerated().map { number, expression in
        var job = DaemonPlan.Job(
          name: "drill\(number)",
          timing: JobTiming(ZonedSchedule(try CronExpression(parsing: expression), in: try ZoneRules.system("UTC"))),
          usesLocalZone: false, keep: .untilDeleted, stores: [], databases: databases, timeout: .seconds(6 * 3600))
        job.action = .drill
        return job
      }, stores: [], backup: Backup.Settings(), parallelRuns: 1, windDown: .seconds(1), rpo: rpo)
  }

  /// Where only an rpo is set, the drills' schedule says how old the newest proof may be; each of these may take six hours.
  @Test(
    arguments: [
      (26, ["0 4 * * 0"], 26 + 168), (26, ["0 4 * * *"], 26 + 24), (2, ["0 */6 * * *"], 2 + 6),
      // On weekdays: Friday to Monday; on the first of the month: 31 days.
      (26, ["0 4 * * 1-5"], 26 + 72), (26, ["0 4 1 * *"], 26 + 31 * 24),
      // Two schedules: the one with the shorter pauses keeps what it promises.
      (26, ["0 4 * * 0", "0 4 1 * *"], 26 + 168),
      (26, [], nil), (nil, ["0 4 * * 0"], nil),
    ] as [(Int?, [String], Int?)])
  func provedFromTheDrills(_ rpo: Int?, _ drills: [String], _ expected: Int?) throws {
    let plan = try Self.plan(rpo: rpo.map { .seconds($0 * 3600) }, drills: drills)
    #expect(plan.provedWithin("shop", at: Self.now) == expected.map { .seconds(($0 + 6) * 3600) })
  }

  @Test func whatIsConfiguredHoldsInstead() throws {
    var plan = try Self.plan(rpo: .seconds(3600), drills: ["0 4 * * *"], databases: ["shop"])
    #expect(plan.provedWithin("shop", at: Self.now) == .seconds(31 * 3600))
    #expect(plan.provedWithin("other", at: Self.now) == nil)
    plan.proofObjective = .within(.seconds(7200))
    #expect(plan.provedWithin("other", at: Self.now) == .seconds(7200))
    plan.proofObjective = .off
    #expect(plan.provedWithin("shop", at: Self.now) == nil)
  }
}
