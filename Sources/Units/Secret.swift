/// A text that must not be seen: a password, a token. It can't be printed, described, reflected or encoded by accident;
/// whoever really needs it asks for `revealed`, and that is easy to search for. What it holds is overwritten at its end
/// (`SecretBytes`).
package struct Secret: Sendable, Hashable {
  private let bytes: SecretBytes

  package init(_ text: String) { bytes = SecretBytes(text.utf8) }

  /// A copy, which nothing overwrites.
  package var revealed: String { bytes.withBytes { String(decoding: $0, as: UTF8.self) } }
}

extension Secret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  package var description: String { "•••" }
  package var debugDescription: String { description }
  package var customMirror: Mirror { Mirror(self, children: [:]) }
}
