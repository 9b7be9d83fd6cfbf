import ArtifactFormat
import Foundation
import TestSupport
import Testing

private let compressions: [Compression] = [
  .standard, Compression(algorithm: .zstd, level: 1), Compression(algorithm: .gzip, level: 1),
  Compression(algorithm: .none),
]

/// Counts what it is asked to decompress.
private final class Recorder: FrameCodec {
  private(set) var decoded = 0

  func encode(_ plain: UnsafeRawBufferPointer) -> [UInt8] { Array(plain) }
  func plainCount(_ stored: UnsafeRawBufferPointer) -> Int { stored.count }

  func decode(_ stored: UnsafeRawBufferPointer, plainCount: Int, frame: Int) -> [UInt8] {
    decoded += 1
    return []
  }
}

/// Text that compresses, with a part that does not.
private func sample(_ count: Int) -> [UInt8] {
  (0..<count).map {
    $0 % 97 < 60 ? UInt8(truncatingIfNeeded: 97 + $0 / 13 % 26) : UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7)
  }
}

private func artifact(_ plain: [UInt8], _ compression: Compression, frameBytes: Int) throws -> (
  stored: [UInt8], index: FrameIndex
) {
  let codec = try compression.makeCodec()
  var index = FrameIndex(frameBytes: frameBytes)
  var stored: [UInt8] = []
  for start in stride(from: 0, to: plain.count, by: frameBytes) {
    let piece = plain[start..<min(start + frameBytes, plain.count)]
    let frame = try piece.withUnsafeBytes { try codec.encode($0) }
    index.append(plain: piece.count, stored: frame.count, digest: Digest.hexadecimal(of: frame))
    stored += frame
  }
  return (stored, index)
}

@Suite(.waits) struct FrameTests {
  /// Any range of plain bytes comes back, and only the frames that hold it are fetched.
  @Test(arguments: compressions) func rangesReadBack(_ compression: Compression) async throws {
    let plain = sample(10_000)
    let (stored, index) = try artifact(plain, compression, frameBytes: 1024)
    for range in [0..<10_000, 0..<0, 0..<1, 1023..<1025, 1024..<2048, 5000..<9999, 9999..<10_000] as [Range<UInt64>] {
      nonisolated(unsafe) var fetched = 0  // the reader calls back one at a time, in this task
      let reader = try ArtifactReader(index: index, compression: compression) { bytes in
        fetched += bytes.count
        return Array(stored[Int(bytes.lowerBound)..<Int(bytes.upperBound)])
      }
      var result: [UInt8] = []
      try await reader.read(range) { result.append(contentsOf: $0) }
      #expect(result == Array(plain[Int(range.lowerBound)..<Int(range.upperBound)]))
      let wanted = try index.frames(covering: range).reduce(0) { $0 + $1.stored.count }
      #expect(fetched == wanted)
    }
  }

  @Test(arguments: compressions) func everyFlippedByteIsNoticed(_ compression: Compression) async throws {
    let plain = sample(3000)
    let (stored, index) = try artifact(plain, compression, frameBytes: 1024)
    for position in stored.indices {
      var damaged = stored
      damaged[position] ^= 0x40
      let reader = try ArtifactReader(index: index, compression: compression) {
        Array(damaged[Int($0.lowerBound)..<Int($0.upperBound)])
      }
      await #expect(throws: FrameError.self, "byte \(position)") { try await reader.readAll { _ in } }
    }
  }

  /// The digest is looked at first: a decompressor never sees what another one has written, however sound that is.
  @Test(arguments: compressions) func anotherSoundFrameOfTheSameSizeIsRefused(_ compression: Compression) throws {
    let (stored, index) = try artifact(sample(1024), compression, frameBytes: 1024)
    let frame = try #require(try index.frames(covering: 0..<1024).first)
    let codec = Recorder()
    #expect(throws: FrameError.self) { try codec.open(stored.reversed(), frame) }
    #expect(codec.decoded == 0)
    _ = try codec.open(stored, frame)
    #expect(codec.decoded == 1)
  }

