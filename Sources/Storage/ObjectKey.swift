/// A relative path of plain parts: no empty part, no `.` or `..`, no byte that a file system or URL would take for something
/// else. So a key can't leave its store.
package struct ObjectKey: Sendable, Hashable, Comparable, CustomStringConvertible {
  package let path: String

  /// Nil where the text is no such path.
  package init?(_ path: String) {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard path.utf8.count <= 1000, parts.allSatisfy(Self.isPart) else { return nil }
    self.path = path
  }

  /// The part after the last `/`.
  package var name: Substring { path[(path.lastIndex(of: "/").map(path.index(after:)) ?? path.startIndex)...] }

  package var description: String { path }

  package static func < (left: ObjectKey, right: ObjectKey) -> Bool {
    left.path.utf8.lexicographicallyPrecedes(right.path.utf8)
  }

  /// NAME_MAX of Linux's file systems: a database's name of 63 bytes outside of ASCII takes 189 of them.
  private static let nameLimit = 255

  private static func isPart(_ part: Substring) -> Bool {
    !part.isEmpty && !part.hasPrefix(".") && part.utf8.count <= nameLimit
      && part.utf8.allSatisfy { byte in
        (byte >= 48 && byte <= 57) || (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122)
          || [UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "%")].contains(byte)
      }
  }
}
