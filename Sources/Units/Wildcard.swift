/// A pattern for names: `*` stands for any code points and `?` for one, as in a shell. Code points and not characters:
/// a mark behind an underscore hides neither.
package struct Wildcard: Sendable {
  private let pattern: [Unicode.Scalar]

  package init(_ pattern: String) { self.pattern = Array(pattern.unicodeScalars) }

  package func matches(_ name: String) -> Bool {
    // The usual two-pointer match: on a mismatch the last star takes one character more. Linear for one star, and never worse than
    // pattern times name.
    let name = Array(name.unicodeScalars)
    var (at, position) = (0, 0)
    var star: (pattern: Int, name: Int)?
    while position < name.count {
      if at < pattern.count, pattern[at] == "*" {
        star = (at, position)
        at += 1
      } else if at < pattern.count, pattern[at] == "?" || pattern[at] == name[position] {
        at += 1
        position += 1
      } else if let last = star {
        star = (last.pattern, last.name + 1)
        at = last.pattern + 1
        position = last.name + 1
      } else {
        return false
      }
    }
    return pattern[at...].allSatisfy { $0 == "*" }
  }
}
