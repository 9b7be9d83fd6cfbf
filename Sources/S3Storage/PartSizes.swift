/// How large the parts of a multipart upload are: a pure rule. S3 takes 10,000 parts of at most 5 GiB, of which all but the last have
/// at least 5 MiB ("Amazon S3 multipart upload limits"), and an object has at most 5 TiB.
///
/// Small parts cost little memory; where it is known how much will come, they are as small as 5,500 of them allow. From the 5,501st on
/// they double every 450 parts, so that what was guessed wrong, or not at all, still ends below the limits.
///
/// No server tells under which settings (lock, encryption, tags) an unfinished upload was begun, but every one tells the sizes of its parts:
/// where it may be gone on with, they are a little larger, by a sum of the settings.
struct PartSizes: Sendable {
  /// Of the first parts, in bytes.
  let first: Int

  static let limit = 10_000
  private static let smallest = 8 << 20
  private static let largest = 4 << 30

  /// - Parameter settings: a sum of what the object is told besides its bytes; 0 where nobody goes on with the upload.
  init(expectedBytes: UInt64?, settings: UInt16 = 0) {
    let wanted = Int(min(expectedBytes ?? 0, 5 << 40)) / 5500
    // A whole number of MiB, so that the same guess gives the same parts.
    first = max(Self.smallest, ((wanted + (1 << 20) - 1) >> 20) << 20) + 16 * Int(settings)
  }

  /// The size of a part; the first is number 1.
  func size(of number: Int) -> Int {
    let doublings = max(0, (number - 5501) / 450 + (number > 5500 ? 1 : 0))
    return min(Self.largest, max(first, first << min(doublings, 12)))
  }
}
