import Foundation
import Glibc

/// Ports on the loopback address that nobody listens on.
package enum FreePorts {
  /// Below those that the kernel gives to outgoing connections: else one of the many that tests make might get it first.
  /// (ip_local_port_range of ip-sysctl)
  private static let range = 10_000..<32_000

  package static func take(_ count: Int) throws -> [Int] {
    var sockets: [Int32] = []
    defer { sockets.forEach { close($0) } }
    return try (0..<count).map { _ in
      for _ in 0..<1000 {
        // No child may inherit it, and keep the port.
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        sockets.append(socket)
        let port = Int.random(in: range)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let isFree = withUnsafePointer(to: &address) { pointer in
          pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
          }
        }
        if isFree { return port }
      }
      throw Shell.Failure(description: "no free port")
    }
  }

  /// Starts a server on ports of its own. Somebody else may take one before the server does: then it ends, and others are tried.
  static func serve<Server>(_ count: Int, _ start: (_ ports: [Int]) throws -> Server) throws -> Server {
    for _ in 0..<2 {
      do {
        return try start(take(count))
      } catch is ServerProcess.HasEnded {
        continue
      }
    }
    return try start(take(count))
  }
}
