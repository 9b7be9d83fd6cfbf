package import ArtifactFormat
package import BackupCatalog
package import Faults
import Foundation
package import Logging
import PostgresArchive
package import PostgresTools
import Quoting
package import Storage
import Units

/// One restore, from the first check to the swap: the live database serves until the new one is loaded and proved, and whatever goes
/// wrong before the swap leaves it as it was.
package struct Restore: Sendable {
  let request: RestoreRequest
  let manifest: Manifest
  let stores: [any ObjectStore]
  let identities: Keyring
  /// To a database of the server that is always there, such as `postgres`.
  let maintenance: ConnectionSettings
  let programs: [String]
  let context: OperationContext
  let logger: Logger
  /// Makes a backup of a database on the same server and tells where it is. For restores in place.
  let safetyBackup: SafetyBackup?
  /// The database that is restored, by its name on the server.
  let live: String
  /// Why the backup's data is in doubt, where somebody who compares backups has found that.
  package var doubt: Fault?
  /// Signs the mark of the database that is put aside.
  package var signingKey: SigningKey?
  /// Asked with what came of it before a database that lacks objects takes the live one's place; where it says no, that
  /// one stays beside it.
  package var acceptsIncomplete: @Sendable (RestoreOutcome) async -> Bool = { _ in false }
  /// The database was taken away by us and is put back: one of its name that is there is somebody else's.
  package var putsBack = false
  /// What else is to be said of the choice of this backup, in the preview and in the outcome.
  package var cautions: [Fault] = []

  package typealias SafetyBackup =
    @Sendable (ConnectionSettings) async throws(Fault) -> (manifest: Manifest, stores: [any ObjectStore])

  /// - Parameter stores: those that hold the backup whole, the nearest first.
  package init(
    _ request: RestoreRequest, of manifest: Manifest, from stores: [any ObjectStore], identities: Keyring,
    on connection: ConnectionSettings, programs: [String], context: OperationContext, logger: Logger,
    safetyBackup: SafetyBackup? = nil, liveName: String? = nil
  ) {
    live = liveName ?? connection["dbname"] ?? manifest.server.database
    self.request = request
    self.manifest = manifest
    self.stores = stores
    self.identities = identities
    maintenance = connection.database(live).maintenance
    self.programs = programs
    self.context = context
    self.logger = logger
    self.safetyBackup = safetyBackup
  }

  /// The connection with all that libpq takes from the environment and its files: the programs that restore get none of that.
  package static func resolved(_ connection: ConnectionSettings) async throws(Fault) -> ConnectionSettings {
    try await PostgresSession.connect(connection.maintenance).use { session throws(Fault) in
      await session.effectiveSettings()
    }
  }

  /// What would be done, without doing any of it. Throws what would refuse the restore before it begins.
  package func preview() async throws(Fault) -> RestorePreview {
    var preview = try await Preparation(self, readsGlobals: true).preview
    preview.warnings = cautions + preview.warnings
    if let doubt { preview.warnings.insert(doubt, at: 0) }
    return preview
  }

  package func run() async throws(Fault) -> RestoreOutcome {
    do {
      context.report(RunProgress(phase: .preflight))
      let preparation = try await Preparation(self, readsGlobals: request.withGlobals)
      logger.info(
        "restore begins",
        metadata: [
          "backup": "\(manifest.id)", "server": "\(preparation.server.version)", "target": "\(request.database)",
        ]
      )
      let refused = request.withGlobals ? try await preparation.makeGlobals() : []
      var outcome = try await place(preparation)
      if !refused.isEmpty { outcome.derived = (outcome.derived ?? []) + refused }
      outcome.warnings = cautions + outcome.warnings
      if let doubt { outcome.warnings.insert(doubt, at: 0) }
      return outcome
    } catch let error as StorageError {
      throw error.fault
    } catch {
      throw Fault(error)
    }
  }
}

extension Restore {
  /// A quarter of a minute: most restarts and rushes of others are over by then. A daemon goes on trying behind that.
  private static let reconnections = 4
  private static let reconnectEvery = Duration.seconds(5)

  /// Runs it again where the server can't be reached, or has no connection to give.
  ///
  /// - Parameter clear: takes away what stands in the way, where that can be done; asked before each time, and at the end.
  func runWhenReachable(
    _ clear: @Sendable () async -> Void
  ) async throws(Fault) -> RestoreOutcome {
    var attempt = 0
    while true {
      attempt += 1
      await clear()
      do throws(Fault) {
        let outcome = try await run()
        await clear()
        return outcome
      } catch {
        guard error.code == .databaseUnreachable, attempt < Self.reconnections else {
          await clear()
          throw error
        }
        logger.warning(
          "the safety backup is put back as soon as the server gives a connection",
          metadata: ["cause": "\(error.cause ?? error.message)"])
        try? await Task.sleep(for: Self.reconnectEvery)
      }
    }
  }

  /// The way back from a restore in place: its safety backup, to where that was taken from. On one connection at a time: what the server
  /// had too few of must not stand in its way.
  func back(to safety: (manifest: Manifest, stores: [any ObjectStore]), isLenient: Bool) -> Restore {
    var request = RestoreRequest(backup: safety.manifest.id, database: request.database)
    request.jobs = 1
    request.isLenient = isLenient
    var back = Restore(
      request, of: safety.manifest, from: safety.stores, identities: identities, on: maintenance, programs: programs,
      context: context, logger: logger, liveName: live)
    back.putsBack = true
    return back
  }

  fileprivate func place(_ preparation: Preparation) async throws -> RestoreOutcome {
    let run = RestoreRun(self, preparation)
    if request.isPartial, case .beside = request.target { return try await run.beside() }
    if request.isPartial { return try await TableRestore(self, preparation).run() }
    return switch request.target {
    case .swap: try await run.swap()
    case .beside: try await run.beside()
    case .inPlace: try await run.inPlace()
    }
  }
}

extension ConnectionSettings {
  /// The same server, its database `postgres`; where that is the one that the work is about, `template1`.
  var maintenance: ConnectionSettings { database(self["dbname"] == "postgres" ? "template1" : "postgres") }

  func database(_ name: String) -> ConnectionSettings {
    var copy = self
    copy["dbname"] = name
    return copy
  }
}
