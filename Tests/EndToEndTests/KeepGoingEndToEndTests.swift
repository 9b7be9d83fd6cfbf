import TestSupport
import Testing

/// `restore --keep-going`, `swap` and the drill, as an operator meets them.
@Suite(.waits) struct KeepGoingEndToEndTests {
  /// An object that can't be made: told by the drill, and by the restore, and asked for before anything is replaced.
  @Test func whatCanNotBeMadeIsToldAndAskedFor() throws {
    let folder = TemporaryFolder()
    let cluster = try PrivateCluster.shared()
    let database = try cluster.makeDatabase("shop", sample: 1)
    let daemon = try DaemonProcess(
      """
      databases: { shop: { connect: "\(cluster.conninfo(database))" } }
      jobs: { manual: }
      drill: { folder: \(folder.file("drills")) }
      daemon: { state: \(folder.file("state")), socket: \(folder.file("control.sock")) }
      """, in: folder)
    try daemon.waitFor("READY=1")
    func others() throws -> [String] {
      try cluster.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE '\(database)\\_%' ORDER BY 1")
        .split(separator: "\n").map(String.init)
    }
    try cluster.sql(
      database,
      """
      CREATE TABLE public.factors (n int); INSERT INTO public.factors VALUES (2);
      CREATE FUNCTION public.scaled(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * n FROM factors';
      CREATE INDEX scaled_factors ON public.factors (public.scaled(n));
      """)
    #expect(try daemon.ctl("backup", "shop").status == 0)
    let drill = try daemon.ctl("drill", "shop")
    #expect(drill.status == 9)
    #expect(drill.output.contains("PROVED in its rows, not in its schema"), "\(drill.output)")
    #expect(drill.errors.contains("E-SCHEMA-INCOMPLETE: Every row is proved, and 1 of "), "\(drill.errors)")
    #expect(try daemon.ctl("check").output.contains("E-SCHEMA-INCOMPLETE"))

    #expect(try daemon.ctl("restore", "latest", "--force").errors.contains("E-RESTORE-FAILED"))
    #expect(try daemon.ctl("restore", "latest", "--in-place", "--keep-going", "--force").status == 2)
    #expect(try others() == [])
    // Nobody there to say yes to the second question: what stands there stays.
    let asked = try daemon.ctlAtTerminal("restore", "latest", "--keep-going", typing: "shop\nno\n")
    #expect(asked.contains("1 of ") && asked.contains("INDEX public.scaled_factors"), "\(asked)")
    #expect(asked.contains("CREATE INDEX scaled_factors") && asked.contains("stays beside the live one"), "\(asked)")
    let waiting = try #require(try others().first)
    #expect(try waiting.contains("_incomplete_") && others().count == 1)
    #expect(try daemon.ctl("status").output.contains("pgbackupctl swap shop \(waiting)"))
    let swap = try daemon.ctl("swap", "shop", waiting, "--force")
    #expect(swap.status == 0 && swap.output.contains("Undo: pgbackupctl rollback shop"), "\(swap.errors)")
    #expect(
      try cluster.sql(database, "SELECT count(*) FROM pg_indexes WHERE indexname = 'scaled_factors'")
        == "0\n")
    #expect(try daemon.ctl("swap", "shop", waiting, "--force").status == 6)
    #expect(try !daemon.ctl("status").output.contains("waits beside"))
    #expect(try daemon.ctl("rollback", "shop", "--force").status == 0)
    #expect(
      try cluster.sql(database, "SELECT count(*) FROM pg_indexes WHERE indexname = 'scaled_factors'")
        == "1\n")
  }
}
