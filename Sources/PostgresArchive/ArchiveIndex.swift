/// What a scan learned about an archive: where everything lies, and what the rows were.
package struct ArchiveIndex: Sendable {
  /// One data block of a table: COPY text.
  package struct Table: Sendable, Hashable {
    package let dumpID: Int
    package let schema: String
    package let name: String
    package let copyStatement: String?
    /// Where the block's type byte lies, from the archive's start.
    package let offset: UInt64
    /// Of the whole block, from its type byte to its closing zero length.
    package let length: UInt64
    /// Nil where the block is not plain COPY text (INSERT statements, or compressed by pg_dump): not read, not proved.
    package let rows: RowSummary?
  }

  package struct RowSummary: Sendable, Hashable {
    package let count: UInt64
    /// Of COPY text, each row's newline included.
    package let bytes: UInt64
    package let fingerprint: Fingerprint
  }

  /// One block of large objects; PostgreSQL 17 and later write one for each thousand of them.
  package struct LargeObjects: Sendable, Hashable {
    package let dumpID: Int
    package let offset: UInt64
    package let length: UInt64
    /// Nil where pg_dump compressed the contents.
    package let objects: ObjectSummary?
  }

  package struct ObjectSummary: Sendable, Hashable {
    package let count: UInt64
    /// Of the objects' contents.
    package let bytes: UInt64
    /// The sum modulo 2^128 of the XXH3-128 of each object: its OID as four bytes, least significant first, then its
    /// contents.
    package let fingerprint: Fingerprint
  }

  package let header: ArchiveHeader
  package let entries: [TocEntry]
  /// Header and table of contents: what every slice begins with.
  package let head: [UInt8]
  package let totalBytes: UInt64
  package let tables: [Table]
  package let largeObjects: [LargeObjects]
}

extension ArchiveIndex {
  package var headBytes: UInt64 { UInt64(head.count) }

  /// The byte ranges that make a smaller archive with only the wanted blocks, in order, neighbours joined.
  ///
  /// `pg_restore` takes the concatenation of the ranges as an archive: from a pipe with `--data-only` and one `-t` per wanted
  /// table, or, where no block is wanted at all, as a file for `--section=pre-data` and `post-data`.
  package func slice(keeping wanted: Set<Int>) -> [Range<UInt64>] {
    let blocks =
      tables.filter { wanted.contains($0.dumpID) }.map { $0.offset..<$0.offset + $0.length }
      + largeObjects.filter { wanted.contains($0.dumpID) }.map { $0.offset..<$0.offset + $0.length }
    return ([0..<headBytes] + blocks.sorted { $0.lowerBound < $1.lowerBound }).reduce(into: []) { ranges, block in
      if let last = ranges.last, last.upperBound == block.lowerBound {
        ranges[ranges.count - 1] = last.lowerBound..<block.upperBound
      } else {
        ranges.append(block)
      }
    }
  }
}
