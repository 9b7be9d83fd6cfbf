import BackupCatalog
import Faults
import PostgresTools
import Quoting
import Units

/// What a restore would do, step by step, for whoever is about to ask for it.
extension Preparation {
  /// One of the server's databases, by the bytes of its name.
  func database(_ name: String) -> PostgresSession.DatabaseFacts? {
    inventory.databases.first { $0.name.isExactly(name) }
  }

  var preview: RestorePreview {
    let manifest = restore.manifest
    let objects = selection == nil ? source.contents.largeObjects.map { Int64($0.length) }.reduce(0, +) : 0
    let bytes = tables.map { Int64($0.length) }.reduce(0, +) + objects
    let share = Double(bytes) / Double(max(1, source.contents.archiveBytes))
    let stored = manifest.artifact.file.size
    return RestorePreview(
      backup: manifest.id, type: manifest.type, taken: manifest.started, server: restore.maintenance.summary,
      steps: steps, tables: tables.map { "\($0.schema).\($0.name)" }.sorted(),
      rows: tables.compactMap(\.rows).reduce(0, +), bytes: bytes,
      readBytes: source.isEarlierFormat ? stored : min(stored, Int64(Double(stored) * share)), storedBytes: stored,
      globals: request.withGlobals ? missingGlobals.map(\.shown) : [], warnings: foreignCode + ties + leftOutSettings)
  }

  /// Checks, index functions and triggers of a backup run with the rights of whoever loads it, as with any pg_restore.
  private var foreignCode: [Fault] {
    let owner = inventory.databases.first { $0.name.isExactly(names.live) }?.owner
    guard inventory.isSuperuser, owner != inventory.role else { return [] }
    return [
      Fault(
        .databaseSuperuser,
        "Code of the backup (checks, functions of indexes, triggers) runs with the rights of '\(inventory.role)', a superuser.",
        cause: owner.map { "the database belongs to '\($0)'" },
        hint:
          "where its owner isn't trusted with the server, restore as a role that may create databases and is a member of the owner"
      )
    ]
  }

  private var steps: [String] {
    let live = database(names.live)
    let size = live?.bytes.map { " (\(ByteCount($0)))" } ?? ""
    var steps: [String] = []
    if source.isEarlierFormat {
      steps.append(
        "read all of the artifact (\(ByteCount(restore.manifest.artifact.file.size))) and compare its SHA-256 before any of it is used:"
          + " this backup has no digest for each frame")
    }
    if request.withGlobals, !missingGlobals.isEmpty {
      steps.append("create roles and tablespaces that are missing: \(missingGlobals.count) statements")
    }
    if request.isPartial, request.target == .swap {
      switch request.tableTarget {
      case .schema(let name):
        steps.append(
          "create the schema '\(name ?? names.schema)' in '\(names.live)' and load \(tables.count) tables into it")
      case .replaceRows:
        steps += [
          "copy the rows of \(tables.count) tables of '\(names.live)' into the schema '\(names.safetySchema)', which is kept",
          "replace them by the backup's, in one transaction; the tables are locked meanwhile",
        ]
        if !circular.isEmpty {
          let list = circular.map(\.label).joined(separator: ", ")
          steps.append("check foreign keys that lead in a circle when all rows are there: \(list)")
        }
      }
      return steps + ["compare every row with the backup's fingerprints before the transaction commits"]
    }
    if request.target == .inPlace, live != nil {
      steps += [
        "end \(live?.connections ?? 0) connections to '\(names.live)'\(size) and rename it: clients find no database of that name",
        "back it up (type pre-restore), then DROP it",
      ]
    }
    steps += [
      "create the database '\(names.work)' and load \(tables.count) tables with \(request.jobs) connections",
      "compare every table's rows with the backup's fingerprints",
    ]
    if !leftOut.isEmpty { steps.append("leave out: \(leftOut.joined(separator: ", "))") }
    switch request.target {
    case .beside(let name): steps.append("rename it to '\(name)'; '\(names.live)' is not touched")
    case .swap where live != nil:
      steps += [
        "end \(live?.connections ?? 0) connections to '\(names.live)'\(size) and rename it to '\(names.kept)', which is kept",
        "rename the new one to '\(names.live)'; pgbackupctl rollback \(shell: request.database) undoes both",
      ]
    default: steps.append("rename it to '\(names.live)'")
    }
    return steps
  }
}
