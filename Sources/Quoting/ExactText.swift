/// A text as a key, compared by its bytes: Swift calls `é` as one code point and as two equal, and PostgreSQL has a
/// table of each name, and a database.
package struct ExactText: Sendable, Hashable, Comparable {
  package let text: String

  package init(_ text: String) { self.text = text }

  package static func == (left: ExactText, right: ExactText) -> Bool { left.text.isExactly(right.text) }

  package static func < (left: ExactText, right: ExactText) -> Bool {
    left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
  }

  package func hash(into hasher: inout Hasher) {
    var text = text
    text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    hasher.combine(text.utf8.count)
  }
}

extension ExactText: ExpressibleByStringInterpolation {
  package init(stringLiteral text: String) { self.init(text) }
}

extension ExactText: CustomStringConvertible {
  package var description: String { text }
}

extension StringProtocol {
  /// Whether the bytes are the same.
  package func isExactly(_ other: some StringProtocol) -> Bool { utf8.elementsEqual(other.utf8) }

  /// Whether there is another text, and the bytes are the same.
  package func isExactly(_ other: String?) -> Bool { other.map { isExactly($0) } ?? false }
}

extension Sequence<String> {
  /// Each text once, by its bytes.
  package var exact: Set<ExactText> { Set(map(ExactText.init(_:))) }

  /// Whether one of the texts has these bytes.
  package func containsExactly(_ text: String) -> Bool { contains { $0.isExactly(text) } }
}

extension Sequence<ExactText> {
  /// In the order of their bytes.
  package var sortedTexts: [String] { sorted().map(\.text) }
}
