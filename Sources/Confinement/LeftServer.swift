import CConfinement
import Glibc
import Quoting

/// A server in a drill's folder whose daemon and keeper are dead, as `kill -9` of both leaves it.
///
/// A file in that folder names its process, and code of a backup may have written that file. So a process is ended
/// only where it belongs to the folder's account and was begun with this very data directory.
package struct LeftServer {
  private let process: pid_t

  package init?(_ folder: PrivateFolder, owner: UInt32) {
    guard let data = folder.folder("data") else { return nil }
    let first = data.tail(of: "postmaster.pid", owner: owner).split(atByte: 10).first
    guard let process = first.flatMap({ Int32($0) }), process > 1, process != getpid(),
      Self.runs(process, in: data.path, owner)
    else { return nil }
    self.process = process
  }

  /// An immediate shutdown; SIGKILL where that takes longer than ten seconds. Blocks.
  package func end() { cconfinement_end_server(process) }

  private static func runs(_ process: pid_t, in data: String, _ owner: UInt32) -> Bool {
    // As proc_pid_cmdline(5) has it; everybody may read it, which is not so of a working directory.
    let file = open("/proc/\(process)/cmdline", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return false }
    defer { close(file) }
    var about = stat()
    guard fstat(file, &about) == 0, about.st_uid == owner else { return false }
    var words = [UInt8](repeating: 0, count: 8192)
    let count = read(file, &words, words.count)
    return words.prefix(max(0, count)).split(separator: 0).contains { $0.elementsEqual(data.utf8) }
  }
}
