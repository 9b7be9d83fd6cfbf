/// How far two words are from each other, for "did you mean".
package enum EditDistance {
  /// Levenshtein's distance, by the usual row by row table; capitals don't count.
  package static func between(_ left: String, _ right: String) -> Int {
    let (left, right) = (Array(left.lowercased()), Array(right.lowercased()))
    var row = Array(0...right.count)
    for (position, character) in left.enumerated() {
      var previous = row[0]
      row[0] = position + 1
      for column in right.indices {
        let substitution = previous + (character == right[column] ? 0 : 1)
        previous = row[column + 1]
        row[column + 1] = min(substitution, row[column] + 1, row[column + 1] + 1)
      }
    }
    return row[right.count]
  }
}
