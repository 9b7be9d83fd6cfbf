import ArtifactFormat
import BackupCatalog
import ControlAPI
import Faults
import Foundation
import LedgerRecords
import Units

let recordTargets = [
  FuzzTarget("manifest") { bytes in
    guard let manifest: Manifest = record(bytes) else { return }
    _ = (manifest.layout.folder, manifest.storedBytes, manifest.committed, manifest.encryption?.holders)
    FuzzTarget.require(manifest.files.allSatisfy { !$0.name.contains("/") }, "a file lies in the backup's folder")
    FuzzTarget.require(
      BackupLayout(folder: manifest.layout.folder).map { $0 == manifest.layout } ?? true, "a folder reads back")
  },
  FuzzTarget("contents") { bytes in
    guard let contents: Contents = record(bytes) else { return }
    _ = (contents.dataBytes, contents.tables.sum)
    _ = try? contents.tables.parts(named: "public.a", or: "", hint: "")
    _ = BackupDifference(contents, contents)
    guard
      let index = FrameIndex(
        frameBytes: contents.frames.plainBytes, plainBytes: contents.archiveBytes,
        storedSizes: contents.frames.storedSizes, digests: nil)
    else { return }
    for table in contents.tables.prefix(100) {
      _ = try? index.frames(covering: table.offset..<table.offset + table.length)
    }
  },
  FuzzTarget("pin") { bytes in let _: Pin? = record(bytes) },
  FuzzTarget("proof") { bytes in
    guard let proof: Proof = record(bytes) else { return }
    _ = (proof.seconds, proof.isWhole, Proof.name(at: proof.finished))
  },
  FuzzTarget("ledger") { input in
    // A line that is no record takes its time: Foundation makes an error of it.
    let bytes = Array(input.prefix(16 << 10))
    let whole = LedgerExamination(Data(bytes), witnessing: [1, 2])
    FuzzTarget.require(whole.wholeBytes + whole.tornBytes == bytes.count, "every byte is counted")
    for line in bytes.split(separator: 10) {
      guard let record = try? ControlJSON.decode(LedgerRecord.self, from: Data(line)) else { continue }
      guard let text = try? record.line() else { return FuzzTarget.require(false, "a record can be written") }
      FuzzTarget.require((try? ControlJSON.decode(LedgerRecord.self, from: text)) != nil, "a record reads back")
    }
  },
  FuzzTarget("control-request") { bytes in
    request(BackupCommand.self, bytes)
    request(BackupReference.self, bytes)
    request(RestoreCommand.self, bytes)
    request(AdoptCommand.self, bytes)
    request(RollbackCommand.self, bytes)
    request(VerifyCommand.self, bytes)
    request(DrillCommand.self, bytes)
    request(ReconcileCommand.self, bytes)
    request(AlertTestCommand.self, bytes)
  },
  FuzzTarget(text: "selector") { text in
    if let id = BackupID(parsing: text) {
      FuzzTarget.require(BackupID(parsing: "\(id)") == id, "an id reads back")
    }
    if let selector = try? BackupSelector(parsing: text) { _ = "\(selector)" }
    if let date = Date(rfc3339: text) { _ = (date.rfc3339, date.rfc3339Milliseconds, date.stamp) }
    if let date = Date(stamp: text) { FuzzTarget.require(date.stamp == text, "a stamp has one text") }
    if let size = ByteCount(parsing: text) { _ = "\(size)" }
    if let duration = Duration(parsing: text) {
      FuzzTarget.require(Duration(parsing: duration.configurationText) == duration, "a duration reads back")
      _ = duration.spoken
    }
    if let layout = BackupLayout(folder: text) {
      FuzzTarget.require(layout.folder == text, "a folder has one text")
    }
    if let zone = TimeZone(identifier: "Europe/Berlin") { _ = BackupSelector.absolute(text, in: zone) }
  },
]

/// The record, where it is one; it must print, and read back as the same.
private func record<Record: VersionedRecord & Equatable>(_ bytes: [UInt8]) -> Record? {
  guard let record = try? Record(decoding: bytes, from: "input") else { return nil }
  guard let text = try? record.encoded() else {
    FuzzTarget.require(false, "a record can be written")
    return nil
  }
  guard let again = try? Record(decoding: text, from: "output") else {
    FuzzTarget.require(false, "a record that was written can be read")
    return nil
  }
  FuzzTarget.require((try? again.encoded()) == text, "a record has one text")
  return record
}

private func request<Request: Codable>(_ type: Request.Type, _ bytes: [UInt8]) {
  guard let request = try? ControlJSON.decode(type, from: Data(bytes)) else { return }
  guard let text = try? ControlJSON.encode(request) else {
    return FuzzTarget.require(false, "a request can be written")
  }
  FuzzTarget.require((try? ControlJSON.decode(type, from: text)) != nil, "a request reads back")
}
