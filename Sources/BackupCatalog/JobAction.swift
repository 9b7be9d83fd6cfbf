/// What a job does when it is due.
package enum JobAction: Sendable, Hashable {
  /// Makes a backup of its own type.
  case backup
  /// Reads placements back and compares them with what was written.
  case verify(VerifyLevel, VerifyBudget)
  /// Restores the newest good backup into a private server and proves it there.
  case drill

  package var name: String {
    switch self {
    case .backup: "backup"
    case .verify: "verify"
    case .drill: "drill"
    }
  }
}
