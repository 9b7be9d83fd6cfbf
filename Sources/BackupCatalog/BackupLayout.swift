import Foundation
import Units

/// The names under which a backup's files are stored: `<database>/<type>/<stamp>/<file>`.
package struct BackupLayout: Sendable, Hashable {
  package let id: BackupID
  package let type: String

  package static let manifestName = "manifest.json"
  package static let signatureName = "manifest.json.sig"
  package static let recoverName = "RECOVER.txt"
  package static let pinName = "pin.json"

  package init(id: BackupID, type: String) {
    self.id = id
    self.type = type
  }

  /// Reads a folder back; nil where it is not one of ours.
  package init?(folder: String) {
    let parts = folder.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3, let database = Self.decode(parts[0]), let type = Self.decode(parts[1]),
      let time = Date(stamp: String(parts[2]))
    else { return nil }
    self.init(id: BackupID(database: database, time: time), type: type)
  }

  package var folder: String { "\(Self.encode(id.database))/\(Self.encode(type))/\(id.time.stamp)" }

  /// `<database>_<stamp>.dump` and the suffixes of what was done to it.
  package func artifactName(suffix: String) -> String { "\(Self.encode(id.database))_\(id.time.stamp).dump\(suffix)" }

  package func path(_ name: String) -> String { "\(folder)/\(name)" }

  /// A database's name as one part of a path.
  package static func folderName(ofDatabase database: String) -> String { encode(database) }

  /// The prefix under which all backups of a database lie.
  package static func prefix(ofDatabase database: String) -> String { encode(database) + "/" }

  /// A database may have any name; a path part may not. Other bytes become `%XX`, as in URLs.
  private static func encode(_ name: String) -> String {
    var text = ""
    for (position, byte) in name.utf8.enumerated() {
      let plain =
        (byte >= 48 && byte <= 57) || (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122)
        || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-") || (byte == UInt8(ascii: ".") && position > 0)
      if plain {
        text.unicodeScalars.append(Unicode.Scalar(byte))
      } else {
        text += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
      }
    }
    return text
  }

  private static func decode(_ part: Substring) -> String? {
    let decoded = String(part).removingPercentEncoding
    guard let decoded, !decoded.isEmpty, encode(decoded) == part else { return nil }
    return decoded
  }
}
