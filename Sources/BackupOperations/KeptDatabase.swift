package import ArtifactFormat
package import Foundation
import PostgresTools
package import Quoting
import Units

/// The comment by which a database is known that a restore or a rollback has put aside, in front of the comment that it
/// had.
///
/// Everybody may write such a comment on a database of his own. So it is signed, with the key that signs manifests,
/// over what makes this database this one: its OID, its owner, its name, whose place it had, and until when.
package struct KeptMark: Sendable, Equatable {
  package let name: String
  /// Whose place it had.
  package let live: String
  package let replaced: Date
  private let signature: Signature?

  private struct Signature: Sendable, Equatable {
    let owner: UInt32
    let text: String
  }

  static let begin = "Kept by pgbackupd: was "
  private static let signed = " Signed: owner "

  /// The comment of a database that gets `name` now.
  ///
  /// - Parameters:
  ///   - identifier: its OID.
  ///   - owner: its owner's.
  ///   - before: the comment that it had.
  ///   - key: nil where there is none: such a mark is only believed where the ledger knows of it.
  static func comment(
    name: String, live: String, at time: Date, identifier: UInt32, owner: UInt32, before: String?, key: SigningKey?
  ) throws -> String {
    var line = "\(begin)\(written(live)) until \(time.rfc3339). pgbackupctl rollback puts it back."
    if let key {
      let message = Self.message(name: name, live: live, at: time, identifier: identifier, owner: owner)
      let lines = try key.sign(message).split(atByte: 10)
      line += "\(signed)\(owner), \(lines.last ?? "")"
    }
    return "\(line)\n\(before ?? "")"
  }

  /// A name in quotes, on one line whatever it is: the mark is the comment's first one.
  private static func written(_ name: String) -> String {
    guard name.utf8.contains(10) else { return "'\(name)'" }
    return "E'\(name.replacingBytes(of: "\\", with: "\\\\").replacingBytes(of: "\n", with: "\\n"))'"
  }

  private static func unescaped(_ text: String) -> String {
    var bytes: [UInt8] = []
    var isEscaped = false
    for byte in text.utf8 {
      if !isEscaped, byte == UInt8(ascii: "\\") {
        isEscaped = true
      } else {
        bytes.append(isEscaped && byte == UInt8(ascii: "n") ? 10 : byte)
        isEscaped = false
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Nil where the comment is none of ours, or is not of this database: a dump of a kept one carries its comment.
  init?(of name: String, comment: String?) {
    guard let comment else { return nil }
    let line = comment.split(atByte: 10, omittingEmptySubsequences: false).first ?? ""
    // The end is looked for behind the beginning: anybody may write a comment, and one quote may be all there is.
    let isEscaped = line.starts(withBytes: "\(Self.begin)E'")
    let opening = "\(Self.begin)\(isEscaped ? "E" : "")'"
    guard line.starts(withBytes: opening),
      case let named = line[line.utf8.index(line.startIndex, offsetBy: opening.utf8.count)...],
      let end = named.lastRange(ofBytes: "' until "),
      let time = Date(rfc3339: String(line[end.upperBound...].prefix { $0 != " " }.dropLast()))
    else { return nil }
    let text = String(named[..<end.lowerBound])
    self.name = name
    live = isEscaped ? Self.unescaped(text) : text
    guard RestoreNames.isKept(name, of: live) else { return nil }
    replaced = time
    let rest = line[end.upperBound...]
    signature = rest.lastRange(ofBytes: Self.signed).flatMap { range in
      let parts = rest[range.upperBound...].split(atByte: UInt8(ascii: ","), maxSplits: 1)
      guard parts.count == 2, let owner = UInt32(parts[0]) else { return nil }
      return Signature(owner: owner, text: String(parts[1].withoutBlanks))
    }
  }

  /// The owner that the database had when it was put aside, where one of the keys has signed that it is this database.
  func owner(of identifier: UInt32, signedBy keys: TrustedKeys) -> UInt32? {
    guard let signature else { return nil }
    let message = Self.message(
      name: name, live: live, at: replaced, identifier: identifier, owner: signature.owner)
    let file = "untrusted comment: signature\n\(signature.text)\n"
    return keys.isSigned(message, signature: file, of: live) ? signature.owner : nil
  }

  var isSigned: Bool { signature != nil }

  /// What is signed: it begins like no manifest, and each text has its length in front of it.
  private static func message(
    name: String, live: String, at time: Date, identifier: UInt32, owner: UInt32
  ) -> [UInt8] {
    let texts = [name, live, time.rfc3339].map { "\($0.utf8.count):\($0)" }.joined(separator: " ")
    return Array("pgbackupd kept database 1 \(identifier) \(owner) \(texts)".utf8)
  }

  /// The comment that a kept database had before; nil where it had none.
  package static func originalComment(_ comment: String?) -> String? {
    guard let comment, comment.starts(withBytes: begin) else { return comment }
    let rest = comment.split(atByte: 10, maxSplits: 1, omittingEmptySubsequences: false).dropFirst().first ?? ""
    return rest.isEmpty ? nil : String(rest)
  }
}

/// Who bears witness of what was put aside.
package struct KeptWitnesses: Sendable {
  /// Those whose signatures count.
  package var keys: TrustedKeys = []
  /// Names that the ledger has on record: marks of earlier versions are not signed.
  package var recorded: Set<ExactText> = []

  package init(keys: TrustedKeys = [], recorded: Set<ExactText> = []) {
    self.keys = keys
    self.recorded = recorded
  }
}

/// A database that bears the mark of those that were put aside, and whether that can be believed.
package struct KeptDatabase: Sendable, Equatable {
  /// Why a mark is not believed.
  package enum Doubt: Sendable, Equatable {
    /// No key that counts has signed it for this database, and the ledger does not know it.
    case unknown(isSigned: Bool)
    /// It says that the database was replaced at a time that has not come.
    case future
    /// Its owner is neither the one that it had when it was put aside, nor that of the database in its place.
    case owner(String)

    /// In words that follow the database's name.
    package var reason: String {
      switch self {
      case .unknown(isSigned: true): "its mark was not signed for this database by a key that counts here"
      case .unknown(isSigned: false): "its mark is not signed, and the ledger does not know it"
      case .future: "its mark is of a time that has not come"
      case .owner(let name): "it is owned by '\(name)', and what was replaced was not"
      }
    }
  }

  package let mark: KeptMark
  package let bytes: Int64?
  /// Nil where it is what its mark says.
  package let doubt: Doubt?

  package var name: String { mark.name }
  package var live: String { mark.live }
  package var replaced: Date { mark.replaced }

  /// Clocks of two machines may differ by so much.
  private static let tolerance: TimeInterval = 60

  /// Those among the databases of a server, the oldest first.
  static func all(
    among databases: [PostgresSession.DatabaseFacts], _ witnesses: KeptWitnesses, at now: Date
  ) -> [KeptDatabase] {
    databases.compactMap { database in
      KeptMark(of: database.name, comment: database.comment).map { mark in
        let present = databases.first { $0.name.isExactly(mark.live) }
        return KeptDatabase(
          mark: mark, bytes: database.bytes, doubt: doubt(mark, database, present, witnesses, now))
      }
    }.sorted { ($0.replaced, $0.name) < ($1.replaced, $1.name) }
  }

  private static func doubt(
    _ mark: KeptMark, _ database: PostgresSession.DatabaseFacts, _ present: PostgresSession.DatabaseFacts?,
    _ witnesses: KeptWitnesses, _ now: Date
  ) -> Doubt? {
    if mark.replaced > now.addingTimeInterval(tolerance) { return .future }
    let signed = mark.owner(of: database.identifier, signedBy: witnesses.keys)
    // Whatever else: what belongs to a stranger takes nobody's place.
    let owners = Set([signed, present?.ownerIdentifier].compactMap { $0 })
    if !owners.isEmpty, !owners.contains(database.ownerIdentifier) { return .owner(database.owner) }
    guard signed == nil else { return nil }
    // Without a signature and without a database in its place nothing says whose it was.
    return present != nil && witnesses.recorded.contains(ExactText(mark.name)) ? nil : .unknown(isSigned: mark.isSigned)
  }
}
