import Quoting

/// What a server did not take of an archive, as `pg_restore` tells it where it goes on after errors.
package struct RestoreRefusal: Sendable, Equatable {
  /// The entry by its dump id; nil where `pg_restore` names none.
  package let entry: Int?
  /// What the server said, without the command: its first line, then details. The same entry may be refused in several ways.
  package let words: String
  /// Whether it was the entry's own definition that failed, and not what follows it, as `ALTER … OWNER TO` does.
  package let isOfDefinition: Bool

  package init(entry: Int?, words: String, isOfDefinition: Bool) {
    self.entry = entry
    self.words = words
    self.isOfDefinition = isOfDefinition
  }
}

extension RestoreRefusal {
  /// Reads what `pg_restore` wrote on standard error (`warn_or_exit_horribly` of pg_backup_archiver.c): the entry in one line, once, and
  /// behind it each error with its command.
  ///
  /// Several workers write side by side, each line in pieces (`pg_log_generic_v` of logging.c): the text of a message is one piece, the
  /// words in front of it are others. So messages are known by their text, and an error belongs to the entry whose definition its command
  /// is; where none is that, to the last entry that was named.
  ///
  /// - Parameter definition: of an entry of the archive; nil where there is no such entry.
  package static func all(in text: String, definition: (Int) -> String?) -> [RestoreRefusal] {
    var named: [Int] = []
    var errors: [(after: Int?, words: [Substring], command: [Substring])] = []
    var isCommand = false
    for line in text.split(atByte: 10, omittingEmptySubsequences: false) {
      let (message, isMessage) = withoutHead(line)
      if isMessage { isCommand = false }
      if isMessage, let entry = entry(message), definition(entry) != nil {
        named.append(entry)
      } else if isMessage, let words = message.rest(after: "could not execute query: ") {
        errors.append((named.last, [words], []))
      } else if isMessage {
        if isError(message) { errors.append((named.last, [message], [])) }
      } else if !errors.isEmpty {
        if let command = line.rest(after: "Command was: ") {
          isCommand = true
          errors[errors.count - 1].command = [command]
        } else if isCommand {
          errors[errors.count - 1].command.append(line)
        } else if !line.isEmpty {
          errors[errors.count - 1].words.append(line)
        }
      }
    }
    let candidates = Set(named).sorted()
    return errors.map { error in
      let command = error.command.joined(separator: "\n").withoutBlanks
      let start = String(command.ends(withBytes: "...") ? command.dropLast(3) : command)
      let owner = ((error.after.map { [$0] } ?? []) + candidates).first { entry in
        !start.isEmpty && definition(entry)?.withoutBlanks.starts(withBytes: start) == true
      }
      return RestoreRefusal(
        entry: owner ?? error.after, words: error.words.joined(separator: "\n"), isOfDefinition: owner != nil)
    }
  }

  /// A line without what stands in front of each message, also where that of another worker has come between: then the
  /// next line has none, and is known by how it begins.
  private static func withoutHead(_ line: Substring) -> (Substring, isMessage: Bool) {
    var rest = line
    var isMessage = false
    while true {
      if rest.skip("pg_restore:") {
        isMessage = true
      } else if rest.skip(" ") || isMessage && (rest.skip("error: ") || rest.skip("warning: ") || rest.skip("detail: "))
      {
        continue
      } else {
        break
      }
    }
    let isOrphan =
      rest.starts(withBytes: "could not execute query: ERROR:") || rest.starts(withBytes: "from TOC entry ")
    return isMessage || isOrphan ? (rest, true) : (line, false)
  }

  private static func entry(_ message: Substring) -> Int? {
    message.rest(after: "from TOC entry ").flatMap { rest in
      rest.utf8.firstIndex(of: UInt8(ascii: ";")).flatMap { Int(rest[..<$0]) }
    }
  }

  /// Errors that are of no command. What `--verbose` tells besides begins otherwise.
  private static func isError(_ message: Substring) -> Bool {
    message.starts(withBytes: "could not ") || message.starts(withBytes: "a worker process died")
  }

  private static let progress = [
    "connecting to ", "creating ", "implied ", "processing ", "executing ", "launching ", "finished ", "entering ",
    "skipping ", "while ", "from TOC entry ", "reading ",
  ]

  /// What it says of errors and warnings, without the lines that tell what it does.
  static func withoutProgress(_ text: String) -> String {
    text.split(atByte: 10, omittingEmptySubsequences: false).filter { line in
      line.rest(after: "pg_restore: ").map { rest in !progress.contains { rest.starts(withBytes: $0) } } ?? true
    }.joined(separator: "\n")
  }
}
