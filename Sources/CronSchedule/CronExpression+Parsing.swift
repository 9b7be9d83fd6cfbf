/// Why a text is not a cron expression. `column` counts characters from 1, for the caret under the text.
package struct CronParseError: Error, Sendable, Equatable, CustomStringConvertible {
  package let message: String
  package let column: Int

  package var description: String { "\(message) (at character \(column))" }
}

extension CronExpression {
  private static let aliases = [
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
  ]

  /// Parses five fields or one of the `@` words. An expression whose date never comes (`0 0 30 2 *`) is refused: a backup
  /// that is never due is a mistake that nobody would notice.
  package init(parsing text: String) throws(CronParseError) {
    let fields = Self.split(text)
    if let first = fields.first, first.text.hasPrefix("@") {
      guard let expansion = Self.aliases[first.text.lowercased()] else {
        let known = Self.aliases.keys.sorted().joined(separator: " ")
        let note = first.text.lowercased() == "@reboot" ? "; @reboot is no schedule: the daemon starts at boot" : ""
        throw CronParseError(message: "unknown word '\(first.text)', known are \(known)\(note)", column: first.column)
      }
      guard fields.count == 1 else {
        throw CronParseError(message: "nothing may follow '\(first.text)'", column: fields[1].column)
      }
      try self.init(parsing: expansion)
      return
    }
    guard fields.count == 5 else {
      let names = CronFieldKind.allCases.map(\.rawValue).joined(separator: ", ")
      throw CronParseError(
        message: "expected 5 fields (\(names)), found \(fields.count)", column: fields.count > 5 ? fields[5].column : 1)
    }

    self.init(
      minutes: try FieldParser(.minute, fields[0]).plainValues(),
      hours: try FieldParser(.hour, fields[1]).plainValues(),
      days: try FieldParser(.dayOfMonth, fields[2]).daysOfMonth(),
      months: try FieldParser(.month, fields[3]).plainValues(),
      weekdays: try FieldParser(.dayOfWeek, fields[4]).daysOfWeek(),
      minuteIsWildcard: fields[0].text.hasPrefix("*"),
      hourIsWildcard: fields[1].text.hasPrefix("*"))

    // Any 400 years will do: the calendar repeats after them.
    guard firstDay(from: 0) != nil else {
      throw CronParseError(message: "this date never comes", column: fields[2].column)
    }
  }

  fileprivate struct Field {
    let text: String
    /// Of the field's first character, from 1.
    let column: Int
  }

  private static func split(_ text: String) -> [Field] {
    var fields: [Field] = []
    var word = ""
    for (offset, character) in text.enumerated() {
      if character == " " || character == "\t" {
        if !word.isEmpty { fields.append(Field(text: word, column: offset - word.count + 1)) }
        word = ""
      } else {
        word.append(character)
      }
    }
    if !word.isEmpty { fields.append(Field(text: word, column: text.count - word.count + 1)) }
    return fields
  }
}

/// Reads one field: a list of items, each `*`, `N`, `N-M`, any of these with `/step`, or a day word.
private struct FieldParser {
  let kind: CronFieldKind
  let field: CronExpression.Field

  init(_ kind: CronFieldKind, _ field: CronExpression.Field) {
    self.kind = kind
    self.field = field
  }

  func plainValues() throws(CronParseError) -> ValueSet {
    var values = ValueSet()
    for item in try items() { values.formUnion(try range(item)) }
    return values
  }

  func daysOfMonth() throws(CronParseError) -> DayOfMonthField {
    var result = DayOfMonthField()
    result.isStar = field.text.hasPrefix("*")
    for item in try items() {
      let word = item.text.uppercased()
      if word == "L" {
        result.isLastDay = true
      } else if word == "LW" {
        result.isLastWeekday = true
      } else if word.hasSuffix("W") {
        result.nearestWeekdays.insert(try number(String(word.dropLast()), item))
      } else {
        result.days.formUnion(try range(item))
      }
    }
    return result
  }

  func daysOfWeek() throws(CronParseError) -> DayOfWeekField {
    var result = DayOfWeekField()
    result.isStar = field.text.hasPrefix("*")
    for item in try items() {
      let word = item.text.uppercased()
      if let mark = word.firstIndex(of: "#") {
        let weekday = try number(String(word[..<mark]), item) % 7
        guard let position = Int(word[word.index(after: mark)...]), (1...5).contains(position) else {
          throw failure("'\(item.text)' asks for a position that is not 1 to 5", item)
        }
        result.ordinals.insert(.init(weekday: weekday, position: position))
      } else if word.hasSuffix("L"), word.count > 1 {
        result.lasts.insert(try number(String(word.dropLast()), item) % 7)
      } else {
        for value in try range(item).values { result.weekdays.insert(value % 7) }
      }
    }
    return result
  }

  private func items() throws(CronParseError) -> [CronExpression.Field] {
    var items: [CronExpression.Field] = []
    var column = field.column
    for part in field.text.split(separator: ",", omittingEmptySubsequences: false) {
      let item = CronExpression.Field(text: String(part), column: column)
      guard !part.isEmpty else { throw failure("the \(kind.rawValue) list has an empty item", item) }
      items.append(item)
      column += part.count + 1
    }
    return items
  }

  private func range(_ item: CronExpression.Field) throws(CronParseError) -> ValueSet {
    let parts = item.text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let ends = parts[0].split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
    let low: Int
    let high: Int
    if parts[0] == "*" {
      (low, high) = (kind.domain.lowerBound, kind.domain.upperBound)
    } else if ends.count == 2 {
      low = try number(String(ends[0]), item)
      high = try number(String(ends[1]), item)
    } else {
      low = try number(String(parts[0]), item)
      // Debian's cron reads `N/step` as an error; `N-last/step` is what people mean by it elsewhere, so it must be written.
      guard parts.count == 1 else {
        throw failure("a step needs a range: write '\(low)-\(kind.domain.upperBound)/\(parts[1])'", item)
      }
      high = low
    }
    guard low <= high else { throw failure("the range '\(item.text)' runs backwards", item) }

    var step = 1
    if parts.count == 2 {
      guard let value = Self.decimal(String(parts[1])), value >= 1 else {
        throw failure("the step '\(parts[1])' is not a number from 1 on", item)
      }
      step = value
    }
    var values = ValueSet()
    for value in stride(from: low, through: high, by: step) { values.insert(value) }
    return values
  }

  private func number(_ text: String, _ item: CronExpression.Field) throws(CronParseError) -> Int {
    if let position = kind.names.firstIndex(of: text.uppercased()) { return position + kind.domain.lowerBound }
    guard let value = Self.decimal(text) else {
      throw failure("'\(text)' is no \(kind.rawValue)", item)
    }
    guard kind.bounds.contains(value) else {
      throw failure("\(value) is no \(kind.rawValue) (\(kind.bounds.lowerBound) to \(kind.bounds.upperBound))", item)
    }
    return value
  }

  private static func decimal(_ text: String) -> Int? {
    guard !text.isEmpty, text.count <= 4, text.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { return nil }
    return Int(text)
  }

  private func failure(_ message: String, _ item: CronExpression.Field) -> CronParseError {
    CronParseError(message: message, column: item.column)
  }
}
