package import ArtifactFormat
package import BackupCatalog
package import Faults
import Foundation
package import Logging
import Quoting
package import Storage
import Units

/// A backup whose files are those of another type's backup of the same database: daily and weekly fall due together, and the
/// database is read once. It has an id, a retention and placements of its own, and depends on the other one for nothing.
///
/// The original is read to its end and checked against the manifest's digest first. A store that holds it then gives its bytes a second
/// name where it can (a hard link); any other gets a copy.
package struct SharedBackup: Sendable {
  private let request: Backup.Request
  private let source: Catalog.Backup
  private let holders: [any ObjectStore]
  private let stores: [any ObjectStore]
  private let signingKey: SigningKey?
  private let history: Backup.History
  private let context: OperationContext
  private let logger: Logger

  /// - Parameters:
  ///   - source: the backup to take over.
  ///   - holders: the stores that may hold it.
  ///   - stores: where the new backup goes.
  package init(
    _ request: Backup.Request, of source: Catalog.Backup, from holders: [any ObjectStore], to stores: [any ObjectStore],
    signingKey: SigningKey?, history: Backup.History, context: OperationContext, logger: Logger
  ) {
    self.request = request
    self.signingKey = signingKey
    self.source = source
    self.holders = holders.filter { store in
      source.placements.contains { $0.store == store.name && $0.isWhole }
    }
    self.stores = stores
    self.history = history
    self.context = context
    self.logger = logger
  }

  package func run() async throws(Fault) -> Backup.Outcome {
    do {
      return try await copy()
    } catch let error as StorageError {
      throw error.fault
    } catch {
      throw Fault(error)
    }
  }

  private func copy() async throws -> Backup.Outcome {
    guard let holder = holders.first else {
      throw Fault(
        .objectMissing, "No store has the whole of \(source.id).", hint: "pgbackupctl show \(shell: source.id)")
    }
    context.report(RunProgress(phase: .commit))
    let old = source.manifest
    let (layout, failed) = try await BackupLayout.free(
      request.database, request.type, from: old.started, taken: history.takenTimes, in: stores)
    logger.info(
      "a backup of another type is taken over",
      metadata: ["backup": "\(layout.id)", "from": "\(source.id)", "type": "\(request.type)"])
    var manifest = old
    (manifest.id, manifest.type, manifest.label) = (layout.id, request.type, request.label)
    (manifest.job, manifest.run, manifest.due) = (request.job, request.run, request.due)
    manifest.keepSeconds = request.keep.map { $0.components.seconds }
    manifest.sharedFrom = old.sharedFrom ?? old.id
    manifest.finished = context.now().wholeSecond
    let suffix = old.artifact.file.name.rest(after: old.layout.artifactName(suffix: "")) ?? ""
    manifest.artifact.file.name = layout.artifactName(suffix: String(suffix))

    // The contents too are taken as they are, and name the original: where they are encrypted, nobody here may be able to read
    // them.
    var taken = [(old.artifact.file, manifest.artifact.file), (old.contents, old.contents)]
    if let globals = old.globals { taken.append((globals.file, globals.file)) }
    if let key = old.encryption?.key { taken.append((key.file, key.file)) }
    let committing = try CommittingFiles(manifest, signingKey)
    manifest = committing.manifest
    var done: [String] = []
    var dropped = failed.mapValues(\.fault)
    let term = RetentionTerm(request, layout)
    for store in stores where failed[store.name] == nil {
      let written = WrittenObjects()
      let end = term.end(in: store.name)
      do {
        let from = holders.first { $0.name == store.name && $0.canLink } ?? holder
        for (file, copy) in taken {
          let (key, target) = (try Backup.key(old.layout, file.name), try Backup.key(layout, copy.name))
          let context = context
          let progress = CopyProgress { bytes in
            var progress = RunProgress(phase: .commit)
            (progress.storedBytes, progress.expectedBytes) = (bytes, file.size)
            context.report(progress)
          }
          try await ObjectCopy(key, file, from: from).run(to: target, in: store, retainUntil: end, progress)
          await written.add(target, in: store)
        }
        for (name, bytes) in committing.all {
          let key = try Backup.key(layout, name)
          if name == BackupLayout.manifestName { await written.attempt(key, bytes, in: store) }
          try await store.put(key, bytes, retainUntil: end)
          await written.add(key, in: store)
        }
        try await Presence(manifest).check(in: store)
        done.append(store.name)
      } catch {
        _ = await uncancelled { await written.remove() }
        try Task.checkCancellation()
        dropped[store.name] = (error as? StorageError)?.fault ?? Fault(error)
      }
    }
    guard !done.isEmpty else {
      throw dropped.sorted { $0.key < $1.key }.first?.value ?? Fault(.internal, "No store took the backup.")
    }
    return Backup.Outcome(manifest: manifest, stores: done, dropped: dropped)
  }
}
