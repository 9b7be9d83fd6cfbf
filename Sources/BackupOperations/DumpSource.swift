import Confinement
import Dispatch
import Faults
import Foundation
import Glibc
import PostgresTools
import QueueExecution
import Quoting

/// A dump's file or folder, opened once: programs read what was looked at, whatever gets its name meanwhile.
final class DumpSource: ProgramFile {
  let descriptor: Int32
  let isFolder: Bool
  /// Of all files, where it is a folder.
  let bytes: Int64
  let changed: Date
  /// The first bytes of a file.
  let magic: [UInt8]

  /// Opens it. What is neither a file nor a folder is not waited for, and a folder has files alone: no links.
  ///
  /// - Throws: `E-ADOPT-REFUSED`.
  static func open(_ path: String) async throws(Fault) -> DumpSource {
    do {
      return try await DispatchQueue(label: "pgbackupd.adopt.open").blocking { try DumpSource(path) }
    } catch {
      throw Fault(error)
    }
  }

  private init(_ path: String) throws(Fault) {
    descriptor = Glibc.open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { throw DumpFile.refused(path, "can't be read", String(cString: strerror(errno))) }
    guard let about = Self.about(descriptor, nil) else {
      throw DumpFile.refused(path, "can't be read", String(cString: strerror(errno)))
    }
    isFolder = about.st_mode & S_IFMT == S_IFDIR
    guard isFolder || about.st_mode & S_IFMT == S_IFREG else {
      throw DumpFile.refused(path, "is neither a file nor a folder", nil)
    }
    changed = Date(timeIntervalSince1970: Double(about.st_mtim.tv_sec))
    if isFolder {
      bytes = try Self.size(ofFolder: descriptor, path)
      magic = []
    } else {
      bytes = Int64(about.st_size)
      var buffer = [UInt8](repeating: 0, count: 16)
      let count = pread(descriptor, &buffer, buffer.count, 0)
      magic = Array(buffer.prefix(max(0, count)))
    }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  private static func about(_ folder: Int32, _ name: String?) -> stat? {
    var about = stat()
    let result = name.map { fstatat(folder, $0, &about, AT_SYMLINK_NOFOLLOW) } ?? fstat(folder, &about)
    return result == 0 ? about : nil
  }

  private static func size(ofFolder folder: Int32, _ path: String) throws(Fault) -> Int64 {
    guard let list = fdopendir(fcntl(folder, F_DUPFD_CLOEXEC, 0)) else {
      throw DumpFile.refused(path, "can't be listed", String(cString: strerror(errno)))
    }
    defer { closedir(list) }
    var bytes: Int64 = 0
    while let entry = readdir(list) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { start in
        start.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name.isExactly(".") || name.isExactly("..") { continue }
      guard let about = about(folder, name), about.st_mode & S_IFMT == S_IFREG else {
        throw DumpFile.refused(path, "holds '\(name)', which is no file", "a link, perhaps: it could lead anywhere")
      }
      bytes += Int64(about.st_size)
    }
    return bytes
  }

  /// The path by which a program finds it that gets it as its first file.
  static let place = ClientProcess.path(ofFile: 0)

  /// What a program may read that works on a folder: pg_restore goes where the names in the folder lead it.
  func rules(for program: String?) throws(Fault) -> ReadingRules? {
    guard isFolder else { return nil }
    let own = program.map { [String($0.prefix(upTo: $0.lastIndex(of: "/") ?? $0.startIndex))] } ?? []
    return try ReadingRules(folder: descriptor, programs: own.filter { !$0.isEmpty })
  }
}

/// `DumpFile` is compared by what it tells of the dump.
extension DumpSource: Equatable {
  static func == (_: DumpSource, _: DumpSource) -> Bool { true }
}
