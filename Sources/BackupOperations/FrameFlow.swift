import Dispatch
import Synchronization

/// A buffer for one frame's plain bytes, used again and again.
///
/// - Safety: the memory is written by the reading thread, then read by one compressing thread, then free again; `FrameFlow`
///   hands a block to one of them at a time. It is freed with the object.
final class Block: @unchecked Sendable {
  let bytes: UnsafeMutableRawBufferPointer

  init(count: Int) { bytes = .allocate(byteCount: count, alignment: 4096) }
  deinit { bytes.deallocate() }
}

/// The frames on their way: how many there may be, and in which order they leave.
///
/// The number of blocks bounds the memory of a run whatever the database's size: the reader waits for a free block, and a
/// block is free again when its frame has been written. So a slow store slows pg_dump down, and nothing piles up.
///
/// - Safety: all mutable state is inside the mutex; the semaphore counts the free blocks in it.
final class FrameFlow: @unchecked Sendable {
  struct Frame: Sendable {
    let number: Int
    let plainCount: Int
    let stored: [UInt8]
    /// SHA-256 of `stored`, in hexadecimal.
    let digest: String
    let block: Block
  }

  private struct State {
    var free: [Block]
    /// Compressed before their turn.
    var waiting: [Int: Frame] = [:]
    var next = 0
    /// How many frames there are, once that is known.
    var total: Int?
    var isStopped = false
  }

  private let state: Mutex<State>
  private let freeBlocks: DispatchSemaphore
  let frames: AsyncThrowingStream<Frame, any Error>
  private let continuation: AsyncThrowingStream<Frame, any Error>.Continuation

  init(blocks: Int, blockBytes: Int) {
    state = Mutex(State(free: (0..<blocks).map { _ in Block(count: blockBytes) }))
    // Raised by hand: libdispatch aborts when a semaphore goes away with less than it was made with, as after a stop.
    freeBlocks = DispatchSemaphore(value: 0)
    for _ in 0..<blocks { freeBlocks.signal() }
    (frames, continuation) = AsyncThrowingStream.makeStream()
  }

  /// Waits for a free block; nil once the flow is stopped. Blocks the thread.
  func acquire() -> Block? {
    freeBlocks.wait()
    return state.withLock { $0.isStopped ? nil : $0.free.popLast() }
  }

  func release(_ block: Block) {
    state.withLock { $0.free.append(block) }
    freeBlocks.signal()
  }

  /// Takes a compressed frame and lets all go whose turn has come.
  func deliver(_ frame: Frame) {
    state.withLock { state in
      state.waiting[frame.number] = frame
      while let ready = state.waiting.removeValue(forKey: state.next) {
        continuation.yield(ready)
        state.next += 1
      }
      if state.next == state.total { continuation.finish() }
    }
  }

  /// No more than `total` frames will come.
  func close(after total: Int) {
    state.withLock { state in
      state.total = total
      if state.next == total { continuation.finish() }
    }
  }

  /// Ends the stream with an error, and the reader's waiting with it. The first call decides.
  func stop(_ error: any Error) {
    state.withLock { $0.isStopped = true }
    continuation.finish(throwing: error)
    freeBlocks.signal()
  }
}
