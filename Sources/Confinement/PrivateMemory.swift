import CConfinement
import Glibc

/// This process's memory: it holds keys.
package enum PrivateMemory {
  /// From now on other processes of the account can't read it (`/proc/PID/mem`, ptrace(2)), nor take our descriptors,
  /// and no core of it is written. Programs that are begun afterwards are as usual. Call it first.
  ///
  /// - Returns: why the kernel refused; nil where it is so.
  package static func begin() -> String? {
    cconfinement_keep_memory_private() == 0 ? nil : String(cString: strerror(errno))
  }
}
