import BackupDaemon
import Foundation
import Testing

@Suite struct ClockGuardTests {
  private static let day = 86400.0

  /// Steps of (wall, running) seconds, and whether the clock is doubted after each.
  @Test(
    arguments: [
      // Time passes; a suspended machine's running time passes with it.
      ([(60, 60), (3 * day, 3 * day)], [false, false]),
      // Daylight saving of some other system, a slow oscillator; a day too much is still believed.
      ([(7200, 0), (day, 0)], [false, false]),
      // Ten years.
      ([(3650 * day, 60), (60, 60)], [true, true]),
      // And back; or back by too little.
      ([(3650 * day, 60), (-3650 * day, 60)], [true, false]),
      ([(3650 * day, 60), (-day, 60)], [true, true]),
      // Back into the past is no reason to keep everything for ever.
      ([(-3650 * day, 60), (60, 60)], [false, false]),
    ] as [([(Double, Double)], [Bool])])
  func steps(_ steps: [(wall: Double, running: Double)], _ doubts: [Bool]) {
    var (wall, running) = (1_800_000_000.0, 1000.0)
    var clock = ClockGuard(wall: wall, running: running, onRecord: wall - 60)
    for (step, doubt) in zip(steps, doubts) {
      wall += step.wall
      running += step.running
      clock.observe(wall: wall, running: running)
      #expect((clock.doubt != nil) == doubt, "\(step)")
    }
  }

  /// A machine without a battery starts in 1970 and is set to a time not far from the last one on record.
  @Test func aDeadBatteryIsNoReasonForDoubt() {
    var clock = ClockGuard(wall: 100, running: 20, onRecord: 1_800_000_000)
    clock.observe(wall: 1_800_040_000, running: 60)
    #expect(clock.doubt == nil)
    clock = ClockGuard(wall: 100, running: 20, onRecord: 1_800_000_000)
    clock.observe(wall: 1_900_000_000, running: 60)
    #expect(clock.doubt != nil)
    clock.confirm()
    clock.observe(wall: 1_900_000_060, running: 120)
    #expect(clock.doubt == nil)
  }

  /// Doubt outlives the process that had it.
  @Test func doubtIsInherited() {
    var clock = ClockGuard(wall: 1_900_000_000, running: 20, onRecord: 1_900_000_000, isDoubtful: true)
    clock.observe(wall: 1_900_000_060, running: 80)
    #expect(clock.doubt != nil)
    clock.observe(wall: 1_800_000_000, running: 90)
    #expect(clock.doubt == nil)
  }

  /// A start far behind all that is on record: the machine was off, or its clock is wrong. Where nobody keeps it, it is doubted.
  @Test(arguments: [(1_000, false), (1_000 + 36 * 3600, false), (1_001 + 36 * 3600, true)] as [(Double, Bool)])
  func aStartFarAhead(_ wall: Double, _ isAhead: Bool) {
    var clock = ClockGuard(wall: wall, running: 5, onRecord: 1_000, isSynchronized: false)
    #expect((clock.doubt != nil) == isAhead && clock.isOfStart == isAhead)
    #expect(ClockGuard(wall: wall, running: 5, onRecord: 1_000).doubt == nil)
    #expect(ClockGuard(wall: wall, running: 5, isSynchronized: false).doubt == nil, "nothing is on record")
    // A later step is another matter than the beginning, and so is what comes once somebody has confirmed the time.
    var stepped = clock
    stepped.observe(wall: wall + 400 * 86_400, running: 65)
    #expect(stepped.doubt != nil && !stepped.isOfStart)
    var confirmed = clock
    confirmed.confirm()
    #expect(confirmed.doubt == nil && !confirmed.isOfStart)
    // Set right, it is believed.
    clock.observe(wall: 1_060, running: 65)
    #expect(clock.doubt == nil)
    #expect(!ClockGuard(wall: wall, running: 5, onRecord: 1_000, isDoubtful: true, isSynchronized: false).isOfStart)
  }
}
