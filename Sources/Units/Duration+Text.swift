/// Durations as the configuration writes them: `90s`, `15m`, `36h`, `7d`, `2w`, or several parts (`1d12h`).
extension Duration {
  private static let units: [(suffix: Character, seconds: Int64)] = [
    ("w", 604_800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1),
  ]

  /// Parses a duration; nil where the text is not one. Parts must come from large to small, each unit once.
  package init?(parsing text: String) {
    var total: Int64 = 0
    var digits = ""
    var smallest = Int64.max
    for character in text {
      if character.isASCII, character.isNumber {
        digits.append(character)
        continue
      }
      guard let unit = Self.units.first(where: { $0.suffix == character }), unit.seconds < smallest,
        let count = Int64(digits), count < 1_000_000_000
      else { return nil }
      total += count * unit.seconds
      smallest = unit.seconds
      digits = ""
    }
    guard digits.isEmpty, smallest != .max else { return nil }
    self = .seconds(total)
  }

  /// The normal form that `init(parsing:)` reads back: `7d`, `1d12h`, `0s`. Parts of a second are dropped.
  package var configurationText: String {
    var rest = components.seconds
    var text = ""
    for unit in Self.units where unit.suffix != "w" && rest >= unit.seconds {
      text += "\(rest / unit.seconds)\(unit.suffix)"
      rest %= unit.seconds
    }
    return text.isEmpty ? "0s" : text
  }

  /// For people: the two largest parts, `3d 4h`, `12m 5s`, `0.4s`.
  package var spoken: String {
    let seconds = components.seconds
    if seconds == 0 {
      let tenths = components.attoseconds / 100_000_000_000_000_000
      return "0.\(tenths)s"
    }
    var rest = seconds
    var parts: [String] = []
    for unit in Self.units where unit.suffix != "w" && (rest >= unit.seconds || !parts.isEmpty) {
      if rest / unit.seconds > 0 { parts.append("\(rest / unit.seconds)\(unit.suffix)") }
      rest %= unit.seconds
      if parts.count == 2 { break }
    }
    return parts.joined(separator: " ")
  }

  /// Seconds with their fraction, for rates and wire formats.
  package var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
