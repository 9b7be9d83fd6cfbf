import Quoting

let sqlTargets = [
  FuzzTarget(text: "sql-text") { text in
    for standardStrings in [true, false] {
      let statements = SQLText.statements(text, standardStrings: standardStrings)
      FuzzTarget.require(
        statements.allSatisfy { $0.text.utf8.last == UInt8(ascii: ";") }, "a statement ends with its semicolon")
    }
    guard !text.utf8.contains(0) else { return }
    var rest = (SQLName.quoted(text) + " x")[...]
    FuzzTarget.require(SQLName.read(&rest).map { Array($0.utf8) } == Array(text.utf8), "a quoted name reads back")
    FuzzTarget.require(Array(rest.utf8) == Array(" x".utf8), "and nothing behind it")
    // Whatever stands in a constant or a name, it is one token, and says the same in both modes.
    for standardStrings in [true, false] {
      let constant = SQLTokens(SQLName.literal(text), standardStrings: standardStrings).tokens
      FuzzTarget.require(constant.count == 1 && constant[0].text.utf8.elementsEqual(text.utf8), "a constant reads back")
      let name = SQLTokens(SQLName.quoted(text), standardStrings: standardStrings).tokens
      FuzzTarget.require(name.count == 1 && name[0].text.utf8.elementsEqual(text.utf8), "a name is one token")
    }
    var other = text[...]
    _ = SQLName.read(&other)
  }
]
