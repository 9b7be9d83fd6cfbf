import Glibc
import Quoting

/// Reads a plain dump as psql does, piece by piece, and lets everything through but what a dump says of the database itself and to psql.
///
/// It knows where a statement begins (psqlscan.l): outside of strings, quoted names, dollar-quoted bodies, comments, and the rows of a COPY.
/// So a row that looks like a statement stays a row. Nothing else is understood, and nothing is changed.
package struct PlainDumpScanner: Sendable {
  /// psql's own lines that were left out: `\connect name`.
  package private(set) var commands: [String] = []
  /// Statements that were let through and that may name roles or the encoding, since they were taken last.
  package private(set) var statements: [String] = []

  private enum Place {
    case start, deciding, normal
    case string, stringEnd, name
    case dash, lineComment, slash, blockComment, blockStar
    case tag, body
    case command
    case copyLine, rows
  }

  private var place = Place.start
  /// Where a comment at the end of a line or a block returns to.
  private var inStatement = false
  private var isLeftOut = false
  private var escapes = false
  /// What `standard_conforming_strings` is at this place of the dump: where it is off, every constant has escapes.
  private var standardStrings = true
  private var isEscaped = false
  private var previous: (UInt8, UInt8) = (0, 0)
  private var tag: [UInt8] = []
  private var candidate: [UInt8] = []
  /// What is held back until it is known whether it goes through.
  private var held: [UInt8] = []
  private var head: [UInt8] = []
  private var keepsHead = false
  /// Of a line of rows, as many bytes as tell its end.
  private var line: [UInt8] = []

  /// What is left of the mark that some editors put in front of UTF-8, as long as it may come.
  private var mark = Self.byteOrderMark[...]

  private let leftOutStatements: [[UInt8]]
  private static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]
  private static let leftOutCommands = ["\\connect ", "\\restrict ", "\\unrestrict "]
  private static let told = ["ALTER ", "GRANT ", "REVOKE ", "CREATE POLICY ", "CREATE DATABASE ", "SET "]
  private static let headLimit = 1 << 20

  /// - Parameter isOfOurName: whether the database has the name that the dump gives it: then its comment may come along.
  package init(isOfOurName: Bool = true) {
    // Before PostgreSQL 11 the comment came without CREATE DATABASE.
    leftOutStatements = (["CREATE DATABASE ", "DROP DATABASE "] + (isOfOurName ? [] : ["COMMENT ON DATABASE "])).map {
      Array($0.utf8)
    }
  }

  package mutating func takeStatements() -> [String] {
    defer { statements = [] }
    return statements
  }

  /// Reads the next bytes; returns what of them, and of those that were held back, goes through.
  package mutating func pass(_ bytes: [UInt8]) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(bytes.count + held.count)
    bytes.withUnsafeBufferPointer { input in
      var position = 0
      while position < input.count {
        if !mark.isEmpty {
          if input[position] == mark.first {
            mark = mark.dropFirst()
            position += 1
          } else {
            for byte in Self.byteOrderMark.dropLast(mark.count) { step(byte, into: &output) }
            mark = []
          }
        } else if place == .rows {
          position = passRows(input, from: position, into: &output)
        } else {
          step(input[position], into: &output)
          position += 1
        }
      }
    }
    return output
  }

  /// What was held back at the end.
  package mutating func finish() -> [UInt8] {
    defer { held = [] }
    return held
  }

  // MARK: - Rows

  private mutating func passRows(
    _ input: UnsafeBufferPointer<UInt8>, from start: Int, into output: inout [UInt8]
  ) -> Int {
    var position = start
    while position < input.count, let base = input.baseAddress {
      let rest = input.count - position
      let end = memchr(base + position, 10, rest).map {
        UnsafeRawPointer(base).distance(to: UnsafeRawPointer($0)) + 1
      }
      let next = end ?? input.count
      if line.count < 4 { line += input[position..<min(next, position + 4 - line.count)] }
      position = next
      guard end != nil else { break }
      let isLast = line.starts(with: Array("\\.".utf8)) && (line.count == 3 || line.count == 4 && line[2] == 13)
      line = []
      if isLast {
        place = .start
        break
      }
    }
    output += input[start..<position]
    return position
  }

  // MARK: - Statements

  private mutating func step(_ byte: UInt8, into output: inout [UInt8]) {
    switch place {
    case .start: begin(byte, &output)
    case .deciding: decide(byte, &output)
    case .normal: normal(byte, &output)
    case .string:
      emit(byte, &output)
      if escapes, isEscaped {
        isEscaped = false
      } else if escapes, byte == UInt8(ascii: "\\") {
        isEscaped = true
      } else if byte == UInt8(ascii: "'") {
        place = .stringEnd
      }
    case .stringEnd:
      if byte == UInt8(ascii: "'") {
        emit(byte, &output)
        place = .string
      } else {
        previous = (0, 0)
        normal(byte, &output)
      }
    case .name:
      emit(byte, &output)
      if byte == UInt8(ascii: "\"") { leave() }
    case .dash:
      if byte == UInt8(ascii: "-") {
        emit(byte, &output)
        place = .lineComment
      } else {
        beginStatement()
        normal(byte, &output)
      }
    case .lineComment:
      emit(byte, &output)
      if byte == 10 { leave() }
    case .slash:
      if byte == UInt8(ascii: "*") {
        emit(byte, &output)
        place = .blockComment
      } else {
        beginStatement()
        normal(byte, &output)
      }
    case .blockComment:
      emit(byte, &output)
      if byte == UInt8(ascii: "*") { place = .blockStar }
    case .blockStar:
      emit(byte, &output)
      if byte == UInt8(ascii: "/") { leave() } else if byte != UInt8(ascii: "*") { place = .blockComment }
    case .tag: readTag(byte, &output)
    case .body:
      emit(byte, &output)
      readBody(byte)
    case .command: readCommand(byte, &output)
    case .copyLine:
      emit(byte, &output)
      if byte == 10 { (place, line) = (.rows, []) }
    case .rows: break
    }
  }

  private mutating func leave() {
    previous = (0, 0)
    place = inStatement ? .normal : .start
  }

  private mutating func emit(_ byte: UInt8, _ output: inout [UInt8]) {
    if !isLeftOut { output.append(byte) }
    if keepsHead, head.count < Self.headLimit { head.append(byte) }
  }

  private mutating func begin(_ byte: UInt8, _ output: inout [UInt8]) {
    switch byte {
    case 9, 10, 11, 12, 13, 32: output.append(byte)
    case UInt8(ascii: "\\"):
      held = [byte]
      place = .command
    case UInt8(ascii: "C"), UInt8(ascii: "D"):
      held = [byte]
      place = .deciding
    case UInt8(ascii: "-"), UInt8(ascii: "/"):
      output.append(byte)
      place = byte == UInt8(ascii: "-") ? .dash : .slash
    default:
      beginStatement(
        keepsHead: [UInt8(ascii: "A"), UInt8(ascii: "G"), UInt8(ascii: "R"), UInt8(ascii: "S")].contains(byte))
      normal(byte, &output)
    }
  }

  private mutating func beginStatement(keepsHead: Bool = false) {
    guard !inStatement else { return }
    (inStatement, self.keepsHead, head, previous) = (true, keepsHead, [], (0, 0))
  }

  private mutating func decide(_ byte: UInt8, _ output: inout [UInt8]) {
    let longer = held + [byte]
    if leftOutStatements.contains(longer) {
      held = []
      beginStatement(keepsHead: true)
      (isLeftOut, place, head) = (true, .normal, longer)
    } else if leftOutStatements.contains(where: { $0.starts(with: longer) }) {
      held = longer
    } else {
      // Letters and spaces up to here: nothing of them opens anything.
      beginStatement(keepsHead: true)
      for one in held { emit(one, &output) }
      previous = (0, held.last ?? 0)
      held = []
      normal(byte, &output)
    }
  }

  private mutating func normal(_ byte: UInt8, _ output: inout [UInt8]) {
    defer { previous = (previous.1, byte) }
    place = .normal
    switch byte {
    case UInt8(ascii: "'"):
      emit(byte, &output)
      let isMarked = previous.1 | 0x20 == UInt8(ascii: "e") && !Self.isWord(previous.0)
      (escapes, isEscaped, place) = (isMarked || !standardStrings, false, .string)
    case UInt8(ascii: "\""):
      emit(byte, &output)
      place = .name
    case UInt8(ascii: "-"):
      emit(byte, &output)
      if previous.1 == byte { place = .lineComment }
    case UInt8(ascii: "*"):
      emit(byte, &output)
      if previous.1 == UInt8(ascii: "/") { place = .blockComment }
    case UInt8(ascii: "$") where !Self.isWord(previous.1):
      emit(byte, &output)
      (tag, place) = ([byte], .tag)
    case UInt8(ascii: ";"):
      emit(byte, &output)
      endStatement()
    default:
      emit(byte, &output)
    }
  }

  private mutating func endStatement() {
    defer { (inStatement, isLeftOut, keepsHead, head) = (false, false, false, []) }
    place = .start
    guard keepsHead else { return }
    if head.starts(with: "COPY ".utf8), head.reversed().starts(with: " FROM stdin;".utf8.reversed()) {
      place = .copyLine
    } else if Self.told.contains(where: { head.starts(with: $0.utf8) }) {
      let text = String(decoding: head, as: UTF8.self)
      statements.append(text)
      let setting = SQLTokens(text, standardStrings: standardStrings)
      if setting.begins(with: "SET", "standard_conforming_strings") {
        standardStrings = setting.tokens.dropLast().last?.text.lowercased() != "off"
      }
    }
  }

  // MARK: - Dollar quotes

  private mutating func readTag(_ byte: UInt8, _ output: inout [UInt8]) {
    if byte == UInt8(ascii: "$") {
      emit(byte, &output)
      tag.append(byte)
      (candidate, place) = ([], .body)
    } else if Self.isWord(byte), !(tag.count == 1 && (48...57).contains(byte)), tag.count < 128 {
      emit(byte, &output)
      tag.append(byte)
    } else {
      // A parameter, or an operator.
      previous = (0, tag.last ?? 0)
      normal(byte, &output)
    }
  }

  private mutating func readBody(_ byte: UInt8) {
    if byte == UInt8(ascii: "$") {
      if candidate.count == tag.count - 1, tag.starts(with: candidate) {
        leave()
      } else {
        candidate = [byte]
      }
    } else if !candidate.isEmpty {
      candidate = candidate.count < tag.count ? candidate + [byte] : []
    }
  }

  // MARK: - psql's own

  private mutating func readCommand(_ byte: UInt8, _ output: inout [UInt8]) {
    held.append(byte)
    guard byte == 10 else { return }
    if Self.leftOutCommands.contains(where: { held.starts(with: $0.utf8) }) {
      let isOfWindows = held.dropLast().last == 13
      commands.append(String(decoding: held.dropLast(isOfWindows ? 2 : 1), as: UTF8.self))
    } else {
      output += held
    }
    (held, place) = ([], .start)
  }

  private static func isWord(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || byte == 95 || byte >= 128
  }
}
