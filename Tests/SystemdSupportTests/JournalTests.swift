import Foundation
import Logging
import SystemdSupport
import TestSupport
import Testing

@Suite(.waits) struct JournalTests {
  private let catalog: String

  init() throws { catalog = try String(contentsOfFile: "\(repositoryRoot)/systemd/pgbackupd.catalog", encoding: .utf8) }

  /// Every kind of entry is explained, and nothing else is.
  @Test func everyEventIsExplained() {
    let explained = catalog.split(separator: "\n").filter { $0.hasPrefix("-- ") }.map { String($0.dropFirst(3)) }
    #expect(Set(explained) == Set(JournalEvent.allCases.map(\.messageID)))
    #expect(explained.count == JournalEvent.allCases.count)
    for event in JournalEvent.allCases {
      #expect(event.messageID.count == 32 && event.messageID.allSatisfy(\.isHexDigit), "\(event)")
    }
  }

  /// journalctl's own compiler takes the file, and each text says what is next or that nothing is.
  @Test func theCatalogCompiles() throws {
    let folder = TemporaryFolder()
    try FileManager.default.createDirectory(
      atPath: folder.file("usr/lib/systemd/catalog"), withIntermediateDirectories: true)
    try FileManager.default.createDirectory(
      atPath: folder.file("var/lib/systemd/catalog"), withIntermediateDirectories: true)
    try catalog.write(
      toFile: folder.file("usr/lib/systemd/catalog/pgbackupd.catalog"), atomically: false, encoding: .utf8)
    try Shell.must("journalctl", ["--root", folder.path, "--update-catalog"])
    let dump = try Shell.must("journalctl", ["--root", folder.path, "--dump-catalog"])
    for event in JournalEvent.allCases { #expect(dump.contains("-- \(event.messageID)")) }
    for text in catalog.components(separatedBy: "\n-- ").dropFirst() {
      #expect(text.contains("Subject: ") && text.split(separator: "\n").count >= 4)
    }
  }

  /// A name with CR LF, with ESC or with a quote behind a Prepend makes neither a second line nor a further field.
  @Test func anEventIsOneLineWhateverNamesAreInIt() {
    let tail = LogTail()
    let logger = Logger(label: "test") { _ in DaemonLogHandler(level: .info, destination: .terminal, tail: tail) }
    logger.info(
      "backup of a\r\n<3>forged\u{1B}[2J",
      metadata: [
        "run": "r1", "table": "\u{600}\" run=forged \"\u{301}\r\n<3>forged\u{202E}", "empty": "", "plain": "a",
      ])
    let lines = tail.lines(ofRun: "r1", count: 9)
    #expect(
      lines == [
        #"info: backup of a\r\n<3>forged\x1b[2J empty="" plain=a run=r1 table=""# + "\u{600}' run=forged '\u{301}"
          + #"\r\n<3>forged\u202e""#
      ])
  }
}
