import CPlatform
package import Faults
import Glibc
import QueueExecution

/// The writing end of a program's standard input. Writes block its own queue.
package actor ProgramInput {
  /// The program reads no more.
  package struct Closed: Error {}

  private let executor = QueueExecutor(label: "pgbackupd.program.input")
  private var descriptor: Int32?
  package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(descriptor: Int32) { self.descriptor = descriptor }
  deinit { if let descriptor { close(descriptor) } }

  package func write(_ bytes: [UInt8]) throws {
    guard let descriptor else { throw Closed() }
    var done = 0
    while done < bytes.count {
      let count = bytes[done...].withUnsafeBytes {
        send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if count >= 0 { done += count } else if errno != EINTR { throw Closed() }
    }
  }

  func end() {
    if let descriptor { close(descriptor) }
    descriptor = nil
  }
}

/// An open file that a program gets besides its standard ones.
package protocol ProgramFile: Sendable {
  var descriptor: Int32 { get }
}

/// Bytes that a program reads as a file, in memory, by a descriptor that it is given: nothing of a backup touches a
/// disk.
package final class MemoryFile: ProgramFile {
  package let descriptor: Int32

  package init(_ bytes: [UInt8]) throws(Fault) {
    descriptor = cplatform_memory_file("pgbackupd-file")
    guard descriptor >= 0 else {
      throw Fault(.internal, "No memory file for a program.", cause: String(cString: strerror(errno)))
    }
    var done = 0
    while done < bytes.count {
      let count = bytes[done...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count > 0 {
        done += count
      } else if errno != EINTR {
        throw Fault(.internal, "A program's file could not be written.", cause: String(cString: strerror(errno)))
      }
    }
  }

  deinit { close(descriptor) }
}
