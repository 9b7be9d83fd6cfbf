/// Bech32 (BIP 173), as age uses it for keys: without the length limit, and never of mixed case.
enum Bech32 {
  private static let alphabet = Array("qpzry9x8gf2tvdw0s3jn54khce6mua7l".utf8)

  static func encode(_ prefix: String, _ bytes: [UInt8]) -> String {
    let values = regroup(bytes, from: 8, to: 5, pads: true) ?? []
    let checked = expand(prefix) + values + [UInt8](repeating: 0, count: 6)
    let remainder = polymod(checked) ^ 1
    let sum = (0..<6).map { UInt8(remainder >> (5 * (5 - $0)) & 31) }
    return prefix + "1" + String(decoding: (values + sum).map { alphabet[Int($0)] }, as: UTF8.self)
  }

  /// The prefix in lower case and the bytes; nil where the text is no Bech32 or its checksum is wrong.
  static func decode(_ text: String) -> (prefix: String, bytes: [UInt8])? {
    // Letters beyond ASCII become others in lower case: the Kelvin sign a k.
    guard text.utf8.allSatisfy({ $0 < 128 }), text.lowercased() == text || text.uppercased() == text else { return nil }
    let text = text.lowercased()
    guard let separator = text.lastIndex(of: "1"), separator > text.startIndex else { return nil }
    let prefix = String(text[..<separator])
    var values: [UInt8] = []
    for character in text[text.index(after: separator)...].utf8 {
      guard let value = alphabet.firstIndex(of: character) else { return nil }
      values.append(UInt8(value))
    }
    guard values.count >= 6, prefix.utf8.allSatisfy({ $0 >= 33 && $0 <= 126 }), polymod(expand(prefix) + values) == 1,
      let bytes = regroup(Array(values.dropLast(6)), from: 5, to: 8, pads: false)
    else { return nil }
    return (prefix, bytes)
  }

  private static func expand(_ prefix: String) -> [UInt8] {
    prefix.utf8.map { $0 >> 5 } + [0] + prefix.utf8.map { $0 & 31 }
  }

  private static func polymod(_ values: [UInt8]) -> UInt32 {
    let generator: [UInt32] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3]
    return values.reduce(UInt32(1)) { sum, value in
      let top = sum >> 25
      let next = (sum & 0x1ff_ffff) << 5 ^ UInt32(value)
      return (0..<5).reduce(next) { top >> UInt32($1) & 1 == 1 ? $0 ^ generator[$1] : $0 }
    }
  }

  private static func regroup(_ values: [UInt8], from: UInt32, to: UInt32, pads: Bool) -> [UInt8]? {
    var result: [UInt8] = []
    var (bits, count): (UInt32, UInt32) = (0, 0)
    let mask = UInt32(1) << to - 1
    for value in values {
      bits = (bits << from | UInt32(value)) & 0xfff
      count += from
      while count >= to {
        count -= to
        result.append(UInt8(bits >> count & mask))
      }
    }
    if pads {
      if count > 0 { result.append(UInt8(bits << (to - count) & mask)) }
    } else if count >= from || bits & (UInt32(1) << count - 1) != 0 {
      // Left-over bits must be fewer than a group, and zero.
      return nil
    }
    return result
  }
}
