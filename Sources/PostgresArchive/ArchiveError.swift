/// Why bytes are not an archive that can be trusted, and where: `offset` counts from the archive's first byte.
package struct ArchiveError: Error, Sendable, Equatable, CustomStringConvertible {
  package enum Reason: Sendable, Equatable {
    case notAnArchive
    /// Another format of pg_dump's: `t` tar, `d` directory, `n` plain.
    case wrongFormat(UInt8)
    case unsupportedVersion(String)
    case unsupportedLayout(String)
    case malformed(String)
    /// The input ended inside something.
    case truncated(String)
    /// An entry of the table of contents that should have data has none.
    case missingData(entry: String)
  }

  package let reason: Reason
  package let offset: UInt64

  package init(_ reason: Reason, at offset: UInt64) {
    self.reason = reason
    self.offset = offset
  }

  package var description: String {
    let text =
      switch reason {
      case .notAnArchive: "this does not begin like a pg_dump archive (PGDMP)"
      case .wrongFormat(let code): "pg_dump archive format \(code) is not the custom format"
      case .unsupportedVersion(let version):
        "archive version \(version) is not one of 1.14 to 1.16 (PostgreSQL 13 to 18)"
      case .unsupportedLayout(let what): what
      case .malformed(let what): what
      case .truncated(let what): "the archive ends inside \(what)"
      case .missingData(let entry): "the archive ends without the data of \(entry)"
      }
    return "\(text) (at byte \(offset))"
  }
}
