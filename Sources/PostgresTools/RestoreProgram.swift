package import Faults
import Quoting

/// pg_restore as this product runs it: the first error ends it, and its words are told; or it goes on, and each of them
/// is.
package struct RestoreProgram: Sendable {
  package struct Options: Sendable, Hashable {
    package var withOwners = true
    package var withPrivileges = true
    package var withTablespaces = true
    /// `SET ROLE` before anything is made.
    package var role: String?

    package init() {}

    var arguments: [String] {
      (withOwners ? [] : ["--no-owner"]) + (withPrivileges ? [] : ["--no-privileges"])
        + (withTablespaces ? [] : ["--no-tablespaces"]) + (role.map { ["--role=\($0)"] } ?? [])
    }
  }

  /// What an error does.
  package enum ErrorRule: Sendable {
    /// Ends it.
    case stop
    /// Goes on where the server refuses an object; ends it where the server itself is in trouble.
    case skip
    /// Goes on as long as there is a connection.
    case ignore
  }

  package enum Section: String, Sendable {
    case preData = "pre-data"
    case data
    case postData = "post-data"
  }

  private let program: ClientProgram
  private let connection: ConnectionSettings
  private let options: Options
  private let rule: ErrorRule

  /// - Parameters:
  ///   - connection: to the database that is loaded.
  ///   - serverMajor: its server's major version.
  package init(
    _ program: ClientProgram, _ connection: ConnectionSettings, serverMajor: Int, _ options: Options,
    errors rule: ErrorRule = .stop
  ) {
    self.rule = rule
    self.program = program
    var connection = connection
    connection["options"] = SessionSettings.options(
      after: TextSettings.options(after: connection["options"]), major: serverMajor)
    connection["application_name"] = "pgbackupd pg_restore"
    self.connection = connection
    self.options = options
  }

  /// Makes what one section has, from the archive's head alone: `pre-data` and `post-data` have no data blocks.
  ///
  /// - Parameters:
  ///   - entries: of the table of contents, by dump id and in its order, which is that of what needs what; all of the section where nil.
  ///   - jobs: how many connections work at once.
  ///   - definition: of an entry, by its dump id: tells whose errors are whose.
  /// - Returns: what was refused, where it goes on after errors.
  @discardableResult
  package func make(
    _ section: Section, head: MemoryFile, entries: [Int]?, jobs: Int, definition: (Int) -> String? = { _ in nil }
  ) async throws(Fault) -> [RestoreRefusal] {
    do {
      let list = try entries.map { try MemoryFile(Self.list($0)) }
      let process = ClientProcess(
        path: program.path,
        arguments: arguments(section, listFile: list.map { _ in 1 })
          + ["--jobs=\(jobs)", ClientProcess.path(ofFile: 0)],
        files: [head] + (list.map { [$0] } ?? []), login: connection)
      let output = try await process.capture(limit: 1 << 20)
      if output.status.isSuccess { return [] }
      guard rule != .stop else { throw fault(output.status, output.complaint) }
      let words = output.everyComplaint()
      let fault = fault(output.status, ClientProcess.lastLines(RestoreRefusal.withoutProgress(words)))
      guard fault.code != .databaseUnreachable else { throw fault }
      let refusals = RestoreRefusal.all(in: words, definition: definition)
      if rule == .skip {
        // What a server in trouble refuses it may take tomorrow; and without a connection nothing was asked of it.
        if let trouble = trouble(Self.withoutCommands(words), refusals, output.status) { throw trouble }
        guard !refusals.isEmpty, refusals.allSatisfy({ $0.entry != nil }) else { throw fault }
      }
      return refusals.isEmpty
        ? [RestoreRefusal(entry: nil, words: fault.cause ?? fault.message, isOfDefinition: false)] : refusals
    } catch {
      throw Fault(error)
    }
  }

  /// Loads data blocks from an archive that `body` writes: the head, then the blocks of `entries`, in the same order.
  package func load(
    _ entries: [Int], _ body: @Sendable (ProgramInput) async throws -> Void
  ) async throws(Fault) {
    do {
      let list = try MemoryFile(Self.list(entries))
      let process = ClientProcess(
        path: program.path, arguments: arguments(.data, listFile: 0), files: [list], login: connection)
      let outcome = try await process.feed(body)
      guard !outcome.status.isSuccess else { return }
      let words = rule == .stop ? outcome.complaint : outcome.everyComplaint()
      let fault = fault(outcome.status, ClientProcess.lastLines(RestoreRefusal.withoutProgress(words)))
      guard rule == .ignore, fault.code != .databaseUnreachable else { throw fault }
    } catch {
      throw Fault(error)
    }
  }

  private func arguments(_ section: Section, listFile: Int?) -> [String] {
    // It names the objects that errors are of where it tells all that it does.
    (rule == .stop ? ["--exit-on-error"] : ["--verbose"]) + [
      "--no-password", "--section=\(section.rawValue)", "--dbname=\(connection.programConninfo)",
    ]
      + options.arguments + (listFile.map { ["--use-list=\(ClientProcess.path(ofFile: $0))"] } ?? [])
  }

  /// Of a list file `pg_restore` reads the number in front of the semicolon (`SortTocFromFile` of pg_backup_archiver.c).
  private static func list(_ entries: [Int]) -> [UInt8] {
    Array(entries.map { "\($0);\n" }.joined().utf8)
  }

  /// What it says of errors, without the commands behind them, in however many lines those are.
  static func withoutCommands(_ words: String) -> String {
    var lines = words.split(atByte: 10, omittingEmptySubsequences: false).map(String.init)
    // The end of a command whose beginning has been cut away.
    if let first = lines.firstIndex(where: { $0.starts(withBytes: "pg_restore: ") }) { lines.removeFirst(first) }
    var isCommand = false
    return lines.compactMap { line -> String? in
      if line.starts(withBytes: "pg_restore: ") { isCommand = false }
      guard !isCommand else { return nil }
      guard let command = line.range(ofBytes: "Command was:") else { return line }
      isCommand = true
      return command.lowerBound == line.startIndex ? nil : String(line[..<command.lowerBound])
    }.joined(separator: "\n")
  }

  /// Of these the server has more: a setting without a dot in its name is PostgreSQL's own.
  enum UnknownSetting: Equatable {
    /// pg_restore sets what its own version has.
    case ofNewerVersion
    /// `cron.database_name`: the library that brings it is not loaded.
    case ofLibrary(String)
  }

  static func unknownSetting(in complaint: String) -> UnknownSetting? {
    let phrase = "unrecognized configuration parameter \""
    // Not what stands behind an error: a DETAIL may hold a row's own words.
    guard
      let line = complaint.lines.first(where: { $0.contains(bytes: "ERROR:") && $0.contains(bytes: phrase) }),
      let begin = line.range(ofBytes: phrase)?.upperBound
    else { return nil }
    let name = line[begin...].prefix { $0 != "\"" }
    guard let dot = name.utf8.firstIndex(of: UInt8(ascii: ".")) else { return .ofNewerVersion }
    return .ofLibrary(String(name[..<dot]))
  }

  private static let lossOfWorker = "a worker process died unexpectedly"

  /// A worker that ends without a word has lost its connection, or was killed: that says nothing of the backup.
  static func isLossOfWorker(_ complaint: String) -> Bool {
    let errors = complaint.lines.filter { $0.contains(bytes: "error:") }
    return !errors.isEmpty && errors.allSatisfy { $0.contains(bytes: lossOfWorker) }
  }

  private func fault(_ status: ClientProcess.Status, _ words: String) -> Fault {
    // The command behind an error may hold a password: that of a subscription, or of a user mapping.
    let complaint = Self.withoutCommands(words)
    switch Self.unknownSetting(in: complaint) {
    case nil: break
    case .ofLibrary(let prefix):
      return Fault(
        .restoreFailed,
        "The server of \(connection.summary) has not loaded the library that '\(prefix)' settings belong to.",
        cause: complaint, hint: "put it into shared_preload_libraries there, restart the server, and restore again")
    case .ofNewerVersion:
      return Fault(
        .toolMissing, "\(program.versionText) speaks to a server that is older than itself.", cause: complaint,
        hint: "install the client programs of the server's own version")
    }
    if let trouble = trouble(complaint, [], status) { return trouble }
    return Fault(
      .restoreFailed, "pg_restore into \(connection.summary) failed (\(status.text)).",
      cause: complaint.isEmpty ? nil : complaint, hint: "pgbackupctl log")
  }

  /// What ails the server, or the connection to it; nil where neither says anything.
  private func trouble(_ complaint: String, _ refusals: [RestoreRefusal], _ status: ClientProcess.Status) -> Fault? {
    let hasLostWorker =
      Self.isLossOfWorker(complaint) || refusals.contains { $0.words.starts(withBytes: Self.lossOfWorker) }
    if ServerTrouble.isLoss(byWords: complaint) || hasLostWorker {
      return Fault(
        .databaseUnreachable, "pg_restore had no connection to \(connection.summary), or lost it.",
        cause: String(complaint.prefix(4096)), hint: "pg_isready -d \(shell: connection.conninfo)")
    }
    guard ServerTrouble.isTold(byWords: complaint) else { return nil }
    return ServerTrouble.fault(
      "pg_restore into \(connection.summary) could not be done (\(status.text)).",
      cause: String(complaint.prefix(4096)))
  }
}
