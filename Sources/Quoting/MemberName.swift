/// The names of databases that a pattern of the configuration finds on its server: `pattern.database`. They are put
/// together and taken apart here alone, by their bytes: the database's name may begin with a code point that Swift
/// counts as one Character with the dot before it.
package enum MemberName {
  package static func of(_ database: String, in pattern: String) -> String { "\(pattern).\(database)" }

  /// The database's own name on the server; nil where `name` is none that this pattern gives.
  package static func database(_ name: String, in pattern: String) -> String? {
    var rest = name[...]
    guard rest.skip(pattern), rest.skip("."), !rest.isEmpty else { return nil }
    return String(rest)
  }

  /// Whether an entry of the configuration may stand for a name: it is its own, or one that its pattern gives.
  package static func isMeant(_ name: String, by entry: String) -> Bool {
    name.isExactly(entry) || database(name, in: entry) != nil
  }
}
