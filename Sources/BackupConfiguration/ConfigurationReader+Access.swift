import Faults

/// Who may do what on the control socket.
extension ConfigurationReader {
  /// `reader: [group:dba, user:alice]`. A plain name is refused: Debian has a group for each user, and it could mean
  /// either.
  func roles(_ section: ConfigurationNode) -> [String: [Configuration.Account]]? {
    guard let values = section.section(Configuration.Daemon.roleNames) else { return nil }
    return values.mapValues { list in (list.texts() ?? []).compactMap(account) }
  }

  private func account(_ node: ConfigurationNode) -> Configuration.Account? {
    guard let text = node.text() else { return nil }
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2, let kind = Configuration.Account.Kind(rawValue: parts[0]), !parts[1].isEmpty,
      parts[1].utf8.count <= 256, parts[1].utf8.allSatisfy({ $0 > 32 && $0 != 127 })
    else {
      node.report("'\(text)' is no account: write user:alice or group:dba")
      return nil
    }
    let account = Configuration.Account(
      kind: kind, name: parts[1], number: surroundings.account(kind, parts[1]))
    if account.number == nil {
      diagnostics.warn(
        Fault(
          .accountMissing, "There is no \(kind.rawValue) '\(parts[1])' on this machine: nobody has that role by it.",
          cause: node.path, hint: "getent \(kind == .user ? "passwd" : "group") \(shell: parts[1])"))
    }
    return account
  }
}
