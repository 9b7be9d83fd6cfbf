package import Faults
import Foundation

/// A JSON file that outlives the version that wrote it: it names its format, and a reader refuses a newer major version.
package protocol VersionedRecord: Codable, Sendable {
  static var format: String { get }
  static var majorVersion: Int { get }
  /// Grows with each key that is added: older programs ignore it.
  static var minorVersion: Int { get }
  /// What can't be meant in it, in a few words: a record may come from anybody.
  var flaw: String? { get }
}

extension VersionedRecord {
  package static var minorVersion: Int { 0 }
  package var flaw: String? { nil }
}

/// The envelope around a record: `{"format": …, "version": "1.0", …the record's own keys…}`.
private struct Envelope: Codable {
  let format: String
  let version: String
}

extension VersionedRecord {
  /// The record as a file: sorted keys, one per line, a newline at the end.
  package func encoded() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.dateEncodingStrategy = .iso8601
    return Array(try encoder.encode(Enveloped(record: self))) + [UInt8(ascii: "\n")]
  }

  /// Reads a record. Unknown keys are ignored: a newer minor version may have added them.
  package init(decoding bytes: [UInt8], from place: String) throws(Fault) {
    let decoder = JSONDecoder()
    decoder.dateDecodingStrategy = .iso8601
    do {
      let data = Data(bytes)
      let envelope = try decoder.decode(Envelope.self, from: data)
      guard envelope.format == Self.format else {
        throw Fault(.manifestInvalid, "\(place) holds '\(envelope.format)', not '\(Self.format)'.")
      }
      guard let major = envelope.version.split(separator: ".").first.flatMap({ Int($0) }), major <= Self.majorVersion
      else {
        throw Fault(
          .formatTooNew,
          "\(place) has format version \(envelope.version); this program reads up to \(Self.majorVersion).",
          hint: "use the version of pgbackupd that wrote it, or a newer one")
      }
      self = try decoder.decode(Self.self, from: data)
      if let flaw {
        throw Fault(
          .manifestInvalid, "\(place) can't be what it says: \(flaw).",
          hint: "pgbackupctl status; pgbackupctl delete DATABASE/TIME removes it where it is of no use")
      }
    } catch let fault as Fault {
      throw fault
    } catch {
      throw Fault(
        .manifestInvalid, "\(place) can't be read.", cause: "it is damaged: \(error.localizedDescription)",
        hint: "pgbackupctl status; pgbackupctl delete DATABASE/TIME removes it where it is of no use")
    }
  }
}

private struct Enveloped<Record: VersionedRecord>: Encodable {
  let record: Record

  enum Keys: String, CodingKey {
    case format
    case version
  }

  func encode(to encoder: any Encoder) throws {
    try record.encode(to: encoder)
    var container = encoder.container(keyedBy: Keys.self)
    try container.encode(Record.format, forKey: .format)
    try container.encode("\(Record.majorVersion).\(Record.minorVersion)", forKey: .version)
  }
}
