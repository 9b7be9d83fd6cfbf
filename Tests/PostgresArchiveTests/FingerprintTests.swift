import PostgresArchive
import Testing

@Suite struct FingerprintTests {
  private func fingerprint(_ rows: [String]) -> Fingerprint {
    var sum = Fingerprint()
    for row in rows { Array(row.utf8).withUnsafeBytes { sum.add(row: $0) } }
    return sum
  }

  @Test func isTheSumOfXXH3() {
    // XXH3-128 of the empty input, from the specification's reference implementation.
    #expect(fingerprint([""]).description == "99aa06d3014798d86001c324468d497f")
    #expect(fingerprint([]).description == String(repeating: "0", count: 32))
  }

  @Test func orderIsNothingAndDuplicatesCount() {
    #expect(fingerprint(["a", "b", "c"]) == fingerprint(["c", "a", "b"]))
    #expect(fingerprint(["a", "a"]) != fingerprint(["a"]))
    #expect(fingerprint(["a", "a"]) != fingerprint([]))
    #expect(fingerprint(["ab", "c"]) != fingerprint(["a", "bc"]))
  }

  @Test func readsBack() {
    let sum = fingerprint(["one", "two"])
    #expect(Fingerprint(hexadecimal: sum.description) == sum)
    #expect(Fingerprint(hexadecimal: "12") == nil)
    #expect(Fingerprint(hexadecimal: String(repeating: "g", count: 32)) == nil)
    #expect(Fingerprint(hexadecimal: "+" + String(repeating: "0", count: 31)) == nil)
  }
}
