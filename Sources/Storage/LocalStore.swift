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
/// The root directory must exist: a store whose disk is not mounted must not quietly fill the disk below. No symbolic
/// link below the root is followed (`StoreFolder`).
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
      _ = try store.folder([Self.incoming[...]], isMaking: true)
    }
  }

  /// As many as a listing of S3 may have: whoever can write here could have put more.
  private static let mostObjects = 1_000_000

  package func list(prefix: String) async throws(StorageError) -> [StoredObject] {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      // Only the folder that the prefix names can hold matches.
      let path = prefix.lastIndex(of: "/").map { String(prefix[..<$0]) } ?? ""
      var objects: [StoredObject] = []
      let folder: StoreFolder
      do throws(StorageError) {
        folder = try store.folder(path.split(separator: "/"))
      } catch {
        // A folder that vanished meanwhile, or never was, holds nothing.
        if error.kind == .storeMissing { return [] }
        throw error
      }
      try store.walk(folder, path, depth: 0) { object throws(StorageError) in
        guard object.key.path.utf8.starts(with: prefix.utf8) else { return }
        guard objects.count < Self.mostObjects else {
          throw StorageError(.failed, store: store.name, reason: "it has more than \(Self.mostObjects) objects")
        }
        objects.append(object)
      }
      return objects.sorted { $0.key < $1.key }
    }
  }

  package func stat(_ key: ObjectKey) async throws(StorageError) -> StoredObject? {
    try await blocking { store throws(StorageError) in
      let folder: StoreFolder
      do throws(StorageError) {
        folder = try store.folder(of: key)
      } catch {
        guard error.kind == .missing else { throw error }
        try store.checkRoot()
        return nil
      }
      guard let status = folder.status(String(key.name)) else {
        guard errno == ENOENT else { throw store.error(errno, key) }
        return nil
      }
      return status.isFile ? status.object(key) : nil
    }
  }

  package func read(_ key: ObjectKey, range: Range<UInt64>) async throws(StorageError) -> [UInt8] {
    try await blocking { store throws(StorageError) in
      let file = try store.folder(of: key).openFile(String(key.name))
      guard file >= 0 else { throw store.error(errno, key) }
      defer { close(file) }
      // Before any memory is taken for it: how long it should be is what a manifest says.
      let end = lseek(file, 0, SEEK_END)
      guard end >= 0, UInt64(end) >= range.upperBound else {
        throw StorageError(
          .failed, store: store.name, key: key, reason: "it ends after byte \(max(0, end)), before \(range.upperBound)")
      }
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
      do throws(StorageError) {
        let isTaken = try store.folder(of: key).status(String(key.name)) != nil
        if isTaken { throw store.error(EEXIST, key) }
      } catch {
        // The folder comes with its first object.
        guard error.kind == .missing else { throw error }
      }
      let incoming = try store.folder([Self.incoming[...]], isMaking: true)
      let temporary = "\(getpid())-\(UInt64.random(in: .min ... .max)).part"
      let file = openat(incoming.descriptor, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
      guard file >= 0 else { throw store.error(errno, key) }
      // Held for the upload's life: what nobody holds is a dead process's, and may be swept.
      flock(file, LOCK_EX | LOCK_NB)
      return LocalUpload(store: store, key: key, temporary: temporary, file: file)
    }
  }

  package func delete(_ key: ObjectKey) async throws(StorageError) {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      do throws(StorageError) {
        let folder = try store.folder(of: key)
        guard unlinkat(folder.descriptor, String(key.name), 0) == 0 || errno == ENOENT else {
          throw store.error(errno, key)
        }
        folder.sync()
      } catch {
        // Without its folder it is not there.
        guard error.kind == .missing else { throw error }
      }
      store.removeEmptyFolders(above: key)
    }
  }

  package func link(_ key: ObjectKey, as other: ObjectKey) async throws(StorageError) -> Bool {
    try await blocking { store throws(StorageError) in
      let source = try store.folder(of: key)
      let folder = try store.folder(of: other, isMaking: true)
      guard source.status(String(key.name))?.isFile ?? true else { throw store.error(ELOOP, key) }
      // Without AT_SYMLINK_FOLLOW: a symbolic link that took the file's place is linked as a link, and never read here.
      if linkat(source.descriptor, String(key.name), folder.descriptor, String(other.name), 0) != 0 {
        // No links on this file system, or too many already: the caller copies.
        if errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK { return false }
        throw store.error(errno, errno == EEXIST ? other : key)
      }
      folder.sync()
      return true
    }
  }

  package func sweepUnfinished() async throws(StorageError) -> Int {
    try await blocking { store throws(StorageError) in
      try store.checkRoot()
      let incoming: StoreFolder
      do throws(StorageError) {
        incoming = try store.folder([Self.incoming[...]])
      } catch {
        if error.kind == .storeMissing { return 0 }
        throw error
      }
      var swept = 0
      for name in incoming.names() ?? [] {
        let file = incoming.openFile(name)
        guard file >= 0 else { continue }
        defer { close(file) }
        if flock(file, LOCK_EX | LOCK_NB) == 0, unlinkat(incoming.descriptor, name, 0) == 0 { swept += 1 }
      }
      return swept
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
  /// A folder below the root. One that is missing is `.storeMissing`, as the root itself is.
  fileprivate func folder(
    _ parts: [Substring], isMaking: Bool = false, for key: ObjectKey? = nil
  ) throws(StorageError) -> StoreFolder {
    do throws(StoreFolder.Failure) {
      return try StoreFolder(root: root, parts, isMaking: isMaking)
    } catch {
      guard let link = error.link else { throw self.error(error.code, key) }
      throw StorageError(
        .failed, store: name, key: key,
        reason: "'\(link)' is a symbolic link, and none is followed inside a store: \(root)")
    }
  }

  /// The folder that a key lies in; `.missing` where there is none.
  fileprivate func folder(of key: ObjectKey, isMaking: Bool = false) throws(StorageError) -> StoreFolder {
    try folder(key.path.split(separator: "/").dropLast(), isMaking: isMaking, for: key)
  }

  /// The folders above a key that became empty go; rmdir(2) refuses the others.
  private func removeEmptyFolders(above key: ObjectKey) {
    var parts = key.path.split(separator: "/").dropLast()
    while let last = parts.popLast() {
      guard let parent = try? folder(Array(parts)) else { return }
      guard unlinkat(parent.descriptor, String(last), AT_REMOVEDIR) == 0 || errno == ENOENT else { return }
      parent.sync()
    }
  }

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

  /// No backup's folder is deeper than four; the bound is for hostile ones, each level of which holds a descriptor.
  private static let deepest = 32

  private func walk(
    _ folder: borrowing StoreFolder, _ path: String, depth: Int, _ visit: (StoredObject) throws(StorageError) -> Void
  ) throws(StorageError) {
    guard let names = folder.names() else { throw error(errno) }
    for name in names {
      guard let key = ObjectKey(path.isEmpty ? name : "\(path)/\(name)"), let status = folder.status(name) else {
        continue
      }
      if status.st_mode & S_IFMT == S_IFDIR {
        guard depth < Self.deepest else { continue }
        do throws(StorageError) {
          try walk(try self.folder(key.path.split(separator: "/")), key.path, depth: depth + 1, visit)
        } catch {
          // A folder that vanished meanwhile holds nothing; what became a link is no folder of ours.
          if error.kind != .storeMissing, !isLink(key) { throw error }
        }
      } else if status.isFile {
        try visit(status.object(key))
      }
    }
  }

  private func isLink(_ key: ObjectKey) -> Bool {
    guard let folder = try? folder(of: key), let status = folder.status(String(key.name)) else { return false }
    return status.st_mode & S_IFMT == S_IFLNK
  }
}

// MARK: - Uploads

extension LocalStore {
  /// Gives a finished upload its key, durably; false where the key's folder vanished meanwhile.
  fileprivate func appear(_ temporary: String, as key: ObjectKey) throws(StorageError) -> Bool {
    let incoming = try folder([Self.incoming[...]])
    let target = try folder(of: key, isMaking: true)
    guard
      cplatform_rename_exclusive(incoming.descriptor, temporary, target.descriptor, String(key.name)) == 0
    else {
      if errno == ENOENT { return false }
      throw error(errno, key)
    }
    target.sync()
    return true
  }

  fileprivate func removeIncoming(_ temporary: String) {
    guard let incoming = try? folder([Self.incoming[...]]) else { return }
    unlinkat(incoming.descriptor, temporary, 0)
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
  /// In `.incoming`.
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
      store.removeIncoming(temporary)
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
    if try !store.appear(temporary, as: key) {
      // A delete took the folder away because it was empty.
      guard try store.appear(temporary, as: key) else { throw store.error(ENOENT, key) }
    }
    self.file = nil
    close(file)
  }

  func abort() {
    guard let file else { return }
    self.file = nil
    close(file)
    store.removeIncoming(temporary)
  }
}
