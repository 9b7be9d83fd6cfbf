import TestSupport
import Testing

@testable import BackupOperations

/// Pieces of rows on their way from one reader to several loaders.
@Suite struct RowChannelTests {
  /// Each loader gets whole rows, whatever the pieces are cut like, and all rows arrive once.
  @Test(arguments: 1...20) func eachLoaderGetsWholeRows(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed)
    let rows = (0..<200).map { number in
      Array("\(number):".utf8) + [UInt8](repeating: 120, count: Int.random(in: 0...300, using: &generator)) + [10]
    }
    var pieces: [[UInt8]] = []
    var rest = Array(rows.joined())[...]
    while !rest.isEmpty {
      let piece = rest.prefix(Int.random(in: 1...400, using: &generator))
      pieces.append(Array(piece))
      rest = rest.dropFirst(piece.count)
    }
    let channel = RowChannel(capacity: 3)
    let taken = try await withThrowingTaskGroup(of: [UInt8].self) { group in
      group.addTask { [pieces] in
        for piece in pieces { #expect(await channel.give(piece, isUnfinished: piece.last != 10)) }
        await channel.end()
        return []
      }
      for number in 0..<3 {
        group.addTask {
          var own: [UInt8] = []
          while case .rows(let bytes, _) = await channel.take(as: number) { own += bytes }
          #expect(own.isEmpty || own.last == 10)
          return own
        }
      }
      return try await group.reduce(into: [[UInt8]]()) { $0 += $1.split(separator: 10).map(Array.init) }
    }
    let expected = rows.map { Array($0.dropLast()) }
    #expect(taken.count == expected.count && Set(taken) == Set(expected))
  }

  /// Loaders that wait, also those that may not have the rest of a row, learn that the reading has failed.
  @Test func anAbandonedChannelEndsAllWaiting() async {
    let channel = RowChannel(capacity: 2)
    #expect(await channel.give([1], isUnfinished: true))
    guard case .rows([1], isUnfinished: true) = await channel.take(as: 0) else {
      Issue.record("the first piece goes to whoever asks first")
      return
    }
    #expect(await channel.give([2], isUnfinished: false))
    async let other = channel.take(as: 1)
    await channel.abandon()
    guard case .abandoned = await other else {
      Issue.record("the rest of a row is another loader's")
      return
    }
    #expect(await !channel.give([3], isUnfinished: false))
    guard case .abandoned = await channel.take(as: 0) else {
      Issue.record("nothing comes from an abandoned channel")
      return
    }
  }
}
