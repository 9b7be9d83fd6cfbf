import ArtifactFormat
import BackupCatalog
import PostgresArchive
import PostgresTools
import Quoting

/// What a restore that goes on after errors could not make, and what it must not look for any more because of that.
struct UnmadeObjects {
  private let entries: [Int: TocEntry]
  private(set) var all: [UnmadeObject] = []

  /// Their definitions may hold a password (`CREATE USER MAPPING … OPTIONS`, `CREATE SUBSCRIPTION … CONNECTION`).
  private static let secretKinds: Set<String> = ["USER MAPPING", "SUBSCRIPTION", "SERVER"]
  /// Objects whose words are kept; a hostile archive may have a million that fail.
  private static let limit = 1000

  init(_ toc: TableOfContents) {
    entries = Dictionary(toc.entries.map { ($0.dumpID, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// The definition by which an error is known as an entry's.
  func definition(of entry: Int) -> String? { entries[entry].map { $0.definition ?? "" } }

  /// - Parameter sql: what makes it by itself, where that is not the entry's own definition.
  mutating func add(_ refusals: [RestoreRefusal]) {
    for refusal in refusals {
      guard let entry = refusal.entry.flatMap({ entries[$0] }) else {
        add(kind: "ARCHIVE", name: "", refusal.words, sql: nil)
        continue
      }
      let kind = entry.kind ?? "OBJECT"
      add(
        kind: kind, name: [entry.schema, entry.tag].compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: "."),
        refusal.words, sql: refusal.isOfDefinition && !Self.secretKinds.contains(kind) ? entry.definition : nil)
    }
  }

  mutating func add(kind: String, name: String, _ words: String, sql: String?) {
    guard all.count < Self.limit else { return }
    let sql = sql.map { String($0.withoutBlanks) }
    all.append(
      UnmadeObject(
        kind: kind, name: name, reason: Self.reason(words), sql: sql.flatMap { $0.utf8.count > 65_536 ? nil : $0 }))
  }

  /// The server's words without what all of them have in front, and of a size that many of them fit into a report.
  private static func reason(_ words: String) -> String {
    var rest = words[...]
    _ = rest.skip("ERROR:")
    return String(rest.withoutBlanks.prefix(1000))
  }
}

/// The relations that a database has, by schema and name.
struct PresentRelations {
  private let names: Set<[ExactText]>

  /// Reads them.
  init(_ session: PostgresSession) async throws {
    let rows = try await session.query(
      """
      SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'S', 'm', 'v', 'f')
      """)
    names = Set(rows.map { [ExactText($0[0] ?? ""), ExactText($0[1] ?? "")] })
  }

  func has(_ schema: String, _ name: String) -> Bool { names.contains([ExactText(schema), ExactText(name)]) }
}
