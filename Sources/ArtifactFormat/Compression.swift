/// How an archive is compressed on its way into an artifact. Every kind is a plain concatenation of independent frames, so
/// stock tools stream it (`zstd -d`, `gzip -d`) and any frame opens on its own.
package struct Compression: Sendable, Hashable {
  package enum Algorithm: String, Sendable, Hashable, Codable, CaseIterable {
    case zstd
    case gzip
    case none
  }

  package let algorithm: Algorithm
  package let level: Int

  /// zstd at its own default level.
  package static let standard = Compression(algorithm: .zstd, level: 3)

  package init(algorithm: Algorithm, level: Int? = nil) {
    self.algorithm = algorithm
    self.level = level ?? Self.defaultLevel(algorithm)
  }

  /// The levels that an algorithm takes: those of `zstd` without `--ultra`, and those of `gzip`.
  package static func levels(_ algorithm: Algorithm) -> ClosedRange<Int> {
    switch algorithm {
    case .zstd: 1...19
    case .gzip: 1...9
    case .none: 0...0
    }
  }

  /// What a file name gets appended: `.zst`, `.gz` or nothing.
  package var suffix: String {
    switch algorithm {
    case .zstd: ".zst"
    case .gzip: ".gz"
    case .none: ""
    }
  }

  private static func defaultLevel(_ algorithm: Algorithm) -> Int {
    switch algorithm {
    case .zstd: 3
    case .gzip: 6
    case .none: 0
    }
  }
}

/// Why a frame could not be made or read.
package enum FrameError: Error, Sendable, Equatable, CustomStringConvertible {
  case compressor(String)
  /// The stored bytes are not the frame that was written.
  case damaged(frame: Int, reason: String)
  /// A range that lies outside the artifact.
  case outOfBounds(UInt64)

  package var description: String {
    switch self {
    case .compressor(let reason): "the compressor failed: \(reason)"
    case .damaged(let frame, let reason): "frame \(frame) is damaged: \(reason)"
    case .outOfBounds(let offset): "byte \(offset) lies outside the artifact"
    }
  }
}
