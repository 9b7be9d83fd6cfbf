package import BackupCatalog
import CPlatform
import ControlAPI
import Dispatch
package import Faults
import Foundation
import Glibc
import QueueExecution

/// The append-only record of everything done: one JSON line each, durable before `append` returns.
package actor Ledger {
  private let executor = QueueExecutor(label: "pgbackupd.ledger")
  private let path: String
  private var file: Int32
  private var examination: LedgerExamination
  private var followers: [UUID: AsyncStream<LedgerRecord>.Continuation] = [:]

  package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// What was wrong with the file when it was opened, where anything was.
  package nonisolated let damage: Fault?
  package nonisolated let repairedBytes: Int

  /// Opens or makes the file. A torn last line (a crash in the middle of a write) is cut off, and `repairedBytes` tells how much. A
  /// broken chain is kept as it is and told in `damage`: evidence is not mended.
  package init(path: String) throws(Fault) {
    self.path = path
    let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw Self.fault("opened", path) }
    let data = (try? Data(contentsOf: URL(filePath: path))) ?? Data()
    let found = LedgerExamination(data)
    if found.tornBytes > 0 {
      guard ftruncate(descriptor, off_t(found.wholeBytes)) == 0, fsync(descriptor) == 0 else {
        let fault = Self.fault("repaired", path)
        close(descriptor)
        throw fault
      }
    }
    file = descriptor
    examination = found
    repairedBytes = found.tornBytes
    damage = found.brokenLine.map {
      Fault(
        .ledgerDamaged,
        "Line \($0) of the ledger does not fit to the line before it: it was changed, or lines are missing.",
        cause: path, hint: "compare it with a copy; new records go on behind it")
    }
  }

  deinit { close(file) }

  /// Writes a record and waits for the disk. The record gets its number and the digest of the line before.
  ///
  /// - Returns: what has happened to the file since the last one, where somebody else had a hand in it.
  @discardableResult package func append(_ record: LedgerRecord) throws(Fault) -> Fault? {
    let harm = try look()
    var record = record
    record.sequence = examination.lastSequence + 1
    record.previous = examination.lastDigest
    let line: Data
    do {
      line = try record.line()
    } catch {
      throw Fault(error)
    }
    let bytes = Array(line) + [10]
    let written = write(file, bytes, bytes.count)
    // A short write is a full disk; errno is then still that of something else.
    if written >= 0, written < bytes.count { errno = ENOSPC }
    guard written == bytes.count, fsync(file) == 0 else {
      let fault = Self.fault("written", path)
      // Half a line would break the chain for all that follow.
      if written > 0 { ftruncate(file, off_t(examination.wholeBytes)) }
      // What was done was done: this process goes by it all the same.
      examination.history.apply(record)
      throw fault
    }
    examination.records += 1
    examination.wholeBytes += bytes.count
    examination.lastSequence = record.sequence
    examination.lastDigest = LedgerRecord.digest(ofLine: line)
    examination.history.apply(record)
    for follower in followers.values { follower.yield(record) }
    return harm
  }

  /// A file that was moved away, deleted or replaced would take what is written with it: a new one goes on where it ended. The chain tells.
  private func look() throws(Fault) -> Fault? {
    var (named, held) = (cplatform_file(), cplatform_file())
    guard cplatform_file_of_descriptor(file, &held) == 0 else { throw Self.fault("looked at", path) }
    let isThere = cplatform_file_of_path(path, &named) == 0
    if isThere, named.number == held.number, named.device == held.device {
      guard Int(held.size) != examination.wholeBytes else { return nil }
      let fault = Self.harm(
        "has \(held.size) bytes instead of the \(examination.wholeBytes) that this daemon has written", path)
      examination.wholeBytes = Int(held.size)
      try endLine()
      return fault
    }
    let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw Self.fault("opened", path) }
    close(file)
    file = descriptor
    examination.wholeBytes = isThere ? Int(named.size) : 0
    try endLine()
    return Self.harm(isThere ? "was replaced by another file" : "was moved away, or deleted", path)
  }

  /// What is left of somebody's half a line must not swallow the next record.
  private func endLine() throws(Fault) {
    var last: UInt8 = 10
    guard examination.wholeBytes > 0, pread(file, &last, 1, off_t(examination.wholeBytes - 1)) == 1, last != 10 else {
      return
    }
    guard write(file, [10], 1) == 1 else { throw Self.fault("written", path) }
    examination.wholeBytes += 1
  }

  private static func harm(_ what: String, _ path: String) -> Fault {
    Fault(
      .ledgerDamaged, "The ledger \(what) while the daemon ran.", cause: path,
      hint:
        "bring it back from a copy, its records are numbered; nothing may rotate it; then: pgbackupctl ledger verify")
  }

  private var pulses: UInt64 = 0

  /// Answers, which shows that the disk does. It changes something: a call that has nothing to do is optimised away,
  /// and with it the wait for this actor.
  func pulse() -> UInt64 {
    pulses &+= 1
    return pulses
  }

  /// Blocks this actor for good, as a disk that hangs would: what the watchdog is for is tested with it.
  func wedge() { DispatchSemaphore(value: 0).wait() }

  /// The last line, for those who bear witness of it.
  package var head: Manifest.LedgerWitness {
    Manifest.LedgerWitness(sequence: examination.lastSequence, digest: examination.lastDigest)
  }

  /// Reads the file anew, from its beginning to where it ends now. Not on this actor: of a million records that takes
  /// half a minute, and meanwhile others write.
  package func examine(witnessing wanted: Set<Int>) async -> LedgerExamination {
    let (sequence, digest) = (examination.lastSequence, examination.lastDigest)
    var found = await Self.examine(path, examination.wholeBytes, wanted)
    // This process knows what it has written last.
    if found.lastSequence != sequence || found.lastDigest != digest {
      found.missing = max(0, sequence - found.lastSequence)
      found.brokenLine = found.brokenLine ?? found.records + 1
    }
    return found
  }

  @concurrent private static func examine(_ path: String, _ bytes: Int, _ wanted: Set<Int>) async -> LedgerExamination {
    let data = (try? Data(contentsOf: URL(filePath: path))) ?? Data()
    return LedgerExamination(Data(data.prefix(bytes)), witnessing: wanted)
  }

  package var recordCount: Int { examination.records }

  /// What the records say about schedules.
  package var history: RunHistory { examination.history }

  /// The last `count` records, the oldest first, and, where wanted, those that are written from now on: nothing falls between
  /// the two. A reader who does not keep up loses the oldest.
  package func records(last count: Int, andFollowing isFollowing: Bool) -> AsyncStream<LedgerRecord> {
    let (stream, continuation) = AsyncStream<LedgerRecord>.makeStream(bufferingPolicy: .bufferingNewest(count + 1000))
    let data = (try? Data(contentsOf: URL(filePath: path))) ?? Data()
    for line in data.split(separator: 10).suffix(count) {
      if let record = try? ControlJSON.decode(LedgerRecord.self, from: Data(line)) { continuation.yield(record) }
    }
    guard isFollowing else {
      continuation.finish()
      return stream
    }
    let follower = UUID()
    followers[follower] = continuation
    continuation.onTermination = { @Sendable [weak self] _ in
      Task { await self?.unfollow(follower) }
    }
    return stream
  }

  /// Ends every stream of followers: the daemon stops.
  package func endFollowing() {
    for follower in followers.values { follower.finish() }
    followers = [:]
  }

  private func unfollow(_ follower: UUID) { followers[follower] = nil }

  private static func fault(_ what: String, _ path: String) -> Fault {
    Fault(
      .ledgerFailed, "The ledger could not be \(what).", cause: "\(String(cString: strerror(errno))): \(path)",
      hint: "check the disk and the rights of the state directory")
  }
}
