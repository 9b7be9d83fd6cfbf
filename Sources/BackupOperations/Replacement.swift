import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting

/// The chosen tables as the live database has them, whose rows are to be replaced: what is truncated, in which order rows come, and
/// which foreign keys wait for the end. Reads the catalog and changes nothing.
struct Replacement: Sendable {
  /// A table by its name, and that as SQL.
  struct Place: Sendable, Hashable {
    let schema: String
    let name: String
    var quoted: String { SQLName.quoted(schema, name) }

    static func == (left: Place, right: Place) -> Bool { ExactText(left.quoted) == ExactText(right.quoted) }
    func hash(into hasher: inout Hasher) { hasher.combine(ExactText(quoted)) }
  }

  /// One that leads in a circle; as a whole, where it is one of a partitioned table.
  struct ForeignKey: Sendable, Hashable {
    let table: Place
    let name: String
    let isDeferrable: Bool

    /// For people.
    var label: String { "\(name) of \(table.schema).\(table.name)" }
  }

  /// Of the backup; who is led to comes before who leads there, so that each row's counterpart is there when it is checked.
  let tables: [Contents.Table]
  /// Partitions of the chosen tables that came after the backup, and so have no rows in it.
  let newPartitions: [Place]
  /// For TRUNCATE: a partitioned table for all its partitions, else `ONLY` and the table.
  let truncated: [String]
  /// The partitioned tables among them, which have triggers of their own.
  let partitioned: [Place]
  /// Those that can only be checked when all rows are there.
  let circular: [ForeignKey]

  /// - Throws: what would refuse the replacement, before anything is locked for it.
  init(
    _ tables: [Contents.Table], chosen relations: [TocEntry], of database: String, on connection: PostgresSession
  ) async throws(Fault) {
    let places = tables.map { Place(schema: $0.schema, name: $0.name) }
    for place in places {
      let kind = try await connection.query(
        "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)", [place.quoted]
      ).first?[0]
      guard let kind else {
        throw Fault(
          .tableMissing, "'\(database)' has no table \(place.quoted) whose rows could be replaced.",
          hint: "run the restore without --replace: the table then comes into a schema of its own")
      }
      guard kind == "r" else {
        throw Fault(
          .restoreRefused,
          "\(place.quoted) of '\(database)' is no table with rows of its own any more, as it was in the backup.",
          hint: "run the restore without --replace: the table then comes into a schema of its own")
      }
    }
    for table in tables {
      // Partitioned by the hash of an enumeration: its values have other numbers now, and rows would belong elsewhere.
      guard let target = table.copyStatement.flatMap(CopyStatement.target), target != [table.schema, table.name] else {
        continue
      }
      throw Fault(
        .restoreRefused,
        "The rows of \(table.fullName) can't be replaced: which of them belong into which partition depends on the database.",
        hint:
          "restore into a schema of its own (without --replace), and INSERT INTO \(SQLName.quoted(target[0], target[1])) from there"
      )
    }
    let trees = try await Self.trees(relations, on: connection)
    for tree in trees {
      let parts = tables.filter { $0.partitionOf?.contains("\(tree.root.schema).\(tree.root.name)") == true }
      let gone = parts.filter { !tree.leaves.contains(Place(schema: $0.schema, name: $0.name)) }
      guard gone.isEmpty else {
        throw Fault(
          .restoreRefused,
          "\(gone.map(\.fullName).joined(separator: ", ")) is no partition of \(tree.root.schema).\(tree.root.name) any more.",
          hint: "restore into a schema of its own (without --replace)")
      }
    }
    newPartitions = Set(trees.flatMap(\.leaves)).subtracting(places).sorted { $0.quoted < $1.quoted }
    // A foreign key of a partitioned table is refused where its partitions are truncated one by one; but what lies in another server is
    // not ours to empty.
    let whole = trees.filter { !$0.hasForeign }
    let covered = Set(whole.flatMap(\.leaves))
    truncated =
      whole.map(\.root.quoted) + (places + newPartitions).filter { !covered.contains($0) }.map { "ONLY \($0.quoted)" }
    partitioned = whole.flatMap(\.partitioned)

    let keys = try await Self.foreignKeys(on: connection)
    let emptied = Set(places + newPartitions + trees.flatMap(\.partitioned))
    let others = keys.filter { emptied.contains($0.to) && !emptied.contains($0.from) }
    guard others.isEmpty else {
      let list = Set(others.map { "\($0.from.schema).\($0.from.name) to \($0.to.schema).\($0.to.name)" }).sorted()
      throw Self.ledTo(list.prefix(12).joined(separator: ", ") + (list.count > 12 ? ", …" : ""))
    }
    let roots = trees.flatMap { tree in (tree.partitioned + tree.leaves).map { ($0, tree.root) } }
    (self.tables, circular) = Self.ordered(
      tables, keys, roots: Dictionary(roots, uniquingKeysWith: { first, _ in first }))
  }

