package import ArtifactFormat
package import BackupCatalog
import Foundation
import PostgresArchive
import Quoting

extension Contents {
  /// What a scan found, as it is kept.
  init(_ id: BackupID, _ index: ArchiveIndex, _ frames: FrameIndex, settings: [String: String]) {
    let ancestors = TableSelection.ancestors(in: index.entries)
    self.init(
      id: id, archiveVersion: index.header.version.description, archiveBytes: index.totalBytes,
      headBytes: index.headBytes, headDigest: Digest.hexadecimal(of: index.head),
      frames: Contents.Frames(
        plainBytes: frames.frameBytes, storedSizes: frames.storedSizes, digests: frames.digests),
      settings: settings,
      tables: index.tables.map { table in
        var described = Contents.Table(
          schema: table.schema, name: table.name, dumpID: table.dumpID, offset: table.offset, length: table.length,
          copyStatement: table.copyStatement, rows: table.rows.map { Int64($0.count) },
          bytes: table.rows.map { Int64($0.bytes) }, fingerprint: table.rows?.fingerprint.description)
        described.partitionOf = ancestors[ExactText(described.fullName)]
        return described
      },
      largeObjects: index.largeObjects.map { block in
        Contents.LargeObjects(
          dumpID: block.dumpID, offset: block.offset, length: block.length,
          count: block.objects.map { Int64($0.count) },
          bytes: block.objects.map { Int64($0.bytes) }, fingerprint: block.objects?.fingerprint.description)
      })
  }

  /// Where the artifact's frames lie; nil where the parts don't fit together.
  package var frameIndex: FrameIndex? {
    FrameIndex(
      frameBytes: frames.plainBytes, plainBytes: archiveBytes, storedSizes: frames.storedSizes,
      digests: frames.digests)
  }

  /// What the manifest tells of them.
  var totals: Manifest.Totals {
    Manifest.Totals(
      tables: tables.count, rows: tables.compactMap(\.rows).reduce(0, +),
      rowBytes: tables.compactMap(\.bytes).reduce(0, +),
      largeObjects: largeObjects.compactMap(\.count).reduce(0, +))
  }
}

extension BackupStatistics {
  /// Of a backup that lies in a store: all but its definitions.
  package init(_ manifest: Manifest, _ contents: Contents) {
    self.init(
      manifest.id, contents, storedBytes: manifest.artifact.file.size,
      seconds: manifest.finished.timeIntervalSince(manifest.started))
  }

  /// Smaller ones are not worth a line each.
  private static func archiveShare(of archiveBytes: Int64) -> Int64 { archiveBytes / 1000 }

  private init(_ id: BackupID, _ contents: Contents, storedBytes: Int64, seconds: Double) {
    self.init(
      backup: id, archiveBytes: Int64(clamping: contents.archiveBytes), storedBytes: storedBytes,
      seconds: seconds,
      // Partitions come and go: their rows count as those of the table that they are parts of.
      rows: Dictionary(
        contents.tables.map { ($0.partitionOf?.last ?? $0.fullName, $0.rows ?? 0) }, uniquingKeysWith: +),
      schemaDigest: nil)
    if contents.totals.largeObjects > 0 { rows[Self.largeObjects] = contents.totals.largeObjects }
    largestTableBytes = contents.tables.map { Int64(clamping: $0.length) }.max()
    let blocks =
      contents.tables.map { ($0.partitionOf?.last ?? $0.fullName, Int64(clamping: $0.length)) }
      + contents.largeObjects.map { (Self.largeObjects, Int64(clamping: $0.length)) }
    bytes = Dictionary(blocks, uniquingKeysWith: +).filter { $0.value >= Self.archiveShare(of: archiveBytes) }
  }

  init(_ contents: Contents, _ index: ArchiveIndex, storedBytes: Int64, seconds: Double) {
    let definitions = TableOfContents(index.entries).definitions
    self.init(contents.id, contents, storedBytes: storedBytes, seconds: seconds)
    schemaDigest = Digest.hexadecimal(of: Array(definitions.joined(separator: "\0").utf8))
    let withRows = Set(contents.tables.map(\.fullName))
    let empty = index.entries.filter { $0.kind == "TABLE" }.map { "\($0.schema ?? "").\($0.tag ?? "")" }
      .filter { !withRows.contains($0) && rows[$0] == nil }
    withoutRows = empty.isEmpty ? nil : Set(empty)
  }
}
