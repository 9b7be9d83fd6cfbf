/// The first part of an archive: what `WriteHead` of pg_backup_archiver.c puts there.
package struct ArchiveHeader: Sendable, Hashable {
  package struct Version: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let major: UInt8
    package let minor: UInt8
    package let revision: UInt8

    package var description: String { "\(major).\(minor).\(revision)" }

    package static func < (left: Version, right: Version) -> Bool {
      (left.major, left.minor, left.revision) < (right.major, right.minor, right.revision)
    }
  }

  package enum Compression: Sendable, Hashable {
    case none
    /// The data blocks are compressed by pg_dump itself: their rows can't be read here.
    case byPgDump(String)
  }

  package let version: Version
  /// Bytes of an integer after its sign byte.
  package let integerSize: Int
  /// Bytes of an offset after its state byte.
  package let offsetSize: Int
  package let compression: Compression
  package let database: String?
  package let serverVersion: String?
  package let dumpVersion: String?
}

/// One entry of the table of contents, as `WriteToc` of pg_backup_archiver.c writes it.
package struct TocEntry: Sendable, Hashable {
  /// `teSection` of pg_backup.h: when `pg_restore` makes it.
  package enum Section: Int, Sendable {
    case none = 1
    case preData
    case data
    case postData
  }

  package let dumpID: Int
  package let hasData: Bool
  package let catalogTable: String?
  package let catalogOID: String?
  package let tag: String?
  /// PostgreSQL's name of the kind: `TABLE`, `TABLE DATA`, `SEQUENCE SET`, `BLOBS`, …
  package let kind: String?
  package let section: Section
  package let definition: String?
  /// `COPY … FROM stdin;` where the entry's data is COPY text.
  package let copyStatement: String?
  package let schema: String?
  package let tablespace: String?
  package let owner: String?
  package let dependencies: [Int]
  /// Whether a name of it, or a statement with one, had bytes that are no UTF-8: those here are not those of the archive.
  package let isRepaired: Bool

  /// `schema.name` as people read it, for messages.
  package var label: String {
    let name = [schema, tag].compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: ".")
    return "\(kind ?? "entry") \(name)"
  }
}
