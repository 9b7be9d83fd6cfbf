import CConfinement
package import Faults
import Glibc

/// What a program of ours may read that works on a stranger's folder: that folder and the system's programs, and nothing
/// that a link or a name in it leads to besides. It writes nothing (Landlock).
package final class ReadingRules: Sendable {
  private let descriptor: Int32

  /// What programs of PostgreSQL and of the system need: themselves, libraries, who is who.
  private static let system = ["/usr", "/bin", "/lib", "/lib64"]
  private static let settings = [
    "/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/etc/postgresql-common",
  ]

  /// - Parameters:
  ///   - folder: the open folder.
  ///   - programs: folders of programs that lie elsewhere.
  /// - Throws: `E-DRILL-FAILED` where the kernel has no Landlock, or refuses it.
  package init(folder: Int32, programs: [String]) throws(Fault) {
    let walls = KernelWalls()
    guard walls.keepsFiles else { throw Self.refused("the kernel offers no Landlock") }
    let abi = Int32(walls.landlock)
    descriptor = cconfinement_rules(abi)
    guard descriptor >= 0 else { throw Self.refused(String(cString: strerror(errno))) }
    var isComplete = cconfinement_allow_file(descriptor, abi, folder, Int32(CCONFINEMENT_READ.rawValue)) == 1
    let allowed =
      (Self.system + programs).map { ($0, CCONFINEMENT_EXECUTE) } + Self.settings.map { ($0, CCONFINEMENT_READ) }
      + [("/dev/null", CCONFINEMENT_WRITE)]
    for (path, right) in allowed where cconfinement_allow(descriptor, abi, path, Int32(right.rawValue)) < 0 {
      isComplete = false
    }
    guard isComplete else { throw Self.refused(String(cString: strerror(errno))) }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  private static func refused(_ cause: String) -> Fault {
    Fault(
      .drillFailed, "A program could not be kept from files that are not its own; so it was not run.", cause: cause,
      hint: KernelWalls.hint)
  }

  /// Runs `work` so that programs which it begins obey the rules.
  package func begin(_ work: () -> Void) throws(Fault) {
    let reason = withoutActuallyEscaping(work) { work in
      var box = Box(work: work)
      return withUnsafeMutablePointer(to: &box) { box in
        cconfinement_on_confined_thread(
          descriptor, { context in context?.assumingMemoryBound(to: Box.self).pointee.work() }, box)
      }
    }
    guard reason == 0 else { throw Self.refused(String(cString: strerror(reason))) }
  }

  private struct Box {
    let work: () -> Void
  }
}
