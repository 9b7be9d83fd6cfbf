package import Foundation
import Quoting
import Units

/// What names a backup: its database, by the bytes of its name, and the second of its snapshot. Prints as
/// `multimedia/20261122T020000Z`.
package struct BackupID: Sendable, Hashable, Comparable {
  package let database: String
  package let time: Date

  package init(database: String, time: Date) {
    self.database = database
    self.time = time.wholeSecond
  }

  /// Parses what `description` prints. The database is all before the last `/`.
  package init?(parsing text: String) {
    guard let slash = text.utf8.lastIndex(of: UInt8(ascii: "/")), slash > text.startIndex,
      let time = Date(stamp: String(text[text.utf8.index(after: slash)...]))
    else { return nil }
    self.init(database: String(text[..<slash]), time: time)
  }

  package static func == (left: BackupID, right: BackupID) -> Bool {
    left.time == right.time && left.database.isExactly(right.database)
  }

  package static func < (left: BackupID, right: BackupID) -> Bool {
    (left.time, ExactText(left.database)) < (right.time, ExactText(right.database))
  }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(time)
    hasher.combine(ExactText(database))
  }
}

extension BackupID: CustomStringConvertible {
  package var description: String { "\(database)/\(time.stamp)" }
}

extension BackupID: Codable {
  package init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let id = BackupID(parsing: try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "a backup id reads database/YYYYMMDDTHHMMSSZ")
    }
    self = id
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
