/// A text that must not be seen: a password, a token. It can't be printed, described, reflected or encoded by accident;
/// whoever really needs it asks for `revealed`, and that is easy to search for.
package struct Secret: Sendable, Hashable {
  package let revealed: String

  package init(_ text: String) { revealed = text }
}

extension Secret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  package var description: String { "•••" }
  package var debugDescription: String { description }
  package var customMirror: Mirror { Mirror(self, children: [:]) }
}
