package import Faults
import Foundation
package import Glibc
import Quoting

/// The account that runs code of backups: our own, or, since PostgreSQL does not run as root, one that serves nothing
/// else.
package struct DrillAccount: Sendable, Hashable {
  package let name: String
  package let user: uid_t
  package let group: gid_t
  /// Whether it is the account of this process too.
  package let isOwn: Bool

  /// What root runs drills as.
  package static let dedicatedName = "pgbackupd-drill"

  package var description: String { "the account '\(name)'" }

  /// - Throws: where this process is root's, and there is no account for drills, or a wrong one.
  package static func current() throws(Fault) -> DrillAccount {
    guard geteuid() == 0 else {
      return DrillAccount(name: name(of: geteuid()), user: geteuid(), group: getegid(), isOwn: true)
    }
    guard let entry = getpwnam(dedicatedName) else {
      throw Fault(
        .drillFailed, "PostgreSQL does not run as root, and there is no account '\(dedicatedName)' to run it.",
        hint: "useradd --system --no-create-home --shell /usr/sbin/nologin \(dedicatedName)")
    }
    // Copied at once: the next look-up of this thread may overwrite it.
    let (user, group) = (entry.pointee.pw_uid, entry.pointee.pw_gid)
    guard user != 0, group != 0 else {
      throw Fault(
        .drillFailed, "The account '\(dedicatedName)' has the number of root: nothing is run as that one.",
        hint: "userdel \(dedicatedName); systemd-sysusers pgbackupd.conf")
    }
    return DrillAccount(name: dedicatedName, user: user, group: group, isOwn: false)
  }

  private static func name(of user: uid_t) -> String {
    getpwuid(user).map { String(cString: $0.pointee.pw_name) } ?? "\(user)"
  }

  /// Refuses an account that runs a PostgreSQL server besides drills: code of a backup would own that server's files.
  ///
  /// Our own account can't be exchanged here; it may go on where Landlock keeps files.
  package func refuseServers(_ walls: KernelWalls) throws(Fault) {
    guard !(isOwn && walls.keepsFiles), let data = dataOfServer() else { return }
    throw Fault(
      .drillFailed, "\(description) runs a PostgreSQL server, so no drill runs as that account.",
      cause: "its data directory is \(data)",
      hint: isOwn
        ? "run pgbackupd under an account of its own, as its systemd unit does"
        : "run that server under another account: '\(name)' is for drills alone")
  }

  /// The data directory of a running server of this account that is no drill's.
  private func dataOfServer() -> String? {
    let processes = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    for process in processes where Int32(process) != nil {
      var about = stat()
      guard stat("/proc/\(process)", &about) == 0, about.st_uid == user,
        // PostgreSQL's processes work in the data directory (ChangeToDataDir of miscinit.c).
        let folder = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/cwd"),
        access("\(folder)/PG_VERSION", F_OK) == 0
      else { continue }
      let parts = folder.split(atByte: UInt8(ascii: "/"))
      if parts.count > 1, parts[parts.count - 2].starts(withBytes: Self.folderPrefix) { continue }
      return folder
    }
    return nil
  }

  /// How the folders of drills begin.
  package static let folderPrefix = "pgbackupd-drill-"
}
