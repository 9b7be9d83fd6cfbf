import BackupCatalog
import BackupOperations
import Faults
import Foundation
import Glibc
import TestSupport
import Testing

/// Extensions that a server has to load at its start, and one that it takes in one database alone.
@Suite(.waits) struct PreloadedExtensionTests {
  /// A server of Debian's with pg_cron and pgaudit, and a database that has both.
  private func fixture() async throws -> RestoreFixture {
    try #require(
      access("/usr/lib/postgresql/15/lib/pg_cron.so", R_OK) == 0
        && access("/usr/lib/postgresql/15/lib/pgaudit.so", R_OK) == 0,
      "apt install postgresql-15-cron postgresql-15-pgaudit")
    let name = "crontab_\(UInt32.random(in: 0...UInt32.max))"
    let cluster = try PrivateCluster(
      settings: [
        "shared_preload_libraries=pg_cron,pgaudit", "cron.database_name=\(name)", "cron.max_running_jobs=0",
      ], major: 15)
    try cluster.sql("postgres", "CREATE ROLE watcher; CREATE DATABASE \(name)")
    try cluster.sql(
      name,
      """
      CREATE EXTENSION pg_cron; CREATE EXTENSION pgaudit;
      SELECT cron.schedule('nightly', '0 3 * * *', 'VACUUM'); SELECT cron.schedule('hourly', '0 * * * *', 'SELECT 1');
      CREATE TABLE plain AS SELECT n FROM generate_series(1, 10) AS n;
      CREATE VIEW jobs AS SELECT jobname, schedule FROM cron.job;
      GRANT USAGE ON SCHEMA cron TO watcher; GRANT SELECT ON jobs TO watcher;
      """)
    return try await RestoreFixture(existing: name, on: cluster)
  }

  private func jobs(_ fixture: RestoreFixture) throws -> String {
    try fixture.cluster.sql(
      fixture.database,
      "SELECT string_agg(jobid || ' ' || jobname || ' ' || schedule, ', ' ORDER BY jobid) FROM cron.job")
  }

  @Test func aDatabaseWithJobsIsRestored() async throws {
    let fixture = try await fixture()
    let cluster = fixture.cluster
    let before = try fixture.text(fixture.database)
    #expect(try jobs(fixture) == "1 nightly 0 3 * * *, 2 hourly 0 * * * *\n")
    try cluster.sql(fixture.database, "SELECT cron.unschedule('hourly')")
    let outcome = try await fixture.restore(fixture.request).run()
    #expect(outcome.isProved && outcome.provedTables == outcome.tables, "\(outcome)")
    #expect(outcome.warnings == [], "\(outcome.warnings)")
    #expect(try jobs(fixture) == "1 nightly 0 3 * * *, 2 hourly 0 * * * *\n")
    #expect(try fixture.text(fixture.database) == before)
    #expect(try cluster.sql(fixture.database, "SELECT cron.schedule('third', '0 1 * * *', 'SELECT 1')") == "3\n")

    // In place too.
    let safety: Restore.SafetyBackup = { connection throws(Fault) in
      do {
        let outcome = try await fixture.workshop.backup(
          connection, database: fixture.database, at: Date(timeIntervalSince1970: 1_800_050_000)
        ).run()
        return (outcome.manifest, [fixture.workshop.store])
      } catch {
        throw Fault(error)
      }
    }
    var request = fixture.request
    request.target = .inPlace
    let again = try await fixture.restore(
      request, at: Date(timeIntervalSince1970: 1_800_200_000), safety: safety
    ).run()
    #expect(again.isProved && again.provedTables == again.tables, "\(again)")
    #expect(try fixture.text(fixture.database) == before)

    // Under another name it can't be.
    request.target = .beside("elsewhere")
    let fault = await #expect(throws: Fault.self) { try await fixture.restore(request).run() }
    #expect(
      fault?.code == .restoreRefused && fault?.message.contains("pg_cron") == true, "\(fault.map { "\($0)" } ?? "")")
    request.keepsGoing = true
    let partial = try await fixture.restore(request).run()
    #expect(partial.unmade?.contains { $0.label == "EXTENSION pg_cron" } == true, "\(partial.unmade ?? [])")
    #expect(try cluster.sql("elsewhere", "SELECT count(*) FROM plain") == "10\n")
  }

  /// The drill's server loads what they need, and runs none of the jobs.
  @Test func aDrillLoadsTheirLibraries() async throws {
    let fixture = try await fixture()
    let folder = TemporaryFolder()
    let report = try await DrillTests.drill(
      fixture,
      assertions: [
        "SELECT count(*) = 2 FROM cron.job", "SELECT count(*) = 0 FROM cron.job_run_details",
        "SELECT current_setting('shared_preload_libraries') = 'pg_cron,pgaudit'",
      ], folder: folder)()
    #expect(report.proof.isWhole && report.incompleteness == nil, "\(report)")
  }
}

extension RestoreFixture {
  /// A backup of a database that is there.
  init(existing name: String, on cluster: PrivateCluster) async throws {
    (self.cluster, database) = (cluster, name)
    var settings = Backup.Settings()
    settings.programs = [cluster.binaries]
    manifest = try await workshop.backup(try connection(cluster, name), database: name, settings: settings).run()
      .manifest
  }
}
