import CConfinement
import Glibc

/// What this kernel can refuse to a process without any privilege of ours. The system call filter is always there;
/// how much Landlock can do depends on the kernel's version, and a container's filter may hide it.
///
/// | ABI | Linux | what comes with it | what holds without it |
/// |---|---|---|---|
/// | 1 | 5.13 | files and folders; memory of others (ptrace) | the account's own rights |
/// | 2 | 5.19 | moves between folders | all such moves are refused |
/// | 3 | 6.2 | truncate(2) | the filter answers it without doing it |
/// | 4 | 6.7 | TCP | the filter refuses sockets other than unix stream sockets |
/// | 5 | 6.10 | ioctl(2) on devices | no device but /dev/null can be opened for writing |
/// | 6 | 6.12 | signals; abstract unix sockets | of sockets: connect(2) is refused; of signals: nothing |
package struct KernelWalls: Sendable, Hashable {
  /// Landlock's ABI; 0 where there is none.
  package let landlock: Int

  /// - Parameter limit: uses no more than this ABI, as an older kernel would. For tests.
  package init(limit: Int? = nil) { landlock = min(Int(cconfinement_landlock_abi()), limit ?? .max) }

  package var keepsFiles: Bool { landlock >= 1 }
  package var keepsSignals: Bool { landlock >= 6 }

  /// What a confined process can do although it should not, a sentence each.
  ///
  /// - Parameter account: the one that drills run as; nil where that is another process's to know.
  package func gaps(_ account: DrillAccount?) -> [String] {
    let name = account?.description ?? "the account that drills run as"
    var gaps: [String] = []
    if !keepsFiles {
      gaps.append("The kernel offers no Landlock: code of a backup can read and write all files that \(name) can.")
    }
    if !keepsSignals, account?.isOwn ?? true {
      gaps.append(
        "The kernel's Landlock (ABI \(landlock), 6 is needed) can't hold signals back: code of a backup can end "
          + "processes of \(name).")
    }
    if !cconfinement_can_ask() {
      gaps.append(
        "The kernel can't ask about calls (Linux 5.5 is needed): code of a backup can make an abstract socket, to which "
          + "every account of this machine may connect.")
    }
    return gaps
  }

  /// What an administrator can do about the gaps.
  package static let hint = "run Linux 6.12 or later, with 'landlock' in /sys/kernel/security/lsm"
}
