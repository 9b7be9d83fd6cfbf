import CPlatform
import Glibc

/// A folder of a local store, held open. Names in it are used relative to the open folder (openat(2) and its kin), so
/// that nobody who can write into the store leads a write or a deletion out of it: a symbolic link below the root is
/// refused, also one that takes a folder's place while we work.
///
/// The root itself may be a link: the configuration named it, and whoever can change it there can change the
/// configuration's meaning anyway.
struct StoreFolder: ~Copyable {
  let descriptor: Int32

  /// Why a folder could not be opened.
  struct Failure: Error {
    let code: Int32
    /// The part of the path that is a symbolic link, where that is the reason.
    var link: String?
  }

  /// Opens the folder `parts` below `root`, one part after the other, and none through a link.
  ///
  /// - Parameter isMaking: what is missing is made (0700) and made durable in its parent.
  init(root: String, _ parts: some Sequence<Substring>, isMaking: Bool = false) throws(Failure) {
    var current = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard current >= 0 else { throw Failure(code: errno) }
    var path: [String] = []
    for part in parts {
      let name = String(part)
      path.append(name)
      var next = Self.step(current, name)
      if next < 0, errno == ENOENT, isMaking {
        let isMade = mkdirat(current, name, 0o700) == 0
        if isMade { fsync(current) }
        // Another upload may have made it meanwhile; why it could not be made is the reason otherwise.
        if isMade || errno == EEXIST { next = Self.step(current, name) }
      }
      guard next >= 0 else {
        let code = errno
        let isLink = Self.isLink(current, name)
        close(current)
        throw Failure(code: code, link: isLink ? path.joined(separator: "/") : nil)
      }
      close(current)
      current = next
    }
    descriptor = current
  }

  deinit { close(descriptor) }

  private static func step(_ folder: Int32, _ name: String) -> Int32 {
    openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
  }

  private static func isLink(_ folder: Int32, _ name: String) -> Bool {
    var status = Glibc.stat()
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_mode & S_IFMT == S_IFLNK
  }

  /// What a name in the folder is; nil with errno where it is not there. A link is a link.
  borrowing func status(_ name: String) -> Glibc.stat? {
    var status = Glibc.stat()
    return fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status : nil
  }

  /// Opens a file to be read. What is no regular file, a pipe for one, must not make us wait: ELOOP, as for a link.
  borrowing func openFile(_ name: String) -> Int32 {
    let file = openat(descriptor, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
    guard file >= 0 else { return -1 }
    var status = Glibc.stat()
    guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(file)
      errno = ELOOP
      return -1
    }
    return file
  }

  /// The names in it, but for `.` and `..`; nil with errno where they can't be read.
  borrowing func names() -> [String]? {
    // fdopendir(3) takes its descriptor with it.
    let own = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard own >= 0 else { return nil }
    guard let directory = fdopendir(own) else {
      close(own)
      return nil
    }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// Makes what was renamed, linked or unlinked in it durable. Some file systems refuse it (EINVAL); nothing more can
  /// be done there.
  borrowing func sync() { fsync(descriptor) }
}
