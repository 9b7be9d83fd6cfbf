package import Foundation

/// How long a restore took, phase by phase, as a drill or a real one has measured it.
package struct RecoveryMeasure: Codable, Sendable, Equatable {
  package var time: Date
  package var backup: BackupID
  /// The stores that it was read from, the first one first; empty where that is not known.
  package var stores: [String]
  /// Of the archive, that were loaded.
  package var bytes: Int64
  /// Seconds by phase.
  package var phases: [String: Double]
  /// The ledger's record of it.
  package var record: Int

  package init(
    time: Date, backup: BackupID, stores: [String], bytes: Int64, phases: [String: Double], record: Int
  ) {
    self.time = time
    self.backup = backup
    self.stores = stores
    self.bytes = bytes
    self.phases = phases
    self.record = record
  }
}

/// How long a restore of today's data would take, in one scenario.
package struct RecoveryEstimate: Codable, Sendable, Equatable {
  /// `whole from local`, `largest table from offsite`.
  package var scenario: String
  /// Nil where nobody has measured it: what was not run is no promise.
  package var seconds: Double?
  /// What it rests on.
  package var measure: RecoveryMeasure?

  package init(scenario: String, seconds: Double?, measure: RecoveryMeasure?) {
    self.scenario = scenario
    self.seconds = seconds
    self.measure = measure
  }

  /// What grows with the data; all else takes as long as it took.
  private static let growing: Set<String> = ["load", "indexes", "statistics", "proof"]
  /// Bytes that are as good as none.
  private static let floor = Double(1 << 20)
  /// What only drills do.
  private static let besides: Set<String> = ["server", "assertions", "amcheck"]

  /// The stores with the one first whose recovery time was measured the longest ago, or never; the others stay in their order.
  package static func inTurn(_ stores: [String], _ measures: [RecoveryMeasure]) -> [String] {
    func last(_ store: String) -> Date {
      measures.filter { ($0.stores.first ?? stores.first) == store }.map(\.time).max() ?? .distantPast
    }
    guard let first = stores.min(by: { last($0) < last($1) }) else { return stores }
    return [first] + stores.filter { $0 != first }
  }

  /// One estimate for each store, of all of it; and one of the largest table.
  ///
  /// - Parameters:
  ///   - bytes: of today's archive, that would be loaded: counted as those of the measures are, and not the rows' text alone.
  ///   - largestTable: bytes of its largest table, counted so too; nil where they are not known.
  package static func all(
    _ measures: [RecoveryMeasure], stores: [String], bytes: Int64, largestTable: Int64?
  ) -> [RecoveryEstimate] {
    stores.flatMap { store -> [RecoveryEstimate] in
      let last = measures.filter { ($0.stores.first ?? stores.first) == store && $0.bytes > 0 }
        .max { $0.time < $1.time }
      var estimates = [
        RecoveryEstimate(
          scenario: "whole from \(store)", seconds: last.map { seconds($0, bytes, growing) },
          measure: last)
      ]
      if let largestTable, let last {
        // Into a schema of its own: no index is made.
        estimates.append(
          RecoveryEstimate(
            scenario: "largest table from \(store)", seconds: seconds(last, largestTable, ["load", "proof"]),
            measure: last))
      }
      return estimates
    }
  }

  private static func seconds(_ measure: RecoveryMeasure, _ bytes: Int64, _ wanted: Set<String>) -> Double {
    // What is hardly more than definitions does not take a multiple of anything.
    let ratio = max(Double(bytes), floor) / max(Double(measure.bytes), floor)
    return measure.phases.reduce(0) { sum, phase in
      if besides.contains(phase.key) || growing.contains(phase.key) && !wanted.contains(phase.key) { return sum }
      return sum + phase.value * (growing.contains(phase.key) ? ratio : 1)
    }
  }
}
