import Foundation

@testable import ArtifactFormat

let frameTargets = [
  FuzzTarget("frame-zstd") { bytes in frame(bytes, Compression(algorithm: .zstd, level: 1)) },
  FuzzTarget("frame-gzip") { bytes in frame(bytes, Compression(algorithm: .gzip, level: 1)) },
  FuzzTarget("frame-index") { bytes in
    // Three numbers of eight bytes, and sizes of two each, some of them as large as a number can be.
    let numbers = (0..<3).map { number in
      bytes.dropFirst(number * 8).prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    }
    let sizes = stride(from: 24, to: bytes.count - 1, by: 2).map { at in
      bytes[at] == 0xFF ? Int.max - Int(bytes[at + 1]) : Int(bytes[at]) << 8 | Int(bytes[at + 1])
    }
    let frameBytes = Int(truncatingIfNeeded: numbers[0])
    guard let index = FrameIndex(frameBytes: frameBytes, plainBytes: numbers[1], storedSizes: sizes, digests: nil)
    else { return }
    let start = min(numbers[2], index.plainBytes)
    for range in [start..<index.plainBytes, 0..<start, numbers[2]..<max(numbers[2], numbers[1])] {
      guard let frames = try? index.frames(covering: range) else { continue }
      FuzzTarget.require(range.isEmpty == frames.isEmpty, "a range has frames")
      guard let first = frames.first, let last = frames.last else { continue }
      FuzzTarget.require(first.plain.lowerBound <= range.lowerBound, "frames begin before their range")
      FuzzTarget.require(last.plain.upperBound >= range.upperBound, "frames end behind their range")
      FuzzTarget.require(last.stored.upperBound <= index.storedBytes, "frames lie in the artifact")
    }
  },
  FuzzTarget(text: "signify") { text in
    if let key = VerifyingKey(parsing: text) {
      FuzzTarget.require(VerifyingKey(parsing: key.text) == key, "a public key's file reads back")
      FuzzTarget.require(VerifyingKey(parsing: key.description) == key, "a public key's line reads back")
    }
    if let key = SigningKey(parsing: text) {
      FuzzTarget.require(SigningKey(parsing: key.secretText) == key, "a secret key's file reads back")
    }
    FuzzTarget.require(
      verifying?.verifies(Array("message".utf8), signature: text) == false, "nothing verifies by chance")
  },
]

/// Of a key that is made anew in each process: no input is its signature.
private let verifying: VerifyingKey? = SigningKey.generate().publicKey

/// Bounds what a frame may claim, so that a run's memory has a bound.
private let largestPlain = 1 << 20

private func frame(_ bytes: [UInt8], _ compression: Compression) {
  guard let codec = try? compression.makeCodec() else { return }
  bytes.withUnsafeBytes { stored in
    guard let claim = try? codec.plainCount(stored), claim <= largestPlain else { return }
    guard let plain = try? codec.decode(stored, plainCount: claim, frame: 0) else { return }
    FuzzTarget.require(plain.count == claim, "a frame has as many bytes as it claims")
    FuzzTarget.require(
      (try? codec.decode(stored, plainCount: claim + 1, frame: 0)) == nil, "a frame of another size is refused")
    let again = plain.withUnsafeBytes { try? codec.encode($0) }
    FuzzTarget.require(again.flatMap { try? compression.decompress($0) } == plain, "a frame reads back")
  }
}
