package import Foundation

/// How far a run is: what a progress line, STATUS= and the event stream show.
package struct RunProgress: Sendable, Codable, Equatable {
  package enum Phase: String, Sendable, Codable {
    case preflight
    case dump
    case globals
    case commit
    case reconcile
    case verify
    // of a drill
    case server
    case assertions
    case amcheck
    // of a restore
    case prepare
    case check
    case safety
    case schema
    case load
    case indexes
    case statistics
    case proof
    case swap
  }

  package var phase: Phase
  /// Of the archive, read from pg_dump so far; of a restore, loaded or compared so far.
  package var archiveBytes: Int64 = 0
  /// Of the artifact, written so far.
  package var storedBytes: Int64 = 0
  /// What the archive is expected to hold in the end, from the last backup or the database's size. Nil where nothing is known.
  package var expectedBytes: Int64?
  /// The table that is passing by.
  package var table: String?

  package init(phase: Phase) { self.phase = phase }
}

/// What an operation needs of the world besides its collaborators: the time, and somebody to tell.
package struct OperationContext: Sendable {
  package let now: @Sendable () -> Date
  package let report: @Sendable (RunProgress) -> Void
  /// Told now and then that work gets on of which no figure tells: a server that makes an index.
  package let alive: @Sendable () -> Void

  package init(
    now: @escaping @Sendable () -> Date, report: @escaping @Sendable (RunProgress) -> Void,
    alive: @escaping @Sendable () -> Void = {}
  ) {
    self.now = now
    self.report = report
    self.alive = alive
  }
}
