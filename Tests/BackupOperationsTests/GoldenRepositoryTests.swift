import AgeEncryption
import ArtifactFormat
import BackupCatalog
import Faults
import Foundation
import Logging
import PostgresTools
import Storage
import TestSupport
import Testing

@testable import BackupOperations

/// Stores that earlier versions have written stay readable: lists, restores, drills and verifications of the very
/// bytes.
@Suite(.waits) struct GoldenRepositoryTests {
  /// What lies in a store of this version; the same database, plain and encrypted.
  static let repositories = [("format-1.0", "plain"), ("format-1.0", "sealed")]

  private struct Repository {
    let store: LocalStore
    let identities: Keyring
    let trusted: TrustedKeys

    init(_ version: String, _ kind: String) throws {
      let folder = try #require(Bundle.module.url(forResource: "Golden", withExtension: nil)).appending(path: version)
      store = LocalStore(name: "golden", root: folder.appending(path: kind).path)
      identities = Keyring(
        try AgeIdentity.identities(inFile: String(contentsOf: folder.appending(path: "identity.txt"), encoding: .utf8)))
      let key = VerifyingKey(parsing: try String(contentsOf: folder.appending(path: "signing.pub"), encoding: .utf8))
      trusted = [try #require(key)]
    }

    func manifest() async throws -> Manifest {
      var reader = CatalogReader(trusted: trusted)
      let catalog = await reader.read([store])
      #expect(catalog.problems.isEmpty && catalog.backups.count == 1)
      let backup = try #require(catalog.backups.first)
      #expect(backup.placements.allSatisfy { $0.isWhole && $0.signature == .valid })
      return backup.manifest
    }

    func restore(_ manifest: Manifest, on cluster: PrivateCluster, into database: String) throws -> Restore {
      var request = RestoreRequest(backup: manifest.id, database: "golden")
      request.target = .beside(database)
      return Restore(
        request, of: manifest, from: [store], identities: identities, on: try connection(cluster, "postgres"),
        programs: [cluster.binaries],
        context: OperationContext(now: { Date(timeIntervalSince1970: 1_800_100_000) }, report: { _ in }),
        logger: Logger(label: "test"), liveName: database)
    }
  }

  @Test(arguments: repositories) func anEarlierRepositoryIsVerifiedAndRestored(
    _ version: String, _ kind: String
  ) async throws {
    let repository = try Repository(version, kind)
    let manifest = try await repository.manifest()
    let result = try await Verify(
      manifest, in: repository.store, level: .archive, identities: repository.identities, trusted: repository.trusted,
      now: { Date(timeIntervalSince1970: 1_800_100_000) }
    ).run()
    #expect(result.fault == nil && result.level == .archive && result.rows == 503)

    let cluster = try PrivateCluster.shared()
    let database = "golden_\(UUID().uuidString.prefix(8).lowercased())"
    let restore = try repository.restore(manifest, on: cluster, into: database)
    let preview = try await restore.preview()
    #expect(preview.steps.first?.hasPrefix("read all of the artifact") == true, "\(preview.steps)")
    #expect(preview.readBytes == preview.storedBytes)
    let outcome = try await restore.run()
    #expect(outcome.isProved && outcome.rows == 503 && outcome.evidence?.artifact == manifest.artifact.file.sha256)
    #expect(try cluster.sql(database, "SELECT sum(square) FROM numbers") == "41791750\n")
    #expect(try cluster.sql(database, "SELECT name FROM people WHERE id = 3") == "tab\tand\\backslash\n")
    #expect(try cluster.sql(database, "SELECT encode(lo_get(4711), 'hex')") == "00ff10\n")
    try cluster.sql("postgres", "DROP DATABASE \(database)")
  }
}
