import PostgresArchive
import Quoting

/// Extensions that can be made in the one database alone that a setting of the server names (`cron.database_name`): a
/// restore loads under another name. They are made, with their rows and all that needs them, when the database has its
/// own name.
struct LateExtensions: Sendable {
  /// By the names of their settings without `database_name`.
  let names: [String]
  /// Of the entries, those extensions and whatever depends on them.
  let dumpIDs: Set<Int>
  /// Extensions that the database can't have under any name of this restore, with the one that it would need.
  let misplaced: [(name: String, database: String)]

  /// - Parameters:
  ///   - entries: the chosen ones.
  ///   - settings: of the server, `NAME.database_name`, by what stands in front of the dot.
  ///   - database: the name that it has in the end.
  init(_ entries: [TocEntry], settings: [String: String], database: String) {
    var late: [String] = []
    var misplaced: [(name: String, database: String)] = []
    var chosen: Set<Int> = []
    // The schema that the extension makes has the name of its settings. Its tables and sequences are in no entry, so
    // that their rows depend on nothing which is there.
    var schemas: Set<ExactText> = []
    for entry in entries where entry.kind == "EXTENSION" {
      guard let name = entry.tag, let (prefix, wanted) = settings.first(where: { Self.isSetting($0.key, of: name) })
      else { continue }
      guard wanted.isExactly(database) else {
        misplaced.append((name, wanted))
        continue
      }
      late.append(name)
      chosen.insert(entry.dumpID)
      schemas.insert(ExactText(prefix))
    }
    // In the archive's order what is needed comes first; but for circles, which have none of these.
    for entry in entries where !chosen.isEmpty && !chosen.contains(entry.dumpID) {
      let isInside =
        entry.schema.map { schemas.contains(ExactText($0)) } == true
        || entry.tag?.rest(after: "SCHEMA ").map { schemas.contains(ExactText(String($0))) } == true
      if isInside || entry.dependencies.contains(where: chosen.contains) { chosen.insert(entry.dumpID) }
    }
    (names, dumpIDs, self.misplaced) = (late, chosen, misplaced)
  }

  /// `cron` is that of `pg_cron`.
  private static func isSetting(_ prefix: String, of name: String) -> Bool {
    name.isExactly(prefix) || name.isExactly("pg_\(prefix)")
  }
}

/// Extensions whose library a server has to load when it starts.
enum PreloadedLibraries {
  /// By their names, which are those of their libraries.
  private static let known: Set<String> = [
    "pg_cron", "pgaudit", "pg_stat_statements", "timescaledb", "citus", "pg_stat_monitor", "pg_wait_sampling",
    "pg_stat_kcache", "pg_qualstats", "pglogical", "pg_squeeze", "set_user", "pgsodium", "pg_store_plans",
  ]

  static func needed(by extensions: [String]) -> [String] { extensions.filter(known.contains).sorted() }
}
