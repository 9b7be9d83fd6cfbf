import CPlatform
import Dispatch
import Glibc
import QueueExecution
package import Units

/// Objects as files under a directory: files 0600, directories 0700, durable once finished.
///
/// An upload grows under `.incoming/`, where no key can lie, with a name of its own; it is fsynced, then renamed onto its key
/// without replacing anything (`renameat2(2)`, `RENAME_NOREPLACE`), then the directory is fsynced. A crash before the rename
/// leaves a file in `.incoming/` that the next start sweeps; after it, the object.
///
/// The root directory must exist: a store whose disk is not mounted must not quietly fill the disk below.
package struct LocalStore: ObjectStore {
  package let name: String
  package let root: String

  private static let incoming = ".incoming"
  /// Blocking calls wait here, not on the cooperative pool.
  private let queue = DispatchQueue(label: "pgbackupd.store.local", attributes: .concurrent)

  package init(name: String, root: String) {
    self.name = name
    self.root = root.count > 1 && root.hasSuffix("/") ? String(root.dropLast()) : root
  }

  package var location: String { root }
  package var canLink: Bool { true }

  package func check() async throws(StorageError) {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      guard access(store.root, W_OK | X_OK | R_OK) == 0 else { throw store.error(errno) }
      try store.makeDirectories(store.incomingPath)
    }
  }

  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      // Only the folder that the prefix names can hold matches.
      let folder = prefix.lastIndex(of: "/").map { String(prefix[..<$0]) } ?? ""
      var objects: [StoredObject] = []
      try store.walk(folder) { object in
        if object.key.path.hasPrefix(prefix) { objects.append(object) }
      }
      return objects.sorted { $0.key < $1.key }
    }
  }

  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? {
    try await blocking { store throws(StorageError) in
      var status = Glibc.stat()
      guard lstat(store.path(key), &status) == 0 else {
        if errno == ENOENT || errno == ENOTDIR {
          try store.checkRoot()
          return nil
        }
        throw store.error(errno, key)
      }
      return status.isFile ? status.object(key) : nil
    }
  }

  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    try await blocking { store throws(StorageError) in
      let file = open(store.path(key), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
      guard file >= 0 else { throw store.error(errno, key) }
      defer { close(file) }
      var failure: Int32 = 0
      let bytes = [UInt8](unsafeUninitializedCapacity: range.count) { buffer, count in
        while count < range.count {
          let wanted = UnsafeMutableRawBufferPointer(buffer)[count...]
          let done = pread(file, wanted.base, wanted.count, off_t(range.lowerBound) + off_t(count))
          if done > 0 {
            count += done
          } else if done == 0 {
            break
          } else if errno != EINTR {
            failure = errno
            break
          }
        }
      }
      guard failure == 0 else { throw store.error(failure, key) }
      guard bytes.count == range.count else {
        throw StorageError(
          .failed, store: store.name, key: key,
          reason: "it ends after byte \(range.lowerBound + UInt64(bytes.count)), before \(range.upperBound)")
      }
      return bytes
    }
  }

  package func upload(_ key: ObjectKey, _ options: UploadOptions) async throws(StorageError) -> any ObjectUpload {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      guard access(store.path(key), F_OK) != 0 else { throw store.error(EEXIST, key) }
      try store.makeDirectories(store.incomingPath)
      let temporary = "\(store.incomingPath)/\(getpid())-\(UInt64.random(in: .min ... .max)).part"
      let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
      guard file >= 0 else { throw store.error(errno, key) }
      // Held for the upload's life: what nobody holds is a dead process's, and may be swept.
      flock(file, LOCK_EX | LOCK_NB)
      return LocalUpload(store: store, key: key, temporary: temporary, file: file)
    }
  }

  package func delete(_ key: ObjectKey) async throws(StorageError) {
    try await blocking { store throws(StorageError) in
      guard unlink(store.path(key)) == 0 || errno == ENOENT || errno == ENOTDIR else { throw store.error(errno, key) }
      try store.checkRoot()
      // Folders that became empty go too; rmdir(2) refuses the others.
      var parent = store.path(key)
      while let slash = parent.lastIndex(of: "/"), parent[..<slash] != store.root[...] {
        parent = String(parent[..<slash])
        if rmdir(parent) != 0 { break }
      }
      // The nearest folder that is still there remembers the removal.
      let remaining = parent.lastIndex(of: "/").map { String(parent[..<$0]) } ?? store.root
      store.syncDirectory(access(parent, F_OK) == 0 ? parent : remaining)
    }
  }

  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool {
    try await blocking { store throws(StorageError) in
      let target = store.path(other)
      let folder = String(target.dropLast(other.name.count + 1))
      try store.makeDirectories(folder)
      if Glibc.link(store.path(key), target) != 0 {
        // No links on this file system, or too many already: the caller copies.
        if errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK { return false }
        throw store.error(errno, errno == EEXIST ? other : key)
      }
      store.syncDirectory(folder)
      return true
    }
  }

  package func sweepUnfinished() async throws(StorageError) -> Int {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      let names = (try? store.entries(of: store.incomingPath)) ?? []
      return names.count { name in
        let path = "\(store.incomingPath)/\(name)"
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard file >= 0 else { return false }
        defer { close(file) }
        return flock(file, LOCK_EX | LOCK_NB) == 0 && unlink(path) == 0
      }
    }
  }

  package func availableSpace() async throws(StorageError) -> ByteCount? {
    try await blocking { store throws(StorageError) in
      var status = statvfs()
      guard statvfs(store.root, &status) == 0 else { throw store.error(errno) }
      return ByteCount(Int64(status.f_bavail) * Int64(status.f_frsize))
    }
  }
}

