import Foundation
import TestSupport
import Testing

/// What the programs do without a daemon: their usage, their errors, their exit codes.
@Suite(.waits) struct CommandLineTests {
  private func ctl(_ arguments: [String]) throws -> Shell.Result {
    try Shell.run(
      DaemonProcess.program("pgbackupctl"), arguments, environment: ["PGBACKUPD_SOCKET": "/nonexistent/socket"])
  }

  static let statuses: [([String], Int32, String)] = [
    (["--version"], 0, "0.1.0"), (["--help"], 0, "SUBCOMMANDS"), (["backup", "--help"], 0, "--label"),
    ([], 0, "SUBCOMMANDS"),
    (["stauts"], 2, "did you mean 'pgbackupctl status'"),
    (["frobnicate"], 2, "pgbackupctl --help"), (["list", "--jsn"], 2, "--jsn"), (["backup"], 2, "database"),
    (["status"], 8, "E-DAEMON-UNREACHABLE"),
    (["schedule", "61 * * * *"], 2, "61 is no minute"), (["schedule", "0 0 30 2 *"], 2, "never comes"),
    (["schedule", "@daily", "--zone", "Mars/Olympus"], 2, "no time zone"),
    (["schedule", "@daily", "--after", "soon"], 2, "no time"),
    (["config", "check", "/nonexistent.yaml"], 10, "E-CONFIG-UNREADABLE"),
  ]
  @Test(arguments: statuses) func statusesAndTexts(_ arguments: [String], _ status: Int32, _ text: String) throws {
    let result = try ctl(arguments)
    #expect(result.status == status)
    #expect((result.output + result.errors).contains(text), "\(result.output)\(result.errors)")
    // What went wrong is on standard error, what was asked for on standard output.
    #expect((status == 0 ? result.errors : result.output).isEmpty)
  }

  @Test func schedulesAreTold() throws {
    let result = try ctl([
      "schedule", "30 2 * * *", "--zone", "Europe/Berlin", "--after", "2026-03-28T00:00:00Z", "--count", "3", "--plain",
    ])
    // In the night of the spring gap the job is due right after it.
    #expect(result.output == "2026-03-28T02:30:00+01:00\n2026-03-29T03:00:00+02:00\n2026-03-30T02:30:00+02:00\n")
  }

  @Test func aBadConfigurationEndsTheDaemonAtOnce() throws {
    let folder = TemporaryFolder()
    let path = try folder.write(
      "bad.yaml", "databases: { shop: postgresql://h/a }\njob: {}\nstores: { x: { path: rel } }\n")
    for arguments in [["--config", path], ["--config", path, "--check-config"]] {
      let result = try Shell.run(DaemonProcess.program("pgbackupd"), arguments)
      #expect(result.status == 10)
      #expect(result.errors.contains("2:1: unknown key 'job'; did you mean 'jobs'?"))
      #expect(result.errors.contains("3:22: stores.x.path: 'rel' is no absolute path"))
    }
    #expect(try Shell.run(DaemonProcess.program("pgbackupd"), ["--confg", path]).status == 2)
  }
}
