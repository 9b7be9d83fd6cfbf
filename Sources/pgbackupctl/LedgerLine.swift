import ControlAPI
import Faults
import Foundation
import Quoting
import Units

/// A ledger record as the client reads it: what it prints.
struct LedgerLine: Decodable {
  /// The record's number, by which reports name it.
  var sequence: Int?
  var time: Date
  var kind: String
  var job: String?
  var database: String?
  var backup: String?
  var store: String?
  var by: Caller?
  var reason: String?
  var result: String?
  var fault: Fault?
  var detail: [String: String]?
  var due: Date?
  var databases: [String]?
  var retry: Date?

  var text: String {
    var parts = sequence.map { ["#\($0)"] } ?? []
    parts += [time.rfc3339, kind]
    if let job, let database {
      parts.append("\(job) of \(database)")
    } else if let name = job ?? database {
      parts.append(name)
    }
    if kind.starts(withBytes: "job."), let databases { parts.append("on \(databases.joined(separator: ", "))") }
    if kind == "job.scheduled" { parts.append(detail?["schedule"] ?? "no schedule any more") }
    if kind == "job.skipped", let due { parts.append("due \(due.rfc3339)") }
    parts += [result, backup, store.map { "in \($0)" }, reason.map { "(\($0))" }].compactMap { $0 }
    if let by { parts.append("by uid \(by.uid)") }
    if let retry { parts.append("again at \(retry.rfc3339)") }
    if let fault { parts.append("\(fault.code.rawValue): \(fault.message)") }
    if kind.starts(withBytes: "configuration") || kind.starts(withBytes: "ledger"), let detail {
      parts.append(detail.sorted { $0.key < $1.key }.map(\.value).joined(separator: "; "))
    }
    return parts.map { TerminalText.line($0) }.joined(separator: "  ")
  }
}
