import Units

/// A connection service file in memory (libpq manual, "The Connection Service File"): the way for secrets that libpq
/// takes neither from the environment nor from a password file, such as `sslpassword`.
enum ServiceFile {
  /// Of the service in it.
  static let name = "pgbackupd"

  /// The file's bytes; nil where there are no such secrets.
  static func bytes(_ secrets: [String: Secret]) -> [UInt8]? {
    guard !secrets.isEmpty else { return nil }
    var bytes = Array("[\(name)]\n".utf8)
    for (keyword, secret) in secrets.sorted(by: { $0.key < $1.key }) {
      bytes += Array("\(keyword)=\(secret.revealed)\n".utf8)
    }
    return bytes
  }

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
