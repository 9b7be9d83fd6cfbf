import PostgresArchive
import Testing

@Suite struct ScannerTests {
  /// Rows, bytes, offsets and fingerprints as the server's own COPY gave them, for pieces of every awkward size.
  @Test(arguments: Golden.all, [1, 7, 4096, 65_537, .max]) func agreesWithTheServer(_ golden: Golden, pieces: Int)
    throws
  {
    let archive = try golden.archive()
    let expected = try golden.expectation()
    let index = try scan(archive, pieces: pieces)

    #expect(index.header.version.description == expected.archiveVersion)
    #expect(index.header.database == expected.database)
    #expect(index.header.serverVersion == expected.serverVersion)
    #expect(index.header.dumpVersion == expected.dumpVersion)
    #expect(index.headBytes == expected.headBytes)
    #expect(index.totalBytes == UInt64(archive.count))
    #expect(index.tables.count == expected.tables.count)
    for table in expected.tables {
      let found = try #require(index.tables.first { $0.schema == table.schema && $0.name == table.name })
      #expect(found.offset == table.offset, "\(table.name)")
      #expect(found.length == table.length, "\(table.name)")
      let rows = try #require(found.rows)
      #expect(rows.count == table.rows, "\(table.name)")
      #expect(rows.bytes == table.bytes, "\(table.name)")
      #expect(rows.fingerprint.description == table.fingerprint, "\(table.name)")
    }
    let objects = index.largeObjects.compactMap(\.objects)
    #expect(objects.map(\.count).reduce(0, +) == expected.largeObjects.count)
    #expect(objects.map(\.bytes).reduce(0, +) == expected.largeObjects.bytes)
    #expect(
      Fingerprint(objects.map(\.fingerprint.value).reduce(0, &+)).description == expected.largeObjects.fingerprint)
  }

  /// However the input is cut, the result is the same.
  @Test(arguments: Golden.all) func cutsDoNotMatter(_ golden: Golden) throws {
    let archive = try golden.archive()
    let whole = try scan(archive)
    for seed in UInt64(1)...5 {
      var generator = SeededGenerator(seed: seed)
      let index = try scan(archive) { Int.random(in: 1...9000, using: &generator) }
      #expect(index.tables == whole.tables, "seed \(seed)")
      #expect(index.largeObjects == whole.largeObjects, "seed \(seed)")
    }
  }

  /// Blocks that pg_dump compressed are found and measured, and their rows are not pretended.
  @Test func compressedBlocksHaveNoRows() throws {
    let index = try scan(try Golden.gzip.archive())
    let plain = try scan(try Golden(name: "pg16").archive())
    #expect(index.header.compression == .byPgDump("gzip"))
    #expect(Set(index.tables.map(\.name)) == Set(plain.tables.map(\.name)))
    #expect(index.tables.allSatisfy { $0.rows == nil })
    #expect(index.largeObjects.allSatisfy { $0.objects == nil })
  }

  /// A slice is an archive: scanning it finds the wanted tables unchanged and misses the others.
  @Test(arguments: Golden.all) func slicesHoldTheWantedBlocks(_ golden: Golden) throws {
    let archive = try golden.archive()
    let index = try scan(archive)
    for wanted in [[], [index.tables[0]], Array(index.tables.suffix(2)), index.tables] {
      let ranges = index.slice(keeping: Set(wanted.map(\.dumpID)))
      #expect(ranges.first?.lowerBound == 0)
      #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
      let slice = ranges.flatMap { archive[Int($0.lowerBound)..<Int($0.upperBound)] }
      let size = index.headBytes + wanted.map(\.length).reduce(0, +)
      #expect(UInt64(slice.count) == size)
      let error = #expect(throws: ArchiveError.self) { try scan(slice) }
      guard case .missingData = error?.reason else {
        Issue.record("a slice lacks blocks and nothing else: \(String(describing: error))")
        continue
      }
    }
  }
}

