import CSystemd
import Glibc
package import Logging
import Quoting

/// The daemon's log: native entries where standard error leads to the journal, lines on standard error elsewhere.
package struct DaemonLogHandler: LogHandler {
  package enum Destination: Sendable {
    /// Native entries (sd_journal_sendv(3)): the sentence, its priority, its MESSAGE_ID, and each field as PGBACKUPD_….
    case journal
    /// Lines with the `<N>` priority that journald and syslog readers know (sd-daemon(3)).
    case prefixed
    /// Lines with the level's name.
    case terminal

    /// What standard error is. JOURNAL_STREAM is inherited by children whose standard error leads elsewhere, so device and inode
    /// are compared, as systemd.exec(5) asks.
    package static var current: Destination {
      var status = stat()
      if let variable = getenv("JOURNAL_STREAM"), fstat(2, &status) == 0,
        String(cString: variable) == "\(status.st_dev):\(status.st_ino)",
        // Where the journal's own socket is hidden (a chroot), libsystemd drops entries and says that all is well.
        access("/run/systemd/journal/socket", W_OK) == 0
      {
        return .journal
      }
      return isatty(2) == 1 ? .terminal : .prefixed
    }
  }

  package var metadata: Logger.Metadata = [:]
  package var logLevel: Logger.Level
  private let destination: Destination
  private let tail: LogTail?

  /// - Parameter tail: keeps the last lines, whatever becomes of them.
  package init(level: Logger.Level, destination: Destination = .current, tail: LogTail? = nil) {
    logLevel = level
    self.destination = destination
    self.tail = tail
  }

  package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  package func log(event: LogEvent) {
    var fields = metadata.merging(event.metadata ?? [:]) { $1 }
    let messageID = fields.removeValue(forKey: Logger.Metadata.eventKey)
    let sorted = fields.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") }
    let text = LogText.sentence("\(event.message)") + sorted.map { " \($0)=\(LogText.value($1))" }.joined()
    tail?.add("\(event.level.rawValue): \(text)", run: fields["run"].map { "\($0)" })
    switch destination {
    case .journal:
      var entry = ["MESSAGE=\(text)", "PRIORITY=\(Self.priority(event.level))", "SYSLOG_IDENTIFIER=pgbackupd"]
      entry.append("MESSAGE_ID=\(messageID.map { "\($0)" } ?? JournalEvent.detail.messageID)")
      entry += sorted.map { "PGBACKUPD_\(Self.fieldName($0))=\(LogText.field($1))" }
      // A journal that takes nothing leaves standard error, which may still lead somewhere.
      if !Self.send(entry) { Self.write("<\(Self.priority(event.level))>\(text)\n") }
    case .prefixed: Self.write("<\(Self.priority(event.level))>\(text)\n")
    case .terminal: Self.write("\(event.level.rawValue): \(text)\n")
    }
  }

  private static func send(_ entry: [String]) -> Bool {
    var bytes: [UInt8] = []
    var ends: [Int] = []
    for field in entry {
      bytes += field.utf8
      ends.append(bytes.count)
    }
    return bytes.withUnsafeMutableBytes { buffer in
      var start = 0
      let vectors = ends.map { end in
        defer { start = end }
        return iovec(iov_base: buffer.baseAddress?.advanced(by: start), iov_len: end - start)
      }
      return sd_journal_sendv(vectors, Int32(vectors.count)) >= 0
    }
  }

  /// One write(2): lines of several threads don't mix.
  private static func write(_ line: String) {
    let bytes = Array(line.utf8)
    _ = Glibc.write(2, bytes, bytes.count)
  }

  /// Journal fields are capitals, digits and underscores (systemd.journal-fields(7)).
  private static func fieldName(_ key: String) -> String {
    String(key.uppercased().map { $0.utf8.count == 1 && ($0.isLetter || $0.isNumber) ? $0 : "_" })
  }

  /// syslog(3)'s numbers.
  private static func priority(_ level: Logger.Level) -> Int {
    switch level {
    case .trace, .debug: 7
    case .info: 6
    case .notice: 5
    case .warning: 4
    case .error: 3
    case .critical: 2
    }
  }
}
