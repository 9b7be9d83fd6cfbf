package import Faults
package import Glibc
import Quoting

/// An open folder that only we, or the account it was given to, can change. Everything in it is reached by
/// descriptors, never by a path: what another user puts in the place of a folder above is not followed.
package final class PrivateFolder: Sendable {
  package let path: String
  package let descriptor: Int32

  private init(path: String, descriptor: Int32) {
    self.path = path
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  /// Opens the folder that ours are made in, and makes it where it is missing; the folder above has to be there.
  ///
  /// It may be one that others use too, if they can't rename what is ours: it belongs to us or to root, and is sticky
  /// where others may write. The same goes for the folders above.
  ///
  /// - Parameter mode: of one that is made.
  package init(root path: String, mode: mode_t) throws(Fault) {
    let parts = path.split(atByte: UInt8(ascii: "/"))
    guard path.starts(withBytes: "/"), let name = parts.last, name != ".", name != ".." else {
      throw Fault(.drillFailed, "'\(path)' is no absolute path of a folder.", hint: Self.hint)
    }
    let given = "/" + parts.dropLast().joined(separator: "/")
    guard let resolved = realpath(given, nil) else {
      throw Self.refused(path, String(cString: strerror(errno)))
    }
    let parent = String(cString: resolved)
    free(resolved)
    try Self.checkAbove(parent)
    self.path = (parent == "/" ? "" : parent) + "/\(name)"
    let isNew = mkdir(self.path, 0o700) == 0
    guard isNew || errno == EEXIST else { throw Self.refused(path, String(cString: strerror(errno))) }
    descriptor = open(self.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Self.refused(
        path, errno == ELOOP || errno == ENOTDIR ? "it is no folder" : String(cString: strerror(errno)))
    }
    var about = stat()
    guard fstat(descriptor, &about) == 0 else { throw Self.refused(path, String(cString: strerror(errno))) }
    if about.st_uid == geteuid() {
      // Ours. The account of drills may pass through it, and not list it.
      guard about.st_mode & 0o022 == 0, fchmod(descriptor, (isNew ? 0 : about.st_mode & 0o7777) | mode) == 0 else {
        throw Self.refused(path, "others may write there (mode \(String(about.st_mode & 0o7777, radix: 8)))")
      }
    } else if let reason = Self.reason(about) {
      throw Self.refused(path, reason)
    }
  }

  private static let hint = "set 'drill: folder:' to a folder of pgbackupd's account that others can't write to"

  private static func refused(_ path: String, _ cause: String) -> Fault {
    Fault(.drillFailed, "The folder '\(path)' can't be used for drills.", cause: cause, hint: hint)
  }

  /// Why the owner of a folder, or others, could rename what we make there; nil where they can't.
  private static func reason(_ about: stat) -> String? {
    guard about.st_uid == 0 || about.st_uid == geteuid() else { return "it belongs to user \(about.st_uid)" }
    // Our group is trusted, unless we are root, whose files are worth more.
    let writers: mode_t = geteuid() == 0 ? 0o022 : 0o002
    guard about.st_mode & writers == 0 || about.st_mode & S_ISVTX != 0 else {
      return "others may write there (mode \(String(about.st_mode & 0o7777, radix: 8)))"
    }
    return nil
  }

  private static func checkAbove(_ path: String) throws(Fault) {
    var path = path
    while true {
      var about = stat()
      guard lstat(path, &about) == 0 else { throw refused(path, String(cString: strerror(errno))) }
      if let reason = reason(about) { throw refused(path, reason) }
      guard path != "/" else { return }
      let parent = path.split(atByte: UInt8(ascii: "/")).dropLast().joined(separator: "/")
      path = "/" + parent
    }
  }

  // MARK: - Folders in it

  /// Makes a folder that only we may enter.
  package func make(_ name: String) throws(Fault) -> PrivateFolder {
    guard mkdirat(descriptor, name, 0o700) == 0, let made = folder(name) else {
      throw Fault(
        .drillFailed, "The folder '\(path)/\(name)' can't be made.", cause: String(cString: strerror(errno)),
        hint: Self.hint)
    }
    var about = stat()
    guard fstat(made.descriptor, &about) == 0, about.st_uid == geteuid(), about.st_mode & 0o7777 == 0o700 else {
      throw Fault(
        .drillFailed, "The folder '\(path)/\(name)' is not the one that was made.",
        cause: "another user has changed '\(path)'", hint: Self.hint)
    }
    return made
  }

  /// A folder that is there; nil where it is none, or a symbolic link.
  package func folder(_ name: String) -> PrivateFolder? {
    let file = openat(descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    return file < 0 ? nil : PrivateFolder(path: "\(path)/\(name)", descriptor: file)
  }

  /// Gives it to an account.
  package func give(to account: DrillAccount) throws(Fault) {
    guard account.isOwn || fchown(descriptor, account.user, account.group) == 0 else {
      throw Fault(
        .drillFailed, "The folder '\(path)' can't be given to '\(account.name)'.",
        cause: String(cString: strerror(errno)))
    }
  }

  package var owner: uid_t? {
    var about = stat()
    return fstat(descriptor, &about) == 0 ? about.st_uid : nil
  }

  /// Holds it for this process: true once, and again when this process has ended or closed it.
  package func lock() -> Bool { flock(descriptor, LOCK_EX | LOCK_NB) == 0 }

  /// The names in it, without `.` and `..`.
  package func names() -> [String] {
    // The stream takes a descriptor of its own, which reads from the beginning.
    let file = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard file >= 0, let stream = fdopendir(file) else {
      if file >= 0 { close(file) }
      return []
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        // d_name ends with a null byte (readdir(3)).
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  // MARK: - Files in it

  /// A file that is there, regular, of that owner and under one name only; nil where it is something else.
  private func file(_ name: String, _ flags: Int32, owner: uid_t) -> Int32? {
    let file = openat(descriptor, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    guard file >= 0 else { return nil }
    var about = stat()
    guard fstat(file, &about) == 0, about.st_mode & S_IFMT == S_IFREG, about.st_uid == owner, about.st_nlink == 1 else {
      close(file)
      return nil
    }
    return file
  }

  /// Adds text to a file that is there. False where that can't be done, or the file is no plain one of `owner`.
  package func append(_ text: String, to name: String, owner: uid_t) -> Bool {
    guard let file = file(name, O_WRONLY | O_APPEND, owner: owner) else { return false }
    defer { close(file) }
    let bytes = Array(text.utf8)
    return write(file, bytes, bytes.count) == bytes.count
  }

  /// The last bytes of a file as text, 32 KiB at most; empty where there is no plain file of `owner`.
  package func tail(of name: String, owner: uid_t) -> String {
    guard let file = file(name, O_RDONLY, owner: owner) else { return "" }
    defer { close(file) }
    let size = lseek(file, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: Int(min(max(size, 0), 32_768)))
    let count = pread(file, &bytes, bytes.count, max(size, 0) - off_t(bytes.count))
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
  }

  /// Whether another process holds a lock file in it, as versions of this program up to 0.9 did.
  package func isHeld(by name: String) -> Bool {
    let file = openat(descriptor, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    guard file >= 0 else { return false }
    defer { close(file) }
    return flock(file, LOCK_EX | LOCK_NB) != 0
  }
}

extension PrivateFolder {
  /// Removes a folder and all that is in it; symbolic links are removed and never followed. False where something
  /// stays.
  package func remove(_ name: String) -> Bool {
    guard let folder = folder(name) ?? openable(name) else { return unlinkat(descriptor, name, 0) == 0 }
    while folder.empty(depth: 0, top: folder) {}
    return unlinkat(descriptor, name, AT_REMOVEDIR) == 0
  }

  /// How deep folders are walked. Deeper ones are moved up for another round, so that the number of open descriptors
  /// is bounded, however deep they are nested.
  private static let deepest = 32

  /// Removes what it holds. Returns whether folders were moved up, so that another round is needed.
  private func empty(depth: Int, top: PrivateFolder) -> Bool {
    var hasMoved = false
    for name in names() where unlinkat(descriptor, name, 0) != 0 {
      guard let inner = folder(name) ?? openable(name) else { continue }
      if depth < Self.deepest {
        if inner.empty(depth: depth + 1, top: top) { hasMoved = true }
        unlinkat(descriptor, name, AT_REMOVEDIR)
      } else if renameat(descriptor, name, top.descriptor, "deep-\(UInt64.random(in: 0 ... .max))") == 0 {
        hasMoved = true
      }
    }
    return hasMoved
  }

  /// A folder of ours that has no rights for its owner.
  private func openable(_ name: String) -> PrivateFolder? {
    var about = stat()
    guard fstatat(descriptor, name, &about, AT_SYMLINK_NOFOLLOW) == 0, about.st_mode & S_IFMT == S_IFDIR,
      fchmodat(descriptor, name, 0o700, 0) == 0
    else { return nil }
    return folder(name)
  }
}
