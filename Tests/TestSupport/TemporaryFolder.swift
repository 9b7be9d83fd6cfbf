import Foundation

/// A folder of a test's own, removed when the last reference goes.
package final class TemporaryFolder: Sendable {
  package let path: String

  package init() {
    // Short: a Unix socket's path has 107 bytes.
    path = "/tmp/pgbt-\(UUID().uuidString.prefix(12).lowercased())"
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    // The server's user must be able to pass.
    chmod(path, 0o755)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  package func file(_ name: String) -> String { "\(path)/\(name)" }

  package func write(_ name: String, _ text: String, mode: UInt32 = 0o600) throws -> String {
    if mode & 0o111 != 0 {
      // By another process: a child that another test forks meanwhile would hold the file open for writing, and nobody could run it.
      try Shell.must("sh", ["-c", "cat >\"$0\"", file(name)], input: text)
    } else {
      try text.write(toFile: file(name), atomically: false, encoding: .utf8)
    }
    chmod(file(name), mode)
    return file(name)
  }

  /// Every file below a sub-folder, as relative paths, in order.
  package func files(below folder: String) -> [String] {
    (FileManager.default.enumerator(atPath: file(folder))?.allObjects as? [String] ?? []).filter {
      var isDirectory: ObjCBool = false
      return FileManager.default.fileExists(atPath: file("\(folder)/\($0)"), isDirectory: &isDirectory)
        && !isDirectory.boolValue
    }.sorted()
  }
}

/// The repository's root, from this file's place in it.
package let repositoryRoot = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().path
