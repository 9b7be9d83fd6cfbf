import Storage
import Units

/// What one listing may cost, so that a server that lies about its end costs neither memory nor time without end. What
/// goes beyond is a fault: half a listing must never pass for a whole one.
///
/// The bounds, and why they are these:
/// - 1,000,000 entries. A backup has 6 to 12 objects: that is an hourly backup of ten databases, kept for a year. Each
///   entry costs about 200 bytes here.
/// - 10,000 pages. A page has 1000 entries (S3's limit), of servers that give fewer 100 at least; empty pages are
///   allowed and bounded by it.
/// - 15 minutes, asked between pages: a million entries at a second for each page. One request has its own limits
///   (`S3Client.limit`).
/// - 8 MiB for a page: 1000 entries with keys of 1000 bytes, each byte percent-encoded, and 5 KiB of other elements.
/// - 10,000 unfinished uploads, each of which is asked for its parts: more than anybody would look through.
/// - 10,000 parts of an upload, S3's own limit ("Amazon S3 multipart upload limits").
struct ListingBudget {
  struct Limits: Sendable {
    var entries = 1_000_000
    var pages = 10_000
    var time = Duration.seconds(900)
    var uploads = 10_000
    var parts = 10_000

    /// When work that begins now has to be done.
    var end: ContinuousClock.Instant { .now + time }
  }

  static let pageBytes = ByteCount.mebibytes(8)

  private let operation: String
  private let store: String
  private let limits: Limits
  private let most: Int
  private let end: ContinuousClock.Instant
  private var pages = 0
  private var entries = 0
  private var seen: Set<[String]> = []

  /// - Parameters:
  ///   - most: entries; the limits' own number of objects where nil.
  ///   - end: where it is one part of a longer work.
  init(
    _ operation: String, store: String, _ limits: Limits, most: Int? = nil, end: ContinuousClock.Instant? = nil
  ) {
    self.operation = operation
    self.store = store
    self.limits = limits
    self.most = most ?? limits.entries
    self.end = end ?? limits.end
  }

  /// Takes a page in, and says where the next one begins; nil behind the last.
  ///
  /// - Parameters:
  ///   - count: entries on it, also such as are none of ours.
  ///   - markers: what the server names as the next page's beginning, in the order of their parameters.
  mutating func next(_ reply: S3Document, count: Int, markers: [String?]) throws(StorageError) -> [String?]? {
    pages += 1
    entries += count
    guard entries <= most else { throw failure("it has more than \(most) entries") }
    guard reply["IsTruncated"]?.text == "true" else { return nil }
    guard markers.first.flatMap(\.self)?.isEmpty == false else {
      throw failure("it goes on, and the server does not say where: IsTruncated without a token")
    }
    guard seen.insert(markers.map { $0 ?? "" }).inserted else {
      throw failure("it repeats its continuation token, and would never end")
    }
    guard pages < limits.pages else { throw failure("it has more than \(limits.pages) pages") }
    guard ContinuousClock.now < end else {
      throw failure("it was not whole within \(limits.time.configurationText)")
    }
    return markers
  }

  private func failure(_ reason: String) -> StorageError {
    StorageError(.failed, store: store, reason: "\(operation): \(reason)")
  }
}
