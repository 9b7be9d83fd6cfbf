import BackupDaemon
import Faults
import Foundation
import TestSupport
import Testing

@Suite(.waits) struct LedgerTests {
  private let time = Date(timeIntervalSince1970: 1_800_000_000)

  private func filled(_ folder: TemporaryFolder, _ count: Int) async throws -> String {
    let path = folder.file("ledger.ndjson")
    let ledger = try Ledger(path: path)
    for number in 0..<count {
      var record = LedgerRecord(.runFinished, at: time.addingTimeInterval(Double(number)))
      record.reason = "number \(number)"
      try await ledger.append(record)
    }
    return path
  }

  private func records(_ path: String) async throws -> [LedgerRecord] {
    var records: [LedgerRecord] = []
    for await record in await (try Ledger(path: path)).records(last: 1000, andFollowing: false) {
      records.append(record)
    }
    return records
  }

  /// Each line carries the SHA-256 of the line before it, as sha256sum computes it.
  @Test func linesAreChained() async throws {
    let folder = TemporaryFolder()
    let path = try await filled(folder, 3)
    let records = try await records(path)
    #expect(records.map(\.sequence) == [1, 2, 3])
    #expect(records[0].previous == String(repeating: "0", count: 64))
    for number in 1..<3 {
      let sum = try Shell.must("sh", ["-c", "sed -n \(number)p '\(path)' | tr -d '\\n' | sha256sum"])
      #expect(sum.hasPrefix(records[number].previous))
    }
    #expect(LedgerExamination(try Data(contentsOf: URL(filePath: path))).brokenLine == nil)
  }

  /// Cut off at any byte of its last line, the ledger is repaired at the next start, and goes on.
  @Test func aTornTailIsRepaired() async throws {
    let folder = TemporaryFolder()
    let path = try await filled(folder, 2)
    let whole = try Data(contentsOf: URL(filePath: path))
    let firstLine = try #require(whole.firstIndex(of: 10)) + 1
    for cut in stride(from: firstLine + 1, to: whole.count, by: 9) {
      try whole[..<cut].write(to: URL(filePath: path))
      let ledger = try Ledger(path: path)
      #expect(ledger.repairedBytes == cut - firstLine)
      #expect(ledger.damage == nil)
      try await ledger.append(LedgerRecord(.ledgerRepaired, at: time))
      #expect(try await records(path).map(\.sequence) == [1, 2])
      #expect(LedgerExamination(try Data(contentsOf: URL(filePath: path))).brokenLine == nil)
    }
  }

  /// A changed byte, a missing line, a swapped pair: each is told with its line, and nothing is mended.
  @Test func tamperingIsSeen() async throws {
    let folder = TemporaryFolder()
    let path = try await filled(folder, 4)
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let lines = text.split(separator: "\n").map(String.init)
    let cases: [([String], Int)] = [
      ([lines[0].replacing("number 0", with: "number 9"), lines[1], lines[2], lines[3]], 2),
      ([lines[0], lines[2], lines[3]], 2), ([lines[0], lines[2], lines[1], lines[3]], 2), (Array(lines[1...]), 1),
    ]
    for (changed, brokenLine) in cases {
      let data = Data((changed.joined(separator: "\n") + "\n").utf8)
      #expect(LedgerExamination(data).brokenLine == brokenLine)
      try data.write(to: URL(filePath: path))
      let ledger = try Ledger(path: path)
      #expect(ledger.damage?.code == .ledgerDamaged)
      #expect(try Data(contentsOf: URL(filePath: path)) == data)
    }
  }

  /// The number behind the largest one ended the process, and the daemon could not start on such a ledger.
  @Test func aNumberThatNoneFollowsIsDamage() throws {
    let line =
      #"{"kind":"daemon.started","previous":"\#(LedgerRecord.noDigest)","sequence":9223372036854775807,"#
      + #""time":"2026-11-22T02:00:00.000Z"}"#
    let found = LedgerExamination(Data("\(line)\n{}\n".utf8))
    #expect(found.brokenLine == 1)
    #expect(found.lastSequence == 2)
  }

  /// Moved away, deleted, replaced, cut or grown while it is written: it is told, and what comes then is written where the next start reads.
  @Test(arguments: ["mv X X.1", "rm X", "cp X Y && mv Y X", "truncate -s -5 X", "echo more >> X"])
  func somebodyElsesHand(_ deed: String) async throws {
    let folder = TemporaryFolder()
    let path = folder.file("ledger.ndjson")
    let ledger = try Ledger(path: path)
    for _ in 0..<3 { #expect(try await ledger.append(LedgerRecord(.daemonStarted, at: time)) == nil) }
    try Shell.must("sh", ["-c", deed.replacing("X", with: path).replacing("Y", with: folder.file("other"))])
    let harm = try #require(try await ledger.append(LedgerRecord(.daemonStopped, at: time)))
    #expect(harm.code == .ledgerDamaged && harm.message.contains("while the daemon ran"))
    #expect(try await ledger.append(LedgerRecord(.daemonStopped, at: time)) == nil, "told once")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let written = text.split(separator: "\n").suffix(2)
    #expect(written.map { $0.hasPrefix("{") && $0.contains("stopped") } == [true, true], "\(text)")
    #expect(written.first?.contains("\"sequence\":4,") == true && written.last?.contains("\"sequence\":5,") == true)
    // A whole copy in its place is no gap; anything else stays evidence.
    #expect((LedgerExamination(Data(text.utf8)).brokenLine == nil) == deed.hasPrefix("cp"))
  }

  @Test func followersSeeWhatComes() async throws {
    let folder = TemporaryFolder()
    let ledger = try Ledger(path: folder.file("ledger.ndjson"))
    try await ledger.append(LedgerRecord(.daemonStarted, at: time))
    var follower = await ledger.records(last: 10, andFollowing: true).makeAsyncIterator()
    try await ledger.append(LedgerRecord(.daemonStopped, at: time))
    #expect(await follower.next()?.kind == .daemonStarted)
    #expect(await follower.next()?.kind == .daemonStopped)
  }
}
