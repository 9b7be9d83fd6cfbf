import Foundation
import Glibc
import TestSupport
import Testing

/// Ctrl-C at the client: the run is the daemon's, and whoever leaves is told so.
@Suite(.waits) struct LeavingTests {
  @Test(arguments: [SIGINT, SIGTERM]) func theRunGoesOn(_ number: Int32) throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop")
    try cluster.sql(database, "CREATE TABLE held AS SELECT 1 AS x")
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))" } }
      jobs: { manual: }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    let lock = try LockHolder(cluster, database, "held")
    let errors = LinePipe()
    let client = try ChildProcess(
      DaemonProcess.program("pgbackupctl"), ["backup", "shop", "--socket", daemon.socket], errors: errors.writer)
    errors.closeWriter()
    var line = errors.next()
    while line?.contains(": dump") == false { line = errors.next() }
    #expect(line != nil)
    // Dispatch takes signals over in its own time: the kernel shows when it has.
    let bit = UInt64(1) << UInt64(number - 1)
    try eventually("the client takes signal \(number) over") {
      let status = try String(contentsOfFile: "/proc/\(client.processIdentifier)/status", encoding: .utf8)
      let caught = try #require(status.split(separator: "\n").first { $0.hasPrefix("SigCgt:") }, "\(status)")
      let isCaught =
        UInt64(caught.dropFirst("SigCgt:".count).drop { $0.isWhitespace }, radix: 16).map { $0 & bit != 0 } ?? false
      try #require(isCaught || !status.contains("State:\tZ"), "the client has ended by itself")
      return isCaught
    }
    kill(client.processIdentifier, number)
    #expect(client.wait() == 130)
    var words = ""
    while let line = errors.next() { words += line + "\n" }
    #expect(words.contains("The run goes on: manual of shop."), "\(words)")
    #expect(words.contains("next: pgbackupctl cancel "), "\(words)")
    let ledger = try daemon.followLedger()
    lock.release()
    try ledger.wait(for: "run.finished", "succeeded")
  }
}
