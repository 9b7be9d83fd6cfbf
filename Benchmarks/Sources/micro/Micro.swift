import AgeEncryption
import ArtifactFormat
import CronSchedule
import Foundation
import HTTPTransport
import PostgresArchive
import S3Storage
import Storage
import Units

/// The figures that need no database: `micro scan ARCHIVE`, `micro read ARCHIVE`, `micro seal`, `micro schedule`,
/// `micro upload FILE ENDPOINT BUCKET KEY`. Prints one number each: MB/s, MB/s, MB/s, the seconds of one look-up and re-arming among 10,000 jobs, and MB/s.
@main struct Micro {
  static func main() async throws {
    let arguments = CommandLine.arguments
    switch arguments.dropFirst().first {
    case "scan": print(try scan(arguments[2]))
    case "read": print(try await readBack(arguments[2]))
    case "seal": print(try seal())
    case "schedule": print(try schedule())
    case "upload": print(try await upload(arguments[2], arguments[3], arguments[4], arguments[5]))
    default: print("usage: micro scan ARCHIVE | read ARCHIVE | seal | schedule | upload FILE ENDPOINT BUCKET KEY")
    }
  }

  private static func seconds(_ body: () async throws -> Void) async rethrows -> Double {
    let clock = ContinuousClock()
    let start = clock.now
    try await body()
    let passed = clock.now - start
    return Double(passed.components.seconds) + Double(passed.components.attoseconds) / 1e18
  }

  /// Scan and fingerprint alone, of an archive in memory, one thread; the best of three.
  private static func scan(_ path: String) throws -> Int {
    let archive = try Data(contentsOf: URL(filePath: path), options: .alwaysMapped)
    var best = Double.infinity
    for _ in 0..<3 {
      let clock = ContinuousClock()
      let start = clock.now
      var scanner = ArchiveScanner()
      try archive.withUnsafeBytes { bytes in
        for position in stride(from: 0, to: bytes.count, by: 1 << 20) {
          let piece = position..<min(position + 1 << 20, bytes.count)
          try scanner.consume(UnsafeRawBufferPointer(rebasing: bytes[piece]))
        }
      }
      _ = try scanner.finish()
      let passed = clock.now - start
      best = min(best, Double(passed.components.seconds) + Double(passed.components.attoseconds) / 1e18)
    }
    return Int(Double(archive.count) / 1e6 / best)
  }

  /// Decompress and scan, one thread, of an artifact in memory.
  private static func readBack(_ path: String) async throws -> Int {
    let archive = try Data(contentsOf: URL(filePath: path), options: .alwaysMapped)
    let codec = try Compression.standard.makeCodec()
    var index = FrameIndex()
    var stored: [UInt8] = []
    try archive.withUnsafeBytes { bytes in
      for position in stride(from: 0, to: bytes.count, by: index.frameBytes) {
        let piece = UnsafeRawBufferPointer(rebasing: bytes[position..<min(position + index.frameBytes, bytes.count)])
        let frame = try codec.encode(piece)
        index.append(plain: piece.count, stored: frame.count)
        stored += frame
      }
    }
    let artifact = stored
    let reader = try ArtifactReader(index: index, compression: .standard) {
      Array(artifact[Int($0.lowerBound)..<Int($0.upperBound)])
    }
    let best = try await seconds {
      var scanner = ArchiveScanner()
      try await reader.readAll { try scanner.consume($0) }
      _ = try scanner.finish()
    }
    return Int(Double(archive.count) / 1e6 / best)
  }

  /// Encryption alone, of frames as the pipeline makes them, one thread; the best of three.
  private static func seal() throws -> Int {
    var random = SystemRandomNumberGenerator()
    let frames = (0..<16).map { _ in
      (0..<160_000).flatMap { _ in withUnsafeBytes(of: random.next()) { Array($0) } }
    }
    let recipient = try AgeRecipient(parsing: AgeIdentity.generate().recipient?.description ?? "")
    var best = Double.infinity
    for _ in 0..<3 {
      let clock = ContinuousClock()
      let start = clock.now
      var encryptor = try AgeEncryptor(to: [recipient])
      for _ in 0..<10 { for frame in frames { _ = try encryptor.update(frame) } }
      _ = try encryptor.finish()
      let passed = clock.now - start
      best = min(best, Double(passed.components.seconds) + Double(passed.components.attoseconds) / 1e18)
    }
    return Int(Double(10 * frames.count * frames[0].count) / 1e6 / best)
  }

  /// A file into S3, in pieces of 4 MiB as a copy between stores writes them. Credentials come from the environment.
  private static func upload(_ path: String, _ endpoint: String, _ bucket: String, _ key: String) async throws -> Int {
    let file = try FileHandle(forReadingFrom: URL(filePath: path))
    let store = S3Store(
      name: "bench", settings: S3Settings(bucket: bucket, endpoint: endpoint), transport: CurlTransport(),
      environment: ProcessInfo.processInfo.environment, readFile: { try String(contentsOfFile: $0, encoding: .utf8) },
      now: { Date() })
    var count = 0
    let passed = try await seconds {
      let upload = try await store.upload(ObjectKey(key) ?? { fatalError("no key") }())
      while let piece = try file.read(upToCount: 4 << 20), !piece.isEmpty {
        try await upload.write([UInt8](piece))
        count += piece.count
      }
      try await upload.finish()
    }
    return Int(Double(count) / 1e6 / passed)
  }

  /// The mean time to take what is due and know what is next, with 10,000 jobs.
  private static func schedule() throws -> Double {
    var schedules: [String: JobTiming] = [:]
    let zones = try ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"].map { name in
      try ZoneRules(identifier: name, file: [UInt8](Data(contentsOf: URL(filePath: "/usr/share/zoneinfo/\(name)"))))
    }
    for number in 0..<10_000 {
      let expression = try CronExpression(parsing: "\(number % 60) \(number / 60 % 24) * * \(number % 7)")
      schedules["job\(number)"] = JobTiming(ZonedSchedule(expression, in: zones[number % zones.count]))
    }
    var table = ScheduleTable()
    table.replace(schedules, at: Date(timeIntervalSince1970: 1_800_000_000))
    let clock = ContinuousClock()
    let start = clock.now
    var fired = 0
    while fired < 20_000, let next = table.next { fired += table.takeDue(at: next.start).count }
    let passed = clock.now - start
    return (Double(passed.components.seconds) + Double(passed.components.attoseconds) / 1e18) / Double(fired)
  }
}
