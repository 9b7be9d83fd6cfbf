/// A pattern for names: `*` stands for any characters and `?` for one, as in a shell.
package struct Wildcard: Sendable {
  private let pattern: [Character]

  package init(_ pattern: String) { self.pattern = Array(pattern) }

  package func matches(_ name: String) -> Bool {
    // The usual two-pointer match: on a mismatch the last star takes one character more. Linear for one star, and never worse than
    // pattern times name.
    let name = Array(name)
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
