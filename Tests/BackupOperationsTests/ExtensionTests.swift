import BackupCatalog
import BackupOperations
import Faults
import Foundation
import TestSupport
import Testing

/// Extensions: what pg_dump leaves to their scripts, and a server that lacks one. PostgreSQL 18 looks for them in a folder of ours.
@Suite(.waits) struct ExtensionTests {
  private let folder = TemporaryFolder()

  /// A server that has `settings_of_ours`, an extension with a table of settings: one row its script makes, the others are the user's.
  private func makeCluster() throws -> PrivateCluster {
    try Shell.must("mkdir", ["-p", folder.file("extension")])
    try Shell.must("chmod", ["-R", "755", folder.path])
    _ = try folder.write(
      "extension/settings_of_ours.control", "default_version = '1.0'\nrelocatable = false\nschema = public\n",
      mode: 0o644)
    _ = try folder.write(
      "extension/settings_of_ours--1.0.sql",
      """
      CREATE TABLE ours (name text PRIMARY KEY, value text);
      INSERT INTO ours VALUES ('built in', 'by the script');
      CREATE TABLE whole (id int);
      SELECT pg_catalog.pg_extension_config_dump('ours', 'WHERE name <> ''built in''');
      SELECT pg_catalog.pg_extension_config_dump('whole', '');
      CREATE TABLE hidden (id int);
      INSERT INTO hidden VALUES (1);
      """, mode: 0o644)
    return try PrivateCluster(settings: ["extension_control_path=\(folder.path):$system"], major: 18)
  }

  private static let rows =
    "CREATE EXTENSION settings_of_ours; INSERT INTO ours VALUES ('a', '1'), ('b', '2'); INSERT INTO whole VALUES (1), (2)"

  /// The rows that pg_dump reads through the extension's condition are compared through it; those of the script come from the script.
  @Test func rowsOfAnExtensionsTables() async throws {
    let fixture = try await RestoreFixture(cluster: makeCluster(), sql: Self.rows)
    let tables = try await ArchiveSource(fixture.manifest, in: [fixture.workshop.store], identities: []).contents.tables
    #expect(tables.first { $0.name == "ours" }?.rows == 2)
    #expect(tables.first { $0.name == "whole" }?.rows == 2)
    #expect(tables.allSatisfy { $0.name != "hidden" })
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.isProved && outcome.unproved == [], "\(outcome.unproved)")
    #expect(
      outcome.derived?.contains(
        "public.hidden (of the extension settings_of_ours, which keeps its rows out of every dump)") == true)
    var chosen = fixture.request
    chosen.tables = ["ours"]
    let alone = await #expect(throws: Fault.self) { try await fixture.restore(chosen).run() }
    #expect(alone?.message.contains("is a table of an extension") == true, "\(alone.map { "\($0)" } ?? "")")
    #expect(
      try fixture.cluster.sql(fixture.database, "SELECT string_agg(name, ',' ORDER BY name) FROM ours")
        == "a,b,built in\n")

    // A row that the script makes otherwise today is not the backup's concern; one of the user's that differs is.
    _ = try folder.write(
      "extension/settings_of_ours--1.0.sql",
      try String(contentsOfFile: folder.file("extension/settings_of_ours--1.0.sql"), encoding: .utf8)
        + "\nINSERT INTO ours VALUES ('more', 'of the script');", mode: 0o644)
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(fixture.request).run() }
    #expect(fault?.code == .proofFailed, "\(fault.map { "\($0)" } ?? "")")
    #expect(fault?.cause?.contains("ours") == true)
  }

  /// A server without it is told before anything is made, and the live database stays as it was.
  @Test func aMissingExtension() async throws {
    let fixture = try await RestoreFixture(cluster: makeCluster(), sql: Self.rows)
    let before = try fixture.text(fixture.database)
    try Shell.must("rm", ["-r", folder.file("extension")])
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(fixture.request).run() }
    #expect(fault?.code == .extensionMissing, "\(fault.map { "\($0)" } ?? "")")
    #expect(fault?.message.contains("settings_of_ours") == true && fault?.hint != nil)
    #expect(try fixture.databases == [fixture.database])
    #expect(try fixture.text(fixture.database) == before)
  }
}
