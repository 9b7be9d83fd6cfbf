import PostgresArchive

/// The entries of an archive's last section in the order in which a restore makes them: all but what runs code of the
/// database's own, fires at others or hides rows; then row-level security; then the refreshes of materialized views;
/// event triggers at the very end.
struct LaterEntries {
  /// Nil for all of the section.
  let first: [Int]?
  /// Where tables refer to each other: the check of a foreign key reads both, and what is to bind the tables' owner
  /// (FORCE ROW LEVEL SECURITY) would bind it. pg_restore by itself keeps that order with one connection alone.
  let rowSecurity: [Int]
  /// All that runs none of the database's own code, one after the other.
  var parts: [[Int]?] { rowSecurity.isEmpty ? [first] : [first, rowSecurity] }
  let refreshes: [TocEntry]
  let eventTriggers: [Int]

  /// - Parameter chosen: the entries that are restored; nil for all.
  init(_ toc: TableOfContents, chosen: [Int]?) {
    let wanted = chosen.map { Set($0) }
    let entries = toc.entries.filter { wanted?.contains($0.dumpID) ?? true }
    refreshes = toc.refreshes.filter { wanted?.contains($0.dumpID) ?? true }
    eventTriggers = toc.eventTriggers.map(\.dumpID).filter { wanted?.contains($0) ?? true }
    let refers = entries.contains { $0.kind == "FK CONSTRAINT" }
    rowSecurity = refers ? entries.filter { $0.kind == "ROW SECURITY" }.map(\.dumpID) : []
    let later = Set(refreshes.map(\.dumpID) + eventTriggers + rowSecurity)
    first = later.isEmpty ? chosen : (chosen ?? toc.entries.map(\.dumpID)).filter { !later.contains($0) }
  }
}
