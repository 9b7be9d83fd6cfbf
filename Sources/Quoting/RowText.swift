/// A field of CSV, as `COPY … WITH (FORMAT csv)` writes it (manual of COPY; RFC 4180).
package enum CSVField {
  /// - Parameter isAlone: whether the line has no other field: then `\.` would be taken for the end of the data.
  package static func append(_ value: [UInt8], to line: inout [UInt8], isAlone: Bool) {
    let needsQuotes =
      value.isEmpty || value.contains { [UInt8(ascii: ","), UInt8(ascii: "\""), 10, 13].contains($0) }
      || isAlone && value == Array("\\.".utf8)
    guard needsQuotes else {
      line += value
      return
    }
    line.append(UInt8(ascii: "\""))
    for byte in value {
      if byte == UInt8(ascii: "\"") { line.append(byte) }
      line.append(byte)
    }
    line.append(UInt8(ascii: "\""))
  }
}

extension JSONText {
  /// A string with its quotes, for many rows: C0 controls and DEL are escaped, all else stays. Bytes that are no UTF-8
  /// (a SQL_ASCII database) become U+FFFD: JSON has no way to hold them.
  package static func append(_ value: [UInt8], to line: inout [UInt8]) {
    line.append(UInt8(ascii: "\""))
    for byte in String(decoding: value, as: UTF8.self).utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): line += [UInt8(ascii: "\\"), byte]
      case 10: line += Array("\\n".utf8)
      case 9: line += Array("\\t".utf8)
      case 13: line += Array("\\r".utf8)
      case 0..<32, 127:
        let digits = Array("0123456789abcdef".utf8)
        line += Array("\\u00".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      default: line.append(byte)
      }
    }
    line.append(UInt8(ascii: "\""))
  }
}
