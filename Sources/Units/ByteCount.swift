/// A number of bytes. Reads `16MiB`, `1.5GB`, `4096`; prints in binary units, as `df -h` and `zstd` do.
package struct ByteCount: Sendable, Hashable, Comparable {
  package var bytes: Int64

  package init(_ bytes: Int64) { self.bytes = bytes }
  package init(_ bytes: Int) { self.bytes = Int64(bytes) }

  package static func mebibytes(_ count: Int64) -> ByteCount { ByteCount(count << 20) }

  package static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }
  package static func + (left: ByteCount, right: ByteCount) -> ByteCount { ByteCount(left.bytes + right.bytes) }
}

extension ByteCount {
  private static let factors: [(suffix: String, factor: Double)] = [
    ("KiB", 1024), ("MiB", 1_048_576), ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776),
    ("kB", 1e3), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12),
    ("K", 1024), ("M", 1_048_576), ("G", 1_073_741_824), ("T", 1_099_511_627_776), ("B", 1),
  ]

  /// Parses a size; nil where the text is not one, is negative or is larger than `Int64` holds.
  package init?(parsing text: String) {
    let match = Self.factors.first { text.hasSuffix($0.suffix) }
    let number = text.dropLast(match?.suffix.count ?? 0)
    guard let value = Double(number), value.isFinite, value >= 0, !number.hasPrefix("+") else { return nil }
    let scaled = value * (match?.factor ?? 1)
    guard scaled < 9e18 else { return nil }
    self.init(Int64(scaled.rounded()))
  }
}

extension ByteCount: Codable {
  package init(from decoder: any Decoder) throws { bytes = try decoder.singleValueContainer().decode(Int64.self) }
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(bytes)
  }
}

extension ByteCount: CustomStringConvertible {
  /// `0 B`, `17 KiB`, `4.2 MiB`: one decimal below ten, none above.
  package var description: String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    var value = Double(bytes)
    var unit = 0
    while value >= 1023.5, unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    guard unit > 0, value < 9.95 else { return "\(Int64(value.rounded())) \(units[unit])" }
    let tenths = Int64((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) \(units[unit])"
  }
}
