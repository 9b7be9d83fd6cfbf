import CConfinement
import Dispatch
package import Faults
import Glibc
import QueueExecution
import Synchronization
package import Units

/// Processes that run code of strangers: a program, and whatever it has begun. They see and write their own folder,
/// read what is named, reach no other process or socket, and end all together.
package final class Cell: Sendable {
  /// What to run, and what it needs.
  package struct Program: Sendable {
    package var path: String
    package var arguments: [String]
    package var environment: [String: String]
    /// What may be read, and what may be run. Paths that aren't there are left out.
    package var readable: [String]
    package var executable: [String]
    /// Its own folder: the working directory, and the one place where it may write.
    package var folder: PrivateFolder
    package var account: DrillAccount
    /// Of each process, and of each file.
    package var memory: ByteCount
    package var fileSize: ByteCount
    /// The room that its file system keeps: all processes end where less is left.
    package var reserve: ByteCount
    package var walls: KernelWalls

    package init(
      path: String, arguments: [String], environment: [String: String], readable: [String], executable: [String],
      folder: PrivateFolder, account: DrillAccount, memory: ByteCount, fileSize: ByteCount, reserve: ByteCount,
      walls: KernelWalls
    ) {
      (self.path, self.arguments, self.environment) = (path, arguments, environment)
      (self.readable, self.executable) = (readable, executable)
      (self.folder, self.account, self.walls) = (folder, account, walls)
      (self.memory, self.fileSize, self.reserve) = (memory, fileSize, reserve)
    }
  }

  package enum Ending: Sendable {
    case allEnded
    /// Some process could not be ended within half a minute.
    case someStay
    /// The file system was nearly full.
    case hadNoRoom
    /// The process that keeps the others was ended, so that some of them may live.
    case lostKeeper
  }

  private let state: Mutex<cconfinement_cell?>

  private init(_ cell: cconfinement_cell) { state = Mutex(cell) }

  deinit { letGo() }

  /// Runs a program and waits for its end; what it has left running goes on until `end`, or until this process is gone.
  ///
  /// - Parameter errors: a descriptor, its standard error.
  /// - Returns: its status, as waitpid(2) has it.
  package static func begin(
    _ program: Program, errors: Int32
  ) async throws(Fault) -> (cell: Cell, status: Int32) {
    do {
      return try await DispatchQueue(label: "pgbackupd.cell").blocking { try run(program, errors) }
    } catch {
      throw Fault(error)
    }
  }

  private static func run(_ program: Program, _ errors: Int32) throws(Fault) -> (cell: Cell, status: Int32) {
    guard let filter = cconfinement_filter_make(Int32(program.walls.landlock)) else { throw refused(program) }
    defer { cconfinement_filter_free(filter) }
    let rules = try rules(program)
    defer { if rules >= 0 { close(rules) } }
    var cell = cconfinement_cell()
    var status: Int32 = 0
    let words = [program.path] + program.arguments
    let isRun = withCStrings(words) { words in
      withCStrings(program.environment.map { "\($0.key)=\($0.value)" }.sorted()) { environment in
        program.path.withCString { path in
          var request = cconfinement_program()
          (request.path, request.arguments, request.environment) = (path, words, environment)
          (request.errors, request.folder, request.rules) = (errors, program.folder.descriptor, rules)
          request.filter = filter
          request.changes_account = program.account.isOwn ? 0 : 1
          (request.user, request.group) = (program.account.user, program.account.group)
          (request.memory, request.file_size) = (UInt64(program.memory.bytes), UInt64(program.fileSize.bytes))
          request.reserve = UInt64(program.reserve.bytes)
          return cconfinement_begin(&request, &cell, &status) == 0
        }
      }
    }
    guard isRun else { throw refused(program) }
    return (Cell(cell), status)
  }

  /// What Landlock allows; -1 where there is none.
  private static func rules(_ program: Program) throws(Fault) -> Int32 {
    guard program.walls.keepsFiles else { return -1 }
    let abi = Int32(program.walls.landlock)
    let rules = cconfinement_rules(abi)
    guard rules >= 0 else { throw refused(program) }
    var isComplete =
      cconfinement_allow_file(rules, abi, program.folder.descriptor, Int32(CCONFINEMENT_OWN.rawValue)) == 1
    let allowed =
      program.readable.map { ($0, CCONFINEMENT_READ) } + program.executable.map { ($0, CCONFINEMENT_EXECUTE) }
      + [("/dev/null", CCONFINEMENT_WRITE)]
    for (path, right) in allowed {
      if cconfinement_allow(rules, abi, path, Int32(right.rawValue)) < 0 { isComplete = false }
    }
    guard isComplete else {
      let reason = errno
      close(rules)
      errno = reason
      throw refused(program)
    }
    return rules
  }

  private static func refused(_ program: Program) -> Fault {
    let reason = errno
    return Fault(
      .drillFailed, "\(program.path) could not be run in a cell of its own; so it was not run.",
      cause: String(cString: strerror(reason)),
      hint: "look whether a container's filter refuses prctl(2) or landlock_restrict_self(2)")
  }

  /// Ends all processes and waits until they are gone. Nil where it has ended before.
  @discardableResult
  package func end() async -> Ending? {
    let cell = state.withLock { cell in
      defer { cell = nil }
      return cell
    }
    guard let cell else { return nil }
    let reason = try? await DispatchQueue(label: "pgbackupd.cell").blocking {
      var cell = cell
      return cconfinement_end(&cell).rawValue
    }
    switch reason {
    case CCONFINEMENT_ENDED.rawValue: return .allEnded
    case CCONFINEMENT_STAYS.rawValue: return .someStay
    case CCONFINEMENT_FULL.rawValue: return .hadNoRoom
    default: return .lostKeeper
    }
  }

  /// Lets go of it as the death of this process does: all processes end, and this call does not wait for them.
  package func letGo() {
    state.withLock { cell in
      if let cell { close(cell.control) }
      cell = nil
    }
  }
}
