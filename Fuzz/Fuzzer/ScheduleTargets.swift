import BackupConfiguration
import CronSchedule
import Faults
import Foundation

/// Times on both sides of what zone files tell of, and far from it.
private let instants = [-4_000_000_000, -1, 0, 951_782_400, 1_800_000_000, 4_102_444_800, 40_000_000_000]

let scheduleTargets = [
  FuzzTarget(text: "cron") { text in
    guard let expression = try? CronExpression(parsing: text) else { return }
    FuzzTarget.require((try? CronExpression(parsing: "\(expression)")) == expression, "an expression reads back")
    _ = expression.sentence
    let schedule = ZonedSchedule(expression, in: .utc)
    for instant in instants.dropFirst().map({ Date(timeIntervalSince1970: Double($0)) }) {
      guard let next = schedule.next(after: instant) else {
        return FuzzTarget.require(false, "an expression that was taken comes due")
      }
      FuzzTarget.require(next > instant, "what is next comes later")
      FuzzTarget.require(
        schedule.previous(before: next.addingTimeInterval(1)) == next, "what is next was the last one before its end")
    }
  },
  FuzzTarget("zone-file") { bytes in
    guard let zone = try? ZoneRules(identifier: "x", file: bytes) else { return }
    for instant in instants + [.min / 2, .max / 2] {
      // Whatever a file says, no wall clock is more than a week off.
      FuzzTarget.require(abs(zone.offset(at: instant)) <= 7 * 86400 + 3600, "an offset is one")
    }
    guard let expression = try? CronExpression(parsing: "30 2 * * *") else { return }
    let schedule = ZonedSchedule(expression, in: zone)
    for instant in instants.map({ Date(timeIntervalSince1970: Double($0)) }) {
      if let next = schedule.next(after: instant) { FuzzTarget.require(next > instant, "what is next comes later") }
      if let last = schedule.previous(before: instant) {
        FuzzTarget.require(last < instant, "what was last came before")
      }
    }
  },
  FuzzTarget(text: "configuration") { text in
    let surroundings = ConfigurationSurroundings(
      variable: { $0 == "SECRET" ? "hunter2-from-the-environment" : nil }, secretFile: { _ in "hunter2-from-a-file" },
      keyFile: { _ in "# nothing\n" }, zone: .utc, zoneNamed: { _ in .utc })
    do throws(ConfigurationProblems) {
      _ = try ConfigurationReader.read(text, file: "input.yaml", surroundings)
    } catch {
      let words = error.problems.map(\.description).joined(separator: "\n") + "\(error.fault)"
      FuzzTarget.require(!words.contains("hunter2"), "no message tells a secret of the environment or a file")
      FuzzTarget.require(!error.problems.isEmpty, "what is refused is refused with a reason")
    }
  },
]