  /// Rows that others lead to can't be taken away.
  static func ledTo(_ cause: String?) -> Fault {
    Fault(
      .restoreRefused, "The rows can't be replaced: other tables lead to them by foreign keys.", cause: cause,
      hint: "choose those tables too, or restore into a schema of its own (without --replace)")
  }

  // MARK: - Partitions

  private struct Tree {
    let root: Place
    /// The root among them.
    let partitioned: [Place]
    let leaves: [Place]
    let hasForeign: Bool
  }

  /// The chosen tables that are partitioned, each with all below it; none lies within another.
  private static func trees(_ relations: [TocEntry], on connection: PostgresSession) async throws(Fault) -> [Tree] {
    var trees: [Tree] = []
    for relation in relations {
      let root = Place(schema: relation.schema ?? "", name: relation.tag ?? "")
      let members = try await connection.query(
        """
        SELECT n.nspname, c.relname, c.relkind FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) p
        JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        """, [root.quoted]
      ).map { (place: Place(schema: $0[0] ?? "", name: $0[1] ?? ""), kind: $0[2] ?? "") }
      let partitioned = members.filter { $0.kind == "p" }.map(\.place)
      guard partitioned.contains(root) else { continue }
      trees.append(
        Tree(
          root: root, partitioned: partitioned, leaves: members.filter { $0.kind == "r" }.map(\.place),
          hasForeign: members.contains { $0.kind == "f" }))
    }
    let inner = Set(trees.flatMap { tree in tree.partitioned.filter { $0 != tree.root } })
    return trees.filter { !inner.contains($0.root) }
  }

  // MARK: - Foreign keys

  private struct Edge {
    let from: Place
    let to: Place
    let key: ForeignKey
  }

  /// All of the database but those that lead to their own table. A partition's is shown with the constraint that it is a copy of.
  private static func foreignKeys(on connection: PostgresSession) async throws(Fault) -> [Edge] {
    try await connection.query(
      """
      WITH RECURSIVE up AS (
        SELECT oid, oid AS top, conparentid FROM pg_catalog.pg_constraint WHERE contype = 'f'
        UNION ALL
        SELECT up.oid, p.oid, p.conparentid FROM up JOIN pg_catalog.pg_constraint p ON p.oid = up.conparentid)
      SELECT n.nspname, c.relname, fn.nspname, f.relname, tn.nspname, t.relname, top.conname, top.condeferrable
      FROM pg_catalog.pg_constraint k
      JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_class f ON f.oid = k.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
      JOIN up ON up.oid = k.oid AND up.conparentid = 0 JOIN pg_catalog.pg_constraint top ON top.oid = up.top
      JOIN pg_catalog.pg_class t ON t.oid = top.conrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
      WHERE k.contype = 'f' AND k.conrelid <> k.confrelid
      """
    ).map { row in
      Edge(
        from: Place(schema: row[0] ?? "", name: row[1] ?? ""), to: Place(schema: row[2] ?? "", name: row[3] ?? ""),
        key: ForeignKey(
          table: Place(schema: row[4] ?? "", name: row[5] ?? ""), name: row[6] ?? "", isDeferrable: row[7] == "t"))
    }
  }

  /// The tables in the order in which they are loaded, and the keys that no order satisfies: those of tables that lead to each other in a
  /// circle, and of all that leads to these. A partitioned table is one, as foreign keys have it.
  private static func ordered(
    _ tables: [Contents.Table], _ edges: [Edge], roots: [Place: Place]
  ) -> (tables: [Contents.Table], circular: [ForeignKey]) {
    func unit(_ place: Place) -> Place { roots[place] ?? place }
    func place(_ table: Contents.Table) -> Place { unit(Place(schema: table.schema, name: table.name)) }
    let chosen = Set(tables.map(place))
    let inner = edges.map { Edge(from: unit($0.from), to: unit($0.to), key: $0.key) }
      .filter { chosen.contains($0.from) && chosen.contains($0.to) }
    // Rows of one partition may lead to those of another.
    let waitsFor = Dictionary(grouping: inner.filter { $0.from != $0.to }, by: \.from).mapValues { Set($0.map(\.to)) }
    var ordered: [Contents.Table] = []
    var done: Set<Place> = []
    var rest = tables
    while true {
      let ready = rest.filter { (waitsFor[place($0)] ?? []).isSubset(of: done) }
      guard !ready.isEmpty else { break }
      ordered += ready
      done.formUnion(ready.map(place))
      rest.removeAll { done.contains(place($0)) }
    }
    let open = inner.filter { $0.from == $0.to || !done.contains($0.from) && !done.contains($0.to) }
    return (ordered + rest, Set(open.map(\.key)).sorted { $0.label < $1.label })
  }
}