@Suite struct MalformedArchiveTests {
  @Test func whatIsNoArchive() throws {
    let table: [([UInt8], ArchiveError)] = [
      ([], ArchiveError(.truncated("the header"), at: 0)),
      (Array("PGD".utf8), ArchiveError(.truncated("the header"), at: 3)),
      (Array("-- PostgreSQL database dump".utf8), ArchiveError(.notAnArchive, at: 0)),
      (Array("PGDMP".utf8) + [1, 13, 0, 4, 8, 1], ArchiveError(.unsupportedVersion("1.13.0"), at: 5)),
      (Array("PGDMP".utf8) + [1, 17, 0, 4, 8, 1], ArchiveError(.unsupportedVersion("1.17.0"), at: 5)),
      (Array("PGDMP".utf8) + [2, 0, 0, 4, 8, 1], ArchiveError(.unsupportedVersion("2.0.0"), at: 5)),
      (Array("PGDMP".utf8) + [1, 14, 0, 4, 8, 3], ArchiveError(.wrongFormat(3), at: 10)),
      (
        Array("PGDMP".utf8) + [1, 14, 0, 8, 8, 1],
        ArchiveError(.unsupportedLayout("integers of 8 and offsets of 8 bytes"), at: 8)
      ),
    ]
    for (bytes, expected) in table {
      #expect(throws: expected) { try scan(bytes) }
      #expect(throws: expected) { try scan(bytes, pieces: 1) }
    }
  }

  /// Cut off at any byte, an archive is refused: with the offset of the cut, never taken for whole.
  @Test(arguments: ["pg14", "pg18"]) func everyTruncationIsRefused(_ name: String) throws {
    let archive = try Golden(name: name).archive()
    var generator = SeededGenerator(seed: 7)
    let cuts =
      Array(stride(from: 0, to: 300, by: 3))
      + (0..<60).map { _ in Int.random(in: 300..<archive.count, using: &generator) }
      + Array(archive.count - 40..<archive.count)
    for cut in cuts {
      let error = #expect(throws: ArchiveError.self, "cut at \(cut)") { try scan(Array(archive[..<cut])) }
      #expect(error?.offset == UInt64(cut))
    }
  }

  /// A changed byte anywhere is refused, or changes a fingerprint, or lies in text that the scan does not judge. Whatever it
  /// does, it ends: no trap, no hang, no memory beyond the input's.
  @Test(arguments: ["pg14", "pg16", "pg18"]) func flippedBytesNeverTrap(_ name: String) throws {
    let archive = try Golden(name: name).archive()
    let index = try scan(archive)
    var generator = SeededGenerator(seed: 0x5EED)
    var refused = 0
    var noticed = 0
    for _ in 0..<80 {
      var damaged = archive
      let position = Int.random(in: 0..<archive.count, using: &generator)
      damaged[position] ^= UInt8.random(in: 1...255, using: &generator)
      do throws(ArchiveError) {
        let found = try scan(damaged)
        if found.tables != index.tables || found.largeObjects != index.largeObjects { noticed += 1 }
        if position >= Int(index.headBytes) {
          #expect(found.tables != index.tables || found.largeObjects != index.largeObjects, "byte \(position)")
        }
      } catch {
        refused += 1
      }
    }
    #expect(refused > 0)
    #expect(noticed > 0)
  }

  /// Random bytes behind a true magic, and spliced archives: typed errors only.
  @Test func garbageNeverTraps() throws {
    let archive = try Golden(name: "pg17").archive()
    for seed in UInt64(1)...200 {
      var generator = SeededGenerator(seed: seed)
      var bytes = Array(archive[..<Int.random(in: 5...26_000, using: &generator)])
      bytes += (0..<Int.random(in: 0...400, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator)
      }
      #expect(throws: ArchiveError.self, "seed \(seed)") {
        try scan(bytes) { Int.random(in: 1...3000, using: &generator) }
      }
    }
  }
}
