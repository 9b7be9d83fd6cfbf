import Faults
import Quoting

/// What fails because the server lacks something, or was told to end it: that says nothing about the data.
enum ServerTrouble {
  /// Whether an SQLSTATE is of the classes for insufficient resources, for an operator's intervention, and for errors outside PostgreSQL
  /// (appendix A of its manual).
  static func isTold(byState state: String) -> Bool { ["53", "57", "58"].contains(state.prefix(2)) }

  /// The same by the words of a program that tells no SQLSTATE. Servers of drills speak English, and so does libpq here.
  static func isTold(byWords words: String) -> Bool {
    tells(words, phrases + losses)
  }

  /// Whether the connection is lost, or was not to be had.
  static func isLoss(byWords words: String) -> Bool { tells(words, losses) }

  private static func tells(_ words: String, _ phrases: [String]) -> Bool {
    // Not what stands behind an error: a DETAIL may hold a row's own words.
    words.lines.filter { line in
      ["error:", "ERROR:", "FATAL:", "PANIC:"].contains(where: line.contains)
    }.contains { line in phrases.contains(where: line.contains) }
  }

  static func fault(_ sentence: String, cause: String) -> Fault {
    Fault(
      .databaseServer, sentence, cause: cause,
      hint: "look at the disk, the memory and the log of that server, then run it again")
  }

  private static let phrases = [
    // 53
    "No space left on device", ": wrote only ", "Disk quota exceeded", "ERROR:  out of memory", "out of shared memory",
    "Cannot allocate memory", "too many clients", "Too many open files", "remaining connection slots",
    // 57
    "canceling statement due to",
    // 58
    "Input/output error", "could not access file", "could not load library",
  ]
  /// As libpq has it (fe-connect.c, fe-misc.c, fe-exec.c), and the server's last words (SQLSTATE 57P01 to 57P03).
  private static let losses = [
    "terminating connection", "the database system is ",
    "server closed the connection unexpectedly", "connection to server ", "no connection to the server",
    "could not receive data from server", "could not send data to server",
  ]
}
