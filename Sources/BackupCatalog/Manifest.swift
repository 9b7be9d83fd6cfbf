package import Foundation
import Quoting
import Units

/// The record that commits a backup. It is written last, so where it stands, everything it names stands too.
package struct Manifest: VersionedRecord, Equatable {
  package static let format = "pgbackupd-manifest"
  package static let majorVersion = 1

  package struct StoredFile: Codable, Sendable, Equatable {
    package var name: String
    package var size: Int64
    /// SHA-256 of the stored bytes, in hexadecimal.
    package var sha256: String

    package init(name: String, size: Int64, sha256: String) {
      self.name = name
      self.size = size
      self.sha256 = sha256
    }
  }

  package struct Artifact: Codable, Sendable, Equatable {
    package var file: StoredFile
    /// Of the archive before compression.
    package var archiveBytes: Int64
    /// `zstd`, `gzip` or `none`.
    package var compression: String
    package var level: Int
    /// Of the archive, what a restore loads: the blocks of tables and large objects. Nil from a version that did not say.
    package var dataBytes: Int64?

    package init(file: StoredFile, archiveBytes: Int64, compression: String, level: Int) {
      self.file = file
      self.archiveBytes = archiveBytes
      self.compression = compression
      self.level = level
    }
  }

  package struct Encryption: Codable, Sendable, Equatable {
    /// `age`.
    package var method: String
    /// Who can open the files: public keys, no secrets.
    package var recipients: [String]
    /// The first recipient's identity, sealed with GnuPG; nil where it is nobody's but the operator's.
    package var key: Key?

    package struct Key: Codable, Sendable, Equatable {
      package var file: StoredFile
      /// Whom it is encrypted to: fingerprints of OpenPGP keys.
      package var recipients: [String]

      package init(file: StoredFile, recipients: [String]) {
        self.file = file
        self.recipients = recipients
      }
    }

    package init(method: String, recipients: [String]) {
      self.method = method
      self.recipients = recipients
    }

    /// Whose keys open it, age's and OpenPGP's: without the recipient that is this backup's alone.
    package var holders: Set<String> {
      guard let key else { return Set(recipients) }
      return Set(recipients.dropFirst()).union(key.recipients)
    }
  }

  package struct Globals: Codable, Sendable, Equatable {
    package var file: StoredFile
    package var compression: String
    /// False where the role could not read the password hashes: they are then missing from the file.
    package var hasRolePasswords: Bool

    package init(file: StoredFile, compression: String, hasRolePasswords: Bool) {
      self.file = file
      self.compression = compression
      self.hasRolePasswords = hasRolePasswords
    }
  }

  package struct Server: Codable, Sendable, Equatable {
    package var version: String
    package var versionNumber: Int
    /// Of the cluster, as `pg_control_system()` gives it; nil where the role may not ask.
    package var systemIdentifier: String?
    package var database: String
    package var encoding: String
    /// `pg_database_size` at the snapshot.
    package var databaseBytes: Int64
    package var isStandby: Bool
    /// What follows the name in the `CREATE DATABASE` that makes one like it: encoding, locale, provider. Nil from a version that did not
    /// keep it.
    package var databaseOptions: String?

    package init(
      version: String, versionNumber: Int, systemIdentifier: String?, database: String, encoding: String,
      databaseBytes: Int64, isStandby: Bool
    ) {
      self.version = version
      self.versionNumber = versionNumber
      self.systemIdentifier = systemIdentifier
      self.database = database
      self.encoding = encoding
      self.databaseBytes = databaseBytes
      self.isStandby = isStandby
    }
  }

  package struct Totals: Codable, Sendable, Equatable {
    package var tables: Int
    package var rows: Int64
    /// Of COPY text.
    package var rowBytes: Int64
    package var largeObjects: Int64

    package init(tables: Int, rows: Int64, rowBytes: Int64, largeObjects: Int64) {
      self.tables = tables
      self.rows = rows
      self.rowBytes = rowBytes
      self.largeObjects = largeObjects
    }
  }

  package var id: BackupID
  package var type: String
  package var label: String?
  package var job: String?
  package var run: String
  /// The due instant of a scheduled run.
  package var due: Date?
  /// The backup of another type whose files these are: one dump served both.
  package var sharedFrom: BackupID?
  /// Overrides the type's `keep`, in seconds.
  package var keepSeconds: Int64?
  package var started: Date
  package var finished: Date
  package var host: String
  /// What wrote it: `pgbackupd 0.1.0`.
  package var software: String
  /// What dumped it: `pg_dump (PostgreSQL) 15.18`.
  package var dumpProgram: String
  package var server: Server
  package var artifact: Artifact
  package var contents: StoredFile
  package var globals: Globals?
  /// RECOVER.txt, which somebody in need runs line by line: signed with the rest. Nil in a manifest of before that was so.
  package var recover: StoredFile?
  /// How all of the files are encrypted; nil where they are not.
  package var encryption: Encryption?
  package var totals: Totals
  /// Kinds of anomalies that cast doubt on the data, as `Anomaly` names them; no names of tables, which only the contents tell.
  package var flags: [String]?
  /// The line of the ledger that was the last one when this was signed: the store is its witness.
  package var ledger: LedgerWitness?

  package struct LedgerWitness: Codable, Sendable, Equatable {
    package var sequence: Int
    /// SHA-256 of the line.
    package var digest: String

    package init(sequence: Int, digest: String) {
      self.sequence = sequence
      self.digest = digest
    }
  }

  package init(
    id: BackupID, type: String, label: String?, job: String?, run: String, keepSeconds: Int64?, started: Date,
    finished: Date, host: String, software: String, dumpProgram: String, server: Server, artifact: Artifact,
    contents: StoredFile, globals: Globals?, totals: Totals
  ) {
    self.id = id
    self.type = type
    self.label = label
    self.job = job
    self.run = run
    self.keepSeconds = keepSeconds
    self.started = started
    self.finished = finished
    self.host = host
    self.software = software
    self.dumpProgram = dumpProgram
    self.server = server
    self.artifact = artifact
    self.contents = contents
    self.globals = globals
    self.totals = totals
  }

  /// Whoever can write into a store can write a manifest: nothing in one may lead to another file, or to a sum that no number holds.
  package var flaw: String? {
    let names = files.map(\.name)
    let reserved = [
      BackupLayout.manifestName, BackupLayout.signatureName, BackupLayout.recoverName, BackupLayout.pinName,
    ]
    if Set(names).count != names.count || names.contains(where: reserved.contains) { return "its files' names" }
    for name in names
    where name.isEmpty || name.starts(withBytes: ".") || name.contains(byte: UInt8(ascii: "/")) || name.utf8.count > 200
    {
      return "the file name '\(name.prefix(40))'"
    }
    if let recover,
      recover.name != BackupLayout.recoverName || !(0...1 << 20).contains(recover.size)
        || recover.sha256.utf8.count != 64
    {
      return "its \(BackupLayout.recoverName)"
    }
    // An object of S3 has 5 TiB at most, and a file system's largest file not much more.
    guard files.allSatisfy({ (0...1 << 46).contains($0.size) && $0.sha256.utf8.count == 64 }) else {
      return "its files' sizes or sums"
    }
    // These are held in memory, in whole or in large parts.
    guard contents.size <= Self.largestRecord, (globals?.file.size ?? 0) <= Self.largestRecord,
      (encryption?.key?.file.size ?? 0) <= 1 << 20
    else { return "the size of its contents, globals or key" }
    let texts = [type, label, job, run, host, software, dumpProgram, server.version, server.encoding].compactMap { $0 }
    guard texts.allSatisfy({ $0.utf8.count <= 4096 }) else { return "its texts" }
    let counts = [
      artifact.archiveBytes, totals.rows, totals.rowBytes, totals.largeObjects, Int64(totals.tables),
      server.databaseBytes, artifact.dataBytes ?? 0,
    ]
    guard counts.allSatisfy({ (0...1 << 60).contains($0) }) else { return "its totals" }
    // A thousand years.
    guard (0...31_556_952_000).contains(keepSeconds ?? 0) else { return "how long it is to be kept" }
    let years = -2_208_988_800.0...32_503_680_000
    guard years.contains(started.timeIntervalSince1970), years.contains(finished.timeIntervalSince1970) else {
      return "its times"
    }
    return nil
  }

  /// 256 MiB: contents of a million tables.
  private static let largestRecord: Int64 = 1 << 28

  package var layout: BackupLayout { BackupLayout(id: id, type: type) }

  /// All files that the manifest commits, itself not among them.
  package var committed: [StoredFile] { files + (recover.map { [$0] } ?? []) }

  /// Those of them that have the data, and what opens it.
  package var files: [StoredFile] {
    [artifact.file, contents] + (globals.map { [$0.file] } ?? []) + (encryption?.key.map { [$0.file] } ?? [])
  }

  package var storedBytes: Int64 { files.map(\.size).reduce(0, +) }
}

/// A hold on a backup: while this record lies in its folder, nothing deletes it.
package struct Pin: VersionedRecord, Equatable {
  package static let format = "pgbackupd-pin"
  package static let majorVersion = 1

  package var since: Date
  /// Who asked, as the control socket knows it.
  package var by: String
  package var note: String?

  package init(since: Date, by: String, note: String?) {
    self.since = since
    self.by = by
    self.note = note
  }
}
