import Faults
import Foundation
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
      // Of the name itself, and not of what a link leads to.
      if let status = try? FileManager.default.attributesOfItem(atPath: path) {
        guard status[.type] as? FileAttributeType == .typeSocket else {
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

  /// Binds a port of the loopback interface and listens.
  static func listen(host: String, port: Int) throws(Fault) -> Int32 {
    func failed(_ code: Int32) -> Fault {
      Fault(
        .internal, "The port \(port) of \(host) could not be opened.", cause: String(cString: strerror(code)),
        hint: "set another 'metrics: listen:', or see who has it: ss -ltnp")
    }
    let isSix = host.contains(":")
    let descriptor = socket(
      isSix ? AF_INET6 : AF_INET,
      Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { throw failed(errno) }
    var yes: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    // What is no address must not become 0.0.0.0, every interface of the machine.
    var bound: Int32 = -1
    errno = EINVAL
    if isSix {
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = in_port_t(port).bigEndian
      if inet_pton(AF_INET6, host, &address.sin6_addr) == 1 {
        bound = withBytes(of: address) { bind(descriptor, $0, $1) }
      }
    } else {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = in_port_t(port).bigEndian
      if inet_pton(AF_INET, host, &address.sin_addr) == 1 {
        bound = withBytes(of: address) { bind(descriptor, $0, $1) }
      }
    }
    guard bound == 0, Glibc.listen(descriptor, 64) == 0 else {
      let code = errno
      close(descriptor)
      throw failed(code)
    }
    return descriptor
  }

  private static func withBytes<Address>(
    of address: Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    withUnsafePointer(to: address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<Address>.size)) }
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
