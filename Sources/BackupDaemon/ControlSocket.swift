import Faults
import Glibc

/// A listening Unix socket of the control API: one daemon at a time.
enum ControlSocket {
  /// Binds and listens. A socket file that a dead daemon left is replaced; one that answers is somebody else's, and a fault.
  static func listen(path: String, mode: mode_t) throws(Fault) -> Int32 {
    let descriptor = socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { throw fault(errno, path) }
    do throws(Fault) {
      if try answers(path) {
        throw Fault(
          .daemonRunning, "Another pgbackupd answers on '\(path)'.",
          hint: "pgbackupctl status, or set 'daemon: socket:'")
      }
      var status = stat()
      if lstat(path, &status) == 0 {
        guard status.st_mode & S_IFMT == S_IFSOCK else {
          throw Fault(
            .configInvalid, "'\(path)' is there and no socket; it is not touched.",
            hint: "set another 'daemon: socket:' or 'monitor_socket:'")
        }
        unlink(path)
      }
      // The file is made with its final mode: nobody else can connect in between.
      let mask = umask(0o777 & ~mode)
      let bound = withAddress(path) { bind(descriptor, $0, $1) }
      let reason = errno
      umask(mask)
      guard bound == 0 else { throw fault(reason, path) }
      guard Glibc.listen(descriptor, 64) == 0 else { throw fault(errno, path) }
      return descriptor
    } catch {
      close(descriptor)
      throw error
    }
  }

  private static func answers(_ path: String) throws(Fault) -> Bool {
    let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard probe >= 0 else { throw fault(errno, path) }
    defer { close(probe) }
    return withAddress(path) { connect(probe, $0, $1) } == 0
  }

  /// The configuration has checked that the path fits into `sun_path`.
  private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }

  private static func fault(_ code: Int32, _ path: String) -> Fault {
    Fault(
      .internal, "The control socket '\(path)' could not be opened.", cause: String(cString: strerror(code)),
      hint: "its directory must exist and belong to the user that pgbackupd runs as")
  }
}
