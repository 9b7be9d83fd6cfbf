package import Quoting
import Units

/// A choice of an archive's tables, with all that these need: types, schemas, parents, sequences, indexes.
package struct TableSelection: Sendable {
  /// Of the entries to make, whatever their section.
  package let dumpIDs: Set<Int>
  /// The tables that were chosen themselves; of whole schemas, all that is in them.
  package let relations: [TocEntry]
  /// Materialized views that come without their rows: tables that these are made of come without theirs.
  package let unfilled: [TocEntry]
  /// Foreign keys of the chosen tables that don't come: the tables that they lead to come without their rows, or not at all.
  package let loose: [TocEntry]

  /// Kinds that belong to a relation and mean nothing without it.
  private static let satellites: Set<String> = [
    "DEFAULT", "SEQUENCE", "SEQUENCE OWNED BY", "SEQUENCE SET", "COMMENT", "ACL", "INDEX", "INDEX ATTACH",
    "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "ROW SECURITY", "POLICY", "STATISTICS",
    "TABLE ATTACH", "TABLE DATA", "RULE", "MATERIALIZED VIEW DATA",
    "SECURITY LABEL",
  ]

  /// - Parameters:
  ///   - tables: `table` or `schema.table`, with dots in either; `*` and `?` stand for any characters and for one. A partitioned table brings its partitions.
  ///   - schemas: names of schemas, with the same wildcards: all of their tables.
  ///   - isComplete: for where nothing of it is there yet: what triggers, policies and indexes need comes along, and of schemas all that is in
  ///     them besides tables.
  package init(_ entries: [TocEntry], tables: [String], schemas: [String], isComplete: Bool = false) {
    let byID = Dictionary(entries.map { ($0.dumpID, $0) }, uniquingKeysWith: { first, _ in first })
    var chosen = Set(
      entries.filter { entry in
        guard entry.kind == "TABLE" else { return false }
        return tables.contains { Self.matches($0, entry) }
          || schemas.contains { Wildcard($0).matches(entry.schema ?? "") }
      }.map(\.dumpID))
    // Partitions of partitions: until nothing is added.
    let attachments = entries.filter { $0.kind == "TABLE ATTACH" }
    let tableIDs = Dictionary(
      entries.filter { $0.kind == "TABLE" }.map { (Name($0), $0.dumpID) }, uniquingKeysWith: { first, _ in first })
    var before = -1
    while chosen.count != before {
      before = chosen.count
      for attachment in attachments {
        guard let partition = tableIDs[Name(attachment)] else { continue }
        if attachment.dependencies.contains(where: { $0 != partition && chosen.contains($0) }) {
          chosen.insert(partition)
        }
      }
    }
    let others = isComplete ? Self.besides(entries, schemas) : []
    let besides = Set(others)
    relations = entries.filter { chosen.contains($0.dumpID) || besides.contains($0.dumpID) }

    // All that the chosen ones rest on.
    var wanted: Set<Int> = []
    func add(_ id: Int) {
      // A list and no recursion: a chain of dependencies may be longer than the stack of a queue's thread.
      var pending = [id]
      while let next = pending.popLast() {
        guard let entry = byID[next], wanted.insert(next).inserted else { continue }
        // Not the rows of another table, and not a foreign key for the sake of what it leads to.
        pending += entry.dependencies
      }
    }
    chosen.forEach(add)
    others.forEach(add)
    /// Whether it is made of nothing but what comes with its rows.
    func isFilled(_ id: Int, _ seen: inout Set<Int>) -> Bool {
      guard seen.insert(id).inserted, let entry = byID[id] else { return true }
      if entry.kind == "TABLE" { return chosen.contains(id) }
      return entry.dependencies.allSatisfy { isFilled($0, &seen) }
    }
    // What belongs to them, and what that rests on in turn.
    before = -1
    while wanted.count != before {
      before = wanted.count
      for entry in entries where !wanted.contains(entry.dumpID) && Self.satellites.contains(entry.kind ?? "") {
        // It may also depend on the border between the sections, which is no entry.
        let known = entry.dependencies.filter { byID[$0] != nil }
        let isOfChosen = known.contains { chosen.contains($0) || besides.contains($0) }
        let relations = known.filter { byID[$0]?.kind == "TABLE" || byID[$0]?.kind == "SEQUENCE" }
        switch entry.kind {
        case "MATERIALIZED VIEW DATA":
          var seen: Set<Int> = []
          if known.allSatisfy(wanted.contains), isOfChosen, isFilled(entry.dumpID, &seen) {
            wanted.insert(entry.dumpID)
          }
        case "TABLE DATA":
          if isOfChosen { wanted.insert(entry.dumpID) }
        case "FK CONSTRAINT":
          // One that leads to a table without its rows would refuse those that lead there.
          let areThere = relations.allSatisfy { isComplete ? chosen.contains($0) : wanted.contains($0) }
          if !relations.isEmpty, areThere, isComplete || known.allSatisfy(wanted.contains) { add(entry.dumpID) }
        case "DEFAULT":
          if isOfChosen { add(entry.dumpID) }
        case "INDEX", "CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "ROW SECURITY", "POLICY", "STATISTICS", "RULE":
          // A trigger brings its function, a policy the tables that it asks: without them, who may see what would be another matter.
          if isComplete, isOfChosen {
            add(entry.dumpID)
          } else if relations.contains(where: wanted.contains), known.allSatisfy(wanted.contains) {
            wanted.insert(entry.dumpID)
          }
        default:
          let isMeant = isComplete ? !known.isEmpty : relations.contains(where: wanted.contains)
          if isMeant, known.allSatisfy(wanted.contains) { wanted.insert(entry.dumpID) }
        }
      }
      // Its operator class may be an extension's, which shows at the index that it makes, and that is no entry.
      if isComplete, entries.contains(where: { wanted.contains($0.dumpID) && $0.isExclusion }) {
        entries.filter { $0.kind == "EXTENSION" }.map(\.dumpID).forEach(add)
      }
    }
    dumpIDs = wanted
    // One that had no rows when it was dumped (WITH NO DATA) lacks none.
    let withoutRows = Set(
      entries.filter { $0.kind == "MATERIALIZED VIEW DATA" && !wanted.contains($0.dumpID) }.map(Name.init))
    unfilled = entries.filter {
      $0.kind == "MATERIALIZED VIEW" && wanted.contains($0.dumpID) && withoutRows.contains(Name($0))
    }
    loose =
      isComplete
      ? entries.filter { entry in
        entry.kind == "FK CONSTRAINT" && !wanted.contains(entry.dumpID)
          && entry.dependencies.contains { chosen.contains($0) } && entry.belongs(to: chosen, byID)
      } : []
  }

  /// All that is in schemas besides tables: what can be named, the schemas themselves, and what is granted in them by default.
  private static func besides(_ entries: [TocEntry], _ schemas: [String]) -> [Int] {
    func isMeant(_ name: String?) -> Bool { schemas.contains { Wildcard($0).matches(name ?? "") } }
    return entries.filter { entry in
      switch entry.kind {
      case "SCHEMA": isMeant(entry.tag)
      case "DEFAULT ACL", "SEQUENCE": isMeant(entry.schema)
      case "TABLE": false
      default: entry.section == .preData && !satellites.contains(entry.kind ?? "") && isMeant(entry.schema)
      }
    }.map(\.dumpID)
  }

  /// The partitioned tables that each partition is part of, the nearest first, as `schema.name`; tables that are no partitions have none.
  package static func ancestors(in entries: [TocEntry]) -> [ExactText: [String]] {
    func name(_ entry: TocEntry) -> ExactText { ExactText("\(entry.schema ?? "").\(entry.tag ?? "")") }
    let tables = entries.filter { $0.kind == "TABLE" }
    let byID = Dictionary(tables.map { ($0.dumpID, $0) }, uniquingKeysWith: { first, _ in first })
    var parents: [ExactText: ExactText] = [:]
    for attachment in entries where attachment.kind == "TABLE ATTACH" {
      let parent = attachment.dependencies.compactMap { byID[$0] }.first { name($0) != name(attachment) }
      if let parent { parents[name(attachment)] = name(parent) }
    }
    return parents.mapValues { parent in
      var line = [parent]
      // A partition has one parent; a circle is no archive of pg_dump's.
      while let next = line.last.flatMap({ parents[$0] }), !line.contains(next) { line.append(next) }
      return line.map(\.text)
    }
  }

  private struct Name: Hashable {
    let schema: ExactText
    let tag: ExactText
    init(_ entry: TocEntry) { (schema, tag) = (ExactText(entry.schema ?? ""), ExactText(entry.tag ?? "")) }
  }

  private static func matches(_ pattern: String, _ entry: TocEntry) -> Bool {
    let name = entry.tag ?? ""
    if Wildcard(pattern).matches(name) { return true }
    // Names may have dots as well: each of them may be the one between the two.
    let bytes = pattern.utf8
    return bytes.indices.contains { dot in
      bytes[dot] == UInt8(ascii: ".") && Wildcard(String(pattern[..<dot])).matches(entry.schema ?? "")
        && Wildcard(String(pattern[bytes.index(after: dot)...])).matches(name)
    }
  }
}

extension TocEntry {
  /// `ADD CONSTRAINT … EXCLUDE …` (`dumpConstraint` of pg_dump.c).
  fileprivate var isExclusion: Bool {
    kind == "CONSTRAINT" && definition.map { SQLTokens($0).firstWord("EXCLUDE") != nil } == true
  }

  /// Whether a foreign key is one of these tables: its tag begins with the table's name.
  fileprivate func belongs(to tables: Set<Int>, _ byID: [Int: TocEntry]) -> Bool {
    dependencies.contains { id in
      guard tables.contains(id), let table = byID[id], table.schema == schema else { return false }
      return tag?.starts(withBytes: "\(table.tag ?? "") ") == true
    }
  }
}
