import ArtifactFormat
import Faults
import Foundation
import Glibc

/// The key that signs manifests, in the state directory: made at the first start, and its public half beside it.
struct SigningKeyFile {
  let folder: String

  func load() throws(Fault) -> SigningKey {
    let path = "\(folder)/signing.sec"
    if let data = FileManager.default.contents(atPath: path) {
      guard let key = SigningKey(parsing: String(decoding: data, as: UTF8.self)) else {
        throw Fault(
          .keyInvalid, "'\(path)' is no signing key.",
          hint:
            "bring it back from a copy; or move it away for a new one, and add the old signing.pub to 'signing: trusted:'"
        )
      }
      return key
    }
    if errno != ENOENT, access(path, F_OK) == 0 {
      throw Fault(.keyInvalid, "'\(path)' can't be read.", cause: String(cString: strerror(errno)))
    }
    let key = SigningKey.generate()
    // The public half first: where the secret one stands, both do.
    try write(key.publicKey.text, to: "\(folder)/signing.pub", mode: 0o644)
    try write(key.secretText, to: path, mode: 0o600)
    return key
  }

  /// Whole or not at all, and durable.
  private func write(_ text: String, to path: String, mode: mode_t) throws(Fault) {
    let bytes = Array(text.utf8)
    let temporary = path + ".new"
    unlink(temporary)
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    defer { if file >= 0 { close(file) } }
    guard file >= 0, fchmod(file, mode) == 0, Glibc.write(file, bytes, bytes.count) == bytes.count, fsync(file) == 0,
      rename(temporary, path) == 0
    else {
      throw Fault(
        .internal, "'\(path)' can't be written.", cause: String(cString: strerror(errno)),
        hint: "the state directory must belong to the user that pgbackupd runs as")
    }
  }
}
