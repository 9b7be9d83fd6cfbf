import Foundation
import Units

/// A time zone's offsets from UTC, past and future, as a zone file (TZif, RFC 9636) tells them.
///
/// Foundation's zones come from tables that are built into the program; cron, `date` and PostgreSQL follow the zone files of the
/// machine, which its package manager keeps up to date. So does this.
package struct ZoneRules: Sendable, Hashable {
  /// `Europe/Berlin`: the file's name below the zone directory.
  package private(set) var identifier: String

  /// Unix seconds at which the offset changes, ascending, and the offset from each on.
  private let transitions: [Int]
  private let offsets: [Int]
  private let firstOffset: Int
  /// What holds after the last transition.
  private let rule: RecurringRule?

  package static let utc = ZoneRules(identifier: "UTC", offset: 0)

  /// A zone that never changes its clock.
  package init(identifier: String, offset: Int) {
    self.identifier = identifier
    (transitions, offsets, firstOffset, rule) = ([], [], offset, nil)
  }

  /// Reads a zone file's bytes; the 64-bit block where there is one (version 2 and later). Throws where they are no zone file.
  package init(identifier: String, file: [UInt8]) throws(ZoneFileError) {
    var reader = ZoneFileReader(bytes: file)
    var header = try reader.header()
    var timeSize = 4
    if header.version >= 2 {
      try reader.skip(header.dataLength(timeSize: 4))
      header = try reader.header()
      timeSize = 8
    }
    let times = try reader.integers(header.transitionCount, size: timeSize)
    let typeIndexes = try reader.integers(header.transitionCount, size: 1)
    var types: [Int] = []
    for _ in 0..<header.typeCount {
      types.append(try reader.integers(1, size: 4)[0])
      // Whether it is daylight saving, and its name: cron asks for neither.
      try reader.skip(2)
    }
    guard let first = types.first else { throw ZoneFileError("it names no offset") }
    guard zip(times, times.dropFirst()).allSatisfy({ $0 < $1 }) else {
      throw ZoneFileError("its transitions are not in order")
    }
    var offsets: [Int] = []
    for index in typeIndexes {
      guard types.indices.contains(index) else { throw ZoneFileError("a transition leads to no offset") }
      offsets.append(types[index])
    }
    guard types.allSatisfy({ abs($0) < 26 * 3600 }) else { throw ZoneFileError("an offset is larger than a day") }
    try reader.skip(
      header.abbreviationBytes + header.leapCount * (timeSize + 4) + header.standardCount + header.universalCount)
    self.identifier = identifier
    transitions = times
    self.offsets = offsets
    firstOffset = first
    rule = timeSize == 8 ? try reader.footer().map(RecurringRule.init(parsing:)) : nil
  }

  /// Seconds that the zone's wall clock is ahead of UTC at a Unix second.
  package func offset(at instant: Int) -> Int {
    guard let last = transitions.last else { return rule?.offset(at: instant) ?? firstOffset }
    if instant >= last, let rule { return rule.offset(at: instant) }
    // The number of transitions up to `instant`.
    var (low, high) = (0, transitions.count)
    while low < high {
      let middle = (low + high) / 2
      if transitions[middle] <= instant { low = middle + 1 } else { high = middle }
    }
    return low == 0 ? firstOffset : offsets[low - 1]
  }

  /// The same rules under another name.
  package func renamed(_ identifier: String) -> ZoneRules {
    var zone = self
    zone.identifier = identifier
    return zone
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(identifier) }
}

/// Why a file is no zone file.
package struct ZoneFileError: Error, CustomStringConvertible {
  package let description: String
  init(_ description: String) { self.description = description }
}

/// The parts of a zone file, one after the other (RFC 9636, section 3).
private struct ZoneFileReader {
  struct Header {
    var version = 1
    var universalCount = 0
    var standardCount = 0
    var leapCount = 0
    var transitionCount = 0
    var typeCount = 0
    var abbreviationBytes = 0

    func dataLength(timeSize: Int) -> Int {
      transitionCount * (timeSize + 1) + typeCount * 6 + abbreviationBytes + leapCount * (timeSize + 4) + standardCount
        + universalCount
    }
  }

  let bytes: [UInt8]
  private var position = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  mutating func header() throws(ZoneFileError) -> Header {
    guard bytes.count >= position + 44, bytes[position..<position + 4].elementsEqual(Array("TZif".utf8)) else {
      throw ZoneFileError("it does not begin as one")
    }
    var header = Header()
    header.version = bytes[position + 4] == 0 ? 1 : Int(bytes[position + 4]) - 48
    position += 20
    let counts = try integers(6, size: 4)
    guard counts.allSatisfy({ (0...65_536).contains($0) }) else {
      throw ZoneFileError("its header has impossible counts")
    }
    (header.universalCount, header.standardCount, header.leapCount) = (counts[0], counts[1], counts[2])
    (header.transitionCount, header.typeCount, header.abbreviationBytes) = (counts[3], counts[4], counts[5])
    return header
  }

  mutating func skip(_ count: Int) throws(ZoneFileError) {
    guard bytes.count - position >= count else { throw ZoneFileError("it is cut off") }
    position += count
  }

  /// Signed big-endian integers; of one byte unsigned.
  mutating func integers(_ count: Int, size: Int) throws(ZoneFileError) -> [Int] {
    let start = position
    try skip(count * size)
    return (0..<count).map { number in
      let field = bytes[(start + number * size)..<(start + (number + 1) * size)]
      let value = field.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      return switch size {
      case 8: Int(Int64(bitPattern: value))
      case 4: Int(Int32(bitPattern: UInt32(value)))
      default: Int(value)
      }
    }
  }

  /// The text between the two newlines at the end; nil where it is empty.
  mutating func footer() throws(ZoneFileError) -> String? {
    guard position < bytes.count, bytes[position] == 10, let end = bytes[(position + 1)...].firstIndex(of: 10) else {
      throw ZoneFileError("it is cut off")
    }
    let text = String(decoding: bytes[(position + 1)..<end], as: UTF8.self)
    return text.isEmpty ? nil : text
  }
}
