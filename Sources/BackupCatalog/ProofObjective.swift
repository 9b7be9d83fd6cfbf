import Units

/// How old the newest proved backup may be.
package enum ProofObjective: Sendable, Hashable {
  /// As `rpo` and the drills' schedules promise together.
  case fromDrills
  case within(Duration)
  case off

  /// As the configuration writes it.
  package var text: String {
    switch self {
    case .fromDrills: "what rpo and drills promise"
    case .within(let duration): duration.configurationText
    case .off: "off"
    }
  }
}
