import PostgresArchive

let sqlTargets = [
  FuzzTarget(text: "sql-text") { text in
    FuzzTarget.require(SQLText.statements(text).allSatisfy { $0.hasSuffix(";") }, "a statement ends with its semicolon")
    var rest = (SQLName.quoted(text) + " x")[...]
    if !text.utf8.contains(0) {
      FuzzTarget.require(SQLName.read(&rest).map { Array($0.utf8) } == Array(text.utf8), "a quoted name reads back")
      FuzzTarget.require(Array(rest.utf8) == Array(" x".utf8), "and nothing behind it")
    }
    var other = text[...]
    _ = SQLName.read(&other)
  }
]
