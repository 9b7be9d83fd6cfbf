import CPlatform
package import Faults
import Glibc

/// The reading end of a program's standard output, with a deadline for silence. Reading blocks: do it on a thread that may.
///
/// - Safety: `@unchecked` because the compiler can't see that the descriptors never change; one thread reads, `interrupt` may
///   be called from any, and both descriptors are closed in `deinit`, when nobody is left to use them.
package final class ProgramOutput: @unchecked Sendable {
  private let descriptor: Int32
  /// A pipe to ourselves: a byte in it ends a waiting `read`.
  private let wakeReader: Int32
  private let wakeWriter: Int32
  private let stallDeadline: Duration

  init(descriptor: Int32, stallDeadline: Duration) throws(Fault) {
    var ends: [Int32] = [0, 0]
    guard cplatform_pipe(&ends, 4096) == 0 else {
      close(descriptor)
      throw Fault(.internal, "No pipe to read a program's output.", cause: String(cString: strerror(errno)))
    }
    self.descriptor = descriptor
    wakeReader = ends[0]
    wakeWriter = ends[1]
    self.stallDeadline = stallDeadline
  }

  deinit {
    close(descriptor)
    close(wakeReader)
    close(wakeWriter)
  }

  /// Makes this and every later `read` throw a cancellation, at once.
  package func interrupt() { _ = write(wakeWriter, "x", 1) }

  /// Waits for bytes and reads them into `buffer`; 0 at the end. Throws `E-DUMP-STALLED` where nothing comes for longer than
  /// the deadline: time in which the caller does not read does not count.
  package func read(into buffer: UnsafeMutableRawBufferPointer) throws(Fault) -> Int {
    while true {
      var ready = [
        pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: wakeReader, events: Int16(POLLIN), revents: 0),
      ]
      let outcome = poll(&ready, 2, Int32(clamping: stallDeadline.components.seconds * 1000))
      if outcome == 0 {
        throw Fault(
          .dumpStalled, "pg_dump has sent nothing for \(stallDeadline.components.seconds) s and was stopped.",
          hint: "look for locks and load on the server (pg_stat_activity), or raise 'stall_after'")
      }
      if outcome > 0, ready[1].revents != 0 { throw Fault(CancellationError()) }
      if outcome > 0 {
        let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        if count >= 0 { return count }
      }
      guard errno == EINTR else {
        throw Fault(.internal, "Reading from pg_dump failed.", cause: String(cString: strerror(errno)))
      }
    }
  }
}
