import ControlAPI
import Faults
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import Quoting
import SystemdSupport

/// The routes of the control socket, and the role that each needs. The one table: a route that is not in it is for
/// restorers alone, and a test finds it.
enum ControlAccess {
  struct Rule: Sendable {
    let role: Role
    /// What it does, as a sentence's subject.
    let deed: String
  }

  /// By method and path, as the router has them.
  static let rules: [String: Rule] = [
    "GET /v1/status": Rule(role: .reader, deed: "Seeing the status"),
    "GET /v1/jobs": Rule(role: .reader, deed: "Seeing the jobs"),
    "GET /v1/backups": Rule(role: .reader, deed: "Listing backups"),
    "GET /v1/backup": Rule(role: .reader, deed: "Seeing a backup"),
    "GET /v1/damaged": Rule(role: .reader, deed: "Seeing a damaged backup"),
    "GET /v1/contents": Rule(role: .reader, deed: "Seeing a backup's tables"),
    "GET /v1/history": Rule(role: .reader, deed: "Seeing a table's history"),
    "GET /v1/unread": Rule(role: .reader, deed: "Seeing which stores are not read"),
    "GET /v1/report": Rule(role: .reader, deed: "Seeing the report"),
    "GET /v1/ledger/verify": Rule(role: .reader, deed: "Checking the ledger"),
    "GET /v1/log": Rule(role: .reader, deed: "Reading the ledger"),
    "GET /v1/runs/{run}/events": Rule(role: .reader, deed: "Following a run"),
    "GET /metrics": Rule(role: .reader, deed: "Reading metrics"),
    "POST /v1/restores/preview": Rule(role: .reader, deed: "Previewing a restore"),

    "POST /v1/jobs/{job}/run": Rule(role: .operator, deed: "Running a job"),
    "POST /v1/backups": Rule(role: .operator, deed: "Making a backup"),
    "POST /v1/verify": Rule(role: .operator, deed: "Verifying backups"),
    "POST /v1/drill": Rule(role: .operator, deed: "Making a drill"),
    "POST /v1/pin": Rule(role: .operator, deed: "Pinning a backup"),
    "POST /v1/reconcile": Rule(role: .operator, deed: "Reconciling the stores"),
    "POST /v1/alerts/test": Rule(role: .operator, deed: "Testing the alerts"),
    "POST /v1/reload": Rule(role: .operator, deed: "Reloading the configuration"),
    // What others have begun as restorers needs their role: `mayCancel`.
    "POST /v1/runs/{run}/cancel": Rule(role: .operator, deed: "Cancelling a run"),

    "GET /v1/extract": Rule(role: .restorer, deed: "Reading a table's rows"),
    "POST /v1/restores": Rule(role: .restorer, deed: "Restoring"),
    "POST /v1/rollback": Rule(role: .restorer, deed: "Rolling a restore back"),
    "POST /v1/swap": Rule(role: .restorer, deed: "Putting a restored database in place"),
    "POST /v1/delete": Rule(role: .restorer, deed: "Deleting a backup"),
    "POST /v1/damaged/delete": Rule(role: .restorer, deed: "Deleting a damaged backup"),
    "POST /v1/unpin": Rule(role: .restorer, deed: "Unpinning a backup"),
    "POST /v1/accept": Rule(role: .restorer, deed: "Accepting a backup that is in doubt"),
    // It reads files with the daemon's rights, and makes signed backups of what others wrote: `latest` may be one of
    // them.
    "POST /v1/adoptions/preview": Rule(role: .restorer, deed: "Looking for dumps to adopt"),
    "POST /v1/adoptions": Rule(role: .restorer, deed: "Adopting a dump"),
  ]

  /// For whatever is not in the table.
  private static let unknown = Rule(role: .restorer, deed: "This request")

  static func key(_ method: HTTPRequest.Method, _ path: String) -> String {
    // HEAD is GET without the body.
    "\(method == .head ? HTTPRequest.Method.get.rawValue : method.rawValue) \(path.starts(withBytes: "/") ? path : "/" + path)"
  }

  static func rule(_ method: HTTPRequest.Method, _ path: String?) -> Rule {
    path.flatMap { rules[key(method, $0)] } ?? unknown
  }

  /// Runs that restorers begin; the others are backups, verifications and drills.
  static func isRestorersRun(_ job: String) -> Bool {
    job == DaemonCore.restoreJob || job == DaemonCore.adoptionJob
  }
}

/// Which refusals are written down: the first of each peer and deed at once, and then one an hour that counts those
/// between. Somebody who tries for hours fills neither the ledger nor the journal.
struct RefusalBook: Sendable {
  private struct Key: Hashable {
    let uid: UInt32?
    let deed: String
  }

  private struct Entry {
    var told: TimeInterval
    var untold = 0
  }

  static let pause: TimeInterval = 3600
  /// About as many as there are deeds, for two who try them all; beyond it the hour's others are counted together.
  static let most = 64

  private var entries: [Key: Entry] = [:]
  private var others = Entry(told: -.infinity)

  /// Takes a refusal in.
  ///
  /// - Parameter time: running time, in seconds.
  /// - Returns: how many more there were since the last one that was written; nil where this one is not to be written.
  mutating func note(uid: UInt32?, deed: String, at time: TimeInterval) -> Int? {
    let key = Key(uid: uid, deed: deed)
    if let entry = entries[key] { return Self.note(entry, at: time) { entries[key] = $0 } }
    // Those that have been quiet for an hour make room.
    if entries.count >= Self.most { entries = entries.filter { time - $0.value.told < Self.pause } }
    guard entries.count < Self.most else { return Self.note(others, at: time) { others = $0 } }
    entries[key] = Entry(told: time)
    return 0
  }

  private static func note(_ entry: Entry, at time: TimeInterval, _ keep: (Entry) -> Void) -> Int? {
    guard time - entry.told >= pause else {
      keep(Entry(told: entry.told, untold: entry.untold + 1))
      return nil
    }
    keep(Entry(told: time))
    return entry.untold
  }
}

extension DaemonCore {
  /// Throws where the peer has not the role that a request needs, and has it on record.
  func authorize(_ peer: Peer?, for rule: ControlAccess.Rule) async throws(Fault) {
    do throws(Fault) {
      try plan.access.check(peer, may: rule.deed, needing: rule.role)
    } catch {
      await refused(error, peer, rule.deed, needing: rule.role)
      throw error
    }
  }

  /// Cancelling ends other people's work: a restore is ended by who may begin one.
  func authorizeCancel(_ peer: Peer?, of run: String) async throws(Fault) {
    guard let job = board.active.first(where: { $0.id == run })?.job, ControlAccess.isRestorersRun(job) else { return }
    try await authorize(peer, for: ControlAccess.Rule(role: .restorer, deed: "Cancelling a \(job) run"))
  }

  private func refused(_ fault: Fault, _ peer: Peer?, _ deed: String, needing role: Role) async {
    guard let others = refusals.note(uid: peer?.uid, deed: deed, at: SystemClock.running()) else { return }
    var record = LedgerRecord(.requestRefused, at: now())
    (record.by, record.fault, record.reason) = (peer?.caller, fault, deed)
    record.detail = ["role": role.rawValue]
    if others > 0 { record.detail?["others_since"] = "\(others)" }
    await append(record)
    logger.warning(
      .requestRefused, fault,
      metadata: [
        "by": "\(peer.map { "uid \($0.uid), pid \($0.pid)" } ?? "unknown")", "others_since": "\(others)",
      ])
  }
}
