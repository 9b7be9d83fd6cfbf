import Testing

@testable import PostgresArchive

/// What fuzzing found in archives, each as the smallest archive that shows it.
@Suite struct HostileInputTests {
  private static func integer(_ value: Int) -> [UInt8] {
    [value < 0 ? 1 : 0] + (0..<4).map { UInt8(truncatingIfNeeded: abs(value) >> (8 * $0)) }
  }

  private static func text(_ value: String?) -> [UInt8] {
    guard let value else { return integer(-1) }
    return integer(value.utf8.count) + Array(value.utf8)
  }

  private static func entry(_ id: Int, dependencies: [Int]) -> [UInt8] {
    let names: [String?] = ["0", "0", "t\(id)", "TABLE"]
    let rest: [String?] = ["CREATE TABLE t ();\n", "", "", "public", nil, "heap", "owner", "false"]
    return integer(id) + integer(0) + names.flatMap(text) + integer(2) + rest.flatMap(text)
      + dependencies.flatMap { text("\($0)") } + text(nil) + [3] + [UInt8](repeating: 0, count: 8)
  }

  private static func head(_ entries: [[UInt8]]) -> [UInt8] {
    Array("PGDMP".utf8) + [1, 15, 0, 4, 8, 1, 0] + (0..<7).flatMap { _ in integer(0) } + text("shop") + text("15.1")
      + text("15.1") + integer(entries.count) + entries.flatMap { $0 }
  }

  /// An entry that was begun anew with each of its fields took minutes for this one.
  @Test(.timeLimit(.minutes(1))) func anEntryWithManyDependenciesIsReadInLinearTime() throws {
    let dependencies = Array(2...4000)
    let head = try ArchiveHead(Self.head([Self.entry(1, dependencies: dependencies)]))
    #expect(head.entries.first?.dependencies == dependencies)
  }

  /// The search for what a table needs went a stack frame deeper with each link.
  @Test func aLongChainOfDependenciesNeedsNoDeepStack() throws {
    let count = 20_000
    let head = try ArchiveHead(
      Self.head((1...count).map { Self.entry($0, dependencies: $0 < count ? [$0 + 1] : []) }))
    let selection = TableSelection(head.entries, tables: ["t1"], schemas: [])
    #expect(selection.dumpIDs.count == count)
  }
}
