import Glibc

/// Bytes of a key or a password, in one place of their own, which is overwritten when the last reference goes.
///
/// That is all that can be promised. What a key was read from (a file's bytes, a text), and what it is handed on as
/// (an array, a `String`), are copies that Swift frees without overwriting them. So the process's memory is closed to
/// others besides, and is never written into a core.
///
/// - Safety: `@unchecked` because of the pointer: its bytes are written by `init` and by
///   `deinit` alone, when no other reference is left.
package final class SecretBytes: @unchecked Sendable {
  private let storage: UnsafeMutableRawBufferPointer

  package init(_ bytes: some Collection<UInt8>) {
    storage = .allocate(byteCount: bytes.count, alignment: 16)
    storage.copyBytes(from: bytes)
  }

  deinit {
    erase()
    storage.deallocate()
  }

  /// Not left out by an optimiser, as memset(3) may be.
  func erase() {
    if let base = storage.baseAddress { explicit_bzero(base, storage.count) }
  }

  /// The bytes, for as long as `body` runs.
  package func withBytes<Value, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Value
  ) throws(Failure) -> Value { try body(UnsafeRawBufferPointer(storage)) }

  /// A copy, which nothing overwrites.
  package var copy: [UInt8] { withBytes { Array($0) } }
}

extension SecretBytes: Hashable {
  package static func == (left: SecretBytes, right: SecretBytes) -> Bool {
    left.storage.elementsEqual(right.storage)
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(bytes: UnsafeRawBufferPointer(storage)) }
}

extension SecretBytes: CustomStringConvertible, CustomReflectable {
  package var description: String { "•••" }
  package var customMirror: Mirror { Mirror(self, children: [:]) }
}
