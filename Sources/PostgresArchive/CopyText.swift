import Quoting

/// COPY's text format, read back into values ("Text Format" of COPY's manual page).
package enum CopyText {
  /// The values of one row, without its newline; NULL is nil.
  package static func values(_ row: ArraySlice<UInt8>) -> [[UInt8]?] {
    row.split(separator: UInt8(ascii: "\t"), omittingEmptySubsequences: false).map { field in
      field.elementsEqual([UInt8(ascii: "\\"), UInt8(ascii: "N")]) ? nil : value(field)
    }
  }

  private static func value(_ field: ArraySlice<UInt8>) -> [UInt8] {
    guard field.contains(UInt8(ascii: "\\")) else { return Array(field) }
    var value: [UInt8] = []
    var position = field.startIndex
    while position < field.endIndex {
      let byte = field[position]
      position += 1
      guard byte == UInt8(ascii: "\\"), position < field.endIndex else {
        value.append(byte)
        continue
      }
      let escaped = field[position]
      position += 1
      switch escaped {
      case UInt8(ascii: "b"): value.append(8)
      case UInt8(ascii: "t"): value.append(9)
      case UInt8(ascii: "n"): value.append(10)
      case UInt8(ascii: "v"): value.append(11)
      case UInt8(ascii: "f"): value.append(12)
      case UInt8(ascii: "r"): value.append(13)
      case UInt8(ascii: "0")...UInt8(ascii: "7"):
        var code = Int(escaped - 48)
        var digits = 1
        while digits < 3, position < field.endIndex, (48...55).contains(field[position]) {
          code = code * 8 + Int(field[position] - 48)
          position += 1
          digits += 1
        }
        value.append(UInt8(truncatingIfNeeded: code))
      default: value.append(escaped)
      }
    }
    return value
  }

  /// A line of CSV, as `COPY … WITH (FORMAT csv)` writes it: NULL is empty, and an empty text is `""`.
  package static func csv(_ values: [[UInt8]?]) -> [UInt8] {
    var line: [UInt8] = []
    for (position, value) in values.enumerated() {
      if position > 0 { line.append(UInt8(ascii: ",")) }
      if let value { CSVField.append(value, to: &line, isAlone: values.count == 1) }
    }
    return line + [10]
  }

  /// A line of JSON: every value is a string as PostgreSQL writes it, or null. The archive doesn't tell types.
  package static func json(_ values: [[UInt8]?], columns: [String]) -> [UInt8] {
    var line: [UInt8] = [UInt8(ascii: "{")]
    for (position, value) in values.enumerated() {
      if position > 0 { line.append(UInt8(ascii: ",")) }
      JSONText.append(position < columns.count ? Array(columns[position].utf8) : [], to: &line)
      line.append(UInt8(ascii: ":"))
      if let value { JSONText.append(value, to: &line) } else { line += Array("null".utf8) }
    }
    return line + [UInt8(ascii: "}"), 10]
  }
}
