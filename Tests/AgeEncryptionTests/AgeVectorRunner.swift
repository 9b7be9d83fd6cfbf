import AgeEncryption
import Crypto
import Foundation
import Testing

/// What must come of an age file, in the words of the age test kit (C2SP CCTV, age/README.md).
enum AgeOutcome: String, Sendable {
  case success
  case noMatch = "no match"
  case changedHeader = "HMAC failure"
  case malformedHeader = "header failure"
  case payload = "payload failure"
  case armor = "armor failure"

  init(_ error: AgeError) {
    self =
      switch error {
      case .malformedHeader, .malformedKey: .malformedHeader
      case .noMatchingIdentity: .noMatch
      case .headerChanged: .changedHeader
      case .chunkRefused, .truncated, .trailingData: .payload
      }
  }
}

/// What a reader released before it ended, and how it ended.
struct AgeReading: Sendable, Equatable {
  var outcome: AgeOutcome
  var released: [UInt8] = []
}

/// Reads one file in every way that the room offers.
enum AgeReaders {
  /// The stream, fed in pieces of `size` bytes.
  static func stream(_ stored: [UInt8], _ identities: [AgeIdentity], pieces size: Int) -> AgeReading {
    var decryptor = AgeDecryptor(identities)
    var reading = AgeReading(outcome: .success)
    do throws(AgeError) {
      for start in stride(from: 0, to: stored.count, by: size) {
        reading.released += try decryptor.update(Array(stored[start..<min(stored.count, start + size)]))
      }
      reading.released += try decryptor.finish()
    } catch {
      reading.outcome = AgeOutcome(error)
    }
    return reading
  }

  /// Ranges of `size` plain bytes, one after the other, from a store that has the whole file.
  static func ranges(_ stored: [UInt8], _ identities: [AgeIdentity], size: UInt64) async -> AgeReading {
    let fetch = { (range: Range<UInt64>) in Array(stored[Int(range.lowerBound)..<Int(range.upperBound)]) }
    var reading = AgeReading(outcome: .success)
    do {
      let reader = try await AgeRangeReader(
        storedBytes: UInt64(stored.count), identities: identities, fetch: fetch)
      var start: UInt64 = 0
      repeat {
        let end = min(reader.plainBytes, start + size)
        reading.released += try await reader.read(start..<end, fetch: fetch)
        start = end
      } while start < reader.plainBytes
    } catch let error as AgeError {
      reading.outcome = AgeOutcome(error)
    } catch {
      Issue.record("\(error)")
    }
    return reading
  }

  static func hexadecimalDigest(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
