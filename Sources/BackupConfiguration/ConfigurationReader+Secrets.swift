import Faults
import Foundation
import PostgresTools
import Units

/// Secrets that stand in the file itself, and who can read it.
extension ConfigurationReader {
  /// Notes that a secret stands in the file, where it does.
  func noteInlineSecret(_ name: String, _ node: ConfigurationNode) {
    // What comes from the environment is not in the file.
    guard let text = node.literal, !text.isEmpty else { return }
    let isSecret =
      switch name {
      // The number of an S3 key is no secret, and a proxy without a password is none.
      case "access_key": false
      case "proxy": text.contains("@")
      case "password", "restore_password", "secret", "secret_key", "session_token", "url": true
      // Headers of a webhook.
      default: ["auth", "token", "key", "secret", "cookie", "pass"].contains { name.lowercased().contains($0) }
      }
    if isSecret { diagnostics.noteSecret(node.path) }
  }

  /// The same of a connection text.
  func noteInlinePassword(_ node: ConfigurationNode) {
    guard let text = node.withoutVariables, let settings = try? ConnectionSettings(parsing: text),
      settings.hasSecrets
    else { return }
    diagnostics.noteSecret(node.path)
  }

  /// A warning where others can write the file: hooks and commands in it run as the daemon.
  static func exposure(ofChanges path: String) -> Fault? {
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & 0o022 != 0 else { return nil }
    return Fault(
      .configExposed, "Others can change '\(path)' (mode 0\(String(status.st_mode & 0o7777, radix: 8))).",
      cause: "hooks and commands in it run as the daemon, and it says where backups go",
      hint: "chmod go-w \(shell: path)")
  }

  /// A warning where others can read a file that holds secrets; nil where they can't, or it holds none.
  static func exposure(of path: String, secrets: [String]) -> Fault? {
    var status = stat()
    guard !secrets.isEmpty, stat(path, &status) == 0, status.st_mode & 0o044 != 0 else { return nil }
    let mode = String(status.st_mode & 0o7777, radix: 8)
    // Root's file that the daemon reads by its group: the daemon has to own it before the group is shut out.
    let daemon = status.st_uid == 0 && status.st_gid != 0 ? SystemAccounts.user(ofGroup: status.st_gid) : nil
    let chown = daemon.map { "chown \(shell: $0) \(shell: path) && " } ?? ""
    return Fault(
      .configExposed,
      "'\(path)' holds secrets, and others can read it (mode 0\(mode)). The next release refuses such a file.",
      cause: "in it: " + secrets.prefix(5).joined(separator: ", ")
        + (secrets.count > 5 ? " and \(secrets.count - 5) more" : "")
        + "; each can stand in a file of its own instead: password_file, url_file, …",
      hint: "\(chown)chmod 600 \(shell: path)")
  }
}
