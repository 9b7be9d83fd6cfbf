/// Plain bytes of any range of an encrypted file, through whatever fetches its stored bytes: each chunk lies at a computable offset and
/// authenticates on its own.
package struct AgeRangeReader: Sendable {
  private let opening: AgePayload
  private let payloadOffset: UInt64
  private let storedBytes: UInt64
  package let plainBytes: UInt64

  /// A header of a few recipients fits in here; a longer one is fetched in a second step.
  private static let firstFetch: UInt64 = 4096

  /// Reads the header.
  ///
  /// - Parameters:
  ///   - storedBytes: the file's size, from a record that is trusted: the last chunk is where it says.
  ///   - fetch: the stored bytes of a range, exactly.
  package init(
    storedBytes: UInt64, identities: [AgeIdentity], fetch: (Range<UInt64>) async throws -> [UInt8]
  ) async throws {
    var head: [UInt8] = []
    var opened: AgeOpening?
    while opened == nil {
      let limit = min(storedBytes, UInt64(AgeHeader.lengthLimit))
      let wanted = min(limit, max(Self.firstFetch, UInt64(head.count) * 8))
      guard wanted > head.count else { throw AgeError.malformedHeader("it is cut off, or too long") }
      let piece = try await fetch(UInt64(head.count)..<wanted)
      guard head.count + piece.count == wanted else { throw AgeError.truncated }
      head += piece
      opened = try AgeOpening(head, identities)
    }
    guard let opened else { throw AgeError.truncated }
    let offset = UInt64(opened.payloadOffset)
    let body = storedBytes - offset
    let chunks = max(1, (body + UInt64(AgePayload.sealedBytes) - 1) / UInt64(AgePayload.sealedBytes))
    // Every chunk but the only one of an empty file holds something. Without this check a few bytes behind a full chunk
    // would make the file shorter, and the bytes before them would still authenticate.
    let lastBytes = body - (chunks - 1) * UInt64(AgePayload.sealedBytes)
    guard lastBytes >= UInt64(AgePayload.tagBytes) + (chunks > 1 ? 1 : 0) else { throw AgeError.truncated }
    opening = opened.payload
    payloadOffset = offset
    self.storedBytes = storedBytes
    plainBytes = body - chunks * UInt64(AgePayload.tagBytes)
  }

  /// The stored bytes that hold a range of plain ones.
  package func storedRange(of plain: Range<UInt64>) -> Range<UInt64> {
    guard !plain.isEmpty else { return payloadOffset..<payloadOffset }
    let (size, sealed) = (UInt64(AgePayload.chunkBytes), UInt64(AgePayload.sealedBytes))
    let first = plain.lowerBound / size
    let last = (plain.upperBound - 1) / size
    return payloadOffset + first * sealed..<min(storedBytes, payloadOffset + (last + 1) * sealed)
  }

  package func read(
    _ range: Range<UInt64>, fetch: (Range<UInt64>) async throws -> [UInt8]
  ) async throws -> [UInt8] {
    guard range.upperBound <= plainBytes else { throw AgeError.truncated }
    guard !range.isEmpty else { return [] }
    let storedRange = storedRange(of: range)
    let stored = try await fetch(storedRange)
    guard stored.count == storedRange.count else { throw AgeError.truncated }
    let first = range.lowerBound / UInt64(AgePayload.chunkBytes)
    let lastOfFile = (max(1, plainBytes) - 1) / UInt64(AgePayload.chunkBytes)
    var plain: [UInt8] = []
    plain.reserveCapacity(range.count + AgePayload.chunkBytes)
    var (position, number) = (0, first)
    while position < stored.count {
      let end = min(stored.count, position + AgePayload.sealedBytes)
      plain += try stored[position..<end].withUnsafeBytes {
        try opening.open($0, number: number, isLast: number == lastOfFile)
      }
      (position, number) = (end, number + 1)
    }
    let start = Int(range.lowerBound - first * UInt64(AgePayload.chunkBytes))
    return Array(plain[start..<start + range.count])
  }
}
