import CPlatform
import Faults
import Glibc
import Units

/// A connection service file in memory (libpq manual, "The Connection Service File"): the way for secrets that libpq
/// takes neither from the environment nor from a password file, such as `sslpassword`.
struct ServiceFile {
  /// Of the service in it.
  static let name = "pgbackupd"
  private let descriptor: Int32

  /// Our own descriptor, opened by the child through /proc: a fresh open, at the beginning of the file.
  var path: String { "/proc/\(getpid())/fd/\(descriptor)" }

  /// Nil where there are none.
  init?(_ secrets: [String: Secret]) throws(Fault) {
    guard !secrets.isEmpty else { return nil }
    var bytes = Array("[\(Self.name)]\n".utf8)
    for (keyword, secret) in secrets.sorted(by: { $0.key < $1.key }) {
      bytes += Array("\(keyword)=\(secret.revealed)\n".utf8)
    }
    descriptor = cplatform_memory_file("pgbackupd-service")
    guard descriptor >= 0 else {
      throw Fault(.internal, "No memory file for a connection's secrets.", cause: String(cString: strerror(errno)))
    }
    guard write(descriptor, bytes, bytes.count) == bytes.count else {
      Glibc.close(descriptor)
      throw Fault(
        .internal, "A connection's secrets could not be handed over.", cause: String(cString: strerror(errno)))
    }
  }

  func close() { Glibc.close(descriptor) }

  /// Whether a value can stand in such a file: libpq reads lines of fewer than 1024 bytes, and drops white space at
  /// their ends (`parseServiceFile` of fe-connect.c).
  static func takes(_ keyword: String, _ value: String) -> Bool {
    let bytes = Array(value.utf8)
    guard keyword.utf8.count + bytes.count < 1000, !bytes.contains(where: { $0 == 10 || $0 == 13 || $0 == 0 }) else {
      return false
    }
    let blanks: Set<UInt8> = [9, 11, 12, 32]
    return bytes.first.map { !blanks.contains($0) } != false && bytes.last.map { !blanks.contains($0) } != false
  }
}
