/// Why an age file or key can't be used. Messages hold no key.
package enum AgeError: Error, Equatable, CustomStringConvertible {
  /// The header does not follow the format; what is wrong.
  case malformedHeader(String)
  /// None of the identities opens the file.
  case noMatchingIdentity
  /// The header was changed: its MAC is not the one that the file key gives.
  case headerChanged
  /// A chunk (from 0) does not authenticate: it was changed, moved or cut off, or belongs to another file.
  case chunkRefused(UInt64)
  /// The payload ends before its last chunk.
  case truncated
  /// Something follows the last chunk.
  case trailingData
  /// A recipient or an identity can't be read.
  case malformedKey(String)

  package var description: String {
    switch self {
    case .malformedHeader(let reason): "this is no age file: \(reason)"
    case .noMatchingIdentity: "none of the identities opens it"
    case .headerChanged: "its header was changed"
    case .chunkRefused(let number): "its chunk \(number) was changed, moved or cut off"
    case .truncated: "it is cut off"
    case .trailingData: "something follows its end"
    case .malformedKey(let reason): reason
    }
  }
}
