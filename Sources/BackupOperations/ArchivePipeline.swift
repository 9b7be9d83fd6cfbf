import ArtifactFormat
import Dispatch
import PostgresArchive
import PostgresTools
import QueueExecution

/// From pg_dump's pipe to frames in order: read, meter, compress in parallel. The order of the stages is written here and
/// nowhere else.
///
///     pipe → block (4 MiB) → scanner (reads only) → zstd and SHA-256 on several threads → frames in order → `write`
///
/// Encryption and the digest are `write`'s (`FrameDestination`): age's chunks follow each other in one stream.
///
/// One thread reads and meters while the bytes are in its cache; each compressing thread has its own codec. Blocking work
/// stays off the cooperative pool.
struct ArchivePipeline: Sendable {
  let compression: Compression
  /// Threads that compress.
  let workers: Int
  var frameBytes = FrameIndex.standardFrameBytes
  /// Where reading waits while the server needs a rest.
  var gate = PauseGate()

  struct Result: Sendable {
    /// Failure where the archive ended too early: the dump's exit status then tells more.
    let archive: Swift.Result<ArchiveIndex, ArchiveError>
    let frames: FrameIndex
  }

  /// Runs to the end of `output`. `write` gets each frame's stored bytes, in order; where it throws, all stops.
  func run(
    _ output: ProgramOutput, onRead: @escaping @Sendable (_ archiveBytes: UInt64, _ table: String?) -> Void,
    write: ([UInt8]) async throws -> Void
  ) async throws -> Result {
    // One block being read, one per compressor, and two whose frames wait for the store.
    let flow = FrameFlow(blocks: workers + 3, blockBytes: frameBytes)
    let compressors = try (0..<workers).map { try Compressor(number: $0, compression: compression, flow: flow) }
    let reader = DispatchQueue(label: "pgbackupd.pipeline.read")

    return try await withTaskCancellationHandler {
      async let reading = reader.blocking { [frameBytes, gate] in
        Self.read(output, flow, compressors, frameBytes, gate, onRead)
      }
      var frames = FrameIndex(frameBytes: frameBytes)
      do {
        for try await frame in flow.frames {
          try await write(frame.stored)
          frames.append(plain: frame.plainCount, stored: frame.stored.count, digest: frame.digest)
          flow.release(frame.block)
        }
      } catch {
        flow.stop(error)
        gate.end()
        output.interrupt()
        _ = try? await reading
        throw error
      }
      // A cancelled task's stream ends quietly instead of throwing.
      try Task.checkCancellation()
      guard let archive = try await reading else { throw CancellationError() }
      return Result(archive: archive, frames: frames)
    } onCancel: {
      flow.stop(CancellationError())
      gate.end()
      output.interrupt()
    }
  }

  /// The reading thread's whole life. Nil where it was stopped.
  private static func read(
    _ output: ProgramOutput, _ flow: FrameFlow, _ compressors: [Compressor], _ frameBytes: Int, _ gate: PauseGate,
    _ onRead: (UInt64, String?) -> Void
  ) -> Swift.Result<ArchiveIndex, ArchiveError>? {
    var scanner = ArchiveScanner()
    var number = 0
    var isAtEnd = false
    do {
      while !isAtEnd {
        gate.pass()
        guard let block = flow.acquire() else { return nil }
        var filled = 0
        while filled < frameBytes && !isAtEnd {
          let count = try output.read(into: UnsafeMutableRawBufferPointer(rebasing: block.bytes[filled...]))
          isAtEnd = count == 0
          try scanner.consume(UnsafeRawBufferPointer(rebasing: block.bytes[filled..<filled + count]))
          filled += count
        }
        onRead(scanner.offset, scanner.currentTable)
        if filled == 0 {
          flow.release(block)
        } else {
          compressors[number % compressors.count].compress(block, count: filled, number: number)
          number += 1
        }
      }
    } catch {
      flow.stop(error)
      return nil
    }
    flow.close(after: number)
    do throws(ArchiveError) {
      return .success(try scanner.finish())
    } catch {
      return .failure(error)
    }
  }
}

/// One compressing thread: a serial queue and the codec that only it uses.
///
/// - Safety: `codec` is touched on `queue` alone.
private final class Compressor: @unchecked Sendable {
  private let queue: DispatchQueue
  private let codec: any FrameCodec
  private let flow: FrameFlow

  init(number: Int, compression: Compression, flow: FrameFlow) throws(FrameError) {
    queue = DispatchQueue(label: "pgbackupd.pipeline.compress.\(number)")
    codec = try compression.makeCodec()
    self.flow = flow
  }

  func compress(_ block: Block, count: Int, number: Int) {
    queue.async { @Sendable [self] in
      do throws(FrameError) {
        let stored = try codec.encode(UnsafeRawBufferPointer(rebasing: block.bytes[..<count]))
        // Here, and not where frames are written one after the other: this thread has the bytes in its cache, and
        // others beside it.
        let digest = Digest.hexadecimal(of: stored)
        flow.deliver(.init(number: number, plainCount: count, stored: stored, digest: digest, block: block))
      } catch {
        flow.stop(error)
      }
    }
  }
}