// MARK: - Files and directories

extension LocalStore {
  fileprivate var incomingPath: String { "\(root)/\(Self.incoming)" }

  fileprivate func path(_ key: ObjectKey) -> String { "\(root)/\(key.path)" }

  private func blocking<Value: Sendable>(
    _ work: @escaping @Sendable (LocalStore) throws(StorageError) -> Value
  ) async throws(StorageError) -> Value {
    do {
      return try await queue.blocking { try work(self) }
    } catch let error as StorageError {
      throw error
    } catch {
      throw StorageError(.failed, store: name, reason: String(describing: error))
    }
  }

  fileprivate func error(_ code: Int32, _ key: ObjectKey? = nil) -> StorageError {
    let kind: StorageError.Kind =
      switch code {
      case ENOENT, ENOTDIR: key == nil ? .storeMissing : .missing
      case EEXIST: .exists
      case ENOSPC, EDQUOT, EFBIG: .full
      case EACCES, EPERM, EROFS: .denied
      default: .failed
      }
    return StorageError(kind, store: name, key: key, reason: "\(String(cString: strerror(code))): \(root)")
  }

  private func checkRoot() throws(StorageError) {
    var status = Glibc.stat()
    guard fstatat(AT_FDCWD, root, &status, 0) == 0 else { throw error(errno) }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw error(ENOTDIR) }
  }

  /// mkdir -p below the root, each new directory made durable in its parent.
  fileprivate func makeDirectories(_ path: String) throws(StorageError) {
    var made = root
    for part in path.dropFirst(root.count).split(separator: "/") {
      let parent = made
      made += "/\(part)"
      if mkdir(made, 0o700) == 0 { syncDirectory(parent) } else if errno != EEXIST { throw error(errno) }
    }
  }

  /// fsync(2) of a directory: a rename or an unlink in it is then durable. Some file systems refuse it (EINVAL); there is
  /// nothing more that could be done for them.
  fileprivate func syncDirectory(_ path: String) {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { return }
    fsync(directory)
    close(directory)
  }

  private func entries(of path: String) throws(StorageError) -> [String] {
    guard let directory = opendir(path) else { throw error(errno) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  private func walk(_ folder: String, _ visit: (StoredObject) -> Void) throws(StorageError) {
    let path = folder.isEmpty ? root : "\(root)/\(folder)"
    let names: [String]
    do {
      names = try entries(of: path)
    } catch {
      // A folder that vanished meanwhile, or never was, holds nothing.
      if error.kind == .storeMissing { return }
      throw error
    }
    for name in names {
      guard let key = ObjectKey(folder.isEmpty ? name : "\(folder)/\(name)") else { continue }
      var status = Glibc.stat()
      guard lstat(self.path(key), &status) == 0 else { continue }
      if status.st_mode & S_IFMT == S_IFDIR {
        try walk(key.path, visit)
      } else if status.isFile {
        visit(status.object(key))
      }
    }
  }
}

extension stat {
  fileprivate var isFile: Bool { st_mode & S_IFMT == S_IFREG }

  fileprivate func object(_ key: ObjectKey) -> StoredObject {
    StoredObject(
      key: key, size: UInt64(st_size), modified: Double(st_mtim.tv_sec) + Double(st_mtim.tv_nsec) / 1e9)
  }
}

extension Slice<UnsafeMutableRawBufferPointer> {
  fileprivate var base: UnsafeMutableRawPointer? { UnsafeMutableRawBufferPointer(rebasing: self).baseAddress }
}

/// One file on its way into a local store, on a queue of its own: the writer of a backup never waits for another's disk.
private actor LocalUpload: ObjectUpload {
  private let store: LocalStore
  private let key: ObjectKey
  private let temporary: String
  private let executor = QueueExecutor(label: "pgbackupd.store.local.upload")
  /// Nil once finished or aborted.
  private var file: Int32?
  private var written: Int64 = 0
  private var flushed: Int64 = 0

  /// Writing to the disk is begun early, in pieces of this size, so that the fsync at the end has little left to wait for.
  private static let flushPiece: Int64 = 8 << 20

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(store: LocalStore, key: ObjectKey, temporary: String, file: Int32) {
    self.store = store
    self.key = key
    self.temporary = temporary
    self.file = file
  }

  deinit {
    if let file {
      close(file)
      unlink(temporary)
    }
  }

  func write(_ bytes: [UInt8]) throws(StorageError) {
    guard let file else { throw StorageError(.failed, store: store.name, key: key, reason: "the upload has ended") }
    var failure: Int32 = 0
    bytes.withUnsafeBytes { buffer in
      var done = 0
      while done < buffer.count {
        let count = Glibc.write(file, buffer.baseAddress?.advanced(by: done), buffer.count - done)
        if count >= 0 {
          done += count
        } else if errno != EINTR {
          failure = errno
          return
        }
      }
    }
    guard failure == 0 else { throw store.error(failure, key) }
    written += Int64(bytes.count)
    if written - flushed >= Self.flushPiece {
      cplatform_begin_writeback(file, flushed, written - flushed)
      flushed = written
    }
  }

  func finish() throws(StorageError) {
    guard let file else { throw StorageError(.failed, store: store.name, key: key, reason: "the upload has ended") }
    guard fsync(file) == 0 else { throw store.error(errno, key) }
    let target = "\(store.root)/\(key.path)"
    let folder = String(target.dropLast(key.name.count + 1))
    try store.makeDirectories(folder)
    var renamed = cplatform_rename_exclusive(temporary, target)
    if renamed != 0 && errno == ENOENT {
      // A delete took the folder away because it was empty.
      try store.makeDirectories(folder)
      renamed = cplatform_rename_exclusive(temporary, target)
    }
    guard renamed == 0 else { throw store.error(errno, key) }
    self.file = nil
    close(file)
    store.syncDirectory(folder)
  }

  func abort() {
    guard let file else { return }
    self.file = nil
    close(file)
    unlink(temporary)
  }
}
