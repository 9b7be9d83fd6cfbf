import Quoting
import Testing

/// SQL and lines, cut by bytes.
@Suite struct ReadingTests {
  @Test func statementsEndWhereTheServerEndsThem() {
    let cases: [(String, [String])] = [
      ("CREATE ROLE a;\nCREATE ROLE b;\n", ["CREATE ROLE a;", "CREATE ROLE b;"]),
      ("-- a comment;\nSET x = 'a;b';", ["SET x = 'a;b';"]),
      ("SET x = 'a'';b' ; y;", ["SET x = 'a'';b' ;", "y;"]),
      ("SET \"a;\"\"b\" = 1;", ["SET \"a;\"\"b\" = 1;"]),
      // A quote behind a Prepend, and one before an Extend, is a quote.
      ("SET x = '\u{600}'; ALTER ROLE m SUPERUSER; --';", ["SET x = '\u{600}';", "ALTER ROLE m SUPERUSER;"]),
      ("SET x = 'a'\u{301}; b;", ["SET x = 'a'\u{301};", "b;"]),
      ("SET x = E'\\';b';", ["SET x = ''';b';"]),
      ("/* ; /* ; */ ; */ a; $q$ ; $q$; $1;", ["a;", "$q$ ; $q$;", "$1;"]),
      ("a", []), ("", []), (";;", []), ("a;'", ["a;"]),
    ]
    for (text, expected) in cases { #expect(SQLText.statements(text).map(\.text) == expected, "\(text)") }
  }

  @Test func constantsAreReadUnderTheTextsOwnSetting() {
    let text = #"""
      SET standard_conforming_strings = off;
      ALTER ROLE a SET x TO 'a\\b''c\'; d';
      SET standard_conforming_strings = 'on';
      ALTER ROLE a SET x TO 'a\\b\';
      """#
    let statements = SQLText.statements(text)
    #expect(statements.count == 4)
    #expect(statements[1].tokens.last { $0.kind == .string }?.text == #"a\b'c'; d"#)
    #expect(statements[1].text == #"ALTER ROLE a SET x TO  E'a\\b''c''; d';"#)
    #expect(statements[3].tokens.last { $0.kind == .string }?.text == #"a\\b\"#)
    // What comes out means the same in any session.
    for statement in statements {
      for setting in [true, false] {
        #expect(SQLTokens(statement.text, standardStrings: setting).tokens.map(\.text) == statement.tokens.map(\.text))
      }
    }
  }

  @Test func escapesAreThoseOfTheManual() {
    let tokens = SQLTokens(#"E'\b\f\n\r\t\101\x41\u0041\U00000041\q\''"#).tokens
    #expect(tokens.map(\.text) == ["\u{8}\u{C}\n\r\tAAAAq'"])
  }

  @Test func aNameIsReadToItsClosingQuote() {
    let cases: [(String, String?, String)] = [
      ("shop TO", "shop", " TO"), ("\"a\"\"b\" TO", "a\"b", " TO"), ("\"\u{600}\" x", "\u{600}", " x"),
      ("\"a\"\u{301}", "a", "\u{301}"), ("\"\r\n\".", "\r\n", "."), ("\"open", nil, "\"open"), ("", nil, ""),
      (".x", nil, ".x"), ("é$1.", "é$1", "."),
    ]
    for (text, name, rest) in cases {
      var left = text[...]
      let read = SQLName.read(&left)
      #expect(read.map { Array($0.utf8) } == name.map { Array($0.utf8) })
      #expect(Array(left.utf8) == Array(rest.utf8))
    }
  }

  @Test func linesEndAtLineFeedsAndCarriageReturns() {
    #expect("a\r\nb\nc\rd".lines == ["a", "b", "c", "d"])
    #expect("a\n\u{301}b".lines.map { Array($0.utf8) } == [Array("a".utf8), Array("\u{301}b".utf8)])
    #expect("".lines == [""])
    #expect("\n\n".lines == ["", "", ""])
    #expect("\u{600}\r\nx".lines.count == 2)
  }

  @Test func searchesSeeBytesAndNotCharacters() {
    #expect("\u{600}'".contains(bytes: "'"))
    #expect("'\u{301}".starts(withBytes: "'"))
    #expect("a\u{600}'b".replacingBytes(of: "'", with: "''") == "a\u{600}''b")
    #expect("a\r\nb".split(atByte: 10).count == 2)
    #expect("a=b=c".split(atByte: UInt8(ascii: "="), maxSplits: 1) == ["a", "b=c"])
    #expect(" \t x \r\n".withoutBlanks == "x")
    #expect("  ".withoutBlanks.isEmpty)
    #expect("aab".range(ofBytes: "ab") != nil)
    #expect("abc".range(ofBytes: "") != nil)
    #expect("ab".range(ofBytes: "abc") == nil)
    var rest = "\\connect \u{301}x"[...]
    let isSkipped = rest.skip("\\connect ")
    #expect(isSkipped)
    #expect(Array(rest.utf8) == Array("\u{301}x".utf8))
    let isSkippedToo = rest.skip("y")
    #expect(!isSkippedToo)
  }
}
