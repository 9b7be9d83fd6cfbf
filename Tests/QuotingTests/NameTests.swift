import Quoting
import Testing

/// Names that Swift takes for one, and PostgreSQL for two.
@Suite struct NameTests {
  /// Composed and decomposed, and two code points of one letter.
  private static let twins = [("\u{E9}", "e\u{301}"), ("K", "\u{212A}"), ("\u{C5}", "\u{212B}"), ("a;", "a\u{37E}")]

  @Test func canonicalTwinsAreTwoKeys() {
    for (one, other) in Self.twins {
      #expect(one == other, "what this is about")
      #expect(!one.isExactly(other) && ExactText(one) != ExactText(other))
      #expect([one, other, one].exact.count == 2)
      #expect(![one].containsExactly(other) && [one].containsExactly(one))
      var counts: [ExactText: Int] = [:]
      for name in [one, other, one] { counts[ExactText(name), default: 0] += 1 }
      #expect(counts[ExactText(one)] == 2 && counts[ExactText(other)] == 1)
    }
    #expect("a".isExactly(Optional("a")) && !"a".isExactly(Optional<String>.none))
    let sorted = ["\u{212A}", "b", "K", "b"].exact.sortedTexts
    #expect(sorted.map { Array($0.utf8) } == ["K", "b", "\u{212A}"].map { Array($0.utf8) })
  }

  /// What was put together is taken apart again, whatever code points meet at the dot.
  @Test func aMembersNameIsCutByBytes() {
    let databases =
      ["shop", "\u{301}shop", "\u{200D}x", "\u{600}x", ".", ".shop", "a.b", "\r\n", "\u{20DD}"]
      + Self.twins.flatMap { [$0.0, $0.1] }
    for pattern in ["app", "K", "a-b_1"] {
      for database in databases {
        let name = MemberName.of(database, in: pattern)
        let found = MemberName.database(name, in: pattern)
        #expect(database.isExactly(found), "\(name.debugDescription)")
        #expect(MemberName.isMeant(name, by: pattern))
      }
    }
    for (name, pattern) in [
      ("app", "app"), ("app.", "app"), ("apps.x", "app"), ("ap", "app"), ("\u{212A}.x", "K"), ("K.x", "\u{212A}"),
    ] {
      #expect(MemberName.database(name, in: pattern) == nil, "\(name)")
    }
    #expect(MemberName.isMeant("app", by: "app") && !MemberName.isMeant("\u{212A}", by: "K"))
  }

  @Test func whatFollowsAPrefixIsCutByBytes() {
    #expect("pg/\u{301}a".rest(after: "pg/")?.utf8.elementsEqual("\u{301}a".utf8) == true)
    #expect("pg/a".rest(after: "pg/b") == nil && "\u{212A}a".rest(after: "K") == nil)
    #expect("a".rest(after: "").map(String.init) == "a")
  }
}
