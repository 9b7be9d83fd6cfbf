package import Foundation

/// Notices a wall clock that is set forward: it shows much more than the time that has run since. A pure rule.
///
/// A machine without a battery for its clock starts in the past and is set to the truth soon after: that is no reason for doubt as long as
/// the new time is not far behind the last one that is on record.
package struct ClockGuard: Sendable {
  /// What was seen last, in seconds.
  private var wall: TimeInterval
  private var running: TimeInterval
  /// By how much the clock is ahead of what can be believed; nil where it is believed.
  package private(set) var doubt: TimeInterval?
  /// The latest time on record from before.
  private let onRecord: TimeInterval
  /// Whether the doubt is of the beginning: the first time that was seen is long behind the last one on record, and nobody keeps the clock.
  package private(set) var isOfStart: Bool

  /// More than daylight saving and a bad oscillator can explain.
  private static let tolerance: TimeInterval = 3 * 3600
  /// A machine that was off may be right: more than a day and a half without any record is worth a look.
  private static let absence: TimeInterval = 36 * 3600

  /// - Parameters:
  ///   - onRecord: the latest time that an earlier process has written down.
  ///   - isDoubtful: whether an earlier process was in doubt, and nobody has said a word since.
  ///   - isSynchronized: whether somebody keeps the clock by others (NTP). Then a machine that was off for long is one that was off for long.
  package init(
    wall: TimeInterval, running: TimeInterval, onRecord: TimeInterval? = nil, isDoubtful: Bool = false,
    isSynchronized: Bool = true
  ) {
    self.wall = wall
    self.running = running
    self.onRecord = onRecord ?? 0
    let ahead = onRecord.flatMap { wall > $0 + Self.absence && !isSynchronized ? wall - $0 : nil }
    isOfStart = ahead != nil && !isDoubtful
    // By how much, nobody knows any more: any large step back is then taken for the mending.
    doubt = isDoubtful ? 0 : ahead
  }

  package mutating func observe(wall: TimeInterval, running: TimeInterval) {
    let step = wall - (self.wall + running - self.running)
    let isFar = wall > max(self.wall, onRecord) + Self.absence
    (self.wall, self.running) = (wall, running)
    guard abs(step) > Self.tolerance else { return }
    isOfStart = false
    if let doubt {
      self.doubt = doubt + step > Self.tolerance ? doubt + step : nil
    } else if step > 0, isFar {
      doubt = step
    }
  }

  /// Somebody says that the time is right.
  package mutating func confirm() { (doubt, isOfStart) = (nil, false) }
}
