import Foundation
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
}
