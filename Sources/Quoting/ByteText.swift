/// Searching and cutting by UTF-8 bytes: what follows or precedes a byte never hides it.
extension StringProtocol where SubSequence == Substring {
  package func starts(withBytes prefix: String) -> Bool { utf8.starts(with: prefix.utf8) }

  /// What follows `prefix`; nil where the text does not begin with it.
  package func rest(after prefix: String) -> Substring? {
    var rest = self[...]
    return rest.skip(prefix) ? rest : nil
  }

  package func ends(withBytes suffix: String) -> Bool { utf8.reversed().starts(with: suffix.utf8.reversed()) }

  package func contains(bytes text: String) -> Bool { range(ofBytes: text) != nil }

  package func contains(byte: UInt8) -> Bool { utf8.contains(byte) }

  /// Where the bytes of `text` first stand. An empty text stands at the beginning.
  package func range(ofBytes text: String) -> Range<String.Index>? {
    let (whole, wanted) = (self[...].utf8, Array(text.utf8))
    guard let first = wanted.first else { return startIndex..<startIndex }
    var start = startIndex
    while let found = whole[start...].firstIndex(of: first) {
      var (position, matched) = (found, 0)
      while matched < wanted.count, position < whole.endIndex, whole[position] == wanted[matched] {
        position = whole.index(after: position)
        matched += 1
      }
      if matched == wanted.count { return found..<position }
      start = whole.index(after: found)
    }
    return nil
  }

  /// Where the bytes of `text` last stand.
  package func lastRange(ofBytes text: String) -> Range<String.Index>? {
    var last: Range<String.Index>?
    var start = startIndex
    while let found = self[start...].range(ofBytes: text), !found.isEmpty {
      last = found
      start = self[...].utf8.index(after: found.lowerBound)
    }
    return last
  }

  package func split(
    atByte separator: UInt8, maxSplits: Int = .max, omittingEmptySubsequences: Bool = true
  ) -> [Substring] {
    self[...].utf8.split(
      separator: separator, maxSplits: maxSplits, omittingEmptySubsequences: omittingEmptySubsequences
    ).map { Substring($0) }
  }

  /// The lines, empty ones too, without their ends: LF, CR LF, or CR.
  package var lines: [Substring] {
    var lines: [Substring] = []
    var rest = self[...]
    while let end = rest.utf8.firstIndex(where: { $0 == 10 || $0 == 13 }) {
      lines.append(rest[..<end])
      var next = rest.utf8.index(after: end)
      if rest.utf8[end] == 13, next < rest.endIndex, rest.utf8[next] == 10 { next = rest.utf8.index(after: next) }
      rest = rest[next...]
    }
    return lines + [rest]
  }

  /// Without the spaces and tabs, and the ends of lines, at both ends.
  package var withoutBlanks: Substring {
    func isBlank(_ byte: UInt8) -> Bool { byte == 32 || (9...13).contains(byte) }
    let whole = self[...].utf8
    guard let first = whole.firstIndex(where: { !isBlank($0) }), let last = whole.lastIndex(where: { !isBlank($0) })
    else { return self[endIndex...] }
    return self[first..<whole.index(after: last)]
  }

  /// The text with each occurrence of `old`'s bytes replaced. For texts of ours and for secrets; contexts have escapers
  /// of their own.
  package func replacingBytes(of old: String, with new: String) -> String {
    guard !old.isEmpty else { return String(self) }
    var result = ""
    var rest = self[...]
    while let found = rest.range(ofBytes: old) {
      result += rest[..<found.lowerBound]
      result += new
      rest = rest[found.upperBound...]
    }
    return result + rest
  }
}

extension Substring {
  /// Whether the text begins with these bytes; then they are taken away.
  package mutating func skip(_ text: String) -> Bool {
    guard starts(withBytes: text) else { return false }
    self = self[utf8.index(startIndex, offsetBy: text.utf8.count)...]
    return true
  }
}

extension String {
  /// A copy in which single bytes are replaced.
  ///
  /// - Parameter replacement: of an ASCII byte; nil keeps it. Other bytes are kept.
  init(_ text: some StringProtocol, escaping replacement: (UInt8) -> String?) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.utf8.count)
    for byte in text.utf8 {
      if byte < 128, let replacement = replacement(byte) { bytes += replacement.utf8 } else { bytes.append(byte) }
    }
    self = String(decoding: bytes, as: UTF8.self)
  }

  /// What stands for a zero byte where a context can't hold one.
  static let replacement = "\u{FFFD}"

  /// `digits` hexadecimal digits, or more where the number has more.
  init(hexadecimal number: UInt32, digits: Int) {
    let text = String(number, radix: 16)
    self = String(repeating: "0", count: Swift.max(0, digits - text.utf8.count)) + text
  }
}