  /// Pieces of 1 MiB: any range is held against the first reading, and one changed bit in it is seen.
  @Test func laterReadingsAreHeldAgainstTheFirst() {
    let bytes = sample(3 * PieceDigests.pieceBytes + 1000)
    for portion in [1 << 14, PieceDigests.pieceBytes, 2_500_000, bytes.count] {
      var pieces = PieceDigests()
      for start in stride(from: 0, to: bytes.count, by: portion) {
        pieces.update(Array(bytes[start..<min(bytes.count, start + portion)]))
      }
      pieces.finish()
      #expect(pieces.totalBytes == UInt64(bytes.count))
      for range in [0..<1, 5..<1_048_577, 3_145_728..<3_146_000, 0..<UInt64(bytes.count)] as [Range<UInt64>] {
        let whole = pieces.covering(range)
        #expect(whole.contains(range) && whole.lowerBound % UInt64(PieceDigests.pieceBytes) == 0)
        var read = Array(bytes[Int(whole.lowerBound)..<Int(whole.upperBound)])
        #expect(pieces.match(read, at: whole))
        #expect(!pieces.match(read.dropLast(), at: whole))
        read[Int(range.upperBound - whole.lowerBound) - 1] ^= 1
        #expect(!pieces.match(read, at: whole))
      }
    }
  }

  @Test func aStoreThatReturnsTooLittleIsNoticed() async throws {
    let (stored, index) = try artifact(sample(3000), .standard, frameBytes: 1024)
    let reader = try ArtifactReader(index: index, compression: .standard) {
      Array(stored[Int($0.lowerBound)..<Int($0.upperBound) - 1])
    }
    await #expect(throws: FrameError.self) { try await reader.readAll { _ in } }
  }

  @Test func rangesOutsideAreRefused() throws {
    let (_, index) = try artifact(sample(3000), .standard, frameBytes: 1024)
    #expect(throws: FrameError.outOfBounds(3001)) { try index.frames(covering: 0..<3001) }
  }

  @Test func anIndexIsRebuiltFromItsSizes() throws {
    let (_, index) = try artifact(sample(3000), .standard, frameBytes: 1024)
    func rebuilt(_ frameBytes: Int, _ plainBytes: UInt64, _ sizes: [Int], _ digests: [String]?) -> FrameIndex? {
      FrameIndex(frameBytes: frameBytes, plainBytes: plainBytes, storedSizes: sizes, digests: digests)
    }
    #expect(rebuilt(1024, 3000, index.storedSizes, index.digests) == index)
    #expect(rebuilt(1024, 3000, index.storedSizes, nil)?.digests == nil)
    #expect(rebuilt(1024, 3000, index.storedSizes, index.digests?.dropLast()) == nil)
    #expect(rebuilt(1024, 5000, index.storedSizes, index.digests) == nil)
    #expect(rebuilt(0, 0, [], []) == nil)
  }

  @Test(arguments: compressions) func smallFilesReadBackWithoutAnIndex(_ compression: Compression) throws {
    for count in [0, 1, 100_000] {
      let plain = sample(count)
      let stored = try plain.withUnsafeBytes { try compression.makeCodec().encode($0) }
      #expect(try compression.decompress(stored) == plain)
      #expect(throws: (any Error).self) {
        guard compression.algorithm == .none else { return try compression.decompress(Array(stored.dropLast())) }
        throw FrameError.compressor("nothing to damage")
      }
    }
  }
}

/// What is stored opens with stock tools.
@Suite struct HostileIndexTests {
  /// Sizes that no number holds ended the process.
  @Test(
    arguments: [
      (1, UInt64.max, [5]), (Int.max, UInt64.max, [1, 1]), (100, 250, [Int.max, Int.max, Int.max]), (100, 1, []),
      (0, 0, []), (100, 250, [1, -1, 1]),
    ] as [(Int, UInt64, [Int])])
  func anIndexWhosePartsCannotFitIsNone(_ frameBytes: Int, _ plainBytes: UInt64, _ sizes: [Int]) {
    #expect(FrameIndex(frameBytes: frameBytes, plainBytes: plainBytes, storedSizes: sizes, digests: nil) == nil)
  }
}

@Suite(.waits) struct StockToolTests {
  @Test(arguments: [(Compression.standard, ["zstd", "-dc"]), (Compression(algorithm: .gzip), ["gzip", "-dc"])])
  func stockToolsReadFrames(_ compression: Compression, _ command: [String]) throws {
    let folder = TemporaryFolder()
    let plain = sample(50_000)
    let (stored, _) = try artifact(plain, compression, frameBytes: 4096)
    let path = folder.file("artifact\(compression.suffix)")
    try Data(stored).write(to: URL(filePath: path))
    let sum = try Shell.must("sh", ["-c", "\(command.joined(separator: " ")) '\(path)' | sha256sum"])
    #expect(sum.hasPrefix(Digest.hexadecimal(of: plain)))
    #expect(try Shell.must("sha256sum", [path]).hasPrefix(Digest.hexadecimal(of: stored)))
  }
}
