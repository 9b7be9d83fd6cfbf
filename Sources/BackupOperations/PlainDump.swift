import Confinement
import Faults
import PostgresArchive
import PostgresTools
import QueueExecution
import Quoting

/// The text of a plain dump, unpacked and scanned on its way.
struct PlainDump: Sendable {
  let path: String
  let source: DumpSource
  /// The shell words that put it on standard output, the dump as `$1`.
  let reading: String
  /// Whether what it says of its database is about the one that it goes into.
  let isOfOurName: Bool
  /// Whether the last of several programs may have read enough before the first one's end, which is then told by a signal.
  var mayStopEarly = false
  /// What the programs may read, where they go where the dump leads them.
  var rules: ReadingRules?

  struct Findings: Sendable {
    /// That it gives things to, or takes them from.
    var roles: Set<String> = []
    /// `SET client_encoding`, the last one.
    var encoding: String?
    /// `\\connect name`, the first one.
    var connect: String?
    var creation = DatabaseCreation()
  }

  /// Reads all of it, and hands over what goes through.
  ///
  /// - Throws: `E-ADOPT-REFUSED` where it can't be read to its end.
  @discardableResult
  func read(_ take: @escaping @Sendable ([UInt8]) async throws -> Void = { _ in }) async throws -> Findings {
    let isOfOurName = isOfOurName
    let outcome = try await ClientProcess(
      path: "/bin/bash", arguments: ["-c", reading, "adopt", DumpSource.place], files: [source], rules: rules
    ).stream(stallDeadline: .seconds(3600)) { output in
      let reader = PlainDumpReader(output, PlainDumpScanner(isOfOurName: isOfOurName))
      return try await withTaskCancellationHandler {
        while let bytes = try await reader.next() {
          if !bytes.isEmpty { try await take(bytes) }
        }
        return await reader.findings
      } onCancel: {
        output.interrupt()
      }
    }
    guard outcome.status.isSuccess || mayStopEarly && outcome.status == .exited(141) else {
      throw DumpFile.refused(
        path, "can't be read to its end",
        outcome.complaint.isEmpty
          ? outcome.status.text : outcome.complaint.replacingBytes(of: DumpSource.place, with: path))
    }
    return outcome.value
  }
}

/// Reads on a queue of its own, which may block.
private actor PlainDumpReader {
  private let executor = QueueExecutor(label: "pgbackupd.adopt.reader")
  private let output: ProgramOutput
  private var scanner: PlainDumpScanner
  private var isAtEnd = false
  private var buffer = [UInt8](repeating: 0, count: 1 << 20)
  private(set) var findings = PlainDump.Findings()
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(_ output: ProgramOutput, _ scanner: PlainDumpScanner) {
    (self.output, self.scanner) = (output, scanner)
  }

  /// What goes through of the next bytes; nil at the end.
  func next() throws -> [UInt8]? {
    guard !isAtEnd else { return nil }
    let count = try buffer.withUnsafeMutableBytes { bytes throws(Fault) in try output.read(into: bytes) }
    isAtEnd = count == 0
    let passed = isAtEnd ? scanner.finish() : scanner.pass(Array(buffer.prefix(count)))
    let statements = scanner.takeStatements()
    findings.roles.formUnion(DumpFile.roles(in: statements))
    for statement in statements { findings.creation.add(statement) }
    for statement in statements where statement.starts(withBytes: "SET ") {
      let setting = SQLTokens(statement)
      guard setting.isWord("client_encoding", at: 1), let value = setting.tokens.first(where: { $0.kind == .string })
      else { continue }
      findings.encoding = value.text
    }
    findings.connect = findings.connect ?? scanner.commands.first { $0.starts(withBytes: "\\connect ") }
    return passed
  }
}
